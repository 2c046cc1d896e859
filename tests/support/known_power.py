"""An energy source that knows the power of its device at every instant, so its energy too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

from llenergymeasure.core.energy import Selection
from llenergymeasure.core.energy.protocol import Coverage, SamplingRates, StepTimes, no_steps
from llenergymeasure.domain.energy import EnergyComponent, EnergyRecording
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.domain.samples import Window


class Step(NamedTuple):
    """The power from an instant on.

    Attributes:
        start_s: Monotonic clock, s.
        power_w: Power, W.
    """

    start_s: float
    power_w: float


def energy_between(steps: Sequence[Step], start_s: float, end_s: float) -> float:
    """Integrate power that changes in steps; the last step lasts for ever."""
    ends = [step.start_s for step in steps[1:]] + [float("inf")]
    spans = ((step, end) for step, end in zip(steps, ends, strict=True))
    return sum(
        step.power_w * max(0.0, min(end, end_s) - max(step.start_s, start_s)) for step, end in spans
    )


def constant(power_w: float) -> Callable[[], Sequence[Step]]:
    """Make a device whose power never changes."""
    return lambda: [Step(0.0, power_w)]


def load_log(path: Path, before_w: float) -> Callable[[], Sequence[Step]]:
    """Make a device whose power the scripted backend writes down, ``before_w`` before it does."""

    def steps() -> Sequence[Step]:
        lines = path.read_text().splitlines() if path.exists() else []
        rows = [Step(*map(float, line.split())) for line in lines]
        assert all(a.start_s <= b.start_s for a, b in pairwise(rows))
        return [Step(0.0, before_w), *rows]

    return steps


class KnownPower:
    """Integrates a known power over each window.

    Attributes:
        calls: The calls of the contract, in order.
        windows: The windows that were closed.
    """

    name = "known"

    def __init__(
        self,
        steps: Callable[[], Sequence[Step]],
        kind: Literal["measured", "modelled"] = "measured",
    ) -> None:
        self._steps, self._kind = steps, kind
        self.calls: list[str] = []
        self.windows: list[Window] = []

    def start(self) -> None:
        self.calls.append("start")

    def open_window(self) -> None:
        self.calls.append("open")

    def close_window(self, window: Window, step_times: StepTimes = no_steps) -> EnergyRecording:
        self.calls.append("close")
        self.windows.append(window)
        energy_j = energy_between(self._steps(), window.t0_ns / 1e9, window.t1_ns / 1e9)
        part = EnergyComponent(
            name="device", energy_j=energy_j, kind=self._kind, method="known power", in_scope=True
        )
        return EnergyRecording(self.name, (part,))

    def stop(self) -> None:
        self.calls.append("stop")

    def select(self, name: str, target: DeviceTarget, rates: SamplingRates) -> Selection:
        """Choose this source, whatever was asked for."""
        return Selection(self, self.name, "known in a test", Coverage(self._kind, "the device"))
