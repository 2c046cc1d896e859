"""No energy source: for experiments that measure time and memory only."""

from __future__ import annotations

from llenergymeasure.core.energy.gpus import state_spec, with_state
from llenergymeasure.core.energy.protocol import Coverage, SamplingRates, StepTimes, no_steps
from llenergymeasure.core.energy.sampled_source import SampledSource
from llenergymeasure.core.energy.sampler import Recorded, SamplerProcess
from llenergymeasure.domain.energy import EnergyRecording
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.domain.samples import Window
from llenergymeasure.exceptions import BackendError


class NoSource:
    """Reads no energy, and says so; of NVIDIA GPUs it reads the state, on which times depend."""

    name = "none"

    def __init__(self, target: DeviceTarget, rates: SamplingRates) -> None:
        spec = state_spec(target, rates) if target.kind == "gpu" else None
        self._state = None if spec is None else StateSource(SamplerProcess(spec))
        self._note: tuple[str, ...] = ()

    @staticmethod
    def coverage(target: DeviceTarget) -> Coverage:  # noqa: ARG004 - the same for every target
        """Say that energy stays unknown, whatever does the work."""
        return Coverage("unmeasurable", "nothing is read")

    def start(self) -> None:
        """Start to read the state, where there is one; without it the experiment goes on."""
        if self._state is None:
            return
        try:
            self._state.start()
        except BackendError as error:
            self._state, self._note = None, (error.message,)

    def open_window(self) -> None:
        """Take note that a window begins."""
        if self._state is not None:
            self._state.open_window()

    def close_window(self, window: Window, step_times: StepTimes = no_steps) -> EnergyRecording:
        """Give a recording without any figure."""
        if self._state is None:
            return EnergyRecording(source=self.name, notes=self._note)
        return self._state.close_window(window, step_times)

    def stop(self) -> None:
        """End what reads the state."""
        if self._state is not None:
            self._state.stop()


class StateSource(SampledSource):
    """The state of GPUs alone."""

    name = NoSource.name

    def recording(self, recorded: Recorded, window: Window) -> EnergyRecording:
        """Give every GPU's state, and no energy."""
        made = EnergyRecording(self.name, readings=recorded.readings, cost=recorded.cost)
        return with_state(made, recorded.summary, window)
