"""Pre-flight of experiments whose engine is asked, and so imported."""

from __future__ import annotations

import json

import pytest

from llenergymeasure.core.models import catalogue
from llenergymeasure.exceptions import PreFlightError
from llenergymeasure.orchestration import preflight
from tests.support.scripted_run import make_order, scripted_config


def problems(folder, *, offline: bool = True, order=None, **fields) -> dict[str, str]:
    """Give what each problem is about, with what and remedy; empty where all is well."""
    try:
        preflight.check(
            make_order(scripted_config(**fields), folder, **(order or {})), offline=offline
        )
    except PreFlightError as error:
        return {one.where: f"{one.what} | {one.remedy}" for one in error.problems}
    return {}


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"apply_chat_template": True}, "apply_chat_template"),
        ({"dataset": {"synthetic": {"input_len": 5000, "output_len": 3}}}, "dataset.synthetic"),
        ({"max_new_tokens": 5000}, "max_new_tokens"),
        ({"model": "DIRECTORY"}, "model"),
    ],
)
def test_what_cannot_work_is_told_before_weights_load(tmp_path, fields, where):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(catalogue.config("tiny-llama")))
    plain = {"model": "random:tiny-llama", "scripted": None, "backend": "pytorch", "n": 2}
    asked = {key: str(folder) if value == "DIRECTORY" else value for key, value in fields.items()}

    assert set(problems(tmp_path, **{**plain, **asked})) == {where}
    assert problems(tmp_path, **plain) == {}


def test_weights_that_come_from_elsewhere_need_not_be_in_the_directory(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(catalogue.config("tiny-llama")))
    fields = {"backend": "pytorch", "scripted": None, "model": str(tmp_path)}

    assert problems(tmp_path, **fields, passthrough_kwargs={"gguf_file": "x"}) == {}


def test_problems_come_by_kind_whichever_experiment_has_them(tmp_path):
    plain = {"model": "random:tiny-llama", "scripted": None, "precision": "bf16"}
    hot = {**plain, "backend": "pytorch", "pytorch": {"device": "cuda:99"}}
    orders = [
        make_order(scripted_config(dataset="absent.jsonl"), tmp_path, energy_backend="nvml"),
        make_order(scripted_config(**plain, backend="tensorrt"), tmp_path),
        make_order(scripted_config(**{**hot, "model": "random:tiny-lama"}), tmp_path),
    ]

    found = preflight.problems(orders)

    assert [one.kind for one in found] == ["hardware", "backend", "energy", "model", "dataset"]
