"""Fields that flags name themselves, and how they change what a file says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llenergymeasure.config.assignments import fields_set, fields_swept
from llenergymeasure.config.loader import load_study_config
from llenergymeasure.exceptions import ConfigError, FlagError
from llenergymeasure.study.grid import expand

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def make(text: str) -> Path:
        path = tmp_path / "study.yaml"
        path.write_text(text)
        return path

    return make


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x=8", 8),
        ("x= 0.5", 0.5),
        ("x=true", True),
        ("x=", None),
        ("x=null", None),
        ("x=a=b", "a=b"),
        ("x='1,2'", "1,2"),
        ("x=[1, 2]", [1, 2]),
        ("x={a: 1, b: [2]}", {"a": 1, "b": [2]}),
    ],
)
def test_a_value_is_what_it_would_be_in_a_file(text: str, value: object) -> None:
    assert fields_set([text]) == {"x": value}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("x=1,2,4,8", [1, 2, 4, 8]),
        ("x=sdpa, eager", ["sdpa", "eager"]),
        ("x=[1, 2, 4]", [1, 2, 4]),
        ("x=[1, 2],[3]", [[1, 2], [3]]),
        ("x={a: 1, b: 2},{a: 3}", [{"a": 1, "b": 2}, {"a": 3}]),
        ("x='a,b',c", ["a,b", "c"]),
        ("x=random:tiny-llama,/models/x", ["random:tiny-llama", "/models/x"]),
        ("x=null,3", [None, 3]),
        ("x=5", [5]),
    ],
)
def test_commas_part_values_but_not_inside_brackets_or_quotes(
    text: str, values: list[object]
) -> None:
    assert fields_swept([text]) == {"x": values}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("n", "'n' sets no field; write it as --set window.min_duration_seconds=10"),
        ("=3", "'' sets no field"),
        ("x=[1", "--set x: not valid YAML"),
        ("x=2001-99-99", "--set x: not valid YAML"),
        ("x=" + "[" * 99, "--set x: nested more than 50 levels deep"),
        ("." * 60 + "=1", "sets no field"),
        ("k" * 999, f"'{'k' * 80}' sets no field"),
    ],
)
def test_what_is_no_assignment_names_the_flag(text: str, said: str) -> None:
    with pytest.raises(FlagError) as caught:
        fields_set([text])
    assert caught.value.message.startswith("--set")
    assert said in caught.value.message


def test_a_field_is_named_once() -> None:
    with pytest.raises(FlagError, match="--sweep n is given twice"):
        fields_swept(["n=1", "n=2"])


def test_swept_fields_make_a_grid_of_all_combinations_without_any_file() -> None:
    sweep = {"pytorch.batch_size": [1, 2], "precision": ["fp32", "bf16"]}
    study = load_study_config(None, {"model": "m"}, sweep=sweep)
    found = [(one.section.batch_size, one.precision) for one in expand(study).experiments]
    assert found == [(1, "fp32"), (1, "bf16"), (2, "fp32"), (2, "bf16")]
    assert study.execution.n_cycles == 3, "as in a file"


def test_a_swept_field_of_another_backend_implies_it() -> None:
    study = load_study_config(None, {"model": "m"}, sweep={"vllm.max_num_seqs": [1, 2]})
    assert [one.backend for one in expand(study).experiments] == ["vllm", "vllm"]


def test_a_swept_field_joins_the_sweep_of_a_file_or_takes_its_own_place(write: Write) -> None:
    path = write("model: m\nprecision: fp32\nsweep: {n: [10, 20], max_new_tokens: [3]}\n")
    added = load_study_config(path, sweep={"pytorch.batch_size": [4, 8]})
    assert len(expand(added).experiments) == 4
    replaced = load_study_config(path, sweep={"n": [5, 6, 7], "precision": ["bf16"]})
    found = [(one.n, one.precision) for one in expand(replaced).experiments]
    assert found == [(5, "bf16"), (6, "bf16"), (7, "bf16")]


def test_a_swept_field_makes_a_study_of_an_experiment_file(write: Write) -> None:
    study = load_study_config(write("model: m\nn: 3\n"), sweep={"n": [1, 2]})
    assert [one.n for one in expand(study).experiments] == [1, 2]


def test_a_field_that_is_set_wins_over_the_file_its_entries_and_its_line_in_sweep(
    write: Write,
) -> None:
    path = write("model: m\nsweep: {window.min_duration_seconds: [1, 2]}\nexperiments: [{n: 9}]\n")
    study = load_study_config(path, assigned={"window.min_duration_seconds": 7.0, "n": 4})
    found = [(one.window.min_duration_seconds, one.n) for one in expand(study).experiments]
    assert found == [(7.0, 4)], "both come to the same"


def test_fields_of_a_study_can_be_set_too(write: Write) -> None:
    fields = {"name": "named", "cold_start": True, "execution.seed": 7, "execution.n_cycles": 2}
    study = load_study_config(write("model: m\nsweep: {n: [1, 2]}\n"), assigned=fields)
    assert (study.name, study.cold_start) == ("named", True)
    assert (study.execution.seed, study.execution.n_cycles) == (7, 2)
    backends = load_study_config(None, {"model": "m"}, assigned={"backend": ["pytorch", "vllm"]})
    assert backends.backends == ("pytorch", "vllm")


def test_how_one_experiment_is_run_makes_no_study_of_several_cycles() -> None:
    study = load_study_config(None, {"model": "m"}, assigned={"execution.timeout_s": 5.0})
    assert (study.execution.timeout_s, study.execution.n_cycles) == (5.0, 1)


def test_the_batch_size_flag_knows_the_backends_that_other_flags_name() -> None:
    swept = load_study_config(None, {"model": "m", "batch_size": 4}, sweep={"vllm.block_size": [8]})
    (one,) = expand(swept).experiments
    assert one.section.max_num_seqs == 4
    given = {"model": "m", "batch_size": 4}
    (one,) = expand(load_study_config(None, given, assigned={"backend": "scripted"})).experiments
    assert one.section.batch_size == 4


@pytest.mark.parametrize(
    ("overrides", "assigned", "sweep", "said"),
    [
        ({"n": 3}, {"n": 4}, {}, "--set n and -n say different things"),
        ({"n": 3}, {}, {"n": [4]}, "-n and --sweep n say different things"),
        ({}, {"n": 3}, {"n": [4]}, "--set n and --sweep n say different things"),
        (
            {"batch_size": 3},
            {},
            {"pytorch.batch_size": [4]},
            "--batch-size and --sweep pytorch.batch_size say different things",
        ),
        (
            {"batch_size": 3},
            {"pytorch": {"num_threads": 1}},
            {},
            "--set pytorch and --batch-size overlap; name each field by a flag of its own",
        ),
        (
            {},
            {"pytorch": {"num_threads": 1}},
            {"pytorch.batch_size": [1, 2]},
            "--set pytorch and --sweep pytorch.batch_size overlap",
        ),
        (
            {},
            {"decoder.temperature": 1.0, "decoder": {"top_k": 3}},
            {},
            "--set decoder and --set decoder.temperature overlap",
        ),
        (
            {"dataset": "mixed-1k"},
            {"dataset.path": "x.csv"},
            {},
            "--set dataset.path and --dataset overlap",
        ),
        (
            {"execution.n_cycles": 4},
            {"execution": {"n_cycles": 2}},
            {},
            "--set execution and --cycles overlap",
        ),
        ({}, {"n": 0}, {}, "--set n: must be 1 or more"),
        ({}, {"n": "x"}, {"precision": ["bf16"]}, "--set n: must be a whole number"),
        ({}, {}, {"n": [1, 0]}, "--sweep n: value 2: must be 1 or more"),
        ({}, {}, {"n": []}, "--sweep n: is an empty list"),
        ({}, {"windw.phases": "x"}, {}, "--set windw.phases: unknown field 'windw', did you mean"),
        (
            {},
            {"window.min_duration_second": 1},
            {},
            "--set window.min_duration_second: unknown field 'min_duration_second', did you mean "
            "'min_duration_seconds'?",
        ),
        ({}, {"execution.n_cycles": 0}, {}, "--set execution.n_cycles: must be 1 or more"),
        ({}, {}, {"backend": ["vllm"]}, "--sweep backend: several backends are named outside"),
        ({}, {"token": "x" * 30}, {}, "--set token: looks like a credential"),
    ],
)
def test_a_wrong_one_names_its_flag(overrides, assigned, sweep, said) -> None:
    with pytest.raises(ConfigError) as caught:
        load_study_config(None, {"model": "m", **overrides}, assigned=assigned, sweep=sweep)
    assert caught.value.message.startswith(said)


@pytest.mark.parametrize("flags", [{"n": 0}, {"precision": "fp7"}, {"backend": "scripte"}])
def test_a_wrong_value_is_one_of_a_flag_beside_a_study_as_beside_an_experiment(
    write: Write, flags: dict[str, object]
) -> None:
    for text in ("model: m\n", "model: m\nsweep: {max_new_tokens: [1, 2]}\n"):
        with pytest.raises(FlagError):
            load_study_config(write(text), flags)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("batch_size: 8\n", "pytorch.batch_size"),
        ("backend: vllm\nbatch_size: 8\n", "vllm.max_num_seqs"),
        ("backend: [scripted, vllm]\nbatch_size: 8\n", "scripted.batch_size"),
        ("sweep: {batch_size: [1, 8]}\n", "pytorch.batch_size"),
        ("backend: [vllm]\nsweep: {batch_size: [1, 8]}\n", "vllm.max_num_seqs"),
        ("experiments: [{backend: scripted, batch_size: 8}]\n", "scripted.batch_size"),
        ("min_duration_seconds: 8\n", "window.min_duration_seconds"),
        ("temperature: 0.5\n", "decoder.temperature"),
        ("backend: tensorrt\nquantization: fp8\n", "tensorrt.quantization"),
        ("n_cycles: 8\nsweep: {n: [1]}\n", "execution.n_cycles"),
    ],
)
def test_a_field_without_its_section_is_named_with_it(write: Write, text: str, meant: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_study_config(write(f"model: m\n{text}"))
    assert f"did you mean '{meant}'?" in caught.value.message


@pytest.mark.parametrize("texts", [("pytorch={}", "pytorch.batch_size=1"), ("a.b.c=1", "a=2")])
def test_a_field_and_a_part_of_it_are_not_both_given(texts: tuple[str, str]) -> None:
    for both in (texts, texts[::-1]):
        for read in (fields_set, fields_swept):
            with pytest.raises(FlagError, match="sets all or a part of what another"):
                read(both)
    assert fields_set(["a.b=1", "a.bc=2", "ab=3"]) == {"a.b": 1, "a.bc": 2, "ab": 3}
