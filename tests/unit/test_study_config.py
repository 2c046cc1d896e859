from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from llenergymeasure.config.canonical import design_hash
from llenergymeasure.config.loader import load_experiment_config, load_study_config
from llenergymeasure.config.models import ExecutionConfig, ExperimentConfig, StudyConfig
from llenergymeasure.config.user_config import UserConfig
from llenergymeasure.exceptions import ConfigError, StudyError
from llenergymeasure.study.grid import expand
from llenergymeasure.study.prepare import new_plan
from tests.support.study_files import is_study

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path) -> Write:
    def make(text: str, name: str = "study.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return make


def refused(path: Path, overrides: dict[str, Any] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_study_config(path, overrides)
    return caught.value.message


# What makes a study ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "sweep: {n: [1]}",
        "experiments: [{n: 1}]",
        "execution: {}",
        "cold_start: true",
        "backend: [scripted]",
    ],
)
def test_a_file_is_a_study_by_what_it_holds(write, line):
    assert is_study(write(f"model: m\n{line}\n"))
    assert not is_study(write("model: m\nbackend: scripted\n"))


def test_a_base_that_is_a_study_makes_a_study_and_one_that_is_none_does_not(write):
    write("model: m\nsweep: {n: [1]}\n", "study_base.yaml")
    write("model: m\nn: 3\n", "plain_base.yaml")

    assert is_study(write("base: study_base.yaml\n"))
    path = write("base: plain_base.yaml\n")
    assert not is_study(path)
    assert load_experiment_config(path).n == 3
    assert ExperimentConfig.from_yaml(path).n == 3


def test_a_single_experiment_is_a_study_that_runs_once_and_a_study_three_times(write):
    assert load_study_config(write("model: m\n")).execution.n_cycles == 1
    assert load_study_config(write("model: m\nexecution: {}\n")).execution.n_cycles == 3
    assert load_study_config(write("model: m\nexecution: {}\n")).execution.cycle_order == "balanced"


def test_a_study_survives_a_round_trip_through_json(write):
    study = load_study_config(
        write(
            "name: s\nmodel: m\nbackend: [pytorch, vllm]\nsweep:\n  pytorch.batch_size: [1, 2]\n"
            "experiments: [{n: 7}]\nexecution: {seed: 3}\n"
        )
    )
    again = StudyConfig.model_validate_json(study.model_dump_json())

    assert expand(again) == expand(study)
    assert again.execution == study.execution


# Bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("sweep: {precison: [bf16]}", "line 2: sweep.precison: unknown field 'precison', did you"),
        (
            "sweep:\n  pytorch.batchsize: [1]",
            "line 3: sweep.pytorch.batchsize: unknown field 'batchsize', did you mean 'batch_size",
        ),
        (
            "sweep:\n  vllm.max_num_seqs: [1]\nbackend: pytorch",
            "line 3: sweep.vllm.max_num_seqs: backend vllm is not listed; remove the line or set "
            "backend: [pytorch, vllm]",
        ),
        ("sweep: {n: []}", "line 2: sweep.n: is an empty list; give at least one value"),
        ("sweep: {n: 5}", "line 2: sweep.n: must be a list of values; write [5] for one"),
        (
            "sweep: {decoder: {top_k: [5]}}",
            "sweep.decoder: must be a list; a field inside it is swept as 'decoder.top_k'",
        ),
        ("sweep: {n: [1, two, 0]}", "sweep.n: value 2: must be a whole number"),
        ("sweep: {n: [1, two, 0]}", "sweep.n: value 3: must be 1 or more"),
        ("sweep: [n]", "line 2: sweep: must be a section"),
        ("sweep: {backend: [vllm]}", "several backends are named outside the sweep"),
        ("sweep: {warmup.n_warmup: [1]}\ncold_start: true", "has no effect with cold_start: true"),
        (
            "cold_start: true\nwarmup: {n_warmup: 2}",
            "line 3: warmup: has no effect with cold_start: true",
        ),
        (
            "cold_start: true\nexperiments: [{warmup: {n_warmup: 2}}]",
            "experiments.0.warmup: has no effect with cold_start: true",
        ),
        ("experiments: []", "line 2: experiments: is empty; fill it in, or remove the line"),
        ("sweep: {}", "line 2: sweep: is empty; fill it in, or remove the line"),
        ("experiments: [{}]\nn: many", "line 3: n: must be a whole number"),
        ("experiments: [{nn: 1}]", "experiments.0.nn: unknown field 'nn'"),
        ("experiments: [5]", "experiments.0: must be a section"),
        ("experiments: 5", "experiments: must be a list"),
        ("execution: {cycles: 3}", "execution.cycles: unknown field 'cycles', did you mean"),
        ("execution: {cycle_order: random}", "execution.cycle_order: must be 'balanced'"),
        ("execution: {n_cycles: 0}", "execution.n_cycles: must be 1 or more"),
        ("backend: []", "backend: is an empty list"),
        ("backend: [pytorch, vlm]", "unknown backend 'vlm', did you mean 'vllm'? (a backend"),
        ("backend: [pytorch, pytorch]", "backend: names a backend twice"),
        ("backend: [7]", "backend: must be the name of a backend, or a list of names"),
        (
            "backend: [pytorch, vllm]\npassthrough_kwargs: {a: 1}",
            "passthrough_kwargs: is handed to one engine's constructor",
        ),
        (
            "backend: [pytorch, vllm]\ntensorrt: {tp_size: 2}",
            "line 3: tensorrt: does not apply to backend: pytorch, vllm; remove the line",
        ),
        ("swep: {n: [1]}\nexecution: {}", "line 2: swep: unknown field 'swep', did you mean 'sw"),
        ("name: ../up\nexecution: {}", "line 2: name: is also the name of a directory"),
        ("name: a\\b\nexecution: {}", "line 2: name: is also the name of a directory"),
        (f"name: {'x' * 300}\nexecution: {{}}", "line 2: name: must have at most 100 character"),
    ],
)
def test_a_wrong_design_is_refused_with_its_line_and_field(write, yaml, message):
    assert message in refused(write(f"model: m\n{yaml}\n"))


