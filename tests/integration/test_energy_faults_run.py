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
FAR_S = 60.0  # ahead: beyond the end of the experiment, on however slow a machine


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


def test_without_a_fault_there_is_a_figure_and_it_is_not_invalid(
    llem: Llem, node: SimulatedNode
) -> None:
    result = run(llem, node)
    assert result["energy"]["total_j"] > 0
    assert result["trust"]["verdict"] != "invalid"
    assert not {"counter_reset", "foreign_process"} & set(codes(result))


def test_a_counter_that_starts_again_in_the_window_makes_the_result_invalid(
    llem: Llem, node: SimulatedNode
) -> None:
    begin_s = time.monotonic()
    for tenth in range(int(10 * FAR_S)):
        node.reset_counter(at_s=begin_s + tenth / 5)
    result = run(llem, node)
    assert result["trust"]["verdict"] == "invalid"
    assert "counter_reset" in codes(result)
    counters = [c for c in result["energy"]["components"] if "counter" in (c["method"] or "")]
    assert all(c["energy_j"] is None or "power" in c["method"] for c in counters)


def test_a_foreign_process_on_the_device_makes_the_result_invalid(
    llem: Llem, node: SimulatedNode
) -> None:
    node.add_process(1)
    result = run(llem, node)
    assert result["trust"]["verdict"] == "invalid"
    assert "foreign_process" in codes(result)
