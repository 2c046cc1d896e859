"""Commands forked from a process that has imported what they need: hundreds start in a minute.

Each is the whole command in a process and a session of its own, as from a shell.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Self

import psutil

from tests.support.cli import Llem, wait_for

MARK = "LLEM_TEST_NURSERY"
_PROGRAM = """
import json, os, sys
import pyarrow.parquet, scipy.special
import llenergymeasure.cli.commands.run, llenergymeasure.cli.execute
from llenergymeasure.cli.app import main

for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        os.setsid()
        said = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        null = os.open(os.devnull, os.O_RDONLY)
        for target, descriptor in enumerate((null, said, said)):
            os.dup2(descriptor, target)
        main(json.loads(line))
    print(pid, flush=True)
    _, status = os.waitpid(pid, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


@dataclass
class Nursery:
    """Starts one command at a time.

    Attributes:
        llem: Where they run.
    """

    llem: Llem
    _process: subprocess.Popen[str] = field(init=False)

    def __enter__(self) -> Self:
        self.llem.environment[MARK] = str(self.llem.folder)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            cwd=self.llem.folder,
            env=self.llem.variables(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def start(self, *arguments: str) -> int:
        """Start a command; give its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()
        return self._number()

    def end(self) -> int:
        """Wait for the command; give its exit code, negative for the signal that killed it."""
        return self._number()

    def kill(self, pid: int, number: signal.Signals = signal.SIGKILL) -> int:
        """Send the command alone a signal, if it still runs, and give its exit code."""
        with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
            os.kill(pid, number)
        return self._number()

    @property
    def said(self) -> str:
        """What the last command printed."""
        return (self.llem.folder / "said.txt").read_text()

    def wait_until_alone(self) -> None:
        """Wait until nothing runs any more that a command has started."""
        wait_for(lambda: not self._others(), 60)

    def _others(self) -> list[psutil.Process]:
        return [
            one
            for one in psutil.process_iter()
            if one.pid != self._process.pid and _mark_of(one) == str(self.llem.folder)
        ]

    def _number(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


def _mark_of(process: psutil.Process) -> str | None:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return process.environ().get(MARK)
    except (psutil.Error, OSError):
        return None