NAMES = ", ".join(f"key{number}: [1, 2]" for number in range(9_000))
SEEDS = ", ".join(map(str, range(1_000)))


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        (f"sweep: {{{NAMES}}}", "sweep: asks for about 10^2709 combinations, and a study has at"),
        (
            f"sweep: {{random_seed: [{SEEDS}], n: [{SEEDS}], warmup.n_warmup: [{SEEDS}]}}",
            "sweep: asks for 1,000,000,000 combinations, and a study has at most 10,000,000; sho",
        ),
        (
            f"sweep: {{precision: [{'x, ' * 50_000}]}}",
            "sweep.precision: must be 'fp32', 'fp16', 'bf16', 'int8', 'fp8' or 'int4'",
        ),
        (
            f"sweep: {{precision: [fp32, {'x, ' * 50_000}]}}",
            "sweep.precision: value 2, 3, 4, 5, 6, ...: must be 'fp32', 'fp16', 'bf16', 'int8'",
        ),
        (
            f"sweep:\n  ? {'.'.join('a' * 5_000)}\n  : [1]",
            f"sweep.{'a.' * 39}a…: names a field more than 50 levels deep",
        ),
        (f"experiments: [{'{}, ' * 100_000}]", "experiments: has more than 20,000 entries"),
        (f"experiments: [{'x, ' * 15_000}]", "15,000 problems:"),
        (f"experiments: [{'{x: 1}, ' * 15_000}]", "at least 200 problems:"),
    ],
)
def test_a_design_without_measure_gets_a_short_answer_at_once(write, yaml, message):
    begun_s = time.process_time()
    said = refused(write(f"model: m\n{yaml}\n"))

    assert time.process_time() - begun_s < 5, "it takes a second at most on a quiet machine"
    assert message in said
    assert len(said) < 4_000


def test_cycles_that_no_plan_has_room_for_are_refused():
    study = StudyConfig(
        model="m", sweep={"random_seed": list(range(100))}, execution={"n_cycles": 100_000}
    )

    with pytest.raises(StudyError, match="are 10,000,000 experiments; a study has at most 2,000,"):
        new_plan(study, UserConfig())


@pytest.mark.parametrize(
    "fields",
    [
        *[{"n": 10**400}, {"max_new_tokens": 10**10}, {"decoder": {"min_new_tokens": 2**64}}],
        *[{"warmup": {"n_warmup": 10**10}}, {"window": {"min_duration_seconds": 1e308}}],
        *[{"baseline": {"duration_seconds": 1e300}}, {"pytorch": {"batch_size": 10**30}}],
        *[{"scripted": {"ttft_ms": 1e308}}, {"dataset": {"synthetic": {"input_len": 10**12}}}],
        *[{"execution": {"timeout_s": 1e12}}, {"execution": {"cycle_gap_seconds": 1e308}}],
    ],
)
def test_no_number_is_so_large_that_a_plan_of_it_overflows(fields):
    with pytest.raises(ValidationError, match=r"(than or equal to|must be) 1000000000"):
        StudyConfig.model_validate({"model": "m", **fields})


