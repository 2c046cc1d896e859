from __future__ import annotations

import os
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from llenergymeasure.config import yaml_file
from llenergymeasure.config.loader import flag_name, load_experiment_config, load_study_config
from llenergymeasure.exceptions import ConfigError
from tests.support.study_files import is_study


@pytest.fixture
def write(tmp_path):
    def make(text: str | bytes) -> Path:
        path = tmp_path / "experiment.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return make


def test_every_field_has_the_line_it_stands_on(write):
    file = yaml_file.read(write("model: m\ndecoder:\n  top_k: 5\nlist:\n  - a: 1\n  - a: 2\n"))

    assert file.data["decoder"] == {"top_k": 5}
    assert file.lines[("decoder", "top_k")] == 3
    assert file.lines[("list", "1", "a")] == 6
    assert file.where(("list", 1, "a")) == f"{file.path}, line 6"
    assert file.where(("decoder", "absent")) == f"{file.path}, line 2"
    assert file.where(("absent",)) == str(file.path)


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in pairwise("abcdefg")
)

DEEP = "".join(f"n{step + 1}: &b{step + 1} [*b{step}]\n" for step in range(60))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty; it needs at least a line 'model: ...'"),
        ("# only a comment\n", "is empty"),
        ("- a\n- b\n", "holds a list"),
        ("just words\n", "holds plain text"),
        ("7\n", "holds a single value"),
        ("model: m\nmodel: n\n", "line 2: 'model' is given twice"),
        ("model: m\ndecoder:\n  top_k: 1\n  top_k: 2\n", "line 4: 'top_k' is given twice"),
        ("model: [m\n", "not valid YAML"),
        ("model: m\n\tn: 3\n", "line 2: not valid YAML"),
        (
            "model: !!python/object/apply:os.system ['true']\n",
            "line 1: not valid YAML: the tag !!py",
        ),
        ("model: m\ndataset: 2024-13-45\n", "line 2: not valid YAML: this is no date"),
        ("model: m\nn: " + "9" * 5000 + "\n", "line 2: a number of 5,000 characters"),
        ("model: m\nn: 0x" + "f" * 5000 + "\n", "line 2: a number of 5,002 characters"),
        ("model: m\nn: 59" + ":59" * 9999 + "\n", "line 2: a number of 29,999 characters"),
        ("model: !!int ''\n", "line 1: not valid YAML: this is no whole number"),
        ("model: !!int x\n", "not valid YAML: this is no whole number"),
        ("model: !!float +\n", "not valid YAML: this is no number"),
        ("model: !!bool x\n", "not valid YAML: this is no truth value; write true or false"),
        ("model: !!timestamp y\n", "not valid YAML: this is no date"),
        (
            "model: !!binary aGk=\n",
            "the tag !!binary has no place in a configuration; leave it out",
        ),
        ("model: !!set {a}\n", "the tag !!set has no place"),
        ("model: !!omap [a: 1]\n", "the tag !!omap has no place"),
        ('model: m\nrevision: "a\\0"\n', "line 2: text must not hold a NUL"),
        ("? [a]\n: b\n", "line 1: a name must be text, not a list or a section"),
        ("model: m\nn: \x07\n", "not valid YAML: control characters are not allowed"),
        ("n: &a [x]\n" + "n0: &b0 [*a]\n" + DEEP, "nested more than 51 levels deep through"),
        ("model: m\nexperiments:\n" + "- {n: 1}\n" * 100_000, "experiments: has more than 20,"),
        ("model: m\n" + "".join(f"k{i}: 1\n" for i in range(30_000)), "more than 20,000 fields"),
        ("model: m\nsweep: {n: [" + "1," * 250_000 + "]}\n", "line 2: more than 200,000 values"),
        ("model: m\n" + "k" * 300 + ": 1\n" + "k" * 300 + ": 1\n", f"'{'k' * 79}…' is given twice"),
        ("a: &a [*a]\n", "expands to more than"),
        (BOMB, "expands to more than 200,000 values"),
        ("a: " + "[" * 5000 + "\n", "nested"),
        ("x" * (1 << 20) + ": 1\n", "too large"),
        (b"model: \xff\n", "is not UTF-8 text"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_with_the_reason(write, text, reason):
    path = write(text)

    with pytest.raises(ConfigError) as caught:
        yaml_file.read(path)

    assert reason in caught.value.message
    assert str(path) in caught.value.message
    assert str(path) in str(caught.value.where)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*absent\.yaml: No such file"):
        yaml_file.read(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="Is a directory"):
        yaml_file.read(tmp_path)


def test_a_pipe_can_be_read(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("model: m\n",))
    writer.start()

    assert yaml_file.read(pipe).data == {"model": "m"}
    writer.join()


def test_aliases_and_merge_keys_work(write):
    path = write("one: &one {a: 1, b: 2}\ntwo: {<<: *one, b: 3}\n")

    assert yaml_file.read(path).data["two"] == {"a": 1, "b": 3}


def test_names_that_are_no_text_are_reported_as_unknown_fields(write):
    path = write("model: m\non: 1\n~: 2\n1.5: 3\n")

    with pytest.raises(ConfigError) as caught:
        load_experiment_config(path)

    for name in ("'on'", "'None'", "'1.5'"):
        assert f"unknown field {name}" in caught.value.message


@pytest.mark.parametrize(
    ("written", "value"),
    [
        *[("1e3", 1000), ("+1e3", 1000), ("1E+3", 1000), ("2e0", 2), ("1e22", 10**22)],
        *[("1e-3", 0.001), ("1.5e3", 1500.0), (".5e1", 5.0), ("1.0e+3", 1000.0), ("1e23", 1e23)],
        *[("0x10", 16), ("0b11", 3), ("1_000", 1000), ("0", 0), ("07", 7), ("-0.5", -0.5)],
        *[("0o17", "0o17"), ("1e", "1e"), ("e3", "e3"), ("'1e3'", "1e3"), ("v1e3", "v1e3")],
        *[("'010'", "010"), ("'1:30'", "1:30"), ("=", "="), ("yes", True), (".inf", float("inf"))],
    ],
)
def test_a_number_is_what_it_looks_like(written, value):
    found = yaml_file.parsed(f"n: {written}", Path("x.yaml"))[0]["n"]

    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("010", "010 would be 8, as a leading 0 makes it octal; write 10 or 8"),
        ("-0_10", "-0_10 would be -8, as a leading 0 makes it octal; write -10 or -8"),
        ("1:30", "1:30 would be 90, counted in sixties; write 90"),
        ("1:30.5", "1:30.5 would be 90.5, counted in sixties; write 90.5"),
        ("12e4567", "12e4567 is beyond the largest number there is, 1.8e308"),
    ],
)
@pytest.mark.parametrize("place", ["n: {}", "experiments: [{{n: {}}}]", "sweep: {{n: [1, {}]}}"])
def test_a_number_that_is_not_what_it_looks_like_is_refused(write, written, meant, place):
    path = write(f"model: m\n{place.format(written)}\n")

    with pytest.raises(ConfigError) as caught:
        load_study_config(path)

    assert caught.value.message == f"{path}, line 2: {meant}; if it is text, put it in quotes"


