"""The energy benchmarks play what the product does, and count as a warning only what warns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from energy_accuracy import run_trial
from energy_bursts import calibrated
from energy_cells import TAILS, Cell, cells
from energy_protocol import Body, Played, Scene, play, play_all
from energy_random import GENES, scene_of
from energy_report import NOT_HARM, is_flagged, targets
from llenergymeasure.core.energy.estimator import Calibration, Knowledge
from llenergymeasure.domain.warnings import FINDINGS
from llenergymeasure.orchestration.warmup import ENDS
from tests.support.simulated_device import loads, profiles

SCENE = Scene(profiles.vary(profiles.A100, lag_s=0.02), loads.step(0.0, 1.0), 1.0)
LAG_KNOWN = Knowledge(Calibration(lag_s=0.02))
RAMP_S = 0.03


def missed_share(played: Played) -> np.ndarray:
    """By how much of a tick each warm-up batch misses its place."""
    profile = played.device.profile
    ends_s = np.array([end_s for _, end_s in played.batches_s])
    before = (profile.counter_phase_s - profile.lag_s - ends_s) / profile.counter_period_s % 1
    return (before - ENDS + 0.5) % 1 - 0.5


def test_warm_up_batches_but_the_first_are_aimed_as_well_as_equal_batches_allow() -> None:
    rng = np.random.default_rng(1)
    off = np.abs([missed_share(play(SCENE, rng, LAG_KNOWN)) for _ in range(60)])
    anywhere = 0.25  # of a tick: the median of a place that nobody chose
    assert np.median(off[:, 0]) > 0.8 * anywhere
    assert np.median(off[:, 1:]) < 0.8 * anywhere
    # Batches of seconds that differ by a per cent or two end tens of milliseconds off.
    assert np.median(off[:, 1:]) > 0.05


def test_who_knows_the_lag_aims_nearer_than_who_does_not() -> None:
    scene = Scene(profiles.vary(profiles.A100, lag_s=0.05), loads.step(0.0, 1.0), 1.0)
    known, unknown = (
        np.median(np.abs([missed_share(play(scene, rng, knowing))[1:] for _ in range(40)]))
        for rng, knowing in (
            (np.random.default_rng(2), Knowledge(Calibration(lag_s=0.05))),
            (np.random.default_rng(2), Knowledge()),
        )
    )
    assert known < unknown


def test_the_first_counter_aims_for_all_devices() -> None:
    played = play_all(SCENE, 3, np.random.default_rng(3), LAG_KNOWN)
    assert len({one.batches_s for one in played}) == 1
    assert len({one.device.profile.counter_phase_s for one in played}) == 3


def test_readings_around_warm_up_ends_are_of_the_counter_alone() -> None:
    played = play(SCENE, np.random.default_rng(4))
    counter, power = played.readings.counter, played.readings.power
    assert counter is not None
    assert power is not None
    assert (np.diff(counter.before_ns) > 0).all()
    assert (counter.before_ns < played.rest_from_ns).sum() > 100
    assert power.before_ns[0] > played.knowing(Knowledge()).ends_ns[-1]


def test_what_a_ramp_costs_shows_in_the_pace_where_keeping_awake_does_not_help() -> None:
    rng = np.random.default_rng(5)
    helped = calibrated(profiles.A100, Body(RAMP_S), rng).counter
    ramped = calibrated(profiles.A100, Body(RAMP_S, smoothed=True), rng).counter
    assert helped is not None
    assert ramped is not None
    assert helped.lag_s < 0.2 * RAMP_S
    assert ramped.lag_s == pytest.approx(RAMP_S / 2, rel=0.3)
    assert ramped.tail.doubt_s == pytest.approx(RAMP_S / 2, rel=0.1)


def test_devices_that_ramp_up_though_kept_awake_are_among_the_cells_and_the_drawn_scenes() -> None:
    assert {c.group for c in cells() if c.body.smoothed} == {"ramps of a device kept awake"}
    tails = {c.body.tail for c in cells() if c.body.smoothed}
    assert {None, TAILS["exp 33 ms 150 W"]} <= tails
    rng = np.random.default_rng(6)
    bodies = [scene_of((*[0.4] * (GENES - 1), gene), rng).scene.body for gene in (0.1, 0.9)]
    assert [one.smoothed for one in bodies] == [False, True]


def test_what_only_informs_is_no_warning() -> None:
    assert {code for code, one in FINDINGS.items() if one.level == "info"} <= NOT_HARM
    trial = run_trial(Cell("part time", "a100-part-time", "step", 1.0), 0, np.random.default_rng(7))
    assert "part_time" in trial.flags
    assert not is_flagged(row(part_time=1.0))


def row(**flag_shares: float) -> dict[str, Any]:
    return {
        "group": "beating loads",
        "nominal_s": 1.0,
        "coverage": 0.5,
        "coverage_upper": 0.6,
        "silent_share": 0.0,
        "measured_share": 1.0,
        "false_zeros": 0,
        "flag_shares": flag_shares,
    }


@pytest.mark.parametrize(("flag", "met"), [("busy_before", False), ("aliasing_risk", True)])
def test_loads_that_beat_are_warned_of_by_aliasing_risk_alone(flag: str, met: bool) -> None:
    lines = [one for one in targets([row(**{flag: 1.0})]) if "beating" in one.what]
    assert [one.met for one in lines] == [met]
