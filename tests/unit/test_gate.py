"""Two studies are compared on what is alike, and a gate says what they show and no more."""

import numpy as np
import pytest

from gate_simulation import Studies, decided_as_said, verdicts
from llenergymeasure.domain.results import StudyResult
from llenergymeasure.domain.study_result import ENERGY_PER_TOKEN, FIGURES, Figure
from llenergymeasure.exceptions import FlagError
from llenergymeasure.report.comparing import comparison_lines, gate_lines
from llenergymeasure.study.comparing import change_of, compare
from llenergymeasure.study.gate import Gate, gate, margin_of, verdict_of
from tests.support.make_study import make_configs, make_run, make_study

NOISE = (0.99, 1.0, 1.01)


def _study(energy: float = 800.0, sizes: tuple[int, ...] = (1, 8), rate: float = 200.0):
    return make_study(
        lambda config, _, cycle: make_run(
            config, energy * NOISE[cycle - 1], rate * NOISE[cycle - 1]
        ),
        make_configs(sizes),
    )


def _judged(now: StudyResult, *limits: str, base: StudyResult | None = None) -> Gate:
    return gate(base or _study(), now, [margin_of(text) for text in limits])


@pytest.mark.parametrize(
    ("energy", "verdict", "code"),
    [(800, "pass", 0), (500, "pass", 0), (1000, "fail", 1), (840, "inconclusive", 3)],
)
def test_a_gate_says_what_is_shown_and_has_an_exit_code_for_each(energy, verdict, code):
    found = _judged(_study(energy), "energy=5%")
    assert (found.verdict, found.exit_code) == (verdict, code)


@pytest.mark.parametrize(("rate", "verdict"), [(100, "fail"), (400, "pass")])
def test_a_limit_of_a_figure_that_is_better_high_counts_a_loss(rate, verdict):
    assert _judged(_study(rate=rate), "throughput=5%").verdict == verdict


def test_one_limit_that_fails_fails_the_gate():
    assert _judged(_study(rate=100), "energy=5%", "throughput=5%").verdict == "fail"


def test_a_configuration_that_is_missing_now_is_named_and_not_passed():
    found = _judged(_study(sizes=(1,)), "energy=5%")
    lines = list(gate_lines(found))
    assert found.verdict == "inconclusive"
    assert any(line.startswith("only in the base: #2") for line in lines), lines


def test_a_configuration_that_is_there_only_now_is_named_and_does_not_matter():
    found = _judged(_study(sizes=(1, 8, 16)), "energy=5%")
    assert found.verdict == "pass"
    assert any(line.startswith("only now: #3") for line in gate_lines(found))


def test_what_is_inconclusive_names_the_cycles_that_would_decide():
    found = _judged(_study(825), "energy=5%")
    (cycles,) = {one.cycles for one in found.judgements}
    assert cycles is not None
    assert cycles > 3
    assert f"{cycles} cycles in each study would decide" in " ".join(gate_lines(found))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("energy=5", "energy=5%"),
        ("energy=", "write energy=5%"),
        ("energy", "write energy=5%"),
        ("energy=0%", "more than 0%"),
        ("energy=-5%", "more than 0%"),
        ("energy=nan%", "more than 0%"),
        ("enrgy=5%", "did you mean energy?"),
        ("throughput=100%", "less than 100%"),
        ("zzzz=5%", "known are energy"),
    ],
)
def test_a_limit_that_says_nothing_is_refused_with_what_to_write(text, said):
    with pytest.raises(FlagError) as refused:
        margin_of(text)
    assert said in str(refused.value)


def test_every_figure_can_be_limited_by_its_own_name():
    assert {margin_of(f"{name}=5%").metric for name in FIGURES} == set(FIGURES.values())


def _with_subject(study: StudyResult, **changes: object) -> StudyResult:
    assert study.subject is not None
    return study.model_copy(update={"subject": study.subject.model_copy(update=changes)})


