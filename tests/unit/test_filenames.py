"""Names of result directories, and claiming one."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.exceptions import ConfigError
from llenergymeasure.results.filenames import (
    MAX_LENGTH,
    MAX_SLOT_LENGTH,
    claim_directory,
    experiment_name,
    slot_name,
)

WHEN = datetime(2026, 2, 18, 14, 30, 5)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("meta-llama/Llama-3.1-8B", "llama-3.1-8b"),
        ("random:tiny-llama", "random-tiny-llama"),
        ("random:/data/My Models/Tiny_1", "random-tiny-1"),
        ("/data/models/Mistral/", "mistral"),
        ("..", "model"),
        ("~", "model"),
        (".hidden", "hidden"),
        ("模型", "model"),
        ("a\\b\x00c\nd", "a-b-c-d"),
    ],
)
def test_a_name_begins_with_the_last_part_of_the_model(model: str, expected: str) -> None:
    name = experiment_name(model, "pytorch", WHEN)
    assert name == f"{expected}_pytorch_2026-02-18T14-30-05"


@given(model=st.text(), backend=st.text())
def test_every_name_is_one_safe_path_component_of_three_parts(model: str, backend: str) -> None:
    name = experiment_name(model, backend, WHEN)
    assert len(name) <= MAX_LENGTH
    assert Path(name).name == name
    assert not name.startswith(".")
    assert name.isascii()
    model_part, backend_part, time = name.split("_")
    assert model_part
    assert backend_part
    assert time == "2026-02-18T14-30-05"


def test_a_long_model_name_is_cut_and_the_time_is_kept() -> None:
    name = experiment_name("m" * 500, "pytorch", WHEN)
    assert len(name) == MAX_LENGTH
    assert name.endswith("m_pytorch_2026-02-18T14-30-05")


def test_a_taken_name_gets_the_next_number(tmp_path: Path) -> None:
    claimed = [claim_directory(tmp_path / "deep" / "er", "run").name for _ in range(3)]
    assert claimed == ["run", "run_1", "run_2"]


def test_a_file_of_that_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    assert claim_directory(tmp_path, "run") == tmp_path / "run_1"
    assert (tmp_path / "run").read_text() == "mine"


@pytest.mark.parametrize("parent", ["taken", "taken/below", "x" * 300])
def test_a_parent_that_cannot_be_used_is_named_with_the_flag_that_mends_it(
    tmp_path: Path, parent: str
) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ConfigError, match="--output") as caught:
        claim_directory(tmp_path / parent, "run")
    assert str(tmp_path / parent) in caught.value.message
    assert caught.value.where == str(tmp_path / parent)


@pytest.mark.parametrize(
    ("number", "cycle", "fields", "name"),
    [
        (1, 1, {"pytorch": {"batch_size": 8}}, "0001_pytorch_bf16_bs8_c1"),
        (12, 3, {"precision": "fp16"}, "0012_pytorch_fp16_c3"),
        (10000, 10, {"backend": "vllm", "vllm": {"max_num_seqs": 64}}, "10000_vllm_bf16_bs64_c10"),
        (2, 1, {"backend": "scripted"}, "0002_scripted_bf16_bs1_c1"),
    ],
)
def test_an_experiment_of_a_study_is_named_by_what_it_is(number, cycle, fields, name):
    assert slot_name(number, cycle, ExperimentConfig(model="m", **fields)) == name


@given(st.integers(1, 10**12), st.integers(1, 10**9), st.integers(1, 10**9))
def test_the_name_of_a_slot_is_short_and_unique_by_its_number(number, cycle, batch_size):
    config = ExperimentConfig(model="m", pytorch={"batch_size": batch_size})
    name = slot_name(number, cycle, config)
    assert len(name) <= MAX_SLOT_LENGTH
    assert int(name.partition("_")[0]) == number
