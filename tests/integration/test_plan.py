"""The plan of one experiment: what runs where, for how long, and whether it fits."""

from __future__ import annotations

import json
import sys

import pytest

from llenergymeasure.cli.commands.run import show_plan
from llenergymeasure.config.models import ExperimentConfig, StudyConfig
from llenergymeasure.config.user_config import load_settings
from llenergymeasure.core.allowance import Allowance
from llenergymeasure.core.models import catalogue
from llenergymeasure.core.models.architecture import ModelArchitecture
from llenergymeasure.domain.environment import GPUInfo
from llenergymeasure.exceptions import PreFlightError
from llenergymeasure.study.forecast import memory_plan, this_machine
from tests.support.scripted_run import scripted_config


@pytest.fixture
def show(tmp_path, capsys):
    def run(config: ExperimentConfig, *, as_json: bool = False, **flags: object) -> str:
        dotted = {name.replace("__", "."): value for name, value in flags.items()}
        settings = load_settings(tmp_path / "absent.yaml", {}, dotted)
        show_plan(StudyConfig.of(config), settings, as_json=as_json)
        return capsys.readouterr().out

    return run


_ALL = tuple(
    GPUInfo(index=index, uuid=f"GPU-{index}", name=name, memory_mb=memory_mb)
    for index, (name, memory_mb) in enumerate(
        [("small", 4_000.0), ("large", 80_000.0), ("large", 80_000.0)]
    )
)
GPUS, LARGE = _ALL[:2], _ALL[1:]
LLAMA_8B = ModelArchitecture.from_config(catalogue.config("llama-3.1-8b"))  # 15 GB in bf16
TINY = ModelArchitecture.from_config(catalogue.config("tiny-llama"))


def memory(gpus=GPUS, environ=None, **pytorch: object) -> dict[str, object]:
    config = ExperimentConfig(model="random:llama-3.1-8b", n=10, pytorch=pytorch)
    return memory_plan(config, LLAMA_8B, gpus, environ or {})


def random_model(**fields: object) -> ExperimentConfig:
    device = {"pytorch": {"device": "cpu"}}
    return ExperimentConfig(model="random:tiny-llama", **{**device, **fields})


def test_the_plan_says_what_where_and_for_how_long(show):
    config = random_model(n=7, window={"min_duration_seconds": 20}, precision="fp32")
    text = show(config, output__results_dir="/somewhere")

    assert "random:tiny-llama on pytorch, fp32" in text
    assert "7 of mixed-1k" in text
    assert "duration    about " in text
    assert "a rough estimate" in text
    assert "window      one whole pass, and at least 20 s" in text
    assert "energy      codecarbon (auto: " in text, "the source that auto takes, and why"
    assert "baseline" not in text, "nothing of it is measured"
    assert "results in  /somewhere" in text
    assert config.fingerprint() in text


def test_memory_is_estimated_and_held_against_the_machine(show):
    small = json.loads(show(random_model(), as_json=True))["memory"]
    large = json.loads(show(random_model(pytorch={"device": "cpu", "batch_size": 8}), as_json=True))

    assert small["total_mb"] == pytest.approx(
        sum(small[f"{part}_mb"] for part in ("weights", "kv_cache", "activations", "engine")),
        abs=0.3,
    )
    assert small["fits"] is True
    assert small["device"] == "this machine's RAM"
    assert large["memory"]["kv_cache_mb"] > small["kv_cache_mb"]
    assert large["memory"]["rows"] == 8


def test_memory_is_held_against_what_a_container_or_a_job_is_allowed():
    limit = "memory.max of the control group /job"
    config = random_model()
    for allowed_mb, fits in ((600.0, True), (300.0, False)):
        allowed = Allowance(allowed_mb, limit, cpus=8, cpu_quota=None)
        found = memory_plan(config, TINY, (), allowed=allowed)
        assert (found["capacity_mb"], found["fits"]) == (allowed_mb, fits)
        assert found["device"] == f"this process, limited by {limit},"


