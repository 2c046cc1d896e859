"""What a user sees while a study runs."""

from __future__ import annotations

import io
from datetime import datetime
from pathlib import Path

import pytest

from llenergymeasure.cli.display import (
    BarDisplay,
    Display,
    StudyDisplay,
    begun_lines,
    failed_lines,
    finished_line,
    time_of_day,
)
from llenergymeasure.domain.results import (
    ExperimentResult,
    FailedExperiment,
    TrustReason,
    TrustVerdict,
)
from llenergymeasure.orchestration.events import Event
from llenergymeasure.results.layout import StudyDirectory
from llenergymeasure.study.events import (
    Begun,
    Finished,
    Noted,
    Pausing,
    Placed,
    Started,
    StudyEvent,
)
from tests.support.make_study import make_configs, make_failure, make_run

CONFIG = make_configs([8])[0]
BEGUN = Begun("sizes", 2, 6, 0, 0, 0, ("batch_size=1", "batch_size=8"))


def ended(
    outcome: ExperimentResult | FailedExperiment | None = None,
    seconds: float = 4.2,
    left_s: float | None = 80.0,
) -> Finished:
    outcome = outcome or make_run(CONFIG, 800, 200)
    return Finished(4, 12, 2, "0004_pytorch_bf16_bs8_c1", outcome, seconds, left_s)


def shown(*events: StudyEvent) -> list[str]:
    stream = io.StringIO()
    display = StudyDisplay(stream, Display(), terminal=False)
    for event in events:
        display(event)
    display.close()
    return stream.getvalue().splitlines()


def test_a_study_says_first_what_runs_and_where_its_results_are():
    assert shown(BEGUN, Placed("results/sizes_1")) == [
        "llem: study sizes: 2 configurations, 6 experiments",
        "llem: results in results/sizes_1",
    ]


def test_a_study_that_goes_on_says_what_is_done_and_one_that_keeps_nothing_names_no_place():
    again = BEGUN._replace(configurations=1, done=4, skipped=1, merged=2)
    assert begun_lines(again) == [
        "llem: study sizes: 1 configuration, 6 experiments, 4 already done, 1 combination",
        "  skipped, 2 duplicates merged",
    ]


def test_a_finished_experiment_is_told_by_what_sets_its_configuration_apart():
    _, line = shown(BEGUN, ended())
    assert line.startswith("[ 4/12] #2 batch_size=8  ")
    assert line.endswith("(4.2 s, 80 s left)")


def test_the_line_of_a_run_counts_its_cautions_and_each_is_told_in_full_once():
    def run(*codes: str) -> ExperimentResult:
        reasons = (TrustReason.of(code, f"how {code} was seen") for code in codes)
        trust = TrustVerdict.of(reasons, energy_asked=True)
        return make_run(CONFIG, 800, 200).model_copy(update={"trust": trust})

    lines = shown(
        BEGUN,
        ended(run("cpu_shared", "random_weights", "prompts_truncated")),
        ended(run("cpu_shared", "window_short")),
        ended(run()),
        ended(run("counter_reset")),
        ended(run("counter_reset")),
    )
    runs = [line for line in lines if "#2 batch_size=8" in line]
    assert [line.partition("token/s")[2].split("(")[0].strip() for line in runs] == [
        "!2",
        "!2",
        "",
        "invalid",
        "invalid",
    ]
    below = [line.strip() for line in lines[1:] if line not in runs]
    assert below == [
        "caution cpu_shared: how cpu_shared was seen",
        "caution random_weights: how random_weights was seen",
        "caution window_short: how window_short was seen",
        "invalid counter_reset: how counter_reset was seen",
        "invalid counter_reset: how counter_reset was seen",
    ]
    numbers = [number for number, line in enumerate(lines) if line in runs]
    assert numbers == [1, 4, 6, 7, 9], "each finding stands below its run"


def test_the_last_experiment_has_nothing_left():
    assert finished_line(ended(left_s=0.0)).endswith("(4.2 s)")


def test_an_experiment_of_a_moment_does_not_take_0_s():
    assert "(0.4 s" in finished_line(ended(seconds=0.4))


