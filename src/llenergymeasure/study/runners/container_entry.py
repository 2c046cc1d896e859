"""The first process of a container: it runs one worker, and ends when nobody wants it any more.

It is ``python3 -m llenergymeasure.study.runners.container_entry MODULE ARGUMENTS``. Its standard
input is held open by whoever started the container: a byte interrupts the worker, and the end of
the input kills it. So no container outlives a study that died, whichever way: the engine ends every
process of a container with the first one. Standard library only.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

INTERRUPT = b"i"
"""What the holder of the standard input writes to interrupt the worker."""

_POLITE = (signal.SIGINT, signal.SIGTERM)


class Entry:
    """Stands between the holder of the standard input and one worker.

    Args:
        command: The worker: program and arguments.
    """

    def __init__(self, command: list[str]) -> None:
        for number in _POLITE:
            signal.signal(number, self._pass_on)
        self._worker = os.posix_spawn(
            command[0],
            command,
            os.environ,
            file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
            setsigdef=_POLITE,
        )

    def run(self) -> int:
        """Wait for the worker; give its exit code, 128 and the number of a signal that killed it.

        Takes leave of whatever else ends meanwhile, as the first process of a container has to.
        """
        threading.Thread(target=self._listen, daemon=True).start()
        while True:
            pid, status = os.wait()
            if pid == self._worker:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code

    def _listen(self) -> None:
        while os.read(0, 1):
            self._send(signal.SIGINT)
        self._send(signal.SIGKILL)
        os._exit(128 + signal.SIGKILL)

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        self._send(signal.Signals(number))

    def _send(self, number: signal.Signals) -> None:
        try:
            os.kill(self._worker, number)
        except ProcessLookupError:
            return


def main(arguments: list[str]) -> int:
    """Run a module as the worker, in the interpreter of this process."""
    return Entry([sys.executable, "-P", "-m", *arguments]).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
