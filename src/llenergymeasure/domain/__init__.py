"""Data of results and of the environment; no device is touched and nothing is read here."""

from __future__ import annotations

from pydantic import ConfigDict

from llenergymeasure.config.base import TextModel


class Record(TextModel):
    """Frozen data; fields that a later version adds are ignored on load."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        allow_inf_nan=False,
    )