def test_ten_thousand_unknown_names_get_a_short_message(write):
    path = write("model: m\n" + "".join(f"key{number}: 1\n" for number in range(9_999)))

    with pytest.raises(ConfigError) as caught:
        load_experiment_config(path)

    first, *listed, last = caught.value.message.splitlines()
    assert first == "9,999 problems:"
    assert listed[0].startswith(f"  - {path}, line 2: key0: unknown field 'key0', valid names: ")
    assert all(line.endswith("'") for line in listed[1:]), "the valid names are listed once"
    assert (len(listed), last) == (10, "  - and 9,989 more")


def test_no_name_is_shown_whole_that_is_longer_than_a_line(write):
    name, blank = "x" * 900, "a b " * 200
    path = write(
        f"model: m\n{name}: 1\n'{blank}': 2\nbackend: {name}\nsweep: {{{name}: {{y: 1}}}}\n"
    )

    with pytest.raises(ConfigError) as caught:
        load_study_config(path)

    assert "xx…" in caught.value.message
    for line in caught.value.message.splitlines():
        assert "x" * 81 not in line
        assert len(line.replace(str(path), "")) < 1_000


def test_files_that_build_on_ever_more_files_end(tmp_path):
    for number in range(40):
        (tmp_path / f"{number}.yaml").write_text(f"base: {number + 1}.yaml\nmodel: m\n")

    with pytest.raises(ConfigError, match="base: more than 20 files build on one another"):
        load_experiment_config(tmp_path / "0.yaml")


