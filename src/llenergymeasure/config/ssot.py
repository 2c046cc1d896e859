"""What each backend of this package supports, from the facts that it states (``BACKENDS``)."""

from __future__ import annotations

from llenergymeasure.config.names import DecodingStrategy, Precision
from llenergymeasure.config.registry import BACKENDS

PRECISION_SUPPORT: dict[str, tuple[Precision, ...]] = {
    name: facts.precisions for name, facts in BACKENDS.items()
}
DECODING_SUPPORT: dict[str, tuple[DecodingStrategy, ...]] = {
    name: facts.decoding for name, facts in BACKENDS.items()
}
