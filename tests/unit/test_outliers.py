"""Which runs are named as standing far out, and what is said of them."""

from __future__ import annotations

from math import exp, log

import numpy as np
import pytest

from llenergymeasure.domain.results import Note, TrustReason
from llenergymeasure.study.blocks import Observation, fit
from llenergymeasure.study.outliers import outlying
from study_simulation import LOADS, SPREADS, drawn_orders, observations, simulate
from tests.support.make_result import make_trust
from tests.support.make_study import make_configs, make_run, make_study


def study(family: int, cycles: int, seed: int = 1, sd: float = 0.01) -> list[Observation]:
    noise = np.random.default_rng(seed).normal(0, sd, (cycles, family))
    return [
        Observation(config, cycle, 100 * exp(value))
        for (cycle, config), value in np.ndenumerate(noise)
    ]


def worse(runs: list[Observation], run: int, factor: float = 1.2) -> list[Observation]:
    changed = [*runs]
    changed[run] = runs[run]._replace(value=runs[run].value * factor)
    return changed


@pytest.mark.parametrize("run", [0, 13, 23])
def test_one_run_that_is_20_percent_too_high_is_named_with_its_size(run):
    (found,) = outlying(worse(study(8, 3), run))
    assert found.runs == (run,)
    assert found.apart[0] == pytest.approx(log(1.2), abs=0.03)


def test_a_run_is_named_by_the_residual_that_leaves_it_out():
    runs = worse(study(6, 4), 9)
    (found,) = outlying(runs)
    others = fit([one for place, one in enumerate(runs) if place != 9])
    level = np.mean([log(one.value) for place, one in enumerate(runs) if place != 9])
    block = [place for place in range(6, 12) if place != 9]
    late = np.mean([log(runs[p].value) - level - others.effect[p % 6] for p in block])
    expected = log(runs[9].value) - level - others.effect[3] - late
    assert found.apart[0] == pytest.approx(expected, abs=1e-9)


def test_of_two_configurations_both_runs_of_the_cycle_are_named():
    (found,) = outlying(worse(study(2, 8), 5))
    assert found.runs == (4, 5)
    assert found.apart[1] == pytest.approx(-found.apart[0])


def test_of_two_cycles_both_runs_of_the_configuration_are_named():
    (found,) = outlying(worse(study(9, 2), 4))
    assert found.runs == (4, 13)


def test_two_bad_runs_are_named_one_after_the_other():
    runs = worse(worse(study(8, 5), 3, 1.3), 20, 0.8)
    assert [one.runs for one in outlying(runs)] == [(3,), (20,)]


def test_what_is_rounded_to_steps_has_no_bad_run_for_one_step():
    runs = [one._replace(value=500.0) for one in study(6, 5)]
    assert list(outlying(worse(runs, 7, 1.001))) == []
    assert [one.runs for one in outlying(worse(runs, 7, 1.02))] == [(7,)]


@pytest.mark.parametrize(("family", "cycles"), [(1, 5), (5, 1), (2, 2), (0, 0)])
def test_a_study_that_cannot_tell_names_nobody(family, cycles):
    assert list(outlying(study(family, cycles))) == []


@pytest.mark.parametrize(
    ("name", "most"), [("alike", 0.06), ("one 5 times as noisy as the rest", 0.25)]
)
def test_a_study_without_a_bad_run_names_one_in_a_few_per_cent(name, most):
    rng = np.random.default_rng(6)
    studies = simulate(rng, drawn_orders(400, 8, 3), LOADS[0], SPREADS[name](8))
    named = [any(True for _ in outlying(list(observations(studies, n)))) for n in range(400)]
    assert np.mean(named) < most


def test_several_metrics_share_the_chance_of_an_error():
    runs = worse(study(8, 5, seed=3), 4, 1.1)
    assert list(outlying(runs)) != []
    assert list(outlying(runs, metrics=10**9)) == []


# What is said -------------------------------------------------------------------------------------

NOISE = {1: 0.995, 2: 1.0, 3: 1.006}


def notes(bad: tuple[int, int], family: int = 8, cycles: int = 3) -> list[Note]:
    """Give the notes of a study of which one run, by configuration and cycle, is slow."""
    reason = TrustReason(code="cpu_shared", level="caution", detail="d", remedy="r")
    doubted = make_trust().model_copy(update={"verdict": "caution", "reasons": (reason,)})

    def run(config, number, cycle):
        noise = 1 + 0.004 * ((7 * number + 5 * cycle) % 11 - 5) / 5
        if (number, cycle) == bad:
            return make_run(config, 960 * noise, 160 / noise, trust=doubted)
        return make_run(config, 800 * noise, 200 / noise)

    made = make_study(run, make_configs(range(1, family + 1)), cycles)
    return [note for note in made.notes if note.kind == "outlier"]


def test_a_study_names_the_run_what_it_says_of_itself_and_the_line_that_runs_it_again():
    (note,) = notes((3, 2))
    assert "slot 14 (#3, cycle 2; its verdict: caution (cpu_shared))" in note.text
    assert (
        "energy per output token +21 %, energy of the window +21 %, throughput -20 %" in note.text
    )
    assert "throughput -" in note.text
    assert {"energy_total_j", "tokens_per_second"} <= set(note.about)
    assert note.remedy == "llem run --resume . --again 14"


def test_of_two_configurations_the_line_runs_both_again():
    (note,) = notes((2, 3), family=2, cycles=8)
    assert " or slot " in note.text
    assert note.remedy == "llem run --resume . --again 5 --again 6"


def test_of_two_cycles_the_line_adds_one_which_tells_them_apart():
    (note,) = notes((4, 2), family=9, cycles=2)
    assert "another cycle tells" in note.text
    assert note.remedy == "llem run --resume . --cycles 3"


def test_a_study_in_which_nothing_stands_out_says_nothing():
    assert notes((0, 0)) == []


def test_the_line_stands_whole_below_its_note():
    def run(config, number, cycle):
        noise = 1 + 0.004 * ((7 * number + 5 * cycle) % 11 - 5) / 5
        return make_run(config, (960 if (number, cycle) == (3, 2) else 800) * noise)

    text = make_study(run, make_configs(range(1, 9))).summary()
    assert "- one run stands far out" in text
    assert "\n  llem run --resume . --again 14" in text
