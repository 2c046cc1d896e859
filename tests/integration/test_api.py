from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from llenergymeasure import (
    ExperimentConfig,
    ExperimentResult,
    StudyConfig,
    StudyResult,
    run_experiment,
    run_study,
)
from llenergymeasure.config.canonical import design_hash
from llenergymeasure.config.user_config import default_path
from llenergymeasure.exceptions import ConfigError, ExperimentError, PreFlightError
from llenergymeasure.study.grid import expand

FIELDS: dict[str, Any] = {
    "model": "none",
    "backend": "scripted",
    "n": 2,
    "max_new_tokens": 2,
    "scripted": {"ttft_ms": 1, "itl_ms": 1},
    "energy_backend": "none",
}
YAML = (
    "model: none\nbackend: scripted\nn: 2\nmax_new_tokens: 2\nenergy_backend: none\n"
    "scripted: {ttft_ms: 1, itl_ms: 1}\n"
)


@pytest.fixture(autouse=True)
def empty_home(tmp_path, monkeypatch):
    """Give every test a home, a working directory and settings of its own."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "LLEM_RESULTS_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TMPDIR", str(home))
    monkeypatch.chdir(home)
    return home


@pytest.fixture
def yaml(tmp_path):
    path = tmp_path / "experiment.yaml"
    path.write_text(YAML)
    return path


def test_an_experiment_is_given_as_a_file_a_configuration_or_fields(yaml):
    results = [
        run_experiment(yaml),
        run_experiment(str(yaml)),
        run_experiment(ExperimentConfig(**FIELDS)),
        run_experiment(**FIELDS),
    ]

    assert all(isinstance(result, ExperimentResult) for result in results)
    assert len({result.measurement_config_hash for result in results}) == 1
    assert all(result.throughput.output_tokens == 4 for result in results)


def test_by_default_nothing_is_written(empty_home):
    run_experiment(**FIELDS)

    assert [path for path in empty_home.rglob("*") if path.is_file()] == []


def test_with_a_directory_everything_is_left_there(tmp_path):
    result = run_experiment(**FIELDS, output_dir=tmp_path / "results")
    (directory,) = (tmp_path / "results").iterdir()

    assert {path.name for path in directory.iterdir()} >= {
        "config.json",
        "events.jsonl",
        "log.txt",
        "requests.parquet",
        "result.json",
        "timeseries.parquet",
    }
    assert ExperimentResult.from_json(directory) == result


def test_an_existing_directory_is_never_written_over(tmp_path):
    for _ in range(3):
        run_experiment(**FIELDS, output_dir=tmp_path / "results")

    assert len(list((tmp_path / "results").glob("*/result.json"))) == 3


def test_a_study_goes_where_the_user_says_by_default(yaml, empty_home, monkeypatch):
    monkeypatch.setenv("LLEM_RESULTS_DIR", "~/kept")
    result = run_study(yaml)

    path = result.located(*result.result_files)
    assert Path(path).parent.parent == empty_home / "kept"
    assert ExperimentResult.from_json(path) == result.experiments[0]
    assert (result.generated, result.ran, result.failed) == (1, 1, ())


def test_a_study_without_a_directory_leaves_nothing_and_has_no_paths(yaml, empty_home):
    result = run_study(StudyConfig.from_yaml(yaml), output_dir=None)

    assert isinstance(result, StudyResult)
    assert result.result_files == (None,)
    assert [path for path in empty_home.rglob("*") if path.is_file()] == []


def test_a_study_of_several_experiments_runs_each_in_a_process_of_its_own(tmp_path):
    one, two = ExperimentConfig(**FIELDS), ExperimentConfig(**{**FIELDS, "n": 3})
    once = {"n_cycles": 1, "config_gap_seconds": 0}

    study = run_study(
        StudyConfig(experiments=(one, two), execution=once), output_dir=tmp_path / "results"
    )
    assert study.ran == 2
    assert {each.resolved.start_method for each in study.experiments} == {"fork"}
    assert all(Path(study.located(path)).is_file() for path in study.result_files)


def test_the_name_and_the_design_of_a_study_are_in_its_result():
    once = {"n_cycles": 1}
    study = StudyConfig(name="mine", experiments=(ExperimentConfig(**FIELDS),), execution=once)
    result = run_study(study, output_dir=None)

    expected = design_hash(expand(study).fingerprints)
    assert (result.name, result.study_design_hash) == ("mine", expected)


def test_a_configuration_and_fields_together_are_refused():
    with pytest.raises(TypeError, match="not both"):
        run_experiment(ExperimentConfig(**FIELDS), n=3)  # type: ignore[call-overload]


def test_fields_in_a_mapping_are_answered_with_the_way_to_give_them():
    with pytest.raises(TypeError, match=r"run_experiment\(\*\*fields\)"):
        run_experiment({"model": "m"})
    with pytest.raises(TypeError, match=r"StudyConfig\(\*\*fields\); it was given dict"):
        run_study({"model": "m"})


def test_wrong_fields_are_a_validation_error_and_a_wrong_file_a_config_error(tmp_path):
    with pytest.raises(ValidationError, match="did you mean 'precision'"):
        run_experiment(**FIELDS, precison="fp16")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("model: m\nprecison: fp16\n")
    for run in (run_experiment, run_study):
        with pytest.raises(ConfigError, match=r"wrong\.yaml, line 2: .*did you mean 'precision'"):
            run(wrong)
    with pytest.raises(ConfigError, match="cannot read"):
        run_experiment(tmp_path / "absent.yaml")


def test_what_this_machine_cannot_do_is_said_before_a_directory_is_made(tmp_path):
    with pytest.raises(PreFlightError, match=r"absent\.jsonl"):
        run_experiment(**{**FIELDS, "dataset": "absent.jsonl"}, output_dir=tmp_path / "results")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("phase", ["load", "warmup", "measure"])
def test_an_experiment_that_breaks_says_in_which_phase_with_its_configuration(tmp_path, phase):
    fields = {**FIELDS, "scripted": {"ttft_ms": 0, "itl_ms": 0, "fail_at": phase}}

    with pytest.raises(ExperimentError, match=f"phase '{phase}'") as caught:
        run_experiment(**fields, output_dir=tmp_path / "results")

    assert caught.value.where == phase
    assert caught.value.cause == "backend"
    assert caught.value.config is not None
    assert ExperimentConfig.model_validate(caught.value.config) == ExperimentConfig(**fields)
    (directory,) = (tmp_path / "results").iterdir()
    assert (directory / "error.json").is_file()
    assert not (directory / "result.json").exists()


def test_settings_of_the_user_reach_the_result(monkeypatch):
    monkeypatch.setenv("LLEM_CARBON_INTENSITY", "321")
    monkeypatch.setenv("LLEM_DATACENTER_PUE", "1.3")
    result = run_experiment(**FIELDS)

    assert result.environment.carbon_intensity_gco2_kwh == 321
    assert result.environment.carbon_intensity_source == "$LLEM_CARBON_INTENSITY"
    assert result.environment.datacenter_pue == 1.3
    assert result.co2_estimate.co2_grams is None, "no energy, so no emissions"


def test_a_source_that_the_user_configuration_names_is_said_to_come_from_there(empty_home):
    file = default_path()
    file.parent.mkdir(parents=True)
    file.write_text("measurement: {energy_backend: none}")
    auto = {name: value for name, value in FIELDS.items() if name != "energy_backend"}

    said = run_experiment(**auto).summary()

    assert "measurement.energy_backend: none of the user configuration" in " ".join(said.split())


def test_relative_paths_of_a_file_do_not_depend_on_the_working_directory(tmp_path):
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "one two"}\n{"prompt": "three"}\n')
    path = tmp_path / "experiment.yaml"
    path.write_text(YAML + "dataset: prompts.jsonl\n")

    assert run_experiment(path).throughput.input_tokens == 3