def test_a_study_without_a_model_is_refused(write):
    for rest in ("sweep: {n: [1]}", "experiments: [{n: 1}]", "execution: {}"):
        assert "model: this field is required" in refused(write(f"{rest}\n"))
    assert load_study_config(write("sweep: {model: [a, b]}\n"))
    assert load_study_config(write("experiments: [{model: a}]\n"))


@pytest.mark.parametrize(
    "fields",
    [
        {"sweep": {"model": ["m", "hf_" + "a1B2c3" * 6]}},
        {"experiments": [{"model": "hf_" + "a1B2c3" * 6}]},
        {"passthrough_kwargs": {"token": "a1B2c3"}},
    ],
)
def test_a_credential_anywhere_in_a_design_is_refused_and_never_echoed(fields):
    with pytest.raises(ValidationError) as caught:
        StudyConfig(**{"model": "m", **fields})

    assert "looks like a credential" in str(caught.value)
    assert "a1B2c3" not in str(caught.value)


# base: --------------------------------------------------------------------------------------------


def test_a_file_builds_on_its_base_field_by_field_and_key_by_key(write):
    write(
        "model: m\nn: 3\npytorch: {batch_size: 2, num_threads: 1}\n"
        "sweep: {precision: [fp32, bf16], max_new_tokens: [4, 8]}\n"
        "execution: {n_cycles: 5, seed: 1}\nexperiments: [{n: 1}]\n",
        "lower.yaml",
    )
    study = load_study_config(
        write(
            "base: lower.yaml\nn: 4\npytorch: {batch_size: 8}\nsweep: {precision: [fp16]}\n"
            "execution: {seed: 2}\nexperiments: [{n: 9}]\n"
        )
    )

    assert study.defaults == {"model": "m", "n": 4, "pytorch": {"batch_size": 8, "num_threads": 1}}
    assert study.sweep == {"precision": ("fp16",), "max_new_tokens": (4, 8)}
    assert (study.execution.n_cycles, study.execution.seed) == (5, 2)
    assert study.experiments == ({"n": 9},)


def test_a_base_is_found_beside_its_file_and_keeps_its_own_relative_paths(write, tmp_path):
    write("", "sub/prompts.jsonl")
    write("", "sub/more.jsonl")
    write("model: m\ndataset: prompts.jsonl\nsweep: {dataset: [more.jsonl]}\n", "sub/lower.yaml")
    write("base: sub/lower.yaml\n", "middle.yaml")
    study = load_study_config(write("base: middle.yaml\nname: top\n"))

    folder = tmp_path.resolve() / "sub"
    assert study.defaults["dataset"] == str(folder / "prompts.jsonl")
    assert study.sweep["dataset"] == (str(folder / "more.jsonl"),)


def test_a_mistake_is_blamed_on_the_file_it_stands_in(write):
    lower = write("model: m\nn: many\nsweep: {n: [1]}\n", "lower.yaml")
    assert refused(write("base: lower.yaml\n")).startswith(f"{lower}, line 2: n: ")

    upper = write("base: lower.yaml\n\n\nn: few\n")
    assert refused(upper).startswith(f"{upper}, line 4: n: ")


def test_a_base_that_is_missing_is_named_with_the_line_that_asks_for_it(write, tmp_path):
    path = write("model: m\nbase: nowhere.yaml\n")

    message = refused(path)
    assert message.startswith(f"{path}, line 2: base: there is no file {tmp_path / 'nowhere.yaml'}")


@pytest.mark.parametrize("value", ["5", "[a.yaml]", "''"])
def test_a_base_that_is_no_file_name_is_refused(write, value):
    assert "line 1: base: must be the name of a YAML file" in refused(write(f"base: {value}\n"))


def test_files_that_build_on_each_other_in_a_circle_are_refused_with_the_chain(write, tmp_path):
    write("base: c.yaml\n", "b.yaml")
    write("base: study.yaml\n", "c.yaml")
    message = refused(write("model: m\nbase: b.yaml\n"))

    chain = [str(tmp_path.resolve() / n) for n in ("study.yaml", "b.yaml", "c.yaml", "study.yaml")]
    assert " -> ".join(chain) in message
    assert "in a circle" in message
    assert "in a circle" in refused(write("base: study.yaml\n"))


# Flags --------------------------------------------------------------------------------------------


