"""Whole experiments on vLLM through the command and the library, and what interrupts them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

pytest.importorskip("vllm", reason="runs in the environment that `make test-vllm` makes")

from llenergymeasure.core.backends.shared.processes import MARK
from tests.support.cli import Done, Llem, wait_for

EXPERIMENT = """
model: random:tiny-llama
backend: vllm
precision: fp32
energy_backend: none
n: {n}
max_new_tokens: {tokens}
max_input_tokens: 64
warmup: {{n_warmup: 1}}
vllm: {{enforce_eager: true, max_model_len: 1024, max_num_seqs: 4, block_size: 32}}
"""
FLOOD = """
def flood():
    for number in range(12_000):
        print(f"flood {number:06} " + "x" * 90)
"""
SCARCE = """
from pathlib import Path


def scarce():
    from torch import OutOfMemoryError
    from vllm.v1.worker.worker_base import WorkerWrapperBase

    execute = WorkerWrapperBase.execute_model

    def short_of_memory(self, *arguments, **named):
        if Path("full").exists():
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return execute(self, *arguments, **named)

    WorkerWrapperBase.execute_model = short_of_memory
"""
SCRIPT = """
from llenergymeasure import run_experiment

result = run_experiment(
    model="random:tiny-llama", backend="vllm", precision="fp32", energy_backend="none",
    dataset="prompts.jsonl", n=6, max_new_tokens=4, warmup={"n_warmup": 0},
    vllm={"enforce_eager": True, "max_model_len": 512, "max_num_seqs": 2, "block_size": 32},
)
print(result.throughput.output_tokens, "prefix_cache_hits" in result.measurement_warnings)
"""
ELSEWHERE = f"python:{sys.executable}"
PATIENCE_S = 240  # a quarter of that is enough for a load on a quiet machine


@pytest.fixture
def llem(tmp_path: Path) -> Iterator[Llem]:
    made = Llem(tmp_path, environment={"VLLM_CPU_KVCACHE_SPACE": "1"})
    yield made
    assert not list(marked(made))


def marked(llem: Llem) -> Iterator[psutil.Process]:
    """Find processes of engines that were started from the command's folder."""
    for process in psutil.process_iter():
        try:
            if MARK in process.environ() and process.cwd() == str(llem.folder):
                yield process
        except (psutil.Error, OSError):
            continue


def experiment(llem: Llem, *, n: int = 8, tokens: int = 12, seconds: int = 0) -> str:
    window = f"window: {{min_duration_seconds: {seconds}}}\n"
    return str(llem.write("experiment.yaml", EXPERIMENT.format(n=n, tokens=tokens) + window))


def plugin(llem: Llem, name: str, text: str) -> None:
    """Install a plugin of vLLM, whose function of that name every process of it calls."""
    llem.write(f"site/vllm_{name}.py", text)
    about = f"site/vllm_{name}-1.0.dist-info"
    llem.write(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: vllm-{name}\nVersion: 1.0\n")
    llem.write(
        f"{about}/entry_points.txt",
        f"[vllm.general_plugins]\nvllm_{name} = vllm_{name}:{name}\n",
    )
    llem.source_path.append(str(llem.folder / "site"))


def phases(llem: Llem) -> list[str]:
    files = list((llem.folder / "results").glob("*/events.jsonl"))
    lines = files[0].read_text().splitlines() if files else []
    return [json.loads(line)["phase"] for line in lines]


def interrupted(process: subprocess.Popen[str]) -> Done:
    """Press Ctrl-C, as a terminal does: the whole group gets it."""
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_S)
    _gone, alive = psutil.wait_procs(children, timeout=PATIENCE_S)
    assert not alive
    return Done(process.returncode, out, err)


def test_an_engine_that_prints_megabytes_leaves_a_whole_result_and_clean_output(llem):
    plugin(llem, "flood", FLOOD)
    done = llem("run", experiment(llem), "--json", timeout_s=PATIENCE_S)
    assert done.code == 0, done.err
    result = json.loads(done.out)

    assert "flood" not in done.err
    (log,) = (llem.folder / "results").glob("*/log.txt")
    text = log.read_text()
    assert text.count("flood 011999") >= 3, "the engine core, its worker and this process"
    assert len(text) > 3_000_000
    assert "VLLM" in text or "EngineCore" in text

    assert result["throughput"]["output_tokens"] == 8 * 12
    assert result["throughput"]["padding_waste"] is None
    latency = result["latency"]
    assert 0 < latency["ttft_ms"]["p50"] <= latency["e2e_ms"]["p50"]
    assert 0 < latency["itl_ms"]["p50"] <= latency["e2e_ms"]["p50"]
    assert latency["tpot_ms"]["p50"] > 0
    resolved = result["resolved"]["backend"]
    assert (resolved["max_num_seqs"], resolved["load_format"]) == (4, "dummy")
    assert resolved["enable_prefix_caching"] is True
    assert result["resolved"]["model"]["weights"] == "random"
    assert "random_weights" in result["measurement_warnings"]
    assert any("seed of the engine's own" in note for note in result["reproducibility_notes"])
    assert result["peak_memory_mb"] > 0
    (table,) = (llem.folder / "results").glob("*/requests.parquet")
    rows = pq.read_table(table).to_pylist()
    assert [row["output_tokens"] for row in rows] == [12] * 8
    assert all(len(row["gaps_ns"]) == 11 for row in rows)


