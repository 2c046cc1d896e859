"""The entry of a container: it runs the worker, and ends as it did."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from llenergymeasure.study.runners import container
from tests.support.cli import SOURCE


def entry(*call: str, folder: Path) -> subprocess.Popen[bytes]:
    """Start the first process of a container, outside of one."""
    command = [sys.executable, "-m", container.ENTRY, *call]
    path = os.pathsep.join([str(SOURCE), str(folder)])
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )


@pytest.mark.parametrize(
    ("end", "code"), [("sys.exit(7)", 7), ("os.kill(os.getpid(), signal.SIGSEGV)", 139)]
)
def test_the_entry_ends_as_its_worker_did(end: str, code: int, tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(f"import os, signal, sys\n{end}")
    process = entry("work", folder=tmp_path)
    assert process.wait() == code
    process.communicate()


WAITS = """
import signal, sys
try:
    print("ready", flush=True)
    while True:
        signal.pause()
except KeyboardInterrupt:
    sys.exit(130)
"""


def waiting_worker(folder: Path) -> subprocess.Popen[bytes]:
    (folder / "work.py").write_text(WAITS)
    process = entry("work", folder=folder)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def test_a_byte_interrupts_the_worker(tmp_path: Path) -> None:
    process = waiting_worker(tmp_path)
    assert process.stdin is not None
    process.stdin.write(b"i")
    process.stdin.flush()
    assert process.wait() == 130
    process.communicate()


def test_a_signal_to_the_container_reaches_the_worker(tmp_path: Path) -> None:
    process = waiting_worker(tmp_path)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    process.communicate()


def test_the_end_of_the_input_kills_the_worker(tmp_path: Path) -> None:
    process = waiting_worker(tmp_path)
    (worker,) = psutil.Process(process.pid).children()
    process.communicate()
    assert process.returncode == 137
    psutil.wait_procs([worker])
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
