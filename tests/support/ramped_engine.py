"""A scripted engine on a device that takes its time: power ramps up, and dies away after work."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydantic import Field

from llenergymeasure.config.backend_configs import ScriptedConfig
from llenergymeasure.config.backend_facts import BackendFacts
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.scripted.engine import ScriptedBackend, ScriptedEngine
from tests.support.simulated_device.loads import FloatArray

PIECE_S = 0.002
TAIL_LENGTHS = 5.0  # time constants after which nothing is left of a tail


class RampedConfig(ScriptedConfig):
    """A script, and how the device follows it."""

    ramp_ms: float = Field(0.0, description="How long power takes to rise when work begins.")
    tail_w: float = Field(0.0, description="Power above idle when work has ended.")
    tail_ms: float = Field(0.0, description="Its time constant.")


class RampedLog:
    """Appends what the device draws to a load log, ramps and tails ahead of their time.

    What is written later for an earlier time counts from the end of what was written before.
    """

    def __init__(
        self, section: RampedConfig, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        assert section.load_log is not None
        self._path, self._section, self._clock_s = Path(section.load_log), section, clock_s
        self._last_w = section.idle_w

    def write(self, watts: float) -> None:
        """Note what the script asks for from now on."""
        one, now_s = self._section, self._clock_s()
        if watts > self._last_w == one.idle_w:
            lines = self._ramp(watts)
        elif watts == one.idle_w < self._last_w:
            lines = self._tail()
        else:
            lines = [(0.0, watts)]
        with self._path.open("a", encoding="ascii") as log:
            log.writelines(f"{now_s + after_s:.9f} {level_w:g}\n" for after_s, level_w in lines)
        self._last_w = watts

    def _ramp(self, watts: float) -> list[tuple[float, float]]:
        at_s = _pieces(self._section.ramp_ms / 1e3)
        share = (at_s + PIECE_S / 2) / max(self._section.ramp_ms / 1e3, PIECE_S)
        level_w = self._last_w + (watts - self._last_w) * np.minimum(share, 1.0)
        return [
            *zip(at_s.tolist(), level_w.tolist(), strict=True),
            (self._section.ramp_ms / 1e3, watts),
        ]

    def _tail(self) -> list[tuple[float, float]]:
        one, constant_s = self._section, max(self._section.tail_ms / 1e3, 1e-6)
        at_s = _pieces(TAIL_LENGTHS * one.tail_ms / 1e3)
        level_w = one.idle_w + one.tail_w * np.exp(-(at_s + PIECE_S / 2) / constant_s)
        pieces = zip(at_s.tolist(), level_w.tolist(), strict=True)
        return [*pieces, (TAIL_LENGTHS * one.tail_ms / 1e3, one.idle_w)]


def _pieces(length_s: float) -> FloatArray:
    return np.arange(0.0, length_s - 1e-9, PIECE_S)


class RampedEngine(ScriptedEngine):
    """Keeps to the script; the device follows as it can."""

    def __init__(self, config: ExperimentConfig, section: RampedConfig) -> None:
        super().__init__(config, section)
        self._log = RampedLog(section)  # type: ignore[assignment]


class RampedBackend(ScriptedBackend):
    """Makes one."""

    def target(self, config: ExperimentConfig):
        return super().target(config.model_copy(update={"scripted": config.section}))

    def load(self, config: ExperimentConfig, cache_dir: Path) -> RampedEngine:
        section = config.section
        assert isinstance(section, RampedConfig)
        return RampedEngine(config, section)


ENTRY = BackendFacts(
    name="ramped",
    implementation="tests.support.ramped_engine:RampedBackend",
    section="tests.support.ramped_engine:RampedConfig",
    precisions=("bf16",),
    decoding=("greedy",),
    runs_a_model=False,
)