@pytest.mark.parametrize("outcome", [None, make_failure(CONFIG, "no " * 60)])
@pytest.mark.parametrize("label", [None, "attn_implementation=" + "x" * 90])
def test_no_line_is_wider_than_80_columns(outcome, label):
    event = ended(outcome, seconds=90_000, left_s=900_000)
    assert len(finished_line(event, (label, label) if label else ())) <= 80
    assert all(len(line) <= 80 for line in failed_lines(make_failure(CONFIG, "no " * 60), None))


def test_control_characters_of_a_failure_do_not_reach_the_terminal():
    (line,) = failed_lines(make_failure(CONFIG, "bad \x1b[31m news"), None)
    assert line == r"    bad \x1b[31m news"


def test_names_have_the_room_that_the_terminal_has_and_stand_in_one_column():
    labels = ("itl_ms=2 batch_size=1 fp32", "itl_ms=2 batch_size=16")
    first = finished_line(ended(left_s=0.0)._replace(configuration=1), labels)
    second = finished_line(ended(left_s=0.0)._replace(configuration=2), labels)
    assert "#1 itl_ms=2 batch_size=1 fp32  1.25 J" in first
    assert "#2 itl_ms=2 batch_size=16      1.25 J" in second


def test_a_failure_says_why_in_full_and_where_its_log_is(tmp_path: Path):
    directory = StudyDirectory(tmp_path).experiment("0004_pytorch_bf16_bs8_c1")
    placed = Placed(str(tmp_path))
    failed = ended(make_failure(CONFIG, "the device ran out of memory in the middle " * 4))
    directory.root.mkdir(parents=True)
    line, *reason, place = shown(BEGUN, placed, failed)[2:]
    assert line == "[ 4/12] #2 batch_size=8  failed in load"
    assert (
        " ".join(" ".join(reason).split())
        == ("the device ran out of memory in the middle " * 4).strip()
    )
    assert place == f"    in {directory.root}"
    directory.log.touch()
    assert shown(BEGUN, placed, failed)[-1] == f"    log: {directory.log}"


def test_a_pipe_is_told_of_a_pause_once_and_of_none_that_is_over_at_once():
    pauses = [Pausing("cycle", left_s, 3.0) for left_s in (3.0, 2.0, 1.0)]
    assert shown(*pauses, Pausing("experiment", 0.5, 0.5), Noted("a note")) == [
        "llem: pause before the next cycle: 3 s",
        "llem: a note",
    ]


def test_a_pipe_is_told_once_for_whom_an_experiment_waits():
    waits = [Event(t_ns, "initialising", "wait", detail="waiting for GPU-1") for t_ns in (1, 2)]
    assert shown(*waits, Event(3, "initialising", "load")) == ["llem: waiting for GPU-1"]


def test_a_bar_says_which_experiment_of_how_many_the_share_and_when_all_ends():
    stream, noon = io.StringIO(), datetime(2026, 3, 2, 12, 0)
    display = StudyDisplay(stream, BarDisplay(stream), terminal=True, now=lambda: noon)
    display(BEGUN._replace(total=12, done=3))
    display(Started(4, 12, 2, "0004_pytorch_bf16_bs8_c1", "fork"))
    display(Event(0, "initialising", "load"))
    display(ended(left_s=3600.0))
    display(Pausing("experiment", 60.0, 60.0))
    display(Started(5, 12, 1, "0005_pytorch_bf16_bs1_c2", "fork"))
    display(Event(0, "measuring", "measure"))
    display(Event(0, "measuring", "measure", 5, 10))
    display.close()
    said = stream.getvalue()
    assert "[4/12] 25 %: loading the model" in said
    assert "33 %, ends 13:00: pause before the next experiment: 60 s" in said
    assert "[5/12] 33 %, ends 13:00: measuring:  50%" in said


@pytest.mark.parametrize(
    ("left_s", "said"),
    [
        (60.0, "23:31"),
        (3600.0, "Tue 00:30"),
        (200_000.0, "Thu 07:03"),
        (6 * 86_400.0, "Sun 23:30"),
        (7 * 86_400.0, "2026-03-09"),
    ],
)
def test_the_end_on_another_day_has_its_name_or_its_date(left_s, said):
    assert time_of_day(datetime(2026, 3, 2, 23, 30), left_s) == said
