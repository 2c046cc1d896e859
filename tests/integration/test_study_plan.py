"""The plan of a study: every configuration, its order, its time and its memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from llenergymeasure.cli.commands.run import show_plan
from llenergymeasure.config.canonical import design_hash
from llenergymeasure.config.models import StudyConfig
from llenergymeasure.config.user_config import load_settings
from llenergymeasure.exceptions import PreFlightError, StudyError
from llenergymeasure.report import format as fmt
from llenergymeasure.study.grid import expand

Show = Callable[..., str]


@pytest.fixture
def show(tmp_path, capsys) -> Show:
    def run(*, as_json: bool = False, flags: dict[str, Any] | None = None, **fields: Any) -> str:
        study = StudyConfig(**{"model": "random:tiny-llama", **fields})
        settings = load_settings(tmp_path / "absent.yaml", {}, flags or {})
        show_plan(study, settings, as_json=as_json)
        return capsys.readouterr().out

    return run


RESTS = {"execution.config_gap_seconds": 60.0, "execution.cycle_gap_seconds": 300.0}
GRID: dict[str, Any] = {
    "name": "mine",
    "pytorch": {"device": "cpu"},
    "sweep": {
        "precision": ["fp32", "bf16", "fp8"],
        "pytorch.batch_size": [None, 1, 8],
    },
}


def test_the_plan_counts_lists_orders_and_times_everything(show):
    text = show(**GRID, flags={"output.results_dir": "/somewhere", **RESTS})

    assert "study       mine" in text
    assert "runs        12 experiments: 4 configurations x 3 cycles" in text
    assert "design      9 combinations, 2 merged, 3 skipped" in text
    assert "order       balanced, seed 42" in text
    assert "results in  /somewhere" in text
    assert "fp32 batch_size=8" in text
    assert "MiB of" in text
    # 9 gaps inside cycles of a minute, 2 of five minutes between them
    assert "with 19 min of gaps (--no-gaps leaves them out)" in text
    assert "with 0 s of gaps\n" in show(**GRID), "nothing heats on a CPU"
    assert "3 x precision: pytorch cannot run fp8" in text
    assert design_hash(expand(StudyConfig(model="random:tiny-llama", **GRID)).fingerprints) in text


def test_no_line_of_the_plan_is_wider_than_a_terminal(show):
    wide = {
        "model": ["random:llama-3.1-8b", "org/" + "long-name-" * 8],
        "decoder.decoding_strategy": ["greedy", "sampling"],
        "decoder.temperature": [None, 0.123456, 0.654321],
        "pytorch.attn_implementation": ["eager", "flex_attention"],
        "pytorch.batch_size": [1, 512],
        "n": [1000],
    }
    text = show(name="n" * 90, sweep=wide, flags={"output.results_dir": "/x" * 60})

    assert max(len(line) for line in text.splitlines()) <= 80
    assert "temperature=0.123456" in text


def test_what_does_not_fit_is_marked(show):
    text = show(
        model="random:llama-3.2-1b",
        n=1000,
        max_new_tokens=100_000,
        precision="fp32",
        pytorch={"device": "cpu"},
        sweep={"pytorch.batch_size": [1000]},
    )

    assert " > " in text
    assert "1 configuration (marked >) needs more than there is" in text


def test_an_unknown_model_leaves_memory_and_duration_unknown(show):
    text = show(model="org/nowhere", sweep={"n": [1, 2]})

    assert "unknown" in text
    assert "duration    unknown: the shape of a model is not known here" in text


def test_a_cold_start_is_said(show):
    assert "cold start  no warm-up; loading is measured" in show(cold_start=True)


def test_the_plan_as_json_holds_every_configuration_skip_and_slot(show):
    found = json.loads(show(**GRID, flags=RESTS, as_json=True))

    assert (found["generated"], found["merged"], len(found["skipped"])) == (9, 2, 3)
    assert [row["label"] for row in found["configurations"]] == [
        "fp32",
        "fp32 batch_size=8",
        "bf16",
        "bf16 batch_size=8",
    ]
    assert all(row["memory"]["fits"] for row in found["configurations"])
    assert all(row["timeout_s"] > row["duration_s"] for row in found["configurations"])
    assert sorted(map(tuple, found["order"])) == [(c, n) for c in range(4) for n in (1, 2, 3)]
    duration = found["duration"]
    assert duration["gaps_s"] == 9 * 60 + 2 * 300
    assert duration["total_s"] == duration["experiments_s"] + duration["gaps_s"]
    assert found["execution"]["cycle_order"] == "balanced"


def test_the_idle_device_is_measured_in_full_once_and_then_looked_at_for_5_s(show):
    found = json.loads(
        show(
            energy_backend="rapl",
            sweep={"n": [1, 2]},
            execution={"n_cycles": 2},
            flags={"runners.pytorch": "docker:elsewhere"},  # here there may be no RAPL
            as_json=True,
        )
    )
    each_s = [row["duration_s"] for row in found["configurations"]]
    again = 30 - 5
    assert found["duration"]["experiments_s"] == pytest.approx(2 * sum(each_s) + again)


def test_a_time_out_of_the_study_is_the_time_out_of_each_experiment(show):
    found = json.loads(show(**GRID, execution={"timeout_s": 77}, as_json=True))

    assert {row["timeout_s"] for row in found["configurations"]} == {77}


def test_a_design_that_cannot_run_has_no_plan(show, capsys):
    with pytest.raises(StudyError, match="the one combination of the design cannot run"):
        show(precision="fp8")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.42, "0.4 s"), (99, "99 s"), (120, "2 min"), (12_000, "3 h 20 min")],
)
def test_long_times_are_written_for_planning(seconds, text):
    assert fmt.span(seconds) == text


def test_a_sweep_of_new_tokens_over_prompts_that_have_their_own_is_skipped(show, tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text(
        '{"prompt": "a", "max_new_tokens": 4}\n{"prompt": "b", "max_new_tokens": 5}\n'
        '{"prompt": "c"}\n'
    )
    sweep = {"max_new_tokens": [8, 16], "n": [2, 3]}
    found = json.loads(show(as_json=True, dataset=str(path), sweep=sweep))

    (skip,) = found["skipped"]
    assert skip["config"] == {"backend": "pytorch", "max_new_tokens": 16, "n": 2}
    assert "every prompt of the dataset has its own" in skip["reason"]
    assert len(found["configurations"]) == 3


def test_a_missing_engine_among_several_is_told_the_line_that_gives_it_its_place(show):
    with pytest.raises(PreFlightError) as caught:
        show(backend=["scripted", "tensorrt"], precision="fp16", energy_backend="none")

    remedies = [one.remedy for one in caught.value.problems]
    assert any('runners: {tensorrt: "python:' in remedy for remedy in remedies)


def test_problems_come_after_the_plan_each_once(show, capsys):
    with pytest.raises(PreFlightError) as caught:
        show(dataset="/nowhere.jsonl", sweep={"max_new_tokens": [8, 16], "n": [2, 3]})

    assert "4 configurations" in capsys.readouterr().out
    assert [one.where for one in caught.value.problems] == ["dataset"]


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"model": "random:tiny-lama"}, "model"),
        ({"backend": "tensorrt"}, "backend"),
        ({"pytorch": {"device": "cuda:99"}}, "pytorch.device"),
    ],
)
def test_what_a_study_lacks_is_told_by_its_plan(show, capsys, fields, where):
    with pytest.raises(PreFlightError) as caught:
        show(**fields, sweep={"n": [1, 2]}, as_json=True)

    assert [one.where for one in caught.value.problems] == [where]
    assert capsys.readouterr().out == "", "standard output is left to the error"
