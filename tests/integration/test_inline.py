"""A study of one experiment: run here, or in a process of its own where a runner is named."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.config.canonical import design_hash
from llenergymeasure.config.models import ExecutionConfig, ExperimentConfig, StudyConfig
from llenergymeasure.config.user_config import EffectiveSettings, load_settings
from llenergymeasure.domain.results import StudyResult
from llenergymeasure.exceptions import ExperimentError, PreFlightError
from llenergymeasure.orchestration.events import Event
from llenergymeasure.study.events import Callbacks, StudyEvent
from llenergymeasure.study.grid import expand
from llenergymeasure.study.runner import StudyRunner
from tests.support.cli import SOURCE
from tests.support.scripted_run import scripted_config

STUDY = StudyConfig.of(scripted_config(energy_backend="none"))


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))


def settings(tmp_path: Path, runner: str = "local") -> EffectiveSettings:
    return load_settings(tmp_path / "absent.yaml", {}, {"runners.scripted": runner})


def run(
    tmp_path: Path, runner: str = "local", *, keep: bool = True, study: StudyConfig = STUDY
) -> tuple[StudyResult, list[str]]:
    phases: list[str] = []

    def listen(event: StudyEvent) -> None:
        phases.append(event.phase if isinstance(event, Event) else type(event).__name__)

    place = tmp_path / "results" if keep else None
    runner_ = StudyRunner(study, settings(tmp_path, runner), place, Callbacks(listen))
    return runner_.run(), phases


def test_an_experiment_that_runs_once_is_alone() -> None:
    assert STUDY.single is not None
    assert StudyConfig.of(scripted_config(), ExecutionConfig(n_cycles=2)).single is None


@pytest.mark.parametrize("asked", [{"timeout_s": 5.0}, {"start_method": "spawn"}])
def test_a_time_limit_or_a_start_method_asks_for_a_process(asked: dict[str, Any]) -> None:
    execution = ExecutionConfig(n_cycles=1, **asked)
    assert StudyConfig.of(scripted_config(), execution).single is None


def test_a_cold_start_is_part_of_the_hash_of_the_design(tmp_path: Path) -> None:
    asked = scripted_config(energy_backend="none").model_dump(exclude={"warmup"}, exclude_none=True)
    entry = ExperimentConfig.model_validate(asked)
    cold = StudyConfig(experiments=(entry,), cold_start=True, execution=STUDY.execution)
    for study in (STUDY, cold):
        expected = design_hash(expand(study).fingerprints, cold_start=study.cold_start)
        assert run(tmp_path, keep=False, study=study)[0].study_design_hash == expected


@pytest.mark.parametrize(("runner", "method"), [("local", "inline"), ("python", "fork")])
def test_it_runs_here_unless_a_runner_is_named(tmp_path: Path, runner: str, method: str) -> None:
    named = f"python:{sys.executable}" if runner == "python" else runner
    study, phases = run(tmp_path, named)
    (result,) = study.experiments
    assert result.resolved.start_method == method
    assert (study.ran, study.protocol) == (1, None)
    assert Path(study.located(str(study.result_files[0]))).is_file()
    assert {"load", "measure", "save"} <= set(phases)
    assert phases[0] == "Placed", "where it lies is told first"


@pytest.mark.parametrize("runner", ["local", f"python:{sys.executable}"])
def test_a_failure_there_is_the_same_error_as_here(tmp_path: Path, runner: str) -> None:
    failing = scripted_config(energy_backend="none", scripted={"fail_at": "measure"})
    with pytest.raises(ExperimentError, match=r"failed in phase 'measure': the script says to"):
        run(tmp_path, runner, study=StudyConfig.of(failing))


def test_an_interpreter_that_is_not_there_is_found_before_a_directory_is_made(
    tmp_path: Path,
) -> None:
    with pytest.raises(PreFlightError, match="/no/such/python"):
        run(tmp_path, "python:/no/such/python")
    assert not (tmp_path / "results").exists()


def test_without_a_place_nothing_is_kept(tmp_path: Path) -> None:
    study, _ = run(tmp_path, keep=False)
    assert study.result_files == (None,)
    assert not (tmp_path / "results").exists()
