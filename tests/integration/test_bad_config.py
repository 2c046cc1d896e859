"""What a user reads when a file or a flag is wrong: what, where, and how to mend it."""

from __future__ import annotations

import json
import re
import resource
import time
from pathlib import Path

import pytest

from tests.support.cli import QUICK, Llem

SECRET = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWx"
GOOD = "model: m\nbackend: scripted\nenergy_backend: none\nn: 2\nmax_new_tokens: 2\n"


@pytest.fixture
def llem(tmp_path: Path) -> Llem:
    return Llem(tmp_path)


def said_about(llem: Llem, text: str, *flags: str) -> str:
    llem.write("bad.yaml", text)
    return llem.fails("run", "bad.yaml", *flags, inline=True)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("model: m\nprecison: fp32", ["bad.yaml, line 2: ", "'precison'", "'precision'?"]),
        (
            "model: m\ndecoder:\n  temprature: 1.0",
            ["bad.yaml, line 3: decoder.temprature", "did you mean 'temperature'?"],
        ),
        ('model: m\n\nn: "three"', ["bad.yaml, line 3: n: must be a whole number"]),
        ("model: m\nn: 0", ["bad.yaml, line 2: n: must be 1 or more"]),
        ("model: m\nprecision: fp7", ["line 2: precision: must be 'fp32', 'fp16', 'bf16'"]),
        ("model: 3", ["bad.yaml, line 1: model: must be text"]),
        ("backend: scripted", ["bad.yaml: model: this field is required"]),
        ("model: m\ndataset: 5", ["bad.yaml, line 2: dataset: must be text"]),
        (
            "model: m\ndataset:\n  synthetic:\n    input_lenn: 3",
            ["bad.yaml, line 4: dataset.synthetic.input_lenn: ", "'input_len'?"],
        ),
        ("model: m\ndecoder: 5", ["bad.yaml, line 2: decoder: must be a section"]),
        ("model: m\nmodel: n", ["bad.yaml, line 2: 'model' is given twice"]),
        ("model: [m\nn: 3", ["bad.yaml, line 2: not valid YAML"]),
        ("- a\n- b", ["bad.yaml holds a list", "'model: ...'"]),
        ("", ["bad.yaml is empty", "'model: ...'"]),
        ("# only this\n", ["bad.yaml is empty"]),
        ("just words", ["bad.yaml holds plain text"]),
        ("model: \x07", ["bad.yaml", "not valid YAML"]),
        (
            "model: m\nbackend: pytorch\nvllm:\n  max_num_seqs: 3",
            ["bad.yaml, line 3: vllm: does not apply", "remove the line 'vllm:'"],
        ),
        (
            "model: m\nprecision: fp8",
            ["bad.yaml, line 2: precision: pytorch cannot run fp8", "it has fp32, fp16"],
        ),
        ("model: m\nbackend: pytroch", ["bad.yaml, line 2: backend: ", "did you mean 'pytorch'?"]),
        ("model: m\nx: &x {<<: *x}", ["bad.yaml"]),
        ("model: m\npassthrough_kwargs: &a {x: *a}", ["bad.yaml"]),
    ],
)
def test_a_wrong_file_is_explained(llem: Llem, text: str, parts: list[str]) -> None:
    said = said_about(llem, text)
    for part in parts:
        assert part in said
    for jargon in ("Input should", "Field required", "validation error", "function-wrap", "loc"):
        assert jargon not in said


def test_a_credential_at_the_top_is_named_as_one_and_never_repeated(llem: Llem) -> None:
    said = said_about(llem, "model: m\ntoken: hf_notshown\n")
    assert "bad.yaml, line 2: token: looks like a credential" in said
    assert "HF_TOKEN" in said
    assert "notshown" not in said


