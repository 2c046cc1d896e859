"""The diary of a study: one line for each experiment that starts or ends.

A line costs one ``write`` however large the study is. It is a record for readers and for estimates;
what is complete is told by the directories alone, so a line that is lost or torn loses nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from llenergymeasure.domain import Record

LOG = logging.getLogger(__name__)

Status = Literal["running", "complete", "failed", "interrupted"]


class ProgressLine(Record):
    """One change of status."""

    slot: int = Field(description="Number of the slot.")
    status: Status = Field(description="What it became.")
    at: datetime = Field(description="When, by the wall clock; a label only.")
    duration_s: float | None = Field(
        None, description="How long it took without waiting for a device, s."
    )
    code: str | None = Field(None, description="Code of the error, where it failed.")


class ProgressLog:
    """Appends to ``study_progress.jsonl``; a disk that refuses is logged once, not an error."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._silent = False

    def note(self, line: ProgressLine) -> None:
        """Append a line in a single write."""
        text = line.model_dump_json(exclude_none=True) + "\n"
        try:
            if self._descriptor is None:
                self._descriptor, text = _open(self._path, text)
            if os.write(self._descriptor, text.encode()) < len(text.encode()):
                self.close()  # the next line is to begin on a line of its own
        except OSError as error:
            if not self._silent:
                LOG.warning("%s is not kept: %s", self._path, error)
            self._silent = True

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def read_progress(path: Path) -> tuple[ProgressLine, ...]:
    """Read what can be read; a torn or damaged line is passed over, a missing file is empty."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return ()
    found = []
    for line in lines:
        with contextlib.suppress(ValidationError):
            found.append(ProgressLine.model_validate_json(line))
    return tuple(found)


def _open(path: Path, text: str) -> tuple[int, str]:
    """Open for appending; begin a new line where a crash has torn the last one."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    size = os.fstat(descriptor).st_size
    torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
    return descriptor, ("\n" + text) if torn else text
