"""How a program with an energy meter takes part in ``energy_realtime.py``.

The standard library only: it also runs in the peers' environment. The program says ``ready``, is
given the windows as one line of JSON, and answers each with a line of its own. Load and windows
are fixed before the first window, so no program waits for another.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import Protocol


@dataclass(frozen=True)
class Told:
    """What a meter says of a window.

    Attributes:
        energy_j: Joules; ``None`` where it gives no figure.
        half_j: Half-width of its 95 % interval; ``None`` where it gives none.
        flags: Its own findings.
    """

    energy_j: float | None
    half_j: float | None = None
    flags: tuple[str, ...] = ()


class Meter(Protocol):
    """A meter, called as its documentation says."""

    def prepare(self) -> None:
        """Get ready for a window that begins about 0.9 s later."""
        ...

    def begin(self) -> None:
        """Mark the beginning."""
        ...

    def end(self) -> None:
        """Mark the end."""
        ...

    def tell(self, t0_ns: int, t1_ns: int) -> Told:
        """Give the energy of the window that was marked at these times."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


def serve(meter: Meter) -> None:
    """Measure every window that comes on standard input; answer on standard output."""
    print("ready", flush=True)
    for window in json.loads(sys.stdin.readline()):
        print(json.dumps(_measure(meter, **window)), flush=True)
    meter.close()


def _measure(meter: Meter, prepare_s: float, t0_s: float, t1_s: float) -> dict[str, object]:
    _sleep_until(prepare_s)
    meter.prepare()
    _sleep_until(t0_s)
    # Marks are taken just before the calls: a meter answers for the time from call to call.
    t0_ns = time.monotonic_ns()
    meter.begin()
    _sleep_until(t1_s)
    t1_ns = time.monotonic_ns()
    meter.end()
    return {"t0_ns": t0_ns, "t1_ns": t1_ns, **asdict(meter.tell(t0_ns, t1_ns))}


def _sleep_until(at_s: float) -> None:
    time.sleep(max(0.0, at_s - time.monotonic()))
