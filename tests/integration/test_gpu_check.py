"""The check of a GPU, from its command to its report, on a simulated device."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.node_program import ROOT, environment
from tests.support.simulated_device.build import compiler_missing
from tests.support.simulated_device.device import Board, SimulatedNode
from tests.support.simulated_device.profiles import V100, DeviceProfile, vary

pytestmark = pytest.mark.skipif(compiler_missing() is not None, reason=str(compiler_missing()))

NO_TESTS = ("tests/gpu", "-m", "gpu", "-k", "no_such_test")


def plan(node: SimulatedNode, **changes: Any) -> dict[str, Any]:
    """Make a check of some seconds of a device whose load is written down."""
    script = {"ttft_ms": 60.0, "itl_ms": 13.0}
    log = str(node.load_log()) if node.boards else ""
    if node.boards:
        script |= {"device_uuids": [node.uuid()], "load_log": log}
    experiment = {
        "model": "none",
        "backend": "scripted",
        "energy_backend": "nvml",
        "max_new_tokens": 10,
        "warmup": {"n_warmup": 1, "thermal_floor_seconds": 0},
        "baseline": {"duration_seconds": 1.0},
        "window": {"min_duration_seconds": 2.0},
        "scripted": script,
    }
    return {
        "load_log": log,
        "hold_s": 3.0,
        "quick_s": 2.0,
        "compare_s": 2.0,
        "short_bursts": 12,
        "long_bursts": 4,
        "batch_sizes": [2],
        "experiment": experiment,
        **changes,
    }


def check(
    folder: Path, node: SimulatedNode, settings: dict[str, Any], *options: str
) -> tuple[int, dict[str, Any]]:
    """Run the check as its shell script does; give its exit code and its report."""
    (folder / "plan.json").write_text(json.dumps(settings))
    report = folder / "reports" / "report.json"
    command = [sys.executable, "-m", "gpu_check", "--out", str(report)]
    environ = environment(node, {"HOME": str(folder)})
    done = subprocess.run(
        [*command, "--plan", str(folder / "plan.json"), *options],
        env={**environ, "PYTHONPATH": f"{environ['PYTHONPATH']}:{ROOT / 'scripts'}"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert report.exists(), done.stderr
    assert str(report) in done.stdout
    return done.returncode, json.loads(report.read_text())


def one_device(folder: Path, profile: DeviceProfile = V100) -> SimulatedNode:
    return SimulatedNode(folder, [Board(profile)])


def test_a_whole_check_reports_every_section(tmp_path: Path) -> None:
    node = one_device(tmp_path, vary(V100, lag_s=0.03, noise_w=2.0))
    # tests that are there on any machine stand in for those that need a GPU
    tests = ["tests/unit/test_filenames.py"]
    code, report = check(tmp_path, node, plan(node, tests=tests))
    sections = report["sections"]

    required = {name: one for name, one in sections.items() if name != "zeus"}
    assert not {name: one for name, one in required.items() if one["status"] != "ok"}
    assert [*sections] == [
        *("environment", "sensors", "cross_check", "zeus", "experiment_batch_2", "tests")
    ]
    assert report["environment"]["gpus"][0]["name"] == V100.name
    sensors = sections["sensors"]["figures"]
    assert sensors["watched"]["counter"]["median"] == pytest.approx(20.0, rel=0.1)
    assert sensors["calibrated"]["counter"]["tick_ms"] == pytest.approx(20.0, rel=0.02)
    assert sensors["calibrated"]["power"]["tick_ms"] == pytest.approx(20.0, rel=0.02)
    load = sections["cross_check"]["figures"]["load"]
    assert load["counter_w"] == pytest.approx(300.0, rel=0.02)
    assert load["power_w"] == pytest.approx(300.0, rel=0.05)
    assert sections["experiment_batch_2"]["figures"]["energy_j"] > 0
    assert sections["tests"]["figures"]["passed"] > 0
    assert (code, report["ok"]) == (0, True)


def test_a_report_names_no_device_place_or_person(tmp_path: Path) -> None:
    node = one_device(tmp_path)
    _, report = check(tmp_path, node, plan(node), "--sections", "cross_check")
    text = json.dumps(report)

    assert node.uuid() not in text
    assert report["environment"]["gpus"][0]["uuid"].startswith("GPU-")
    assert str(ROOT) not in text
    assert str(tmp_path) not in text


def test_a_section_that_breaks_hides_no_other(tmp_path: Path) -> None:
    node = one_device(tmp_path)
    broken = plan(node)["experiment"] | {"model": "none", "n_of_nothing": 1}
    settings = plan(node, experiment=broken, tests=NO_TESTS)
    code, report = check(
        tmp_path, node, settings, "--sections", "experiment_batch_2,cross_check,tests"
    )
    sections = report["sections"]

    assert (code, report["ok"]) == (1, False)
    assert sections["experiment_batch_2"]["status"] == "failed"
    assert "n_of_nothing" in sections["experiment_batch_2"]["reason"]
    assert sections["experiment_batch_2"]["figures"]["log"]
    assert sections["cross_check"]["status"] == "ok"
    assert sections["tests"]["status"] == "failed"  # pytest found none


def test_a_counter_that_counts_too_much_fails_the_cross_check(tmp_path: Path) -> None:
    node = one_device(tmp_path, vary(V100, counter_gain=1.2))
    code, report = check(tmp_path, node, plan(node), "--sections", "cross_check")
    found = report["sections"]["cross_check"]

    assert (code, found["status"]) == (1, "failed")
    assert "load: counter / power is 1.2" in found["reason"]


def test_a_machine_without_a_gpu_gets_a_report_that_says_so(tmp_path: Path) -> None:
    node = SimulatedNode(tmp_path, [])
    code, report = check(tmp_path, node, plan(node), "--sections", "sensors,tests")

    assert (code, report["ok"]) == (1, False)
    assert "NVML sees no GPU" in report["sections"]["environment"]["reason"]
    assert "NVML shows no GPU" in report["sections"]["sensors"]["reason"]
    # a machine with nvidia-smi and without a GPU: the tests are skipped, and why is said
    assert report["sections"]["tests"]["status"] == "skipped"
    assert report["sections"]["tests"]["reason"]
