"""What other local users do, each in a forked process of its own; only root can be several."""

from __future__ import annotations

import contextlib
import os
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ANN, BOB, EVE = 54321, 54322, 54323
"""Users of this machine, of whom the last one means harm."""

AS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root can be several users")


def forked(user: int, does: Callable[[], object]) -> int:
    """Start a process of a user that ends with 0 if what it does gives something true."""
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            code = int(not does())
        except BaseException:  # noqa: BLE001 - it ends here, and shows why
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def run_as(user: int, does: Callable[[], object]) -> bool:
    """Do something as a user; tell whether it gave something true."""
    return ended_well(forked(user, does))


def ended_well(child: int) -> bool:
    """Wait for what :func:`forked` started."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@contextmanager
def staying(user: int, does: Callable[[], object]) -> Iterator[int]:
    """A process of a user that has done something and stays; gives its process id."""
    ready, told = os.pipe()
    go_on, leave = os.pipe()

    def do_and_stay() -> bool:
        os.close(ready)
        os.close(leave)
        kept = does()
        os.write(told, b"y" if kept else b"n")
        return bool(kept) and os.read(go_on, 1) == b""

    child = forked(user, do_and_stay)
    os.close(told)
    os.close(go_on)
    try:
        assert os.read(ready, 1) == b"y", "it could not do it"
        yield child
    finally:
        os.close(leave)
        os.close(ready)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, 18)  # it may be stopped
        ended_well(child)


@contextmanager
def everybodys_folder() -> Iterator[Path]:
    """A folder as /tmp is: root's, and everybody may add files."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="llem-test-everybody-") as name:
        folder = Path(name)
        folder.chmod(0o1777)
        yield folder
