"""What can lie in the place of a file and is none that can be read to its end."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

Found = TypeVar("Found")
GIGABYTES = 3 << 30


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


def ends(call: Callable[[], Found], within_s: float) -> Found:
    """Give what a call gives, or raise what it raises; fail where it does not end in time."""
    outcome: list[Found] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            outcome.append(call())
        except Exception as error:  # noqa: BLE001 - raised anew in the thread of the test
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(within_s)
    assert not thread.is_alive(), f"does not end within {within_s:g} s"
    if errors:
        raise errors[0]
    return outcome[0]