def test_a_dataset_flag_may_be_a_mapping(llem: Llem) -> None:
    shape = "{synthetic: {input_len: 7, output_len: 3}}"
    done = llem("run", *QUICK[:6], "-d", shape, "--dry-run", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["experiment"]["dataset"]["synthetic"]["input_len"] == 7
    for wrong in ("{synthetic: [", "{synthetic: {seed: 2001-99-99}}"):
        said = llem.fails("run", *QUICK, "-d", wrong, code=2, inline=True)
        assert said.startswith("llem: --dataset is no YAML mapping"), wrong


def test_an_empty_directory_for_results_is_refused(llem: Llem) -> None:
    assert "--output names no directory" in llem.fails("run", *QUICK, "-o", "", code=2, inline=True)


def test_every_problem_is_listed_at_once_under_a_count(llem: Llem) -> None:
    said = said_about(llem, "model: m\nprecison: fp32\nn: 0\n")
    first, *others = said.splitlines()
    assert first == "llem: 2 problems:"
    assert all(line.startswith("  - bad.yaml, line ") for line in others)
    assert len(others) == 2


def test_a_field_that_came_through_a_merge_key_has_its_line(llem: Llem) -> None:
    text = "model: m\nbackend: scripted\nwarmup: &w\n  n_warmup: no\nbaseline:\n  <<: *w\n"
    said = said_about(llem, text)
    assert "line 4: warmup.n_warmup: must be a whole number" in said
    assert "line 4: baseline.n_warmup: unknown field" in said


def test_anchors_and_merge_keys_work(llem: Llem) -> None:
    llem.write("good.yaml", GOOD + "<<: {max_new_tokens: 9, random_seed: &s 7}\n")
    done = llem("run", "good.yaml", "--dry-run", "--json")
    assert done.code == 0, done.err
    assert '"random_seed": 7' in done.out
    assert '"max_new_tokens": 2' in done.out


@pytest.mark.parametrize("opening", ["[", "{a: "])
def test_a_file_nested_without_end_is_refused_rather_than_crashing(
    llem: Llem, opening: str
) -> None:
    llem.write("bad.yaml", "model: " + opening * 200_000)
    said = llem.fails("run", "bad.yaml")
    assert "bad.yaml, line 1: nested more than" in said


def test_a_file_of_10_mb_is_refused(llem: Llem) -> None:
    assert "too large" in said_about(llem, "model: m\n" + "# x\n" * 2_500_000)


def test_a_file_that_unfolds_without_end_is_refused_at_once(llem: Llem) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    llem.write("bad.yaml", "\n".join(lines))
    begun_s = time.monotonic()
    said = llem.fails(
        "run", "bad.yaml", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (2**29,) * 2)
    )
    assert "expands to more than" in said
    assert time.monotonic() - begun_s < 60  # unfolded whole it would take hours


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (f"model: m\nrevision: {SECRET}", "line 2: revision"),
        (f"model: m\nlora:\n  adapter_id: {SECRET}", "line 3: lora.adapter_id"),
        ("model: m\npassthrough_kwargs:\n  token: AbCdEf", "line 3: passthrough_kwargs.token"),
    ],
)
def test_a_credential_is_refused_and_never_repeated(llem: Llem, text: str, field: str) -> None:
    said = said_about(llem, text)
    assert f"bad.yaml, {field}" in said
    assert "looks like a credential; keep it in the environment (HF_TOKEN)" in said
    assert "AbCdEf" not in said


@pytest.mark.parametrize(
    "text", [f"model: m\n{SECRET}: 3", f"model: [m\n{SECRET}", f"a: *{SECRET}"]
)
def test_a_credential_in_an_odd_place_is_not_repeated_either(llem: Llem, text: str) -> None:
    assert SECRET not in said_about(llem, text)


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--precision", "fp7"], ["llem: --precision: must be 'fp32'"]),
        (["-n", "0"], ["llem: -n: must be 1 or more"]),
        (["--batch-size", "0"], ["llem: --batch-size: must be 1 or more"]),
        (["--energy-backend", "nvmll"], ["llem: --energy-backend: must be 'auto'"]),
        (["--runner", "ssh:x"], ["llem: --runner: ", "python:<interpreter>"]),
    ],
)
def test_a_wrong_value_of_a_flag_names_the_flag(
    llem: Llem, flags: list[str], parts: list[str]
) -> None:
    llem.write("good.yaml", GOOD)
    said = llem.fails("run", "good.yaml", *flags, code=2, inline=True)
    for part in parts:
        assert part in said
    assert "line" not in said


