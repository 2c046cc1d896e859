"""Folders that a process works in, gone with it: by its own hand, or by that of the next one.

In each lies a file that its process keeps locked, as the kernel knows. Whoever ends a study or an
engine removes those of the same user whose process was killed. Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

Kind = Literal["preflight", "study", "engine", "share", "link", "fetch"]

_OURS = re.compile(r"llem-(preflight|study|engine|share|link|fetch)-\w+")
_OWNER = ".owner"
_UNFINISHED_S = 3600.0  # it takes microseconds to make a folder, unless one is killed meanwhile

# The lock of this process is free to itself, and lost when it closes any descriptor of the file.
_in_use: set[Path] = set()
_guard = threading.RLock()


@contextlib.contextmanager
def folder(kind: Kind, parent: Path | None = None) -> Iterator[Path]:
    """Make a folder for the block.

    Args:
        kind: What it is for.
        parent: Where it is made, if not where temporary files are.

    Raises:
        OSError: It cannot be made.
    """
    owner = None
    with _guard:
        path = Path(tempfile.mkdtemp(prefix=f"llem-{kind}-", dir=parent))
        _in_use.add(path)
    try:
        with contextlib.suppress(OSError):  # where there are no locks, nobody else removes it
            owner = os.open(path / _OWNER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.lockf(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(owner, b"\n")  # from here on it is left behind once the lock is free
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        _in_use.discard(path)
        if owner is not None:
            os.close(owner)


def sweep(place: Path | None = None) -> None:
    """Remove the folders that processes of this user left behind when they were killed.

    Args:
        place: Where they lie, if not where temporary files are.
    """
    with _guard, contextlib.suppress(OSError), os.scandir(place or tempfile.gettempdir()) as found:
        for each in found:
            if _OURS.fullmatch(each.name) and Path(each.path) not in _in_use:
                with contextlib.suppress(OSError):  # its process lives, or another was quicker
                    _remove_if_left(Path(each.path))


def _remove_if_left(path: Path) -> None:
    """Remove a folder; raises where it is in use."""
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        return
    old = time.time() - status.st_mtime > _UNFINISHED_S
    try:
        owner = os.open(path / _OWNER, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        if old:
            path.rmdir()  # which takes an empty one alone
        return
    try:
        fcntl.lockf(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if old or os.fstat(owner).st_size:
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(owner)
