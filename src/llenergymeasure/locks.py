"""A lock on a file that belongs to one process, names it, and is free once that process is gone.

It is a POSIX record lock. The kernel keeps it by process: it dies with its owner, however that
ends, and a child that was forked meanwhile never has it. The descriptor locks (``flock``) that lock
packages use live on in such a child, so an engine process that outlives its killed worker would
keep the device. What the file says only serves messages, and may be anybody's; a file left behind
locks nothing. It is a lock of one host: most network file systems do not tell another host's
processes of it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import getpass
import os
import socket
import stat
import struct
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

from llenergymeasure.config.plain_words import shown
from llenergymeasure.config.secrets import redact
from llenergymeasure.domain import Record
from llenergymeasure.exceptions import StudyError
from llenergymeasure.results.layout import StudyDirectory

_BUSY = (errno.EACCES, errno.EAGAIN)
_LONGEST_NAME = 64
_LONGEST_COMMAND = 200
_LARGEST_FILE = 4096
_LARGEST_PID = 2**31 - 1
_NAMED_WITHIN_S = 0.5
_READ_AGAIN_AFTER_S = 0.01
_CREATE = os.O_CREAT | os.O_EXCL
_MOST_REPLACED = 100  # times that a file goes while it is being locked; its owner does so once

# Of struct flock: its members, and which of them are process id and type (fcntl(2)).
_FLOCK, _PID, _TYPE = ("qqihh", 2, 3) if sys.platform == "darwin" else ("hhqqi4x", 4, 0)

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
    """Who holds a lock, as its file says. Whoever may write there can have it say anything."""

    pid: int = Field(gt=0, le=_LARGEST_PID, description="Process id, on its host.")
    host: str = Field(description="Name of the host.")
    user: str = Field(description="Name of the user.")
    since: datetime = Field(description="When it took the lock.")
    command: str = Field(description="Its command line.")

    @classmethod
    def here(cls) -> Self:
        """Describe this process, now."""
        return cls(
            pid=os.getpid(),
            host=socket.gethostname()[:_LONGEST_NAME],
            user=user_name()[:_LONGEST_NAME],
            since=datetime.now().astimezone(),
            command=redact(" ".join(sys.argv))[:_LONGEST_COMMAND],
        )

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """Describe a process of this host that does not say itself who it is."""
        try:
            process = psutil.Process(pid)
            return cls(
                pid=pid,
                host=socket.gethostname()[:_LONGEST_NAME],
                user=process.username()[:_LONGEST_NAME],
                since=datetime.fromtimestamp(process.create_time()).astimezone(),
                command=process.name()[:_LONGEST_COMMAND],
            )
        except psutil.Error:  # it has ended, or is another host's
            return None

    def may_live(self) -> bool:
        """Tell whether it may still run: of another host's processes nothing is known."""
        return self.host != socket.gethostname() or psutil.pid_exists(self.pid)

    def __str__(self) -> str:
        """Give e.g. ``pid 123 (ann, since 14:30)``; the day and the host only where they differ.

        One that somebody has stopped is called so, since it won't let go by itself.
        """
        today = self.since.date() == datetime.now(self.since.tzinfo).date()
        since = f"{self.since:%H:%M}" if today else f"{self.since:%Y-%m-%d %H:%M}"
        user, host = (shown(name, _LONGEST_NAME) for name in (self.user, self.host))
        if self.host != socket.gethostname():
            return f"pid {self.pid} ({user} on {host}, since {since})"
        stopped = ""
        with contextlib.suppress(psutil.Error):
            if psutil.Process(self.pid).status() == psutil.STATUS_STOPPED:
                stopped = f", stopped; kill -CONT {self.pid} lets it go on"
        return f"pid {self.pid} ({user}, since {since}{stopped})"


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

    def lost(self) -> str | None:
        """Say what became of its file, without which others can take a lock of their own.

        ``None`` while it is in place.
        """
        try:
            if os.path.samestat(os.fstat(self._descriptor), os.lstat(self._key)):
                return None
        except FileNotFoundError:
            return f"{self.path} was removed"
        except OSError as error:
            return f"{self.path} cannot be seen any more ({error.strerror})"
        return f"{self.path} was replaced"

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
                if remove and self.lost() is None:
                    self.path.unlink()
            with contextlib.suppress(OSError):
                os.close(self._descriptor)


