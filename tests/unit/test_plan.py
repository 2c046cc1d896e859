from __future__ import annotations

import json
import sys

import pytest

from llenergymeasure.cli import plan
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.user_config import load_settings
from llenergymeasure.exceptions import PreFlightError
from llenergymeasure.orchestration.order import WorkOrder
from tests.support.scripted_run import scripted_config


@pytest.fixture
def show(tmp_path, capsys):
    def run(config: ExperimentConfig, *, as_json: bool = False, **flags: object) -> str:
        dotted = {name.replace("__", "."): value for name, value in flags.items()}
        settings = load_settings(tmp_path / "absent.yaml", {}, dotted)
        plan.show(WorkOrder.of(config, settings), settings, as_json=as_json)
        return capsys.readouterr().out

    return run


def random_model(**fields: object) -> ExperimentConfig:
    device = {"pytorch": {"device": "cpu"}}
    return ExperimentConfig(model="random:tiny-llama", **{**device, **fields})


def test_the_plan_says_what_where_and_for_how_long(show):
    config = random_model(n=7, window={"min_duration_seconds": 20}, precision="fp32")
    text = show(config, output__results_dir="/somewhere")

    assert "random:tiny-llama on pytorch, fp32" in text
    assert "7 of mixed-1k" in text
    assert "at least 20 s, and one whole pass" in text
    assert "60 s of baseline and 60 s of warm-up" in text
    assert "results in  /somewhere" in text
    assert config.fingerprint() in text


def test_memory_is_estimated_and_held_against_the_machine(show):
    small = json.loads(show(random_model(), as_json=True))["memory"]
    large = json.loads(show(random_model(pytorch={"device": "cpu", "batch_size": 8}), as_json=True))

    assert small["total_mb"] == pytest.approx(
        small["weights_mb"] + small["kv_cache_mb"] + small["activations_mb"], abs=0.2
    )
    assert small["fits"] is True
    assert small["device"] == "this machine's RAM"
    assert large["memory"]["kv_cache_mb"] > small["kv_cache_mb"]
    assert large["memory"]["rows"] == 8


def test_a_model_that_does_not_fit_is_said_not_to(show):
    text = show(
        ExperimentConfig(
            model="random:llama-3.1-8b",
            precision="fp32",
            max_new_tokens=100_000,
            n=1000,
            pytorch={"device": "cpu", "batch_size": 1000},
        )
    )

    assert "DOES NOT FIT" in text


def test_memory_is_unknown_where_the_shape_of_the_model_is(show):
    text = show(scripted_config())

    assert "memory      unknown: the model's config.json is not on this machine yet" in text


def test_a_synthetic_dataset_and_a_baseline_that_is_off_are_shown(show):
    config = scripted_config(
        n=5, max_new_tokens=8, dataset={"synthetic": {"n": 5, "output_len": 8}},
        baseline={"enabled": False},
    )  # fmt: skip
    text = show(config)

    assert "5 of synthetic" in text
    assert "0 s of baseline" in text


def test_problems_come_after_the_plan(show, capsys):
    with pytest.raises(PreFlightError, match=r"absent\.jsonl"):
        show(scripted_config(dataset="absent.jsonl"))

    assert "plan        none on scripted" in capsys.readouterr().out


def test_with_json_problems_leave_standard_output_to_the_error(show, capsys):
    with pytest.raises(PreFlightError):
        show(scripted_config(dataset="absent.jsonl"), as_json=True)

    assert capsys.readouterr().out == ""


def test_a_plan_for_a_container_is_not_held_against_what_is_installed_here(show):
    config = ExperimentConfig(model="random:tiny-llama", backend="tensorrt")
    assert "runner      docker:x" in show(config, runners__tensorrt="docker:x")


def test_the_plan_as_json_holds_the_experiment(show):
    config = scripted_config()
    found = json.loads(show(config, as_json=True))

    assert found["experiment"]["model"] == "none"
    assert found["measurement_config_hash"] == config.fingerprint()
    assert found["energy_backend"] == "auto"
    assert found["runner"] == "local"
    assert found["duration"] == {
        "baseline_s": 0.04,
        "thermal_floor_s": 0.0,
        "window_at_least_s": 0.0,
    }


def test_a_plan_needs_neither_the_network_nor_an_engine(show):
    def refuse(event: str, _: object) -> None:
        if active and event == "socket.connect":
            raise AssertionError("a plan asked the network")

    active = [True]
    sys.addaudithook(refuse)  # stays for the process, and does nothing once the list is empty
    try:
        show(scripted_config())
        show(random_model())
    finally:
        active.clear()
