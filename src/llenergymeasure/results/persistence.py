"""Write results so that a crash, or a full disk, never leaves half of one.

Everything is written beside its place and renamed. ``result.json`` comes last: whatever else is
there, nothing without it claims to be a result.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from llenergymeasure.domain.results import ExperimentResult
from llenergymeasure.exceptions import ExperimentError
from llenergymeasure.results import columns, files
from llenergymeasure.results.layout import ExperimentDirectory


def to_json(result: ExperimentResult, directory: Path) -> Path:
    """Write ``result.json`` into an experiment's directory; call it last.

    Returns:
        The path of the file.

    Raises:
        ExperimentError: It cannot be written; a file that was there before is untouched.
    """
    path = ExperimentDirectory(directory).result
    write_json_atomically(path, result.to_json())
    return path


def to_parquet(result: ExperimentResult, path: Path) -> None:
    """Write a result as one flat row; nested fields become dotted columns.

    Raises:
        ExperimentError: It cannot be written.
    """
    write_atomically(path, lambda sink: columns.fill_row(result, sink))


from_json = ExperimentResult.from_json


def write_json_atomically(path: Path, text: str) -> None:
    """Put text in place in one step: a reader sees the old file or the whole new one.

    Raises:
        ExperimentError: It cannot be written; nothing of it is left.
    """
    write_atomically(path, lambda sink: sink.write(text.encode()))


def write_atomically(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Fill a file beside its place, bring it to the disk, and rename it.

    Args:
        path: Where it belongs; what is there is replaced.
        fill: Writes the content.

    Raises:
        ExperimentError: The system refused (disk full, quota, read-only, file too large); the
            message names path, reason and remedy, and nothing is left behind.
    """
    try:
        files.write_atomically(path, fill)
    except OSError as error:
        raise ExperimentError(
            f"cannot write {path}: {error.strerror or error}; make room, or put results on another "
            "disk with --output (output_dir in Python)",
            where=str(path),
            cause=str(error),
        ) from None
