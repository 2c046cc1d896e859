"""One coordinator at a time owns a study's directory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from llenergymeasure.exceptions import StudyError
from llenergymeasure.orchestration import process_lock
from llenergymeasure.orchestration.process_lock import ProcessLock
from llenergymeasure.results.layout import StudyDirectory


@contextlib.contextmanager
def owned(directory: StudyDirectory) -> Iterator[ProcessLock]:
    """Own a study inside the block. The kernel lets go when this process dies, however it does.

    Raises:
        StudyError: Another process owns it (the message names it), or its directory is gone,
            read-only, or on a file system without locks.
    """
    lock = _take(directory)
    if lock is None:
        raise _refused(directory)
    try:
        yield lock
    finally:
        lock.release()


def _take(directory: StudyDirectory) -> ProcessLock | None:
    try:
        return process_lock.take(directory.lock)
    except OSError as error:
        raise StudyError(
            f"cannot lock {directory.lock}: {error.strerror or error}; a study is run where its "
            "directory can be written to and its file system has locks: copy it to such a disk and "
            "resume the copy",
            where=str(directory.root),
        ) from None


def _refused(directory: StudyDirectory) -> StudyError:
    owner = process_lock.owner_of(directory.lock)
    who = f"{owner}: {owner.command}" if owner else "another process"
    return StudyError(
        f"the study in {directory.root} is being run by {who}; wait for it to end, or interrupt it "
        "and use --resume",
        where=str(directory.root),
    )
