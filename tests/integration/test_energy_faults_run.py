"""Faults of a device through whole experiments: they end in a verdict, never in a wrong number."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Llem
from tests.support.simulated_device.device import SimulatedNode

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


def run(llem: Llem, node: SimulatedNode) -> dict[str, Any]:
    llem.environment.update(node.environment)
    experiment = llem.folder / "experiment.yaml"
    experiment.write_text(EXPERIMENT.format(uuid=node.uuid(), log=node.load_log()))
    done = llem("run", "experiment.yaml", "--energy-backend", "nvml", timeout_s=120)
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
