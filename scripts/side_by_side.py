"""Runs commands side by side and shows what each printed when it has ended; what failed, last.

``make test`` runs the two halves of its tests with it, neither of which keeps two cores busy.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import IO, NamedTuple

TELL_EVERY_S = 60.0


class Running(NamedTuple):
    """A command that has been started, and the file that it prints into."""

    command: str
    process: subprocess.Popen[bytes]
    output: IO[bytes]

    @classmethod
    def start(cls, command: str) -> Running:
        """Start it; descriptors stay open, in which make shares its jobs."""
        output = tempfile.TemporaryFile()  # noqa: SIM115 - it goes with this process
        process = subprocess.Popen(
            command, shell=True, close_fds=False, stdout=output, stderr=subprocess.STDOUT
        )
        return cls(command, process, output)

    def printed(self) -> str:
        """Give what it has printed so far."""
        descriptor = self.output.fileno()  # the command writes where this file object stands
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="replace")


def main(commands: Sequence[str]) -> int:
    """Run shell commands side by side; give the number of those that failed.

    Ctrl-C reaches them as well, and a request to end is passed on; what they say to it is waited
    for and shown.
    """
    left: list[Running] = []

    def pass_on(number: int, _: object) -> None:
        for one in left:
            one.process.send_signal(number)

    signal.signal(signal.SIGINT, lambda *_: None)  # not ignored, which they would inherit
    signal.signal(signal.SIGTERM, pass_on)
    begun_s = told_s = time.monotonic()
    left += [Running.start(command) for command in commands]
    last: list[str] = []
    print(f"side by side, each shown at its end: {', '.join(commands)}", flush=True)
    while left:
        time.sleep(0.1)
        after_s = time.monotonic() - begun_s
        for one in [one for one in left if one.process.poll() is not None]:
            left.remove(one)
            code = one.process.returncode
            head = f"---- {one.command}: exit code {code} after {after_s:.0f} s"
            print(f"{head}, shown last" if code else f"{head}\n{one.printed()}", flush=True)
            last += [f"{head}\n{one.printed()}"] if code else []
        if left and begun_s + after_s - told_s >= TELL_EVERY_S:
            told_s = begun_s + after_s
            now = "; ".join(
                f"{one.command}: {one.printed()[-80:].split(chr(10))[-1]}" for one in left
            )
            print(f"after {after_s:.0f} s: {now}", flush=True)
    print("".join(last), end="", flush=True)
    return len(last)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
