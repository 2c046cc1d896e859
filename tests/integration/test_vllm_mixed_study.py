"""One study over two engines, each in an interpreter of its own, on real prompts."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="runs in the environment that `make test-vllm` makes")

from tests.support.cli import Llem

OTHER_PYTHON = os.environ.get("LLEM_TEST_PYTORCH_PYTHON", sys.executable)
STUDY = """
name: engines
model: random:tiny-llama
backend: [pytorch, vllm]
precision: fp32
energy_backend: none
n: 6
max_new_tokens: 8
max_input_tokens: 64
warmup: {n_warmup: 1}
pytorch: {batch_size: 6}
vllm: {enforce_eager: true, max_model_len: 512, max_num_seqs: 6, block_size: 32}
execution: {n_cycles: 2, cycle_order: interleaved, config_gap_seconds: 0, cycle_gap_seconds: 0}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[Any], str]:
    """Run the study; give its summary, its results in the order of running, and what it printed."""
    llem = Llem(
        tmp_path_factory.mktemp("mixed"),
        environment={
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "LLEM_RUNNER_PYTORCH": f"python:{OTHER_PYTHON}",
            "LLEM_RUNNER_VLLM": f"python:{sys.executable}",
        },
    )
    done = llem("run", str(llem.write("study.yaml", STUDY)), timeout_s=900)
    assert done.code == 0, done.err
    (root,) = (llem.folder / "results").iterdir()
    summary = json.loads((root / "study_summary.json").read_text())
    files = sorted(root.glob("experiments/*/result.json"))
    return summary, [json.loads(file.read_text()) for file in files], done.out


def test_both_engines_ran_in_turn_and_in_their_own_places(
    finished: tuple[dict[str, Any], list[Any], str],
) -> None:
    _, results, _ = finished
    assert [one["config"]["backend"] for one in results] == ["pytorch", "vllm"] * 2
    runners = {one["config"]["backend"]: one["resolved"]["runner"] for one in results}
    assert runners == {"pytorch": f"python:{OTHER_PYTHON}", "vllm": f"python:{sys.executable}"}


def test_both_engines_got_the_same_prompts_and_gave_as_many_tokens(
    finished: tuple[dict[str, Any], list[Any], str],
) -> None:
    summary, results, _ = finished
    work = {
        (one["throughput"]["input_tokens"], one["throughput"]["output_tokens"]) for one in results
    }
    assert len(work) == 1
    assert not [note for note in summary["notes"] if note["kind"] == "work"]


def test_what_could_not_be_made_equal_is_told_with_the_settings_that_were_in_force(
    finished: tuple[dict[str, Any], list[Any], str],
) -> None:
    summary, _, printed = finished
    told = [note for note in summary["notes"] if note["kind"] == "difference"]
    assert [about for note in told for about in note["about"]] == [
        "scheduling (TTFT)",
        "KV cache (peak memory)",
        "clocks (TTFT, TPOT, ITL)",
        "random weights (energy)",
        "warm-up",
        "CPU threads",
    ]
    assert not [note for note in told if "unknown" in note["text"]]
    assert "- engines differ in scheduling (TTFT), KV cache (peak memory)" in printed


def test_one_table_ranks_both(finished: tuple[dict[str, Any], list[Any], str]) -> None:
    summary, _, printed = finished
    assert summary["ran"] == 4
    assert {one["settings"]["backend"] for one in summary["configurations"]} == {"pytorch", "vllm"}
    ranked = printed.partition("Throughput, highest first")[2]
    assert " vllm" in ranked
    assert " pytorch" in ranked


def test_an_interpreter_without_the_engine_is_told_before_anything_runs(tmp_path: Path) -> None:
    absent = tmp_path / "no-such-python"
    llem = Llem(tmp_path, environment={"LLEM_RUNNER_VLLM": f"python:{absent}"})
    said = llem.fails("run", str(llem.write("study.yaml", STUDY)), timeout_s=300)
    assert str(absent) in said
    assert "runners.vllm" in said