@pytest.mark.parametrize(
    "base", ["loop.yaml", "~nosuchuser/x.yaml", "x" * 5_000, "sub/../loop.yaml"]
)
def test_a_base_that_is_nowhere_is_named(write, tmp_path, base):
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")

    with pytest.raises(ConfigError, match="line 2: base: there is no file"):
        load_experiment_config(write(f"model: m\nbase: {base}\n"))


@pytest.mark.parametrize(
    "field", ["model", "dataset", "lora: {adapter_path", "pytorch: {device_map"]
)
def test_a_path_of_nobody_stays_as_it_is(write, field):
    text = "~nosuchuser/x.jsonl" + ("}" if "{" in field else "")

    assert (
        "~nosuchuser/x.jsonl"
        in load_experiment_config(
            write(f"model: m\n{field}: {text}\n".replace("model: m\nmodel", "model"))
        ).model_dump_json()
    )


def test_a_value_too_long_for_a_path_is_left_alone(write):
    config = load_experiment_config(write(f"model: {'x' * 5000}\n"))

    assert config.model == "x" * 5000


# Overrides ----------------------------------------------------------------------------------------


def test_an_override_wins_over_the_file(write):
    path = write("model: m\nn: 5\npytorch:\n  batch_size: 2\n  num_threads: 1\n")
    config = load_experiment_config(path, {"n": 7, "pytorch.batch_size": 4})

    assert config.n == 7
    assert (config.pytorch.batch_size, config.pytorch.num_threads) == (4, 1)


def test_overrides_alone_make_an_experiment():
    config = load_experiment_config(None, {"model": "m", "vllm.max_num_seqs": 8, "backend": "vllm"})

    assert config.vllm.max_num_seqs == 8


def test_a_wrong_override_is_named_as_its_flag_and_a_wrong_field_by_its_line(write):
    path = write("model: m\nmax_new_tokens: no\nprecision: bf16\n")

    with pytest.raises(ConfigError) as caught:
        load_experiment_config(path, {"precision": "fp7", "n": 0})

    lines = {line.removeprefix("  - ") for line in caught.value.message.splitlines()}
    assert any(line.startswith("--precision: ") for line in lines)
    assert any(line.startswith("-n: ") for line in lines)
    assert any(line.startswith(f"{path}, line 2: max_new_tokens: ") for line in lines)
    assert caught.value.where in ("--precision", "-n", f"{path}, line 2")


def test_a_contradiction_is_blamed_on_the_flag_that_caused_it(write):
    with pytest.raises(ConfigError) as caught:
        load_experiment_config(write("model: m\n"), {"precision": "fp8"})

    assert caught.value.where == "--precision"


def test_what_is_missing_without_a_file_is_missing_on_the_command_line():
    with pytest.raises(ConfigError, match="command line: model: "):
        load_experiment_config(None, {"n": 3})


@pytest.mark.parametrize(
    ("field", "flag"),
    [
        ("n", "-n"),
        ("precision", "--precision"),
        ("max_new_tokens", "--max-new-tokens"),
        ("pytorch.batch_size", "--batch-size"),
        ("vllm.max_num_seqs", "--batch-size"),
        ("tensorrt.max_batch_size", "--batch-size"),
    ],
)
def test_a_flag_is_named_as_it_is_typed(field, flag):
    assert flag_name(field) == flag


def test_relative_paths_of_the_file_are_anchored_but_those_of_flags_are_not(write, tmp_path):
    (tmp_path / "prompts.jsonl").write_text("")
    path = write("model: m\ndataset: prompts.jsonl\n")

    assert load_experiment_config(path).dataset == str(tmp_path.resolve() / "prompts.jsonl")
    override = load_experiment_config(path, {"dataset": "prompts.jsonl"})
    assert override.dataset == "prompts.jsonl"


@pytest.mark.parametrize(
    "line", ["sweep: {n: [1, 2]}", "execution: {}", "backend: [pytorch, vllm]", "cold_start: true"]
)
def test_a_study_is_no_experiment(write, line):
    path = write(f"model: m\n{line}\n")

    assert is_study(path)
    with pytest.raises(ConfigError, match=r"line 2: .* one experiment is wanted here"):
        load_experiment_config(path)
