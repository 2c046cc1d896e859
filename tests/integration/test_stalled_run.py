"""A worker that is stopped inside the window, as by a frozen container, and one that is not."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.cli import Llem, wait_for

STOPPED_S = 2.0
SCRIPTED = """
model: m
backend: scripted
energy_backend: none
n: 4
max_new_tokens: 50
warmup: {n_warmup: 1}
scripted: {ttft_ms: 20, itl_ms: 10}
"""
COMPUTED = """
model: random:tiny-llama
precision: fp32
energy_backend: none
dataset: {synthetic: {n: 4, input_len: 32, output_len: 64}}
warmup: {n_warmup: 1}
window: {min_duration_seconds: 2}
pytorch: {device: cpu, num_threads: 1}
"""


@pytest.fixture
def llem(tmp_path: Path) -> Llem:
    return Llem(tmp_path)


def measured(llem: Llem, text: str, *, stopped_s: float) -> tuple[dict[str, Any], str]:
    """Run an experiment, all of whose processes are stopped for a while inside the window."""
    process = llem.start("run", str(llem.write("experiment.yaml", text)))

    def in_window() -> bool:
        files = (llem.folder / "results").glob("*/events.jsonl")
        phases = [json.loads(line)["phase"] for file in files for line in file.open()]
        return "measure" in phases

    wait_for(lambda: in_window() or process.poll() is not None, timeout_s=120)
    time.sleep(0.3)
    leader = psutil.Process(process.pid)
    tree = [leader, *leader.children(recursive=True)]
    for one in tree * (stopped_s > 0):
        one.suspend()
    time.sleep(stopped_s)
    for one in tree * (stopped_s > 0):
        one.resume()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    (result,) = (llem.folder / "results").glob("*/result.json")
    return json.loads(result.read_bytes()), out


@pytest.mark.parametrize("text", [SCRIPTED, COMPUTED], ids=["scripted", "pytorch"])
def test_a_worker_that_was_stopped_says_so(llem: Llem, text: str) -> None:
    if text is COMPUTED:
        pytest.importorskip("torch")
    result, out = measured(llem, text, stopped_s=STOPPED_S)

    assert result["throughput"]["stalled_s"] == pytest.approx(STOPPED_S, abs=0.5)
    assert result["throughput"]["suspended_s"] < 0.5
    assert "stalled" in result["measurement_warnings"]
    assert result["trust"]["verdict"] == "invalid"
    assert "stalled: nothing came of the work for" in out


def test_a_worker_that_was_not_stopped_does_not(llem: Llem) -> None:
    result, _ = measured(llem, SCRIPTED, stopped_s=0.0)

    assert result["throughput"]["stalled_s"] == 0.0
    assert not {"stalled", "stalled_briefly"} & set(result["measurement_warnings"])