def take(path: Path, *, everybody: bool = False) -> ProcessLock | None:
    """Take the lock if it is free; never waits.

    Args:
        path: The file; created if need be, in a folder that exists.
        everybody: Whether the folder is that of all users: the file has to be one's own, since its
            owner can take it away, and everybody may look who has the lock.

    Returns:
        The lock, or ``None`` while it is held, by this process or by another.

    Raises:
        OSError: The file cannot be opened for writing, is none or another user's, or its file
            system knows no locks.
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


def is_held(path: Path) -> bool:
    """Tell whether another process has the lock; takes nothing."""
    return _read(path)[1] not in (None, os.getpid())


def owner_of(path: Path) -> Owner | None:
    """Read who holds a lock, for a message; ``None`` where nobody can tell.

    An owner writes its name just after it took the lock: a file that is still empty, or still names
    an owner that was killed, is read again for a moment. Where the kernel knows better than the
    file, it is believed.
    """
    deadline = time.monotonic() + _NAMED_WITHIN_S
    while True:
        owner, holder = _read(path)
        if owner is not None and owner.may_live() and holder in (None, 0, owner.pid):
            return owner
        if time.monotonic() > deadline:
            return Owner.of(holder) if holder else None
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
        who = f"{owner}: {shown(owner.command, _LONGEST_COMMAND)}" if owner else "another process"
        raise StudyError(
            f"the study in {study.root} is being run by {who}; wait for it to end, or interrupt "
            "it and use --resume",
            where=str(study.root),
        )
    try:
        yield lock
    finally:
        lock.release()


def check_owned(study: StudyDirectory) -> None:
    """See that a study which this process owns is still its own.

    Raises:
        StudyError: Somebody took its lock away, so that another process may run it as well.
    """
    lock = _held.get(os.path.realpath(study.lock))
    how = lock.lost() if lock is not None and study.root.is_dir() else None
    if how is not None:
        raise StudyError(
            f"stopped: {how}, the lock by which this process owns the study, so another one may "
            "run it by now; see that none does",
            where=str(study.root),
        )


def _read(path: Path) -> tuple[Owner | None, int | None]:
    """Give the owner that a file names, and the process that has it locked, as the kernel knows.

    That is 0 where it is out of sight, as in another container, and ``None`` where there is none.
    """
    owner = holder = descriptor = None
    with _guard:
        # Not a pipe, whose other end never opens, nor what a link leads to.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            there = os.lstat(path)
            for held in _held.values():  # under whatever name
                if os.path.samestat(os.fstat(held._descriptor), there):
                    return held.owner, os.getpid()
            descriptor = os.open(path, flags)
            asked = [0] * 5
            asked[_TYPE] = fcntl.F_WRLCK
            told = fcntl.fcntl(descriptor, fcntl.F_GETLK, struct.pack(_FLOCK, *asked))
            found = struct.unpack(_FLOCK, told)
            holder = None if found[_TYPE] == fcntl.F_UNLCK else max(0, found[_PID])
            owner = Owner.model_validate_json(os.read(descriptor, _LARGEST_FILE))
        except (OSError, ValidationError):
            pass  # it names nobody
        finally:
            if descriptor is not None:
                os.close(descriptor)
        return owner, holder


def _locked_descriptor(path: Path, *, everybody: bool) -> int | None:
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    for _ in range(_MOST_REPLACED):
        try:
            # Not O_CREAT on what exists: in a sticky folder the kernel refuses that for a file of
            # another user (fs.protected_regular).
            descriptor = os.open(path, flags if os.path.lexists(path) else flags | _CREATE, 0o666)
        except (FileExistsError, FileNotFoundError):
            if not path.parent.is_dir():
                raise
            continue  # it came or went at this moment
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "it is no file", str(path))
            if everybody and (found.st_uid != os.geteuid() or found.st_nlink > 1):
                what = f"it belongs to the user of number {found.st_uid}"
                raise PermissionError(errno.EPERM, what, str(path))
            if everybody:
                os.fchmod(descriptor, 0o644)  # whatever the umask
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(found, path.lstat()):
                    return descriptor
        except OSError as error:
            os.close(descriptor)
            if error.errno in _BUSY:
                return None
            raise
        os.close(descriptor)  # its owner took the file away; the lock is on what is there now
    raise OSError(errno.ESTALE, "it is removed again and again", str(path))


def user_name() -> str:
    """Give the name of this user, or the number of one without: a container may have no entry."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid{os.getuid()}"
