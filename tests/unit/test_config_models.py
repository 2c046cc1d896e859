from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from llenergymeasure.config import backend_configs, models
from llenergymeasure.config.models import ExperimentConfig, StudyConfig, SyntheticDataset
from llenergymeasure.exceptions import ConfigError
from llenergymeasure.study.grid import expand
from tests.support.plugins import installed_plugin

SECTIONS = [
    value
    for module in (models, backend_configs)
    for value in vars(module).values()
    if isinstance(value, type) and issubclass(value, BaseModel)
]


def errors_of(**fields: Any) -> dict[str, str]:
    """Build an experiment that must be refused; give field to message."""
    with pytest.raises(ValidationError) as caught:
        ExperimentConfig(**{"model": "org/model", **fields})
    return {".".join(map(str, line["loc"])): line["msg"] for line in caught.value.errors()}


def write(folder: Path, text: str) -> Path:
    path = folder / "experiment.yaml"
    path.write_text(text)
    return path


def test_only_the_model_is_required():
    config = ExperimentConfig(model="org/model")

    assert config.backend == "pytorch"
    assert config.precision == "bf16"
    assert config.dataset == "mixed-1k"
    assert (config.n, config.max_input_tokens, config.max_new_tokens) == (None, 512, 128)
    assert config.random_seed == 42
    assert (config.revision, config.trust_remote_code, config.apply_chat_template) == (
        None,
        False,
        False,
    )
    assert config.decoder.decoding_strategy == "greedy"
    assert (config.warmup.n_warmup, config.warmup.thermal_floor_seconds) == (3, 60)
    assert (config.baseline.enabled, config.baseline.duration_seconds) == (True, 30)
    assert (config.window.min_duration_seconds, config.window.phases) == (0, "amortised")
    assert config.energy_backend == "auto"
    assert (config.lora, config.passthrough_kwargs) == (None, None)
    assert "model" in errors_of(model="")


@pytest.mark.parametrize("section", ["pytorch", "vllm", "tensorrt"])
def test_every_setting_of_an_engine_is_left_to_the_engine_by_default(section):
    model = ExperimentConfig.model_fields[section].annotation.__args__[0]

    assert set(model().model_dump().values()) == {None}


@pytest.mark.parametrize("model", SECTIONS, ids=lambda model: model.__name__)
def test_every_field_has_a_description(model):
    assert [name for name, field in model.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", True),
        ("n", "10"),
        ("n", 10.0),
        ("n", 0),
        ("max_new_tokens", 0),
        ("max_input_tokens", -1),
        ("random_seed", -1),
        ("random_seed", 2**32),
        ("trust_remote_code", "yes"),
        ("trust_remote_code", 1),
        ("precision", "fp7"),
        ("energy_backend", "meter"),
        ("model", 7),
        ("model", None),
        ("dataset", 7),
        ("warmup", {"n_warmup": -1}),
        ("warmup", {"thermal_floor_seconds": float("inf")}),
        ("baseline", {"duration_seconds": 0}),
        ("window", {"phases": "both"}),
        ("decoder", {"top_p": 1.5}),
        ("decoder", {"temperature": 0}),
        ("decoder", {"num_beams": 1}),
        ("pytorch", {"device": "tpu"}),
        ("vllm", {"gpu_memory_utilization": 1.2}),
        ("tensorrt", {"free_gpu_memory_fraction": 1.2}),
        ("scripted", {"fail_at": "never"}),
        ("passthrough_kwargs", {"hook": object()}),
        ("passthrough_kwargs", {"share": float("nan")}),
    ],
)
def test_a_value_of_the_wrong_type_or_range_is_refused_under_its_own_name(field, value):
    assert any(loc.split(".")[0] == field for loc in errors_of(**{field: value}))


def test_seconds_may_be_whole_numbers():
    config = ExperimentConfig(model="m", window={"min_duration_seconds": 5})

    assert config.window.min_duration_seconds == 5.0


def test_an_unknown_field_is_answered_with_the_nearest_name():
    assert errors_of(precison="fp16") == {
        "precison": "unknown field 'precison', did you mean 'precision'?"
    }
    assert "did you mean 'batch_size'?" in errors_of(pytorch={"batchsize": 4})["pytorch.batchsize"]
    assert "valid names: n_warmup" in errors_of(warmup={"zzz": 1})["warmup.zzz"]


def test_every_problem_is_reported_at_once():
    found = errors_of(n="x", precision="fp7", decoder={"tmperature": 1}, colour="red")

    assert set(found) == {"n", "precision", "decoder.tmperature", "colour"}


def test_a_refused_value_is_never_echoed():
    with pytest.raises(ValidationError) as caught:
        ExperimentConfig(model="m", precision="sesame", n="open", backend="pytorch")

    assert "sesame" not in str(caught.value)
    assert "open" not in str(caught.value)
    assert "input_value" not in str(caught.value)