@pytest.mark.parametrize(
    "changes",
    [
        {"machines": ("Another CPU, 4 logical CPUs, 8 GiB",)},
        {"inputs": {"dataset": "0" * 64}, "n": (7,)},
    ],
)
def test_another_machine_or_other_prompts_are_refused_with_both_values(changes):
    base = _study()
    base = _with_subject(base)
    now = _with_subject(_study(), **{k: v for k, v in changes.items() if k != "inputs"})
    with pytest.raises(FlagError) as refused:
        _judged(now, "energy=5%", base=base)
    assert " in the base, " in str(refused.value)
    assert "now" in str(refused.value)


def test_another_version_is_said_and_judged():
    base = _with_subject(_study(), versions={"torch": ("2.5.0",)})
    now = _with_subject(_study(), versions={"torch": ("2.6.0",)})
    found = _judged(now, "energy=5%", base=base)
    assert found.verdict == "pass"
    assert next(gate_lines(found)) == "version differs: torch: 2.5.0 in the base, 2.6.0 now"


def test_studies_without_a_configuration_in_common_are_refused():
    with pytest.raises(FlagError, match="no configuration in common"):
        _judged(_study(sizes=(1,)), "energy=5%", base=_study(sizes=(2, 4)))


def test_a_figure_that_no_configuration_has_is_refused():
    now = _study()
    without = tuple(one.model_copy(update={"figures": {}}) for one in now.configurations)
    now = now.model_copy(update={"configurations": without})
    with pytest.raises(FlagError, match="no configuration has energy_per_output_token_j"):
        _judged(now, "energy=5%")


def test_one_run_a_side_shows_nothing():
    one = _study()
    single = make_study(lambda config, *_: make_run(config), cycles=1)
    found = _judged(single, "energy=5%", base=one)
    assert found.verdict == "inconclusive"
    assert "one run" in " ".join(gate_lines(found))


def test_what_a_sensor_is_always_wrong_by_cancels_on_one_board_and_not_on_two():
    of_sensor = Figure(
        mean=1.0, interval95=None, n=3, standard_deviation=0.001, cv=0.001, common_standard=0.025
    )
    same = change_of(ENERGY_PER_TOKEN, of_sensor, of_sensor)
    other = change_of(ENERGY_PER_TOKEN, of_sensor, of_sensor, across=True)
    assert same.uncommon == 0
    assert other.uncommon == pytest.approx(2 * 0.025 * 2**0.5)


def test_results_on_another_board_are_shown_beside_and_said_not_to_be_pooled():
    base, now = _study(), _study()
    elsewhere = tuple(
        one.model_copy(update={"devices": ("GPU-other",)}) for one in now.configurations
    )
    now = now.model_copy(update={"configurations": elsewhere})
    lines = list(comparison_lines(compare(base, now)))
    assert lines[0].startswith("machine differs: boards")
    assert lines[1].startswith("Not pooled")
    with pytest.raises(FlagError, match="boards"):
        _judged(now, "energy=5%", base=base)


def test_a_comparison_tells_the_ratio_with_its_interval():
    lines = list(comparison_lines(compare(_study(800), _study(1000))))
    assert "Same configurations" in lines[0]
    assert any("#1 +25" in line for line in lines), lines


def test_figures_that_never_vary_are_judged_by_themselves():
    still = Figure(mean=1.0, interval95=(1.0, 1.0), n=3, standard_deviation=0.0, cv=0.0)
    change = change_of(ENERGY_PER_TOKEN, still, still.model_copy(update={"mean": 1.04}))
    assert verdict_of(change, margin_of("energy=5%")) == "pass"
    assert verdict_of(change, margin_of("energy=3%")) == "fail"


@pytest.mark.parametrize("noise", [(0.02, 0.02), (0.01, 0.05)])
def test_a_change_of_exactly_the_limit_is_hardly_ever_judged_wrongly(noise):
    rng, studies = np.random.default_rng(5), Studies((3, 3), noise, 300)
    every = verdicts(rng, [1.05] * 4, 0.05, studies)
    one = verdicts(rng, [1.05, 0.8, 0.8, 0.8], 0.05, studies)
    assert every["fail"] < 0.05
    assert one["pass"] < 0.06


def test_the_cycles_that_are_named_decide_in_four_of_five_studies():
    rng = np.random.default_rng(6)
    named, _, decided = decided_as_said(rng, 1.1, 0.05, Studies((3, 3), (0.04, 0.04), 150))
    assert named > 40
    assert decided > 0.7
