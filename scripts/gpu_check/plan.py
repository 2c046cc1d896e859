"""What is checked and for how long; standard library only, so that a report is always written."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

Status = Literal["ok", "failed", "skipped"]


class Section(NamedTuple):
    """One part of the check, run in a process of its own.

    Attributes:
        name: What the report calls it.
        function: ``"module:function"`` in this package, from a :class:`Plan` to an
            :class:`Outcome`.
        limit_s: It is ended after so long, seconds.
        optional: Whether skipping it leaves the whole check well.
        argument: Passed on to the function after the plan.
    """

    name: str
    function: str
    limit_s: float
    optional: bool = False
    argument: int | None = None


class Outcome(NamedTuple):
    """What came of a section.

    Attributes:
        status: ``ok``, ``failed`` or ``skipped``.
        reason: Why it is not ok; empty otherwise.
        figures: What was found, with units in the names.
    """

    status: Status
    reason: str
    figures: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """Settings of every section; the defaults are those of a check.

    Attributes:
        uuid: The GPU; empty takes the first that CUDA would see.
        load_log: Load log of a simulated device; empty drives a real one through PyTorch.
        hold_s: Length of the stretches of load and of idling that are cross-checked, seconds.
        quick_s: Length of the stretch that is polled every millisecond, seconds.
        compare_s: Length of the load that Zeus measures too, seconds.
        short_bursts: Bursts of 30 ms that calibrate the sensors.
        long_bursts: Bursts of 1 s that do.
        batch_sizes: One experiment for each.
        experiment: Fields of their configuration.
        tests: Arguments of pytest.
    """

    uuid: str = ""
    load_log: str = ""
    hold_s: float = 60.0
    quick_s: float = 5.0
    compare_s: float = 20.0
    short_bursts: int = 40
    long_bursts: int = 20
    batch_sizes: tuple[int, ...] = (1, 8, 32)
    experiment: dict[str, Any] = field(
        default_factory=lambda: {
            "model": "random:llama-3.1-8b",
            "backend": "pytorch",
            "precision": "bf16",
            "max_new_tokens": 64,
            "energy_backend": "nvml",
            "warmup": {"n_warmup": 1, "thermal_floor_seconds": 0},
            "baseline": {"duration_seconds": 5.0},
            "window": {"min_duration_seconds": 10.0},
        }
    )
    tests: tuple[str, ...] = ("tests/gpu", "-m", "gpu")

    @property
    def sections(self) -> tuple[Section, ...]:
        """The parts of the check, in order."""
        experiments = (
            Section(f"experiment_batch_{size}", "experiments:check", 150.0, argument=size)
            for size in self.batch_sizes
        )
        return (
            Section("environment", "machine:check", 60.0),
            Section("sensors", "sensors:check", 180.0),
            Section("cross_check", "cross_check:check", 60.0 + 2.5 * self.hold_s),
            Section("zeus", "zeus_monitor:check", 90.0, optional=True),
            *experiments,
            Section("tests", "gpu_tests:check", 300.0),
        )

    def to_json(self) -> str:
        """Give the plan for another process."""
        return json.dumps(asdict(self))


def read_plan(path: Path | None) -> Plan:
    """Read a plan from JSON; what it leaves out is as in a check.

    Raises:
        ValueError: The file is no JSON object of known settings.
    """
    if path is None:
        return Plan()
    return plan_from(json.loads(path.read_text(encoding="utf-8")), str(path))


def plan_from(values: dict[str, Any], where: str) -> Plan:
    """Make a plan of plain data.

    Raises:
        ValueError: There is a setting that no plan has.
    """
    unknown = set(values) - {one.name for one in fields(Plan)}
    if unknown:
        raise ValueError(f"{where}: no such settings: {', '.join(sorted(unknown))}")
    settings: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    return Plan(**settings)