def test_a_configuration_cannot_be_changed():
    config = ExperimentConfig(model="m", pytorch={"batch_size": 4})

    with pytest.raises(ValidationError):
        config.n = 5  # type: ignore[misc]
    with pytest.raises(ValidationError):
        config.pytorch.batch_size = 8  # type: ignore[misc,union-attr]


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "hf_" + "a1B2c3" * 6},
        {"passthrough_kwargs": {"token": "anything"}},
        {"passthrough_kwargs": {"deep": [{"api_key": "anything"}]}},
        {"lora": {"adapter_id": "sk-proj-" + "a1B2c3d4" * 5}},
        {"pytorch": {"device_map": "ghp_" + "a1B2c3" * 6}},
    ],
)
def test_a_credential_is_refused_and_never_echoed(fields):
    with pytest.raises(ValidationError) as caught:
        ExperimentConfig(**{"model": "m", **fields})

    assert "looks like a credential" in str(caught.value)
    assert "HF_TOKEN" in str(caught.value)
    assert "a1B2c3" not in str(caught.value)
    assert "anything" not in str(caught.value)


def test_a_credential_in_the_place_of_a_name_is_hidden_too():
    with pytest.raises(ValidationError) as caught:
        ExperimentConfig(model="m", **{"hf_" + "a1B2c3" * 6: True})

    assert "a1B2c3" not in str(caught.value)


def test_a_study_named_like_a_credential_is_refused():
    with pytest.raises(ValidationError, match="looks like a credential"):
        StudyConfig(name="hf_" + "a1B2c3" * 6, experiments=(ExperimentConfig(model="m"),))


def test_a_synthetic_dataset_decides_the_counts_that_are_not_given():
    shape = {"n": 7, "input_len": 900, "output_len": 33}
    config = ExperimentConfig(model="m", dataset={"synthetic": shape})

    assert (config.n, config.max_input_tokens, config.max_new_tokens) == (7, None, 33)
    assert config.ignores_eos


def test_a_synthetic_dataset_given_as_an_object_decides_the_same():
    dataset = SyntheticDataset.model_validate({"synthetic": {"n": 7, "output_len": 33}})

    assert ExperimentConfig(model="m", dataset=dataset) == ExperimentConfig(
        model="m", dataset={"synthetic": {"n": 7, "output_len": 33}}
    )


def test_counts_given_beside_a_synthetic_dataset_stand():
    assert ExperimentConfig(model="m", n=3, dataset={"synthetic": {"n": 7}}).n == 3


@pytest.mark.parametrize("given", [{}, {"adapter_id": "a/b", "adapter_path": "/x"}])
def test_a_lora_adapter_has_exactly_one_origin(given):
    assert "exactly one of adapter_id and adapter_path" in errors_of(lora=given)["lora"]


def test_the_section_of_the_backend_is_there_even_when_not_given():
    assert ExperimentConfig(model="m", backend="vllm").section == backend_configs.VLLMConfig()


def test_an_unknown_backend_is_answered_with_the_nearest_name_and_the_hint_of_a_package():
    message = errors_of(backend="pytorhc")["backend"]

    assert "did you mean 'pytorch'?" in message
    assert "needs that package installed here" in message


def test_the_section_of_a_plugin_backend_is_validated_by_the_plugin(tmp_path):
    with installed_plugin(tmp_path):
        config = ExperimentConfig(model="m", backend="echo-engine", **{"echo-engine": {"speed": 3}})

        assert config.section.model_dump() == {"speed": 3}
        found = errors_of(backend="echo-engine", **{"echo-engine": {"sped": 3}})
        assert any("did you mean 'speed'?" in message for message in found.values())
        assert any(loc.startswith("echo-engine") for loc in found)
        assert ExperimentConfig.model_validate_json(config.model_dump_json()) == config


def test_an_empty_section_of_a_plugin_backend_does_not_change_the_hash(tmp_path):
    with installed_plugin(tmp_path):
        plain = ExperimentConfig(model="m", backend="echo-engine").fingerprint()

        for section in (None, {}, {"speed": None}):
            fields = {"backend": "echo-engine", "echo-engine": section}
            assert ExperimentConfig(model="m", **fields).fingerprint() == plain


def test_the_section_of_a_plugin_that_is_not_chosen_is_refused(tmp_path):
    with installed_plugin(tmp_path):
        assert "does not apply" in errors_of(**{"echo-engine": {"speed": 3}})["echo-engine"]


def test_a_section_of_no_backend_is_refused():
    assert "unknown field" in errors_of(**{"echo-engine": {"speed": 3}})["echo-engine"]


