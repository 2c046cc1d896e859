"""One measurement at a time on a device, whoever starts it.

A worker holds the lock of each device it measures from before the first reading until the engine is
closed, whatever the energy source: a second load disturbs speed as well as energy. The locks are
files that every user of the machine can take. They lie in a folder of ``/tmp`` and not where
``TMPDIR`` says, since processes with different settings have to meet, and alone there, so that a
container gets nothing else with them. ``LLEM_LOCK_DIR`` names another. Who sees another folder is
not covered.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from llenergymeasure import locks
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.exceptions import ExperimentError
from llenergymeasure.locks import ProcessLock

VARIABLE = "LLEM_LOCK_DIR"
SHARED = Path("/tmp/llem-locks")  # noqa: S108 - users and settings have to meet
"""Where the lock files lie by default; the first who locks a device makes it."""

REMEDY = (
    f"let {VARIABLE} name a folder on a local disk that every user who measures here can write to"
)
_EVERYBODYS = 0o1777  # as /tmp: everybody may add files, and remove only their own
BUSY = "busy"
"""Code of the error of an experiment whose device was not free in time."""
POLL_S = 0.25  # a look takes microseconds, so that waiting does not disturb what is waited for

Waiting = Callable[[str], None]


def lock_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Name the folder of the lock files."""
    return Path(environ.get(VARIABLE) or SHARED)


def ready_lock_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Give the folder of the lock files; the default one is made where it is not there yet.

    Raises:
        OSError: The default one cannot be made, or is not everybody's.
    """
    folder = lock_directory(environ)
    if folder == SHARED:
        share(folder)
    return folder


def share(folder: Path) -> None:
    """Make a folder in which every user may keep files, unless it is there.

    Raises:
        OSError: It cannot be made, or what is there is no such folder.
    """
    if not os.path.lexists(folder):
        made = tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent)
        Path(made).chmod(_EVERYBODYS)  # whatever the umask; nobody sees it before
        try:
            Path(made).rename(folder)
        except OSError:  # somebody else was quicker
            Path(made).rmdir()
    mode = folder.lstat().st_mode
    if not stat.S_ISDIR(mode) or stat.S_IMODE(mode) & _EVERYBODYS != _EVERYBODYS:
        what = f"it is no folder of mode {_EVERYBODYS:o}, which every user needs"
        raise PermissionError(errno.EPERM, what, str(folder))


def devices(target: DeviceTarget) -> tuple[str, ...]:
    """Name what is locked, in the order of locking, which is the same for everybody.

    Work on a CPU locks ``cpu``: all CPUs of the machine, which share power and memory. GPUs that
    cannot be told apart are locked as ``gpu``.
    """
    if target.kind == "cpu":
        return ("cpu",)
    return tuple(sorted(set(target.gpu_uuids))) or ("gpu",)


def lock_path(device: str, directory: Path) -> Path:
    """Give the lock file of a device."""
    return directory / f"llem-device-{re.sub(r'[^A-Za-z0-9.-]', '-', device)}.lock"


@contextlib.contextmanager
def held(
    target: DeviceTarget,
    waiting: Waiting,
    directory: Path | None = None,
    sleep: Callable[[float], None] = time.sleep,
    limit_s: float | None = None,
) -> Iterator[None]:
    """Hold the devices of a target inside the block; waits until they are free.

    Args:
        target: The devices.
        waiting: Told for whom it waits, each time that changes; not called if they are free.
        directory: Where the lock files lie, if not :func:`lock_directory`.
        sleep: How to pass time between two looks.
        limit_s: Longest wait for all of them, s; ``None`` is without limit.

    Raises:
        ExperimentError: The lock files cannot be used, or the limit is over.
    """
    waited_s = 0.0
    try:
        folder = directory or ready_lock_directory()
    except OSError as error:
        raise _unusable(f"cannot lock devices in {error.filename}", error) from None
    with contextlib.ExitStack() as stack:
        for device in devices(target):
            path, said = lock_path(device, folder), None
            while (lock := _take(device, path)) is None:
                owner = locks.owner_of(path) or "another process"
                if limit_s is not None and waited_s >= limit_s:
                    raise _busy(device, str(owner), limit_s)
                text = f"waiting for {_plain(device)}, measured by {owner}"
                if text != said:
                    waiting(text)
                    said = text
                sleep(POLL_S)
                waited_s += POLL_S
            stack.callback(lock.release)
        yield


def _busy(device: str, owner: str, limit_s: float) -> ExperimentError:
    late = f"was not free within {limit_s:g} s; --wait 2h gives more time"
    at_once = "is not waited for; leave --no-wait out to wait for it"
    said = f"{_plain(device)} is measured by {owner}, and {late if limit_s else at_once}"
    error = ExperimentError(said, where="--wait")
    error.code = BUSY
    return error


def _take(device: str, path: Path) -> ProcessLock | None:
    try:
        return locks.take(path, everybody=True)
    except OSError as error:
        raise _unusable(f"cannot lock {_plain(device)} with {path}", error) from None


def _unusable(what: str, error: OSError) -> ExperimentError:
    return ExperimentError(
        f"{what}: {error.strerror or error}; {REMEDY}", where=error.filename, cause=str(error)
    )


def _plain(device: str) -> str:
    return {"cpu": "the CPU of this machine", "gpu": "the GPUs of this machine"}.get(device, device)
