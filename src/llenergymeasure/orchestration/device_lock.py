"""One measurement at a time on a device, whoever starts it.

A worker holds the lock of each device it measures from before the first reading until the engine is
closed, whatever the energy source: a second load disturbs speed as well as energy. Each user has a
file of their own for each device, which nobody else but root can take away; who has locked that and
then finds those of all others free has the device. The files lie in a folder where every user finds
them and that only root could replace. ``LLEM_LOCK_DIR`` names another. Who sees another folder is
not covered.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from llenergymeasure import locks
from llenergymeasure.core.environment import IMAGE_VARIABLE
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.exceptions import ExperimentError
from llenergymeasure.locks import ProcessLock

VARIABLE = "LLEM_LOCK_DIR"
PLACES = (Path("/run/lock"), Path("/tmp"), Path("/dev/shm"))  # noqa: S108 - users have to meet
"""Where the lock files lie by default: in the first that root has made everybody's.

Not where ``TMPDIR`` says, since processes with different settings have to meet. The first one holds
nothing but locks, which is what a container gets to see, but not every system has it; a pod may
have a ``/tmp`` without a sticky bit.
"""

REMEDY = (
    f"let {VARIABLE} name a folder on a local disk that is root's, or yours where nobody else "
    "measures: sudo install -d -m 1777 /var/llem-locks"
)
_EVERYBODYS = 0o1777  # everybody may add files, and remove only their own
BUSY = "busy"
"""Code of the error of an experiment whose device was not free in time."""
POLL_S = 0.25  # a look takes microseconds, so that waiting does not disturb what is waited for
_BACKS_OFF_WITHIN_S = 0.02

Waiting = Callable[[str], None]


def lock_directory(
    environ: Mapping[str, str] = os.environ, places: Sequence[Path] = PLACES
) -> Path:
    """Give the folder of the lock files.

    Args:
        environ: May name one.
        places: Where it is otherwise, the best first.

    Raises:
        OSError: There is none where they would be safe; ``strerror`` is a whole sentence.
    """
    named = environ.get(VARIABLE)
    if named and IMAGE_VARIABLE in environ:
        return Path(named)  # whoever started the container has looked, and sees whose it is
    if named:
        places = [Path(named)]
    faults = {place: _unsafe(place) for place in places}
    safe = [place for place in places if faults[place] is None]
    # A private one, as a batch job may have, does where nobody else can be met.
    shared = [place for place in safe if place.stat().st_mode & _EVERYBODYS == _EVERYBODYS]
    for place in shared or safe:
        return place
    raise PermissionError(errno.EPERM, "; ".join(map(str, faults.values())), str(places[-1]))


def _unsafe(folder: Path) -> str | None:
    """Say who but root and this user could replace what is in a folder, or the folder itself."""
    if not folder.is_dir():
        return f"{folder} is no folder" if folder.exists() else f"{folder} is not there"
    trusted = {0, os.geteuid(), Path("/").stat().st_uid}  # in a user namespace root may be nobody
    real = Path(os.path.realpath(folder))
    for part in (real, *real.parents):
        found = part.stat()
        if found.st_uid not in trusted:
            return f"{part} belongs to the user of number {found.st_uid}, who could replace locks"
        if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
            mode = stat.S_IMODE(found.st_mode)
            return f"others could replace what is in {part} (mode {mode:o} without a sticky bit)"
    return None


def devices(target: DeviceTarget) -> tuple[str, ...]:
    """Name what is locked, in the order of locking, which is the same for everybody.

    Work on a CPU locks ``cpu``: all CPUs of the machine, which share power and memory. GPUs that
    cannot be told apart are locked as ``gpu``.
    """
    if target.kind == "cpu":
        return ("cpu",)
    return tuple(sorted(set(target.gpu_uuids))) or ("gpu",)


def lock_path(device: str, directory: Path) -> Path:
    """Give this user's lock file of a device."""
    name = re.sub(r"[^A-Za-z0-9-]", "-", device)
    return directory / f"llem-device-{name}.{os.geteuid()}.lock"


@contextlib.contextmanager
def held(  # noqa: PLR0913 - the clock is given by name
    target: DeviceTarget,
    waiting: Waiting,
    directory: Path | None = None,
    sleep: Callable[[float], None] = time.sleep,
    limit_s: float | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[tuple[ProcessLock, ...]]:
    """Hold the devices of a target inside the block; waits until they are free.

    Args:
        target: The devices.
        waiting: Told for whom it waits, each time that changes; not called if they are free.
        directory: Where the lock files lie, if not :func:`lock_directory`.
        sleep: How to pass time between two looks.
        limit_s: Longest wait for all of them, s; ``None`` is without limit.
        clock: Tells the time, s.

    Yields:
        The locks.

    Raises:
        ExperimentError: The lock files cannot be used, or the limit is over.
    """
    begun_s = clock()
    try:
        folder = directory or lock_directory()
    except OSError as error:
        raise _unusable("cannot lock devices", error) from None
    with contextlib.ExitStack() as stack:
        taken: list[ProcessLock] = []
        for device in devices(target):
            said = None
            while isinstance(lock := _take(device, folder), Path):
                owner = locks.owner_of(lock) or "another process"
                if limit_s is not None and clock() - begun_s >= limit_s:
                    raise _busy(device, str(owner), limit_s)
                text = f"waiting for {_plain(device)}, measured by {owner}"
                if text != said:
                    waiting(text)
                    said = text
                sleep(POLL_S)
            taken.append(lock)
            stack.callback(lock.release, remove=lock.path != lock_path(device, folder))
        yield tuple(taken)


def _busy(device: str, owner: str, limit_s: float) -> ExperimentError:
    late = f"was not free within {limit_s:g} s; --wait 2h gives more time"
    at_once = "is not waited for; leave --no-wait out to wait for it"
    said = f"{_plain(device)} is measured by {owner}, and {late if limit_s else at_once}"
    error = ExperimentError(said, where="--wait")
    error.code = BUSY
    return error


def _take(device: str, folder: Path) -> ProcessLock | Path:
    """Take a device; give the lock file of whoever has it instead.

    Each first locks the own file and then looks at the others', so of two at the same time at least
    one sees the other. The one whose file sorts first looks again, and the other makes room.
    """
    usual = own = lock_path(device, folder)
    lock = None
    try:
        try:
            lock = locks.take(own, everybody=True)
        except OSError:  # somebody else has put something there
            own = own.with_suffix(f".{secrets.token_hex(4)}.lock")
            lock = locks.take(own, everybody=True)
        if lock is None:
            return own
        stem = own.name.partition(".")[0]
        for rival in sorted(folder.iterdir()):
            if rival == own or rival.name.partition(".")[0] != stem or not locks.is_held(rival):
                continue
            if own < rival:
                time.sleep(_BACKS_OFF_WITHIN_S)
            if rival < own or locks.is_held(rival):
                lock.release(remove=own != usual)
                return rival
    except OSError as error:
        if lock is not None:
            lock.release(remove=own != usual)
        raise _unusable(f"cannot lock {_plain(device)} with {usual}", error) from None
    return lock


def _unusable(what: str, error: OSError) -> ExperimentError:
    return ExperimentError(
        f"{what}: {error.strerror or error}; {REMEDY}", where=error.filename, cause=str(error)
    )


def _plain(device: str) -> str:
    return {"cpu": "the CPU of this machine", "gpu": "the GPUs of this machine"}.get(device, device)