def test_an_experiment_of_a_missing_plugin_says_which_backend_is_missing(tmp_path):
    with installed_plugin(tmp_path):
        stored = ExperimentConfig(model="m", backend="echo-engine").model_dump_json()

    with pytest.raises(ValidationError, match=r"unknown backend 'echo-engine'.*package installed"):
        ExperimentConfig.model_validate_json(stored)


# Files --------------------------------------------------------------------------------------------


def test_a_file_error_names_file_line_and_field(tmp_path):
    path = write(tmp_path, "model: m\nprecision: fp7\ndecoder:\n  temperature: 0.5\n")

    with pytest.raises(ConfigError) as caught:
        ExperimentConfig.from_yaml(path)

    assert caught.value.message.startswith(f"{path}, line 2: precision: ")
    assert caught.value.where == f"{path}, line 2"


def test_a_contradiction_names_its_own_line(tmp_path):
    path = write(tmp_path, "model: m\ndecoder:\n  temperature: 0.5\n")

    with pytest.raises(ConfigError, match=r"line 3: decoder\.temperature: has no effect"):
        ExperimentConfig.from_yaml(str(path))


def test_a_study_read_from_a_single_experiment_names_the_lines_of_the_file(tmp_path):
    path = write(tmp_path, "model: m\nn: many\n")

    with pytest.raises(ConfigError, match="line 2: n: "):
        StudyConfig.from_yaml(path)


def test_a_study_of_experiments_names_the_line_inside_the_list(tmp_path):
    path = write(tmp_path, "experiments:\n  - model: m\n  - model: m\n    n: many\n")

    with pytest.raises(ConfigError, match=r"line 4: experiments\.1\.n: "):
        StudyConfig.from_yaml(path)


def test_a_study_reads_experiments_or_a_single_one(tmp_path):
    single = StudyConfig.from_yaml(write(tmp_path, "model: m\n"))
    several = StudyConfig.from_yaml(write(tmp_path, "name: s\nexperiments: [{model: m}]\n"))

    assert expand(single).experiments == expand(several).experiments
    assert several.name == "s"
    assert (single.execution.n_cycles, several.execution.n_cycles) == (1, 3)


def test_a_study_name_is_fit_for_a_directory():
    with pytest.raises(ValidationError):
        StudyConfig(name="../up", experiments=(ExperimentConfig(model="m"),))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "prompts.jsonl").write_text("")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    (tmp_path / "adapter").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("yaml", "field", "expected"),
    [
        ("model: m\ndataset: prompts.jsonl", "dataset", "{}/prompts.jsonl"),
        ("model: ./model", "model", "{}/model"),
        ("model: model", "model", "{}/model"),
        ("model: random:model", "model", "random:{}/model"),
        ("model: random:./model", "model", "random:{}/model"),
        ("model: m\nlora: {adapter_path: adapter}", "lora.adapter_path", "{}/adapter"),
        ("model: org/model", "model", "org/model"),
        ("model: m\ndataset: other.jsonl", "dataset", "other.jsonl"),
        ("model: m\ndataset: mixed-1k", "dataset", "mixed-1k"),
        ("model: m\nrevision: adapter", "revision", "adapter"),
    ],
)
def test_a_relative_path_in_a_file_is_taken_from_its_folder(folder, yaml, field, expected):
    value: Any = ExperimentConfig.from_yaml(write(folder, yaml + "\n"))
    for part in field.split("."):
        value = getattr(value, part)

    assert value == expected.format(folder.resolve())


@pytest.mark.parametrize(
    "yaml", ["backend: [pytorch]", "sweep: {n: [1, 2]}", "execution: {n_cycles: 3}"]
)
def test_a_study_is_not_taken_for_a_misspelt_experiment(folder, yaml):
    with pytest.raises(ConfigError, match="describes a study of several experiments") as caught:
        ExperimentConfig.from_yaml(write(folder, f"model: m\n{yaml}\n"))

    assert "run_study" in caught.value.message
    assert "StudyConfig.from_yaml" in caught.value.message


def test_a_folder_that_shares_the_name_of_a_dataset_or_architecture_is_no_path(folder):
    (folder / "mixed-1k").mkdir()
    (folder / "tiny-llama").mkdir()
    config = ExperimentConfig.from_yaml(write(folder, "model: random:tiny-llama\n"))

    assert (config.model, config.dataset) == ("random:tiny-llama", "mixed-1k")
    again = ExperimentConfig.from_yaml(write(folder, "model: m\ndataset: mixed-1k\n"))
    assert again.dataset == "mixed-1k"


def test_paths_of_the_experiments_of_a_study_are_anchored_too(folder):
    path = write(folder, "experiments: [{model: model, dataset: prompts.jsonl}]\n")
    (experiment,) = expand(StudyConfig.from_yaml(path)).experiments

    assert experiment.model == str(folder.resolve() / "model")
    assert experiment.dataset == str(folder.resolve() / "prompts.jsonl")
