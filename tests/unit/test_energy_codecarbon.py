"""CodeCarbon's figures as a recording: scope, kind, and what is unknown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llenergymeasure.core.energy.codecarbon import (
    CodeCarbonSource,
    cpu_coverage,
    gpu_coverage,
    rapl_readable,
)
from llenergymeasure.core.energy.codecarbon_reader import Part
from llenergymeasure.core.energy.protocol import SamplingRates
from llenergymeasure.core.energy.sampler import Recorded
from llenergymeasure.core.gpu_survey import GPUSurvey
from llenergymeasure.core.metrics import energy_result, throughput_result
from llenergymeasure.domain.co2 import CO2Estimate
from llenergymeasure.domain.energy import Energy, SamplingCost
from llenergymeasure.domain.environment import DeviceTarget, GPUInfo
from llenergymeasure.domain.samples import Window
from tests.support.make_result import make_sample

SECOND = Window(0, 1_000_000_000)
COST = SamplingCost(reads=0, mean_read_ms=None, p99_read_ms=None, cpu_seconds=0.0)


def part(
    name: str,
    energy_j: float | None,
    kind: str = "modelled",
    gpu: bool = False,
    reset: bool = False,
    *,
    power_w: float | None = None,
):
    told = {"name": name, "gpu": gpu, "kind": kind, "method": "somehow", "energy_j": energy_j}
    return {**told, "reset": reset, "power_w": power_w}


def recording(target: DeviceTarget, *parts, seconds: float = 1.0, messages=(), grams=0.1):
    told = {"seconds": seconds, "grams": grams, "messages": list(messages)}
    source = CodeCarbonSource(target, SamplingRates())
    return source.recording(Recorded((), {"parts": list(parts), **told}, COST, SECOND), SECOND)


HOST = (part("cpu", 30.0, "measured"), part("ram", 10.0))
GPUS = (
    part("GPU-a", 100.0, "measured", gpu=True),
    part("GPU-b", 50.0, "measured", gpu=True),
)


def test_work_on_a_cpu_counts_cpu_and_ram_and_shows_gpus_beside_them():
    recorded = recording(DeviceTarget("cpu"), *HOST, *GPUS)

    assert recorded.total_j == 40.0
    assert recorded.kind == "modelled"
    assert [c.name for c in recorded.components if not c.in_scope] == ["GPU-a", "GPU-b"]


def test_work_on_a_gpu_counts_the_named_gpus_only():
    recorded = recording(DeviceTarget("gpu", ("GPU-b",)), *HOST, *GPUS)

    assert recorded.total_j == 50.0
    assert recorded.kind == "measured"


def test_work_on_unnamed_gpus_counts_all_of_them():
    assert recording(DeviceTarget("gpu"), *HOST, *GPUS).total_j == 150.0


def test_a_part_that_was_not_read_makes_the_total_unknown():
    recorded = recording(DeviceTarget("cpu"), part("cpu", None, "measured"), part("ram", 10.0))

    assert recorded.total_j is None
    assert recorded.kind == "unmeasurable"
    assert recorded.components[0].kind == "unmeasurable"
    assert any("could not read cpu" in note for note in recorded.notes)


def test_what_codecarbon_warned_of_reaches_the_notes():
    recorded = recording(DeviceTarget("cpu"), *HOST, messages=["counter went backwards"])

    assert "CodeCarbon warned: counter went backwards" in recorded.notes


def test_figures_of_a_longer_stretch_are_not_related_to_the_work():
    told = recording(DeviceTarget("cpu"), *HOST, seconds=1.1)
    same = recording(DeviceTarget("cpu"), *HOST, seconds=1.01)

    assert told.stretch_s == 1.1
    assert told.total_j == 40.0
    assert told.energy == Energy(None)
    assert any("cover 1.100 s around a window of 1.000 s" in note for note in told.notes)
    assert same.stretch_s is None
    assert same.energy.total_j == 40.0
    assert not any("around a window" in note for note in same.notes)


def test_where_power_is_constant_the_energy_is_that_of_the_window():
    """CodeCarbon's own stretch is threefold that of a window of a few milliseconds."""
    parts = (part("cpu", 105.0, power_w=35.0), part("ram", 30.0, power_w=10.0))
    recorded = recording(DeviceTarget("cpu"), *parts, seconds=3.0)

    assert recorded.total_j == 45.0
    assert recorded.stretch_s is None
    assert recorded.energy.total_j == 45.0
    assert not any("around a window" in note for note in recorded.notes)


def test_a_part_out_of_scope_says_nothing_about_the_stretch_of_the_total():
    parts = (part("ram", 30.0, power_w=10.0), *GPUS)
    assert recording(DeviceTarget("cpu"), *parts, seconds=3.0).stretch_s is None


def test_without_energy_of_the_window_no_ratio_is_told():
    recorded = recording(DeviceTarget("cpu"), *HOST, seconds=3.0)
    work = throughput_result((make_sample(),), SECOND, passes=1, prompts_truncated=0)
    told = energy_result(
        recorded, work, mean_e2e_s=1.0, selection_reason="asked for", scope="the CPU"
    )

    assert (told.total_j, told.stretch_s) == (40.0, 3.0)
    ratios = (told.per_output_token_j, told.per_request_j, told.tokens_per_j)
    assert {*ratios, told.mean_power_w, told.edp_js, told.adjusted_j} == {None}


