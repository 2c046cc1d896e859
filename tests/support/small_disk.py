"""A disk of a few kilobytes, for what becomes of results when it is full."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class SmallDisk:
    """A mounted file system in memory.

    Attributes:
        path: Where it is mounted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self, size_bytes: int) -> None:
        """Take room away."""
        (self.path / "ballast").write_bytes(bytes(size_bytes))

    def grow(self, size: str = "64m") -> None:
        """Make room, as someone who cleans up does."""
        _mount("-o", f"remount,size={size}", str(self.path))

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Let nothing be written inside the block."""
        _mount("-o", "remount,ro", str(self.path))
        try:
            yield
        finally:
            _mount("-o", "remount,rw", str(self.path))


@contextmanager
def small_disk_at(path: Path, size: str) -> Iterator[SmallDisk]:
    """Mount a disk inside the block; skips the test where this user may not.

    Args:
        path: A directory, which is made.
        size: What it holds, as mount(8) writes it, e.g. ``48k``.
    """
    path.mkdir()
    try:
        _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path))
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this user cannot mount a small disk: {error.stderr.strip()}")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", str(path)], check=True)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True, text=True)