def test_a_model_that_does_not_fit_is_said_not_to(show):
    text = show(
        ExperimentConfig(
            model="random:llama-3.2-1b",
            precision="fp32",
            max_new_tokens=100_000,
            n=1000,
            pytorch={"device": "cpu", "batch_size": 1000},
        )
    )

    assert "DOES NOT FIT" in text


def test_memory_is_unknown_where_the_shape_of_the_model_is(show):
    text = show(scripted_config())

    assert "memory      unknown: the scripted backend loads no model" in text


def test_a_misspelt_architecture_is_not_said_to_be_missing(show, capsys):
    with pytest.raises(PreFlightError, match="tiny-lama"):
        show(ExperimentConfig(model="random:tiny-lama"))

    text = capsys.readouterr().out
    assert "memory      unknown: unknown architecture 'tiny-lama'" in text
    assert "not on this machine" not in text


def test_processes_on_a_cpu_each_need_a_copy():
    one, two = memory((), device="cpu"), memory((), device="cpu", num_processes=2)

    assert two["copies"] == 2
    assert two["total_mb"] == pytest.approx(2 * one["total_mb"], abs=0.2)
    assert two["weights_mb"] == one["weights_mb"]


def test_the_device_that_is_named_decides_whether_a_model_fits():
    assert memory(device="cuda:0")["fits"] is False
    assert memory(device="cuda:1")["fits"] is True
    assert memory(device="cuda:1")["device"] == "large"
    assert memory(device="cuda:1")["capacity_mb"] == 80_000
    assert memory(device="cuda:7")["fits"] is None, "that is a problem of its own"


def test_processes_on_gpus_each_need_one_that_fits():
    found = memory(num_processes=2)

    assert found["fits"] is False, "the small one does not hold its copy"
    assert found["capacity_mb"] == 84_000
    assert memory(LARGE, num_processes=2)["device"] == "2 x large"


def test_layers_that_are_spread_are_held_against_the_sum_of_the_gpus():
    found = memory(device_map="auto")

    assert found["fits"] is True
    assert found["capacity_mb"] == 84_000
    assert memory(GPUS[:1], device_map="auto")["fits"] is False


def test_gpus_that_are_hidden_do_not_count():
    assert memory(environ={"CUDA_VISIBLE_DEVICES": "GPU-1"})["device"] == "large"


def test_every_shard_has_to_fit_its_gpu():
    config = ExperimentConfig(
        model="random:llama-3.1-8b", backend="vllm", n=1, vllm={"tensor_parallel_size": 2}
    )
    found = memory_plan(config, LLAMA_8B, GPUS, {})

    assert found["fits"] is False, "half of it is more than the small one has"
    assert memory_plan(config, LLAMA_8B, LARGE, {})["fits"] is True


def test_a_synthetic_dataset_is_shown(show):
    config = scripted_config(
        n=5,
        max_new_tokens=8,
        dataset={"synthetic": {"n": 5, "output_len": 8}},
    )
    text = show(config)

    assert "5 of synthetic" in text


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
    assert found["energy_source"]["name"] == "codecarbon"
    assert found["runner"] == "local"
    assert found["duration"] == {
        "total_s": pytest.approx(0.5, abs=0.2),
        "baseline_s": 0.0,
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


def test_whether_torch_uses_gpus_is_told_as_torch_tells_it() -> None:
    import torch

    assert this_machine().torch_uses_gpus is torch.backends.cuda.is_built()


def test_an_unknown_model_type_is_said_to_be_estimated(show, tmp_path):
    shape = {**catalogue.config("tiny-llama"), "model_type": "biogpt"}
    (tmp_path / "config.json").write_text(json.dumps(shape))
    config = ExperimentConfig(model=f"random:{tmp_path}", pytorch={"device": "cpu"})

    assert "estimated from an unknown model type: model type 'biogpt'" in show(config)
    assert "biogpt" in json.loads(show(config, as_json=True))["memory"]["doubt"]
    assert "unknown model type" not in show(random_model())