def test_grams_are_kept_apart_and_the_country_they_assume_is_documented():
    with_grams = recording(DeviceTarget("cpu"), *HOST, grams=0.25)
    without = recording(DeviceTarget("cpu"), *HOST, grams=None)

    assert with_grams.codecarbon_grams == 0.25
    assert without.codecarbon_grams is None
    assert "USA" in str(CO2Estimate.model_fields["codecarbon_grams"].description)


def test_a_long_stretch_without_energy_makes_the_part_unknown_for_good():
    cpu = Part("cpu", False, "measured", "counter")
    cpu.add(50.0, 5.0)
    cpu.add(0.0, 5.0)
    cpu.add(50.0, 5.0)

    assert cpu.energy_j is None


def test_a_short_stretch_between_two_ticks_may_be_zero():
    cpu = Part("cpu", False, "measured", "counter")
    cpu.add(50.0, 5.0)
    cpu.add(0.0, 0.05)

    assert cpu.energy_j == 50.0


def test_a_counter_that_started_again_is_a_finding_where_it_counts():
    fallen = part("GPU-a", None, "measured", gpu=True, reset=True)

    assert "counter_reset" in recording(DeviceTarget("gpu", ("GPU-a",)), fallen).flags
    assert "counter_reset" not in recording(DeviceTarget("gpu", ("GPU-b",)), fallen, GPUS[1]).flags
    assert recording(DeviceTarget("cpu"), *HOST, fallen).flags == ()


def test_where_nothing_tells_the_state_of_gpus_the_result_says_so():
    assert "processes_unknown" in recording(DeviceTarget("gpu"), *GPUS).flags


WARNINGS = {
    "Failed to read the energy counter of GPU 1, averaging its power usage until": False,
    "Failed to retrieve power usage of GPU 1, its energy will be reported as 0": False,
    "GPU 1 reports 0 W power usage and has no usable energy counter": False,
    "Energy counter of GPU 1 went backwards (driver reload or counter reset)": True,
}


@pytest.mark.parametrize(("message", "reset"), WARNINGS.items())
def test_what_codecarbon_says_it_did_not_read_is_unknown_for_good(message, reset):
    heard, other = (Part("GPU-x", True, "measured", "counter", index=i) for i in (1, 11))
    for gpu in (heard, other):
        gpu.add(2000.0, 5.0)
        gpu.hear(message)
        gpu.add(0.0, 0.1)

    assert (heard.energy_j, heard.reset) == (None, reset)
    assert (other.energy_j, other.reset) == (2000.0, False)


def test_a_part_that_codecarbon_leaves_out_is_unknown():
    cpu = Part("cpu", False, "measured", "counter")
    cpu.add(None, 0.05)

    assert cpu.energy_j is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_counter_that_only_root_may_read_is_not_readable(tmp_path):
    counter = _counter(tmp_path)
    counter.chmod(0)

    assert not rapl_readable(tmp_path)


def test_rapl_shows_in_the_scope_and_ram_keeps_the_whole_modelled(tmp_path):
    without = cpu_coverage(tmp_path)
    _counter(tmp_path)
    having = cpu_coverage(tmp_path)

    assert (without.kind, having.kind) == ("modelled", "modelled")
    assert "modelled from its load" in without.scope
    assert "measured by RAPL" in having.scope


def test_without_a_driver_a_gpu_is_not_covered(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    coverage = gpu_coverage(("GPU-aaaa",))

    assert coverage.kind is None
    assert "nvidia-smi" in coverage.scope
    assert coverage.remedy


def test_gpus_that_nvml_shows_are_covered_and_others_are_named(monkeypatch, tmp_path):
    _install_tool(monkeypatch, tmp_path)

    assert gpu_coverage(("GPU-bbbb",), shown).kind == "measured"
    absent = gpu_coverage(("GPU-bbbb", "GPU-none"), shown)
    assert absent.kind is None
    assert "no such GPU: GPU-none;" in absent.scope


def test_a_slice_of_a_gpu_is_not_covered_nor_is_a_gpu_cut_into_slices(monkeypatch, tmp_path):
    _install_tool(monkeypatch, tmp_path)

    for uuids in (("MIG-1234",), ("GPU-MIG-1234",), ("GPU-cccc",)):
        refused = gpu_coverage(uuids, shown)
        assert refused.kind is None
        assert "no energy of its own" in refused.scope


def test_a_driver_that_does_not_answer_is_a_reason(monkeypatch, tmp_path):
    _install_tool(monkeypatch, tmp_path)
    coverage = gpu_coverage((), lambda: GPUSurvey(note="Driver Not Loaded"))

    assert coverage.kind is None
    assert "Driver Not Loaded" in coverage.scope


def shown() -> GPUSurvey:
    whole = [
        GPUInfo(index=i, uuid=uuid, name="A100") for i, uuid in enumerate(("GPU-aaaa", "GPU-bbbb"))
    ]
    return GPUSurvey(gpus=(*whole, GPUInfo(index=2, uuid="GPU-cccc", name="A100", mig_mode=True)))


def _counter(powercap: Path) -> Path:
    domain = powercap / "intel-rapl:0"
    domain.mkdir()
    counter = domain / "energy_uj"
    counter.write_text("1")
    return counter


def _install_tool(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    tool = directory / "nvidia-smi"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
