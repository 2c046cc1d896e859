"""Other processes that take a lock."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.cli import SOURCE

_HOLDER = """
import os, sys, time
from pathlib import Path
from llenergymeasure.locks import take

lock = take(Path(sys.argv[1]))
if lock is not None and "fork" in sys.argv and os.fork() == 0:
    time.sleep(60)
print("no" if lock is None else "yes", flush=True)
sys.stdin.readline()
"""


def start(path: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a process that tries once; with ``fork`` it leaves a child that sleeps."""
    return subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(path), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )


def answer(process: subprocess.Popen[str]) -> str:
    """Read whether it got the lock: ``yes`` or ``no``."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


@contextmanager
def holder(path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    process = start(path, *arguments)
    try:
        assert answer(process) == "yes"
        yield process
    finally:
        process.kill()
        process.communicate()
