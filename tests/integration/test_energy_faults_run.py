"""Faults of a device through whole experiments: they end in a verdict, never in a wrong number."""

from __future__ import annotations

import importlib.util
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Llem
from tests.support.node_program import ask_on
from tests.support.simulated_device.device import HW_THERMAL, Board, SimulatedNode

EXPERIMENT = """
model: none
backend: scripted
n: 8
max_new_tokens: 25
scripted: {{ttft_ms: 20, itl_ms: 10, batch_size: 2, device_uuids: [{uuid}], load_log: {log}}}
warmup: {{n_warmup: 1, thermal_floor_seconds: 0}}
baseline: {{enabled: false}}
"""
RESETS, RESET_EVERY_S = 300, 0.2  # a minute of them, so that one falls into the window


@pytest.fixture
def llem(tmp_path: Path) -> Llem:
    return Llem(tmp_path)


@pytest.fixture
def node(tmp_path: Path) -> SimulatedNode:
    directory = tmp_path / "node"
    directory.mkdir()
    return SimulatedNode(directory)


def run(llem: Llem, node: SimulatedNode, source: str = "nvml") -> dict[str, Any]:
    llem.environment.update(node.environment)
    experiment = llem.folder / "experiment.yaml"
    experiment.write_text(EXPERIMENT.format(uuid=node.uuid(), log=node.load_log()))
    done = llem("run", "experiment.yaml", "--energy-backend", source, timeout_s=120)
    assert done.code == 0, done.err
    (path,) = llem.folder.rglob("result.json")
    result: dict[str, Any] = json.loads(path.read_text())
    return result


def codes(result: dict[str, Any]) -> list[str]:
    return [reason["code"] for reason in result["trust"]["reasons"]]


def is_right_or_absent(result: dict[str, Any], node: SimulatedNode) -> bool:
    total_j, half_j = result["energy"]["total_j"], result["energy"]["interval95_j"]
    if total_j is None:
        return result["energy"]["kind"] == "unmeasurable"
    window = result["window"]
    true_j = node.true_energy_j(window["t0_ns"] / 1e9, window["t1_ns"] / 1e9)
    return abs(total_j - true_j) <= half_j


def test_without_a_fault_neither_code_is_raised_and_the_figure_is_right(
    llem: Llem, node: SimulatedNode
) -> None:
    result = run(llem, node)
    assert is_right_or_absent(result, node)
    assert not {"counter_reset", "foreign_process"} & set(codes(result))


def test_a_counter_that_starts_again_in_the_window_makes_the_result_invalid(
    llem: Llem, node: SimulatedNode
) -> None:
    begin_s = time.monotonic()
    for number in range(RESETS):
        node.reset_counter(at_s=begin_s + number * RESET_EVERY_S)
    result = run(llem, node)
    assert result["trust"]["verdict"] == "invalid"
    assert "counter_reset" in codes(result)
    assert is_right_or_absent(result, node)


def test_a_foreign_process_on_the_device_makes_the_result_invalid(
    llem: Llem, node: SimulatedNode
) -> None:
    node.add_process(1)
    result = run(llem, node)
    assert result["trust"]["verdict"] == "invalid"
    assert "foreign_process" in codes(result)
    assert is_right_or_absent(result, node)


SOURCES = [
    "none",
    pytest.param(
        "codecarbon",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("codecarbon") is None, reason="codecarbon is not installed"
        ),
    ),
]


@pytest.fixture
def with_tool(llem: Llem) -> Llem:
    """A machine with nvidia-smi, by which CodeCarbon decides to look for GPUs."""
    tool = llem.folder / "nvidia-smi"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    llem.environment["PATH"] = f"{llem.folder}:{os.environ['PATH']}"
    return llem


@pytest.mark.parametrize("source", SOURCES)
def test_heat_and_foreign_processes_void_a_result_whatever_reads_its_energy(
    with_tool: Llem, node: SimulatedNode, source: str
) -> None:
    now_s = time.monotonic()
    node.throttle(HW_THERMAL, from_s=now_s, until_s=now_s + 120)
    node.add_process(1)
    result = run(with_tool, node, source)
    assert result["trust"]["verdict"] == "invalid"
    assert {"hardware_thermal_slowdown", "foreign_process"} <= set(codes(result))
    assert result["thermal"]["start_c"] is not None


RESET_IN_A_WINDOW = """
from llenergymeasure.core.energy.codecarbon import CodeCarbonSource
from llenergymeasure.core.energy.protocol import SamplingRates
from llenergymeasure.domain.samples import Window
from llenergymeasure.domain.environment import DeviceTarget
uuid, faults = given
source = CodeCarbonSource(DeviceTarget("gpu", (uuid,)), SamplingRates())
source.start()
source.open_window()
t0_ns = time.monotonic_ns()
time.sleep(0.5)
with open(faults, "a") as file:
    file.write(f"0 {time.monotonic()!r} inf reset\\n")
time.sleep(0.5)
found = source.close_window(Window(t0_ns, time.monotonic_ns()))
source.stop()
answer = [found.total_j, found.flags]
"""


@pytest.mark.skipif(importlib.util.find_spec("codecarbon") is None, reason="not installed")
def test_a_counter_that_starts_again_under_codecarbon_is_said_so(
    with_tool: Llem, node: SimulatedNode, tmp_path: Path
) -> None:
    given = [node.uuid(), str(tmp_path / "node" / "faults")]
    total_j, flags = ask_on(node, RESET_IN_A_WINDOW, given, with_tool.environment)
    assert total_j is None
    assert "counter_reset" in flags


def test_auto_that_finds_no_source_is_a_caution_and_no_invalid_result(
    llem: Llem, tmp_path: Path
) -> None:
    sliced = Board(settings={"mig_mode": 1, "mig_slices": 2})
    (tmp_path / "sliced").mkdir()
    result = run(llem, SimulatedNode(tmp_path / "sliced", [sliced]), "auto")
    assert result["energy"]["total_j"] is None
    assert result["energy"]["source"] == "none"
    assert (result["trust"]["verdict"], result["trust"]["energy"]) == ("caution", "off")
    assert "no_energy_source" in codes(result)