def test_a_script_without_a_main_guard_measures_and_shared_prompts_are_flagged(llem):
    prompt = " ".join(["the same long beginning of every prompt"] * 20)
    llem.write("prompts.jsonl", "\n".join([json.dumps({"prompt": prompt})] * 6))
    done = llem.script(SCRIPT, timeout_s=PATIENCE_S)

    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == "24 True"


@pytest.mark.parametrize("runner", ["local", pytest.param(ELSEWHERE, marks=pytest.mark.exhaustive)])
def test_an_interrupt_while_the_engine_loads_leaves_nothing_running(llem, runner):
    llem.environment["LLEM_RUNNER_VLLM"] = runner
    process = llem.start("run", experiment(llem))
    wait_for(lambda: list(marked(llem)) or process.poll() is not None, PATIENCE_S)
    done = interrupted(process)

    assert done.code == 130, done.err
    assert "interrupted in phase 'load'" in done.err
    assert not list((llem.folder / "results").glob("*/result.json"))


@pytest.mark.parametrize("runner", [pytest.param("local", marks=pytest.mark.exhaustive), ELSEWHERE])
def test_an_interrupt_in_the_measured_window_leaves_nothing_running(llem, runner):
    llem.environment["LLEM_RUNNER_VLLM"] = runner
    process = llem.start("run", experiment(llem, n=16, tokens=100, seconds=600))
    wait_for(lambda: "measure" in phases(llem) or process.poll() is not None, PATIENCE_S)
    assert len(list(marked(llem))) >= 2, "the engine core and its worker are there"
    done = interrupted(process)

    assert done.code == 130, done.err
    assert "interrupted in phase 'measure'" in done.err
    assert not list((llem.folder / "results").glob("*/result.json"))


def test_nothing_is_left_of_an_engine_whose_experiment_is_killed(llem):
    process = llem.start("run", experiment(llem, n=100, tokens=900))
    wait_for(lambda: "warmup" in phases(llem) or process.poll() is not None, PATIENCE_S)
    assert len(list(marked(llem))) >= 2
    process.kill()
    process.communicate()

    wait_for(lambda: not list(marked(llem)), PATIENCE_S)


@pytest.mark.parametrize(
    ("number", "phase"),
    [
        pytest.param(signal.SIGSTOP, "load", marks=pytest.mark.exhaustive),
        (signal.SIGSTOP, "measure"),
        (signal.SIGKILL, "warmup"),
        pytest.param(signal.SIGKILL, "measure", marks=pytest.mark.exhaustive),
    ],
)
def test_an_engine_core_that_is_stopped_or_killed_ends_the_run(llem, number, phase):
    process = llem.start("run", experiment(llem, n=16, tokens=100, seconds=600))
    try:
        wait_for(lambda: phase in phases(llem) and list(marked(llem)), PATIENCE_S)
        cores = [one for one in marked(llem) if one.name() == "VLLM::EngineCore"]
        for core in cores or marked(llem):  # it has its name a moment after its start
            core.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()

    assert process.returncode == 1, out + err
    assert f"the experiment failed in phase '{phase}': " in err
    silent = "vLLM no longer answers: its process [0-9]+ has been stopped for 10 s"
    assert re.search(silent if number == signal.SIGSTOP else "SIGKILL", err)


def test_a_worker_that_runs_out_of_memory_names_the_fields_to_lower(llem):
    plugin(llem, "scarce", SCARCE)
    process = llem.start("run", experiment(llem, n=16, tokens=100, seconds=600))
    wait_for(lambda: "measure" in phases(llem) or process.poll() is not None, PATIENCE_S)
    llem.write("full", "")
    _out, said = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 1, said
    assert "CUDA out of memory. Tried to allocate 2.00 GiB." in said
    assert "lower vllm.max_num_seqs" in said
    assert "asked for: vllm.max_num_seqs 4" in said
