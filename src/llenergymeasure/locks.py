"""A lock on a file that belongs to one process, names it, and is free once that process is gone.

It is a POSIX record lock. The kernel keeps it by process: it dies with its owner, however that
ends, and a child that was forked meanwhile never has it. The descriptor locks (``flock``) that lock
packages use live on in such a child, so an engine process that outlives its killed worker would
keep the device. What the file says only serves messages; a file left behind locks nothing. It is a
lock of one host: most network file systems do not tell another host's processes of it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import getpass
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

import psutil
from pydantic import Field, ValidationError

from llenergymeasure.config.secrets import redact
from llenergymeasure.domain import Record
from llenergymeasure.exceptions import StudyError
from llenergymeasure.results.layout import StudyDirectory

_BUSY = (errno.EACCES, errno.EAGAIN)
_LONGEST_COMMAND = 200
_LARGEST_FILE = 4096
_NAMED_WITHIN_S = 0.5
_READ_AGAIN_AFTER_S = 0.01

# Closing any descriptor of a file drops the process's lock on it, so a file that this process holds
# is never opened a second time.
_held: dict[str, ProcessLock] = {}
_guard = threading.RLock()


def _forget() -> None:
    """Start anew in a forked child, which holds nothing."""
    global _guard  # noqa: PLW0603 - another thread of the parent may have had it at the fork
    _guard = threading.RLock()
    _held.clear()


os.register_at_fork(after_in_child=_forget)


class Owner(Record):
    """Who holds a lock, as its file says."""

    pid: int = Field(description="Process id, on its host.")
    host: str = Field(description="Name of the host.")
    user: str = Field(description="Name of the user.")
    since: datetime = Field(description="When it took the lock.")
    command: str = Field(description="Its command line.")

    @classmethod
    def here(cls) -> Self:
        """Describe this process, now."""
        command = redact(" ".join(sys.argv))[:_LONGEST_COMMAND]
        return cls(
            pid=os.getpid(),
            host=socket.gethostname(),
            user=user_name(),
            since=datetime.now().astimezone(),
            command=command,
        )

    def may_live(self) -> bool:
        """Tell whether it may still run: of another host's processes nothing is known."""
        return self.host != socket.gethostname() or psutil.pid_exists(self.pid)

    def __str__(self) -> str:
        """Give e.g. ``pid 123 (ann, since 14:30)``; the day and the host only where they differ."""
        today = self.since.date() == datetime.now(self.since.tzinfo).date()
        since = f"{self.since:%H:%M}" if today else f"{self.since:%Y-%m-%d %H:%M}"
        place = "" if self.host == socket.gethostname() else f" on {self.host}"
        return f"pid {self.pid} ({self.user}{place}, since {since})"


@dataclass(frozen=True, slots=True, eq=False)
class ProcessLock:
    """A lock that this process holds.

    Attributes:
        path: Its file.
        owner: This process.
    """

    path: Path
    owner: Owner
    _key: str
    _descriptor: int

    def release(self, *, remove: bool = False) -> None:
        """Let go; harmless when the file is gone, and a second time.

        Args:
            remove: Take the file away, which is safe while it is held: :func:`take` looks whether
                what it locked is still in place.
        """
        with _guard:
            if _held.get(self._key) is not self:
                return
            del _held[self._key]
            with contextlib.suppress(OSError):  # the disk may be gone; the lock goes with it
                os.ftruncate(self._descriptor, 0)
                if remove:
                    self.path.unlink()
            with contextlib.suppress(OSError):
                os.close(self._descriptor)


def take(path: Path, *, everybody: bool = False) -> ProcessLock | None:
    """Take the lock if it is free; never waits.

    Args:
        path: The file; created if need be, in a folder that exists.
        everybody: Whether other users of the machine may take it later.

    Returns:
        The lock, or ``None`` while it is held, by this process or by another.

    Raises:
        OSError: The file cannot be opened for writing, or its file system knows no locks.
    """
    key = os.path.realpath(path)
    with _guard:
        if key in _held:
            return None
        owner = Owner.here()
        descriptor = _locked_descriptor(path, everybody=everybody)
        if descriptor is None:
            return None
        with contextlib.suppress(OSError):  # a full disk costs the name in a message, not the lock
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{owner.model_dump_json()}\n".encode(), 0)
        lock = _held[key] = ProcessLock(path, owner, key, descriptor)
        return lock


def owner_of(path: Path) -> Owner | None:
    """Read who holds a lock, for a message; ``None`` where the file does not say.

    An owner writes its name just after it took the lock: a file that is still empty, or still names
    an owner that was killed, is read again for a moment.
    """
    deadline = time.monotonic() + _NAMED_WITHIN_S
    while True:
        owner = _named(path)
        if owner is not None and owner.may_live():
            return owner
        if time.monotonic() > deadline:
            return None
        time.sleep(_READ_AGAIN_AFTER_S)


@contextlib.contextmanager
def owned(study: StudyDirectory) -> Iterator[ProcessLock]:
    """Own a study inside the block, as its only coordinator.

    Raises:
        StudyError: Another process owns it (the message names it), or its directory is gone,
            read-only, or on a file system without locks.
    """
    try:
        lock = take(study.lock)
    except OSError as error:
        raise StudyError(
            f"cannot lock {study.lock}: {error.strerror or error}; a study is run where its "
            "directory can be written to and its file system has locks: copy it to such a disk and "
            "resume the copy",
            where=str(study.root),
        ) from None
    if lock is None:
        owner = owner_of(study.lock)
        who = f"{owner}: {owner.command}" if owner else "another process"
        raise StudyError(
            f"the study in {study.root} is being run by {who}; wait for it to end, or interrupt "
            "it and use --resume",
            where=str(study.root),
        )
    try:
        yield lock
    finally:
        lock.release()


def _named(path: Path) -> Owner | None:
    with _guard:
        held = _held.get(os.path.realpath(path))
        if held is not None:
            return held.owner
        try:
            with path.open("rb") as file:
                return Owner.model_validate_json(file.read(_LARGEST_FILE))
        except (OSError, ValidationError):
            return None


def _locked_descriptor(path: Path, *, everybody: bool) -> int | None:
    while True:
        descriptor = _open(path, everybody=everybody)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
        except OSError as error:
            os.close(descriptor)
            if error.errno in _BUSY:
                return None
            raise
        os.close(descriptor)  # its owner took the file away; the lock is on what is there now


def _open(path: Path, *, everybody: bool) -> int:
    # Not O_CREAT on what exists: in a sticky folder such as /tmp the kernel refuses that for a file
    # of another user (fs.protected_regular).
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, flags)
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return os.open(path, flags)
    if everybody:
        os.fchmod(descriptor, 0o666)  # whatever the umask
    return descriptor


def user_name() -> str:
    """Give the name of this user, or the number of one without: a container may have no entry."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid{os.getuid()}"