def test_what_a_right_value_of_a_flag_makes_of_the_rest_is_a_matter_of_configuration(
    llem: Llem,
) -> None:
    lacking = llem.fails("run", "-m", "m", "--precision", "fp8", inline=True)
    assert lacking.startswith("llem: --precision: pytorch cannot run fp8")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["run", "--nope"], "No such option: --nope"),
        (["run", "--again", "abc"], "'--again'"),
        (["run", "a.yaml", "b.yaml"], "unexpected extra argument"),
        (["rum"], "No such command 'rum'"),
    ],
)
def test_wrong_flags_exit_with_2(llem: Llem, arguments: list[str], part: str) -> None:
    said = llem.fails(*arguments, code=2)
    assert part in said
    assert "--help lists the flags" in said


def test_a_run_of_nothing_says_what_to_give(llem: Llem) -> None:
    said = llem.fails("run", code=2, inline=True)
    assert "give a YAML file, or at least --model" in said


def test_no_arguments_show_the_help(llem: Llem) -> None:
    done = llem()
    assert (done.code, done.out) == (2, "")
    assert "run     " in done.err


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["run", "nowhere.yaml"], ["cannot read nowhere.yaml: No such file"]),
        (["run", "home"], ["cannot read home: Is a directory"]),
    ],
)
def test_a_missing_file_is_named(llem: Llem, arguments: list[str], parts: list[str]) -> None:
    said = llem.fails(*arguments)
    for part in parts:
        assert part in said


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (["run", "nowhere.yaml", "--json"], 1, "config"),
        (["run", "-m", "/nowhere", "-b", "vllm", "--json"], 1, "preflight"),
        (["run", "--json", "-n", "abc"], 2, "usage"),
        (["run", *QUICK, "--json", "-n", "9999"], 1, "preflight"),
    ],
)
def test_json_carries_one_object_on_failure(
    llem: Llem, arguments: list[str], code: int, kind: str
) -> None:
    done = llem(*arguments)
    assert (done.code, done.error["code"]) == (code, kind)
    assert done.error["message"] in done.err
    assert done.error["where"]


USER_FILE = "home/config/llenergymeasure/config.yaml"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("output: {results_dir: [", ["not valid YAML"]),
        ("outputs: {}", ["line 1: outputs: unknown field 'outputs'", "'output'?"]),
        ("output:\n  results_dir: 5", ["line 2: output.results_dir: must be text"]),
        ("measurement: {datacenter_pue: 0.5}", ["line 1: measurement.datacenter_pue: must be 1"]),
        ("runners:\n  pytorch: local\n  vllm: dokcer:x", ["runners", "vllm", "docker:<image>"]),
        ("runners:\n  pytroch: local", ["runners", "pytroch"]),
        ("runners:\n  pytorch: singularity:x", ["not yet supported", "docker:<image>"]),
        ("- 1", ["holds a list"]),
    ],
)
def test_a_broken_user_configuration_names_file_and_line(
    llem: Llem, text: str, parts: list[str]
) -> None:
    llem.user_config(text)
    said = llem.fails("run", *QUICK, inline=True)
    assert USER_FILE in said
    for part in parts:
        assert part in said
    assert holds_line_number(said) == ("holds a list" not in said)


def holds_line_number(said: str) -> bool:
    return re.search(rf"{USER_FILE}, line \d", said) is not None


@pytest.mark.parametrize("text", ["", "# nothing yet\n"])
def test_an_empty_user_configuration_is_fine(llem: Llem, text: str) -> None:
    llem.user_config(text)
    assert llem.inline("run", *QUICK, "--dry-run").code == 0


def test_a_wrong_variable_is_named(llem: Llem) -> None:
    llem.environment["LLEM_DATACENTER_PUE"] = "lots"
    assert "$LLEM_DATACENTER_PUE is 'lots'; it must be a number" in llem.fails("run", *QUICK)
