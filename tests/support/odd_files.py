"""What can lie in the place of a file and is none that can be read to its end."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

Found = TypeVar("Found")
GIGABYTES = 3 << 30
LONGEST_WORK_S, LONGEST_WAIT_S = 1.0, 20.0


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket has at most some hundred bytes
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(GIGABYTES)


ODD: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a socket": _socket,
    "a directory": Path.mkdir,
    "3 GB on one line": _sparse,
}
"""Makes each of them, by its name."""


@contextmanager
def in_place_of(path: Path, kind: str) -> Iterator[Path]:
    """Put something else in the place of a file for a while."""
    aside = path.with_name(f"{path.name}.aside")
    there = path.exists()
    if there:
        path.rename(aside)
    ODD[kind](path)
    yield path
    path.rmdir() if kind == "a directory" else path.unlink()
    if there:
        aside.rename(path)


def ends(call: Callable[[], Found]) -> Found:
    """Give what a call gives, or raise what it raises; fail where it waits or works for long.

    It is given a second of work, and of waiting as much as a busy machine may take.
    """
    outcome: list[Found] = []
    errors: list[Exception] = []
    took_s: list[float] = []

    def run() -> None:
        try:
            outcome.append(call())
        except Exception as error:  # noqa: BLE001 - raised anew in the thread of the test
            errors.append(error)
        took_s.append(time.thread_time())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(LONGEST_WAIT_S)
    assert not thread.is_alive(), "it does not end"
    assert took_s[0] < LONGEST_WORK_S, f"it worked for {took_s[0]:.1f} s"
    if errors:
        raise errors[0]
    return outcome[0]
