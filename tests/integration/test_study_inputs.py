"""A study pools only like with like: other prompts and other weights are refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support.cli import Llem
from tests.support.study_run import Left, scripted_study

MODEL_STUDY = """
name: weights
model: ./model
backend: thirdparty
energy_backend: none
dataset: prompts.jsonl
n: 2
max_new_tokens: 2
warmup: {n_warmup: 0}
execution: {n_cycles: 3, cycle_order: interleaved, config_gap_seconds: 0, cycle_gap_seconds: 0}
"""
PLAIN = "class Backend(ScriptedBackend):\n    pass\n"
EDITS_BEFORE_THE_SECOND = """
from pathlib import Path


class Backend(ScriptedBackend):
    def load(self, config, cache_dir):
        mark = Path(config.dataset).with_name("loaded")
        if mark.exists() and not mark.with_name("mended").exists():
            with open(config.dataset, "a") as prompts:
                prompts.write('{"prompt": "one more"}\\n')
        mark.touch()
        return super().load(config, cache_dir)
"""


@pytest.fixture
def llem(tmp_path: Path) -> Llem:
    llem = Llem(tmp_path)
    write_prompts(llem)
    return llem


def write_prompts(llem: Llem, *more: str) -> None:
    texts = ("some words", "other words", *more)
    llem.write("prompts.jsonl", "".join(f"{json.dumps({'prompt': text})}\n" for text in texts))


def lose_the_last(left: Left) -> None:
    """Have one experiment to be run again."""
    sorted(left.study.experiments.glob("*/result.json"))[-1].unlink()


def model_study(llem: Llem, backend: str = PLAIN) -> str:
    llem.plugin(backend)
    llem.write("model/config.json", "{}")
    (llem.folder / "model" / "model.safetensors").write_bytes(os.urandom(1 << 20))
    return str(llem.write("study.yaml", MODEL_STUDY))


def test_a_resume_with_other_prompts_is_refused_with_both_hashes_before_anything_runs(
    llem: Llem,
) -> None:
    study = scripted_study(llem, cycles=2, more="dataset: prompts.jsonl\n")
    assert llem("run", study).code == 0
    left = Left.by(llem)
    lose_the_last(left)
    before = left.results
    (then,) = json.loads(left.study.manifest.read_bytes())["inputs"]["dataset"].values()
    write_prompts(llem, "one more")

    for command in (("run", "--resume", left.path), ("run", study, "--resume", left.path)):
        done = llem(*command)
        assert (done.code, done.out) == (1, "")
        assert "cannot be resumed: what it is made of has changed:" in done.err
        assert f"the prompts ({llem.folder}/prompts.jsonl): {then[:12]} when the study" in done.err
        assert left.results == before
        assert len(left.progress) == 2 * 4, "nothing was started"

    write_prompts(llem)
    assert llem("run", "--resume", left.path).code == 0
    assert len(left.results) == 4


def test_a_finished_study_prints_its_table_whatever_became_of_its_prompts(llem: Llem) -> None:
    assert llem("run", scripted_study(llem, more="dataset: prompts.jsonl\n")).code == 0
    (llem.folder / "prompts.jsonl").unlink()
    done = llem("run", "--resume", Left.by(llem).path)
    assert done.code == 0, done.err


def test_keys_of_prompts_that_nothing_is_made_of_are_named_once_before_anything_runs(
    llem: Llem,
) -> None:
    rows = [{"text": "a b", "max_tokns": 3}, {"text": "c d", "max_tokns": 4}]
    llem.write("prompts.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    done = llem("run", scripted_study(llem, cycles=2, more="dataset: prompts.jsonl\n"))
    assert done.code == 0, done.err
    said = f"{llem.folder}/prompts.jsonl: not used of its rows: max_tokns"
    before, _, after = done.err.partition(said)
    assert "[1/" in after
    assert "[1/" not in before
    assert said not in after


def test_cycles_are_not_added_with_other_weights(llem: Llem) -> None:
    assert llem("run", model_study(llem)).code == 0
    left = Left.by(llem)
    with (llem.folder / "model" / "model.safetensors").open("r+b") as weights:
        weights.write(os.urandom(1 << 20))

    done = llem("run", "--resume", left.path, "--cycles", "4")

    assert done.code == 1
    assert f"the model ({llem.folder}/model): files " in done.err
    assert len(left.results) == 3


def test_prompts_that_change_while_a_study_runs_fail_what_comes_after(llem: Llem) -> None:
    done = llem("run", model_study(llem, EDITS_BEFORE_THE_SECOND))

    assert done.code == 1
    assert "1 experiment ran, 2 failed" in done.out
    left = Left.by(llem)
    assert len(left.results) == 1
    errors = left.errors.values()
    assert {(one["code"], one["phase"]) for one in errors} == {("experiment", "prepare")}
    assert all("the prompts (" in one["message"] for one in errors)
    assert "the prompts (" in " ".join(done.err.split()), "it is said on the screen too"

    write_prompts(llem)
    llem.write("mended", "")
    assert llem("run", "--resume", left.path).code == 0
    assert left.summary["ran"] == 3
    assert [one["n_cycles"] for one in left.summary["configurations"]] == [3]


def test_a_result_records_what_it_was_made_of(llem: Llem) -> None:
    assert llem("run", model_study(llem)).code == 0
    left = Left.by(llem)
    resolved = [json.loads(text)["resolved"] for text in left.results.values()]
    (inputs,) = {tuple(one["inputs"].items()) for one in resolved}
    assert dict(inputs)["dataset"] == resolved[0]["dataset"]["sha256"]
    assert dict(inputs)["model"].startswith("files ")


def test_a_study_of_an_earlier_version_is_held_against_what_its_results_say(llem: Llem) -> None:
    study = scripted_study(llem, cycles=2, more="dataset: prompts.jsonl\n")
    assert llem("run", study).code == 0
    left = Left.by(llem)
    for file in (left.study.manifest, left.study.plan):
        plan = json.loads(file.read_bytes())
        kept = {name: plan[name] for name in plan if name not in ("inputs", "sha256")}
        file.write_text(json.dumps({**kept, "schema_version": "1.0"}))
    lose_the_last(left)
    write_prompts(llem, "one more")
    done = llem("run", "--resume", left.path)
    assert done.code == 1
    assert "the prompts (" in done.err
