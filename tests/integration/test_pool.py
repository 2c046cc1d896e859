"""Runners are kept between experiments, one for each place and backend."""

from __future__ import annotations

import sys
from pathlib import Path

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.user_config import default_path
from llenergymeasure.orchestration.order import WorkOrder
from llenergymeasure.study.runners.pool import RunnerPool
from tests.support.isolation import servers
from tests.support.scripted_run import make_order, scripted_config


def order(tmp_path: Path, runner: str = "local", **fields: object) -> WorkOrder:
    return make_order(scripted_config(**fields), tmp_path, runner=runner)


def test_experiments_of_one_place_share_a_runner(tmp_path: Path) -> None:
    with RunnerPool("spawn") as pool:
        local = pool.of(order(tmp_path))
        assert pool.of(order(tmp_path, n=7)) is local
        assert pool.of(order(tmp_path, f"python:{sys.executable}")) is not local


def test_another_interpreter_that_is_not_there_is_a_problem_of_its_own_place(
    tmp_path: Path,
) -> None:
    with RunnerPool("spawn") as pool:
        (problem,) = pool.problems([order(tmp_path, "python:/no/such/python"), order(tmp_path)])
    assert problem.where == "runners.scripted"
    assert "/no/such/python" in problem.what


def test_a_problem_that_two_places_share_is_told_once(tmp_path: Path) -> None:
    absent = {"dataset": "absent.jsonl"}
    orders = [order(tmp_path, **absent), order(tmp_path, f"python:{sys.executable}", **absent)]
    with RunnerPool("spawn") as pool:
        (problem,) = pool.problems(orders)
    assert problem.where == "dataset"


def test_problems_of_all_places_come_by_kind_and_none_hides_another(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent" / "log")
    orders = [
        order(tmp_path, dataset="first.jsonl"),
        order(tmp_path, scripted={"load_log": absent}),
        order(tmp_path, "python:/no/such/python", dataset="second.jsonl"),
    ]
    with RunnerPool("spawn") as pool:
        found = pool.problems(orders)

    assert [(one.kind, one.where) for one in found] == [
        ("backend", "scripted.load_log"),
        ("backend", "runners.scripted"),
        ("dataset", "dataset"),
        ("dataset", "dataset"),
    ]
    assert "second.jsonl" in found[-1].what


def test_a_mixed_study_is_told_the_line_of_settings_that_gives_a_missing_engine_its_place(
    tmp_path: Path,
) -> None:
    engine = ExperimentConfig(
        model="random:tiny-llama", backend="tensorrt", precision="fp16", energy_backend="none"
    )
    absent = make_order(engine, tmp_path)
    with RunnerPool("spawn") as pool:
        (alone,) = pool.problems([absent])
        (mixed,) = pool.problems([absent, order(tmp_path)])

    line = 'runners: {tensorrt: "python:/path/to/venv/bin/python"}'
    assert alone.remedy == "pip install 'llenergymeasure[tensorrt]'"
    assert mixed.remedy.startswith(f"{alone.remedy}\n    or, ")
    assert mixed.remedy.endswith(f"add to {default_path()}:\n    {line}")


def test_no_process_outlives_the_pool(tmp_path: Path) -> None:
    with RunnerPool("auto") as pool:
        assert pool.problems([order(tmp_path)]) == []
        assert servers()
    assert servers() == []
