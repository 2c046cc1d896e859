"""Put a file in place in one step: a reader sees the old one or the whole new one."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Fill a file beside its place, bring it to the disk, and rename it.

    Args:
        path: Where it belongs; what is there is replaced.
        fill: Writes the content.

    Raises:
        OSError: The system refused; what was there is untouched, and nothing is left behind.
    """
    with _temporary(path) as (temporary, sink):
        fill(sink)
        sink.flush()
        os.fsync(sink.fileno())
        temporary.replace(path)
    _sync_directory(path.parent)


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    # Not tempfile: its files are private to the user, and results are often shared.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with temporary.open("xb") as sink:
            yield temporary, sink
    finally:
        with contextlib.suppress(OSError):  # must not hide why the write failed
            temporary.unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    # Brings the rename itself to the disk; some network file systems refuse it, and the content
    # is safe already.
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
