"""Ctrl-C in every phase: exit code 130, a message, no result, and nothing left running."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.support.cli import THIRD_PARTY, Done, Llem, interrupt, wait_for

SLOW = """
model: m
backend: scripted
energy_backend: none
n: 3
max_new_tokens: {tokens}
warmup: {{n_warmup: {warmup}}}
scripted: {{ttft_ms: {ttft_ms}, itl_ms: 100}}
"""
SLEEPER = """
import time
from pathlib import Path


def nap(name):
    Path(name).touch()
    time.sleep(60)


class Engine(ScriptedBackend):
    pass


class Backend(ScriptedBackend):
{method}
"""


@pytest.fixture
def llem(tmp_path: Path) -> Llem:
    return Llem(tmp_path)


def phases(llem: Llem) -> list[str]:
    files = list((llem.folder / "results").glob("*/events.jsonl"))
    lines = files[0].read_text().splitlines() if files else []
    return [json.loads(line)["phase"] for line in lines]


def names(llem: Llem) -> set[str]:
    return {path.name for path in llem.left("results")}


def interrupted_in(llem: Llem, phase: str, *arguments: str, times: int = 1) -> Done:
    process = llem.start("run", *arguments)
    wait_for(lambda: phase in phases(llem) or process.poll() is not None)
    done = interrupt(process, times=times)
    assert done.code == 130, done.err
    assert f"llem: interrupted in phase '{phase}'; no result was written" in done.err
    assert "result.json" not in names(llem)
    (error,) = (llem.folder / "results").glob("*/error.json")
    kept = json.loads(error.read_text())
    assert (kept["code"], kept["phase"]) == ("interrupted", phase)
    return done


def slow(llem: Llem, *, warmup: int) -> str:
    text = SLOW.format(tokens=50, warmup=warmup, ttft_ms=20)
    return str(llem.write("slow.yaml", text))


@pytest.mark.parametrize("times", [1, 2])
def test_in_the_measured_window(llem: Llem, times: int) -> None:
    interrupted_in(llem, "measure", slow(llem, warmup=0), times=times)


def test_a_scheduler_that_asks_it_to_end(llem: Llem) -> None:
    process = llem.start("run", slow(llem, warmup=0))
    wait_for(lambda: "measure" in phases(llem) or process.poll() is not None)
    done = interrupt(process, number=signal.SIGTERM)
    assert done.code == 143, done.err
    assert "llem: interrupted in phase 'measure'; no result was written" in done.err
    assert {"error.json", "log.txt"} <= names(llem)


def test_while_warming_up(llem: Llem) -> None:
    interrupted_in(llem, "warmup", slow(llem, warmup=3))


def test_json_says_so_too(llem: Llem) -> None:
    done = interrupted_in(llem, "warmup", slow(llem, warmup=3), "--json")
    assert done.error["code"] == "interrupted"


def test_while_energy_is_sampled_in_another_process(llem: Llem) -> None:
    pytest.importorskip("codecarbon")
    interrupted_in(llem, "measure", slow(llem, warmup=0), "--energy-backend", "codecarbon")


@pytest.mark.parametrize(
    ("phase", "method"),
    [
        ("load", "    def load(self, config, cache_dir): nap('napping')"),
        (
            "prepare",
            "    def load(self, config, cache_dir):\n"
            "        engine = super().load(config, cache_dir)\n"
            "        engine.plan = lambda requests: nap('napping')\n"
            "        return engine",
        ),
        (
            "collect",
            "    def load(self, config, cache_dir):\n"
            "        engine = super().load(config, cache_dir)\n"
            "        report = engine.inspect\n"
            "        calls = iter(range(9))\n"
            "        engine.inspect = lambda: report() if next(calls) < 1 else nap('napping')\n"
            "        return engine",
        ),
    ],
)
def test_while_an_engine_is_busy_in(llem: Llem, phase: str, method: str) -> None:
    llem.plugin(SLEEPER.format(method=method))
    process = llem.start("run", *THIRD_PARTY)
    wait_for(lambda: (llem.folder / "napping").exists() or process.poll() is not None)
    done = interrupt(process)
    assert done.code == 130, done.err
    assert f"interrupted in phase '{phase}'" in done.err
    assert "result.json" not in names(llem)


def test_before_anything_has_started(llem: Llem) -> None:
    llem.plugin(SLEEPER.format(method="    def problems(self, config): nap('napping')"))
    process = llem.start("run", *THIRD_PARTY)
    wait_for(lambda: (llem.folder / "napping").exists() or process.poll() is not None)
    done = interrupt(process)
    assert (done.code, done.err.splitlines()[1:]) == (130, ["llem: interrupted"])
    assert not names(llem)


def test_while_an_engine_makes_another_error_of_it(llem: Llem) -> None:
    method = (
        "    def load(self, config, cache_dir):\n"
        "        try:\n"
        "            nap('napping')\n"
        "        except KeyboardInterrupt:\n"
        "            raise ImportError('half imported') from None"
    )
    llem.plugin(SLEEPER.format(method=method))
    process = llem.start("run", *THIRD_PARTY)
    wait_for(lambda: (llem.folder / "napping").exists() or process.poll() is not None)
    done = interrupt(process)
    assert (done.code, "interrupted" in done.err) == (130, True)


def test_a_third_one_ends_an_engine_that_will_not_stop(llem: Llem) -> None:
    method = (
        "    def load(self, config, cache_dir):\n"
        "        while True:\n"
        "            try:\n"
        "                nap('napping')\n"
        "            except KeyboardInterrupt:\n"
        "                pass"
    )
    llem.plugin(SLEEPER.format(method=method))
    process = llem.start("run", *THIRD_PARTY)
    wait_for(lambda: (llem.folder / "napping").exists() or process.poll() is not None)
    done = interrupt(process, times=3)
    assert done.code == 130
    assert "press Ctrl-C once more" in done.err


def test_with_a_real_engine_in_the_measured_window(llem: Llem) -> None:
    pytest.importorskip("transformers")
    text = (
        "model: random:tiny-llama\nprecision: fp32\nenergy_backend: none\nn: 100\n"
        "max_new_tokens: 256\nwarmup: {n_warmup: 0}\npytorch: {device: cpu}\n"
    )
    interrupted_in(llem, "measure", str(llem.write("real.yaml", text)))
