"""Readers that the sampling process runs in tests; standard library only, as real ones."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

from llenergymeasure.core.energy.cadence import Cadence
from llenergymeasure.core.energy.sampling_child import Row


class Counter:
    """A counter that rises by one a poll; every other reader here spoils one thing of it."""

    def __init__(self, period_s: float = 0.005, polls_before: int = 0) -> None:
        self.cadence = Cadence(period_s)
        self.polls = polls_before

    def begin(self) -> None:
        self.cadence.begin(time.monotonic_ns())

    def poll(self) -> Iterator[Row]:
        self.polls += 1
        yield Row("count", "device-0", float(self.polls))

    def end(self) -> dict[str, Any]:
        return {"polls": self.polls, "modules": sorted(sys.modules)}

    def close(self) -> None:
        pass


class Bulky(Counter):
    """Reads more in a window than a channel takes at once."""

    def poll(self) -> Iterator[Row]:
        for number in range(5_000):
            yield Row("count", "device-0", float(number))


class TwoQuantities(Counter):
    """Reads a quick and a slow quantity in one poll, and one that is not a number."""

    def poll(self) -> Iterator[Row]:
        yield Row("quick_w", "device-0", 1.0)
        time.sleep(0.01)
        yield Row("slow_w", "device-1", 2.0)
        yield Row("broken_w", "device-1", float("nan"))


class Slow(Counter):
    """Every fifth poll takes longer than three periods."""

    def poll(self) -> Iterator[Row]:
        self.polls += 1
        if self.polls % 5 == 0:
            time.sleep(3.5 * self.cadence.period_s)
        yield Row("count", "device-0", float(self.polls))


class Chatty(Counter):
    """Prints all the time, from Python and past it."""

    def poll(self) -> Iterator[Row]:
        print('{"summary": "garbage"}', flush=True)
        os.write(1, b"\x00\x00\x00\x04junk")
        yield from super().poll()


class FailsInWindow(Counter):
    """Breaks at the third poll."""

    def poll(self) -> Iterator[Row]:
        yield from super().poll()
        if self.polls >= 3:
            print("meter: the cable fell out", file=sys.stderr)
            raise RuntimeError("counter went away")


class FailsAtOnce(Counter):
    """Can't be made."""

    def __init__(self) -> None:
        super().__init__()
        raise OSError("no such meter")


class Hangs(Counter):
    """Gets stuck at the third poll."""

    def poll(self) -> Iterator[Row]:
        yield from super().poll()
        if self.polls >= 3:
            time.sleep(600)


class HangsAtOnce(Counter):
    """Gets stuck before the first reading."""

    def poll(self) -> Iterator[Row]:
        time.sleep(600)
        yield Row("count", "device-0", 0.0)


class KillsItself(Counter):
    """Ends by a signal, as a crashing driver library does."""

    def end(self) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGSEGV)
        return {}
