"""The verdict on a result, finding by finding."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from llenergymeasure.core import energy as sources
from llenergymeasure.core.trust import Evidence, assess
from llenergymeasure.domain.energy import EnergyComponent, EnergyRecording
from llenergymeasure.domain.environment import DeviceState, DeviceTarget, count_events
from llenergymeasure.domain.results import (
    BaselineResult,
    CPULoad,
    CPUThrottling,
    PassComparison,
    ThroughputResult,
    warning_codes,
)
from llenergymeasure.domain.warnings import FINDINGS

UUID = "GPU-00000000-0000-0000-0000-000000000001"
QUIET = DeviceState(
    device=UUID,
    start_c=50.0,
    end_c=60.0,
    clock_sm_mhz=1400.0,
    state_samples=100,
    power_limit_w=400.0,
    power_limit_default_w=400.0,
    persistence_mode=True,
    foreign_pids=(),
)
STEADY = PassComparison(
    passes_each=2,
    first_j=1000.0,
    second_j=1004.0,
    allowed_j=15.0,
    closes=True,
    power_change=0.004,
    power_change_interval95=0.005,
    clock_change=0.002,
)
IDLE = BaselineResult(
    device_idle_w=60.0,
    loaded_idle_w=65.0,
    device_idle_steady=True,
    loaded_idle_steady=True,
    duration_s=30.0,
    skipped=None,
)
WORK = ThroughputResult(
    window_s=60.0,
    passes=2,
    requests_completed=200,
    requests_failed=0,
    input_tokens=2000,
    output_tokens=2000,
    output_tokens_per_second=33.3,
    total_tokens_per_second=66.7,
    requests_per_second=3.33,
    prompts_truncated=0,
    padding_waste=None,
)
METER = EnergyComponent(
    name=UUID, energy_j=2004.0, kind="measured", method="counter", in_scope=True
)
READ = EnergyRecording("nvml", components=(METER,), device_state=(QUIET,))
SOUND = Evidence(
    throughput=WORK,
    batches=100,
    weights="pretrained",
    energy_asked=True,
    energy=READ,
    target=DeviceTarget("gpu", (UUID,)),
    reference_c={UUID: 52.0},
    comparison=STEADY,
    baseline=IDLE,
    prefix_cache_hits=0,
)


def device(**changes: object) -> Evidence:
    """Make sound evidence but for the state of its device."""
    return energy(device_state=(QUIET.model_copy(update=changes),))


def energy(evidence: Evidence = SOUND, **changes: object) -> Evidence:
    """Change what a source recorded."""
    return replace(evidence, energy=replace(evidence.energy, **changes))  # type: ignore[arg-type]


def work(evidence: Evidence = SOUND, **changes: object) -> Evidence:
    """Change what was done in the window."""
    return replace(evidence, throughput=evidence.throughput.model_copy(update=changes))


def events(*bits: int) -> Evidence:
    """Make sound evidence but for the clock-event reasons of four samples."""
    return device(state_samples=4, clock_events=count_events(bits))


def halves(**changes: object) -> Evidence:
    """Make sound evidence but for how the halves compare."""
    return replace(SOUND, comparison=STEADY.model_copy(update=changes))


def held_back(seconds: float, throttled_periods: int = 30) -> CPUThrottling:
    """Make what a quota held back in a window of 60 s."""
    return CPUThrottling(
        group="the control group /job",
        periods=600,
        throttled_periods=throttled_periods,
        throttled_s=seconds,
    )


def flag(code: str) -> Evidence:
    """Make sound evidence but for what the readings show."""
    return energy(flags=(code,))


CASES: dict[str, Evidence] = {
    "nothing_completed": work(requests_completed=0),
    "energy_unmeasurable": energy(components=()),
    "no_energy_source": replace(SOUND, energy_asked=False, no_source="auto: none is used"),
    "failed_requests": work(requests_failed=3),
    "cpu_shared": replace(SOUND, cpu_load=CPULoad(own_share=0.5, other_share=0.051)),
    "device_lock_lost": replace(SOUND, locks_lost=("cpu.lock was removed",)),
    "stalled": work(stalled_s=3.1),
    "stalled_briefly": work(stalled_s=2.9),
    "cpu_throttled": replace(SOUND, cpu_throttling=held_back(0.61)),
    "window_short": work(window_s=9.99),
    "modelled_energy": energy(components=(METER.model_copy(update={"kind": "modelled"}),)),
    "random_weights": replace(SOUND, weights="random"),
    "prompts_truncated": work(prompts_truncated=4),
    "drift_not_assessable": work(replace(SOUND, batches=9, comparison=None), passes=1),
    "hardware_thermal_slowdown": events(0x40),
    "power_brake": events(0x80, 0x0),
    "hardware_slowdown": events(0x8, 0x0, 0x8),
    "software_thermal_slowdown": events(0x20),
    "power_limit_reached": events(0x4, 0x4, 0x4, 0x4),
    "power_limit_lowered": device(power_limit_w=300.0),
    "foreign_process": device(foreign_pids=(4242,)),
    "processes_unknown": device(foreign_pids=None),
    "persistence_off": device(persistence_mode=False),
    "start_temperature": device(start_c=55.1),
    "closure_failed": halves(second_j=1016.0, closes=False),
    "power_drift": halves(power_change=-0.011),
    "clock_drift": halves(clock_change=-0.011),
    "baseline_unsteady": replace(
        SOUND, baseline=IDLE.model_copy(update={"loaded_idle_steady": False})
    ),
    "prefix_cache_hits": replace(SOUND, prefix_cache_hits=3),
    **{code: flag(code) for code, finding in FINDINGS.items() if finding.shows},
}


def test_a_sound_measurement_is_ok_without_reasons() -> None:
    verdict = assess(SOUND)
    assert (verdict.verdict, verdict.energy, verdict.reasons) == ("ok", "ok", ())
    assert warning_codes(verdict) == ()


@pytest.mark.parametrize("code", CASES)
def test_each_finding_is_made_alone_and_weighs_as_the_table_says(code: str) -> None:
    verdict = assess(CASES[code])
    assert [reason.code for reason in verdict.reasons] == [code]
    level = FINDINGS[code].level
    assert verdict.reasons[0].level == level
    assert verdict.reasons[0].remedy == FINDINGS[code].remedy
    assert verdict.reasons[0].detail
    assert verdict.verdict == ("ok" if level == "info" else level)
    assert verdict.energy == (verdict.verdict if CASES[code].energy_asked else "off")
    assert warning_codes(verdict) == (() if level == "info" else (code,))


def test_every_code_of_the_table_can_be_found() -> None:
    of_reading = {"samples_changed"}  # found when a result is read, not when it is made
    assert set(CASES) | of_reading == set(FINDINGS)


def test_every_flag_that_an_estimate_can_carry_has_a_finding() -> None:
    folder = Path(sources.__file__).parent
    source = "\n".join(path.read_text("utf-8") for path in folder.rglob("*.py"))
    carried = {
        word
        for line in re.findall(r"^.*flags.*$", source, re.MULTILINE)
        for word in re.findall(r'"([a-z]+(?:_[a-z]+)+)"', line)
    }
    assert {"aliasing_risk", "counter_reset_outside"} <= carried
    carried.discard("average_power")  # what was read, on a line that passes flags on
    shown_by_a_rule_of_devices = {"foreign_process", "processes_unknown"}
    shown = {code for code, finding in FINDINGS.items() if finding.shows}
    assert carried - shown <= shown_by_a_rule_of_devices


def test_a_machine_that_slept_makes_a_result_invalid_however_short_that_was() -> None:
    verdict = assess(work(suspended_s=0.6))
    assert [reason.code for reason in verdict.reasons] == ["stalled"]
    assert verdict.verdict == "invalid"
    assert "slept for 0.6 s" in verdict.reasons[0].detail
    assert assess(work(suspended_s=0.1, stalled_s=0.0)).reasons == ()


def test_a_standstill_and_a_sleep_are_one_finding() -> None:
    (reason,) = assess(work(suspended_s=9.0, stalled_s=1.2)).reasons
    assert reason.code == "stalled"
    assert "slept for 9 s" in reason.detail
    assert "1.2 s of 60 s (2 %)" in reason.detail


def test_a_single_sample_of_hardware_slowdown_is_a_blip() -> None:
    assert assess(events(0x8, 0x0, 0x0, 0x0)).reasons == ()


def test_a_device_at_its_default_limit_is_trusted() -> None:
    assert assess(events(0x4, 0x4)).verdict == "ok"


def test_a_lowered_limit_that_is_reached_is_told_once() -> None:
    capped = device(power_limit_w=300.0, state_samples=4, clock_events=count_events([0x4]))
    assert warning_codes(assess(capped)) == ("power_limit_lowered",)
    assert len(assess(capped).reasons) == 1


def test_a_start_within_three_degrees_or_without_a_reference_is_fine() -> None:
    assert assess(device(start_c=55.0)).reasons == ()
    assert assess(replace(device(start_c=90.0), reference_c={})).reasons == ()


def test_a_change_of_power_within_its_interval_or_one_per_cent_is_no_drift() -> None:
    assert assess(halves(power_change=0.0099)).reasons == ()
    assert assess(halves(power_change=0.10, power_change_interval95=0.12)).reasons == ()
    assert warning_codes(assess(halves(power_change=0.13, power_change_interval95=0.12)))


def test_a_gpu_whose_state_was_not_read_leaves_its_processes_unknown() -> None:
    assert warning_codes(assess(energy(device_state=()))) == ("processes_unknown",)
    off = replace(energy(device_state=(), components=()), energy_asked=False)
    assert warning_codes(assess(off)) == ("processes_unknown",)
    assert assess(replace(off, target=DeviceTarget("cpu"))).reasons == ()


def test_processes_of_gpus_that_nobody_names_are_unknown_unless_their_state_was_read() -> None:
    unnamed = replace(SOUND, target=DeviceTarget("gpu"))
    assert assess(unnamed).reasons == ()
    hidden = QUIET.model_copy(update={"foreign_pids": None})
    for devices in ((), (hidden,)):
        assert warning_codes(assess(energy(unnamed, device_state=devices))) == (
            "processes_unknown",
        )


def test_auto_that_finds_no_source_is_a_caution_and_switched_off_energy_none() -> None:
    off = replace(energy(components=()), energy_asked=False)
    found = assess(replace(off, no_source="auto: counters are for root only; none is used"))
    assert (found.verdict, found.energy) == ("caution", "off")
    assert warning_codes(found) == ("no_energy_source",)
    assert assess(off).verdict == "ok"


def test_a_finding_names_every_device_it_holds_of() -> None:
    hot = QUIET.model_copy(update={"clock_events": {"hardware_thermal": 2}})
    hotter = hot.model_copy(update={"device": "GPU-2"})
    detail = assess(energy(device_state=(hot, hotter, QUIET))).reasons[0].detail
    assert detail == f"{UUID}: in 2 of 100 samples; GPU-2: in 2 of 100 samples"


def test_reset_counters_and_slowed_devices_void_a_result() -> None:
    for code in (
        "hardware_thermal_slowdown",
        "power_brake",
        "hardware_slowdown",
        "counter_reset",
        "foreign_process",
        "energy_unmeasurable",
    ):
        assert assess(CASES[code]).verdict == "invalid", code


def test_what_a_quiet_machine_does_on_the_side_is_no_sharing() -> None:
    quiet = CPULoad(own_share=0.5, other_share=0.05)
    assert assess(replace(SOUND, cpu_load=quiet)).reasons == ()


def test_a_quota_that_held_back_for_a_moment_is_no_throttling() -> None:
    assert assess(replace(SOUND, cpu_throttling=held_back(0.59))).reasons == ()


def test_one_burst_over_many_cpus_is_no_throttling() -> None:
    """Time held back is summed over CPUs: 64 of them for 20 ms are 1.3 s."""
    burst = held_back(1.3, throttled_periods=1)
    assert assess(replace(SOUND, cpu_throttling=burst)).reasons == ()


def test_a_quota_that_was_used_up_is_named_with_what_it_held_back() -> None:
    (reason,) = assess(replace(SOUND, cpu_throttling=held_back(12.0))).reasons
    assert reason.detail == (
        "the control group /job had used its quota up in 30 of 600 periods, and was held back for "
        "12 s in all"
    )


def test_a_window_of_ten_seconds_is_long_enough() -> None:
    assert assess(work(window_s=10.0)).verdict == "ok"


def test_ten_batches_or_a_second_pass_can_be_assessed() -> None:
    assert assess(work(replace(SOUND, batches=10), passes=1)).reasons == ()
    assert assess(work(replace(SOUND, batches=1), passes=2)).reasons == ()


def test_energy_switched_off_is_off_and_times_keep_their_verdict() -> None:
    off = replace(energy(components=()), energy_asked=False)
    assert (assess(off).verdict, assess(off).energy) == ("ok", "off")
    short = assess(work(off, window_s=1.0))
    assert (short.verdict, short.energy) == ("caution", "off")


def test_an_unmeasurable_energy_says_why() -> None:
    notes = ("the counter was reset", "it is old")
    evidence = energy(CASES["energy_unmeasurable"], notes=notes)
    assert assess(evidence).reasons[0].detail == "the counter was reset; it is old"


def test_reasons_come_worst_first_and_the_worst_decides() -> None:
    short = work(replace(SOUND, batches=1), passes=1, window_s=1.0, prompts_truncated=1)
    verdict = assess(energy(short, components=()))
    levels = [reason.level for reason in verdict.reasons]
    assert levels == ["invalid", "caution", "info", "info"]
    assert (verdict.verdict, verdict.energy) == ("invalid", "invalid")
    assert warning_codes(verdict) == ("energy_unmeasurable", "window_short")