def test_flags_of_execution_win_over_the_file(write):
    path = write("model: m\nexecution: {n_cycles: 4, cycle_order: shuffled}\n")
    study = load_study_config(
        path,
        {
            "execution.n_cycles": 2,
            "execution.cycle_order": "sequential",
            "execution.config_gap_seconds": 0.0,
            "execution.cycle_gap_seconds": 0.0,
        },
    )

    assert (study.execution.n_cycles, study.execution.cycle_order) == (2, "sequential")
    assert (study.execution.config_gap_seconds, study.execution.cycle_gap_seconds) == (0, 0)
    assert load_study_config(write("model: m\n"), {"execution.n_cycles": 2}).execution.n_cycles == 2


def test_flags_of_an_experiment_win_over_defaults_entries_and_the_sweep(write):
    path = write(
        "model: m\nsweep: {precision: [fp16, bf16], n: [1, 2]}\nexperiments: [{model: x, n: 3}]\n"
    )
    study = load_study_config(path, {"model": "y", "precision": "fp32"})

    found = expand(study).experiments
    assert {config.model for config in found} == {"y"}
    assert {config.precision for config in found} == {"fp32"}
    assert sorted(config.n for config in found) == [1, 2, 3]


def test_a_study_whose_whole_sweep_a_flag_decides_is_no_empty_one(write):
    study = load_study_config(write("model: m\nsweep: {n: [1, 2]}\n"), {"n": 4})
    assert [one.n for one in expand(study).experiments] == [4]
    assert expand(StudyConfig.model_validate_json(study.model_dump_json())) == expand(study)


@pytest.mark.parametrize(
    "settings",
    [
        "pytorch: {batch_size: 2}",
        "sweep: {pytorch.batch_size: [1, 2]}",
        "experiments: [{pytorch: {batch_size: 2}}]",
    ],
)
def test_a_backend_flag_that_leaves_settings_without_effect_is_what_is_blamed(write, settings):
    path = write(f"model: m\nbackend: [pytorch, scripted]\nexecution: {{}}\n{settings}\n")
    said = refused(path, {"backend": "scripted"})
    assert said.startswith("--backend scripted: the study has settings of other backends")
    assert "line 4: pytorch" in said
    assert load_study_config(path, {"backend": "pytorch"}).backends == ("pytorch",)


def test_the_batch_size_flag_sets_the_field_of_every_backend(write):
    path = write("model: m\nbackend: [pytorch, vllm]\nsweep: {pytorch.batch_size: [1, 2]}\n")
    one, two = expand(load_study_config(path, {"batch_size": 16})).experiments

    assert one.pytorch is not None
    assert two.vllm is not None
    assert (one.pytorch.batch_size, two.vllm.max_num_seqs) == (16, 16)
    (single,) = expand(load_study_config(write("model: m\n"), {"batch_size": 4})).experiments
    assert single.pytorch is not None
    assert single.pytorch.batch_size == 4


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"execution.n_cycles": 0}, "--cycles: "),
        ({"execution.cycle_order": "odd"}, "--order: "),
        ({"precision": "fp7"}, "--precision: "),
    ],
)
def test_a_wrong_flag_is_named_as_it_is_typed(write, overrides, message):
    assert refused(write("model: m\nexecution: {}\n"), overrides).startswith(message)
    assert refused(write("model: m\n"), overrides).startswith(message)


# Hashes -------------------------------------------------------------------------------------------


def hash_of(**fields: Any) -> str:
    study = StudyConfig(**{"model": "m", **fields})
    return design_hash(expand(study).fingerprints, cold_start=study.cold_start)


def test_the_design_hash_ignores_execution_name_and_the_order_of_keys_and_values():
    sweep = {"precision": ["fp16", "bf16"], "n": [1, 2]}
    turned = {"n": [2, 1], "precision": ["bf16", "fp16"]}

    assert hash_of(sweep=sweep) == hash_of(
        name="x", sweep=turned, execution={"n_cycles": 9, "seed": 1, "cycle_order": "shuffled"}
    )
    assert hash_of(sweep=sweep) != hash_of(sweep={**sweep, "n": [1, 3]})
    assert hash_of(sweep=sweep) != hash_of(sweep=sweep, cold_start=True)


def test_a_grid_and_the_same_experiments_written_out_have_one_hash():
    entries = [{"n": 1}, {"n": 2}]

    assert hash_of(sweep={"n": [1, 2]}) == hash_of(experiments=entries)


def test_a_study_of_one_is_as_good_as_one_that_is_checked():
    one = ExperimentConfig(model="m")
    checked = StudyConfig(experiments=(one,), execution=ExecutionConfig(n_cycles=1))
    assert StudyConfig.of(one) == checked
    assert StudyConfig.of(one).model_dump() == checked.model_dump()
    assert StudyConfig.of(one).single == one
