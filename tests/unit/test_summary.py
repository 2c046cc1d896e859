"""What a user sees when a run is over, and how numbers are written."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.metrics import estimate_co2
from llenergymeasure.domain.energy import EnergyComponent
from llenergymeasure.domain.environment import DeviceState
from llenergymeasure.domain.results import (
    BaselineResult,
    EnergyPhases,
    ExperimentResult,
    MemoryResult,
    ModelInfo,
    PassComparison,
    TrustReason,
    TrustVerdict,
)
from llenergymeasure.report import format as fmt
from tests.support.make_result import (
    make_energy,
    make_environment,
    make_flops,
    make_latency,
    make_resolved,
    make_result,
    make_throughput,
    make_trust,
)


def _component(name: str, energy_j: float | None, *, in_scope: bool) -> EnergyComponent:
    return EnergyComponent(
        name=name, energy_j=energy_j, kind="modelled", method="model", in_scope=in_scope
    )


def _modelled() -> ExperimentResult:
    config = ExperimentConfig(model="random:tiny-llama", n=20, precision="fp32")
    model = ModelInfo(name=config.model, weights="random", parameters=6_291_456)
    energy = make_energy(
        41.16,
        source="codecarbon",
        kind="modelled",
        interval95_j=None,
        scope="CPU and RAM of the machine",
        components=(
            _component("cpu", 38.04, in_scope=True),
            _component("ram", 3.12, in_scope=True),
            _component("gpu", None, in_scope=False),
        ),
        adjusted_j=None,
        phases=EnergyPhases(prefill_j=12.3, decode_j=28.86, prefill_window_s=1.0, prefill_passes=1),
        notes=("no meter was readable, so the power of the CPU comes from a table of CPUs",),
    )
    return make_result(
        config=config,
        resolved=make_resolved(config, model=model),
        energy=energy,
        memory=MemoryResult(kind="resident_set", peak_mb=612, model_mb=540, capacity_mb=24_105),
        flops=make_flops(mfu=None, mbu=None, peak_source=None),
        baseline=BaselineResult(
            device_idle_w=None, loaded_idle_w=None, duration_s=None, skipped="energy is modelled"
        ),
        co2_estimate=estimate_co2(41.16, make_environment()),
        throughput=make_throughput(prompts_truncated=3, requests_failed=2, padding_waste=0.123),
        trust=make_trust("modelled_energy", "random_weights"),
        measurement_warnings=("modelled_energy", "another_code"),
    )


def _nothing() -> ExperimentResult:
    """Everything that may be null is."""
    config = ExperimentConfig(model="none", backend="scripted", n=20, energy_backend="none")
    return make_result(
        config=config,
        resolved=make_resolved(config, model=ModelInfo(name="none", weights="none"), backend={}),
        environment=make_environment(gpus=(), cpu_model=None, cpu_count_usable=None, ram_mb=None),
        energy=make_energy(None),
        flops=None,
        memory=MemoryResult(kind="none", peak_mb=None, model_mb=None, capacity_mb=None),
        latency=make_latency(ttft_ms=None, tpot_ms=None, itl_ms=None, e2e_ms=None, queue_ms=None),
        throughput=make_throughput(
            requests_completed=0,
            requests_failed=20,
            input_tokens=0,
            output_tokens=0,
            output_tokens_per_second=None,
            total_tokens_per_second=None,
            requests_per_second=None,
        ),
        trust=make_trust("nothing_completed", energy="off"),
    )


def _wordy() -> ExperimentResult:
    config = ExperimentConfig(model="/" + "very-long-directory-name/" * 20)
    reason = TrustReason(
        code="c" * 90, level="invalid", detail="word " * 60, remedy="do\x1b[31m " * 40
    )
    return make_result(
        config=config,
        energy=make_energy(None, selection_reason="nothing was found " * 20),
        environment=make_environment(gpus=(), cpu_model="CPU " * 40),
        memory=MemoryResult(kind="resident_set", peak_mb=1e9, model_mb=1e9, capacity_mb=1e9),
        trust=TrustVerdict(verdict="invalid", energy="invalid", reasons=(reason,)),
        measurement_warnings=tuple(f"code_{i}" for i in range(40)),
    )


VARIANTS = [make_result, _modelled, _nothing, _wordy]


@pytest.mark.parametrize("make", VARIANTS)
def test_every_line_fits_80_columns_and_is_plain_text(
    make: Callable[[], ExperimentResult],
) -> None:
    lines = make().summary().split("\n")
    assert max(map(len, lines)) <= 80
    assert all(line.isprintable() and line == line.rstrip() for line in lines)
    assert "None" not in make().summary()


def test_measured_energy_has_its_interval_source_and_scope() -> None:
    text = make_result().summary()
    flat = " ".join(text.split())
    assert (
        "812 J ± 6 (95 %, sensor scale; absolute accuracy unknown), nvml counter, tick 100 ms "
        in (flat)
    )
    assert "measured by NVML: 1 GPU\n" in text
    assert "1.269 J ± 0.010 per output token\n" in text
    assert "40.6 J ± 0.3 per request\n" in text
    assert "514 J ± 7 above loaded idle\n" in text
    assert "Idle         75.0 W ± 0.3 before the model was loaded\n" in text
    assert "93.4 W ± 0.7 with the model resident\n" in text
    assert "108 mg CO2e\n" in text
    assert "at 400 g/kWh (user config) and PUE 1.2 (user config)\n" in text


def test_power_readings_and_unlike_ticks_are_told() -> None:
    parts = [
        EnergyComponent(
            name=f"GPU-{tick}",
            energy_j=400.0,
            kind="measured",
            method=f"nvml: {method}",
            in_scope=True,
            tick_ms=tick,
        )
        for tick, method in ((20.2, "energy counter"), (99.8, "integrated power readings"))
    ]
    flat = " ".join(make_result(energy=make_energy(components=tuple(parts))).summary().split())
    assert "unknown), nvml counter and power, ticks 20 to 100 ms" in flat


def test_a_baseline_of_an_earlier_run_tells_its_age() -> None:
    baseline = make_result().baseline.model_copy(update={"device_idle_age_s": 5400.0})
    flat = " ".join(make_result(baseline=baseline).summary().split())
    assert "before the model was loaded (of 1.5 h ago, confirmed by a short look)" in flat


def test_the_closure_test_and_the_devices_are_told() -> None:
    halves = PassComparison(
        passes_each=2, first_j=405.0, second_j=407.5, allowed_j=9.0, closes=True, power_change=0.0
    )
    state = DeviceState(
        device="GPU-1",
        start_c=51.0,
        end_c=63.0,
        clock_sm_mhz=1409.6,
        state_samples=160,
        clock_events={"power_cap": 12},
        power_limit_w=400.0,
    )
    text = make_result(energy=make_energy(comparison=halves), device_state=(state,)).summary()
    assert "halves of 2 passes differ by 2.50 J; 9.00 J is allowed\n" in text
    flat = " ".join(text.split())
    assert (
        "Device 51 to 63 °C, SM clock 1410 MHz on average, power limit 400 W, "
        "power cap in 12 of 160 samples" in flat
    )
    both = (state, state.model_copy(update={"device": "GPU-2"}))
    assert "GPU-2: 51 to 63 °C" in make_result(device_state=both).summary()


def test_what_was_measured_and_how_fast_is_told() -> None:
    text = make_result().summary()
    assert "Model        meta-llama/Llama-3.1-8B\n" in text
    assert "pretrained weights, 8,030,261,248 parameters\n" in text
    assert "Backend      pytorch, bf16, batch_size 4\n" in text
    assert "Machine      NVIDIA H200\n" in text
    assert "20 requests in 1 pass, window of 3.20 s\n" in text
    assert "1,234 input tokens, 640 output tokens\n" in text
    assert "200 output tokens/s, 586 tokens/s in all, 6.25 requests/s\n" in text
    assert "16.1 GiB peak of 140 GiB (device memory)\n" in text
    assert "1.53 TFLOP useful, 1.53 TFLOP executed (analytic)\n" in text
    assert "MFU 12.3 %, MBU 45.6 % of the peak of NVIDIA H200\n" in text
    assert "E2E, whole request           1.21 s     1.45 s     1.81 s         20\n" in text
    assert text.endswith("Trust        ok: nothing speaks against these figures")


def test_modelled_energy_says_so_and_claims_no_interval() -> None:
    text = _modelled().summary()
    joined = " ".join(text.split())
    assert (
        "41.2 J, no interval; absolute accuracy unknown modelled by CodeCarbon: CPU and" in joined
    )
    assert "±" not in text
    assert "64.3 mJ per output token" in text
    assert "of one pass: 12.3 J prefill, 28.9 J decode" in text
    assert "of which cpu 38.0 J (modelled: model), ram 3.12 J (modelled: model)" in text
    assert "not in the total: gpu unknown (modelled)" in text
    assert "note: no meter was readable" in text
    assert "above loaded idle" not in text
    assert "CO2" not in text


def test_what_a_model_assumes_is_told_and_its_want_of_an_interval_only_once() -> None:
    part = EnergyComponent(
        name="cpu",
        energy_j=43.0,
        kind="modelled",
        method="CodeCarbon: CPU load of an assumed rated power of 8 W",
        in_scope=True,
    )
    note = "CodeCarbon states no uncertainty, so its figures have no interval"
    energy = make_energy(43.0, kind="modelled", components=(part,), notes=(note, "another"))
    text = " ".join(make_result(energy=energy).summary().split())
    assert "cpu 43.0 J (modelled: CPU load of an assumed rated power of 8 W)" in text
    assert text.count("no interval") == 1
    assert "note: another" in text


@pytest.mark.parametrize(
    ("waste", "strategy", "told"),
    [(0.43, None, True), (0.43, "dynamic", False), (0.19, None, False)],
)
def test_much_padding_comes_with_what_makes_it_less(waste, strategy, told) -> None:
    plain = make_result()
    resolved = plain.resolved.model_copy(
        update={"backend": {"batch_size": 8, "batching_strategy": strategy}}
    )
    throughput = plain.throughput.model_copy(update={"padding_waste": waste})
    config = ExperimentConfig(model="m")
    result = plain.model_copy(
        update={"resolved": resolved, "throughput": throughput, "config": config}
    )
    assert ("-> pytorch.batching_strategy: dynamic" in result.summary()) is told


def test_failures_cuts_padding_and_random_weights_are_told() -> None:
    text = _modelled().summary()
    assert "random weights, 6,291,456 parameters" in text
    assert "window of 3.20 s; 2 failed" in text
    assert "20 of 1,000; 3 cut to at most 512 tokens" in text
    assert "12.3 % of computed positions were padding" in text
    assert "MFU" not in text


def test_energy_nobody_could_tell_says_why_and_what_to_do() -> None:
    reason = "auto: RAPL is readable by root only"
    text = make_result(energy=make_energy(None, selection_reason=reason)).summary()
    assert f"Energy       not measured: {reason}\n" in text
    assert "-> llem config shows what this machine can measure" in text
    assert " J " not in text


def test_no_source_is_the_reason_whatever_is_noted_of_the_devices() -> None:
    energy = make_energy(None, source="none", selection_reason="so it was set", notes=("hot",))
    assert "not measured: so it was set\n" in make_result(energy=energy).summary()


def test_an_unmeasurable_figure_is_not_shown_as_if_it_were_one() -> None:
    energy = make_energy(812.4, kind="unmeasurable", notes=("the window was too short",))
    text = make_result(energy=energy).summary()
    assert "not measured: the window was too short" in text
    assert "812" not in text


def test_times_that_count_from_when_a_request_was_due_say_so() -> None:
    title = "Latency, from due "
    assert title in make_result(latency=make_latency(counted_from="due")).summary()
    assert title not in make_result().summary()


def test_energy_that_was_switched_off_is_told_apart() -> None:
    text = _nothing().summary()
    assert "not measured: switched off with energy_backend: none" in text
    assert "Trust        caution (times only; no energy was read)" in text
    assert "Latency      none: no request completed" in text
    assert "Memory       not known: the backend tells none" in text
    assert "Throughput" not in text


def test_every_reason_comes_with_its_remedy_and_other_warnings_follow() -> None:
    text = _modelled().summary()
    assert "  caution    modelled_energy: modelled_energy was found\n" in text
    assert "             -> repeat it\n" in text
    assert text.endswith("Warnings     another_code")


def test_a_time_the_engine_does_not_tell_is_explained_in_its_row() -> None:
    text = make_result(latency=make_latency(itl_ms=None)).summary()
    assert "  ITL, between tokens        the engine tells no token times\n" in text


def test_only_the_gpu_that_did_the_work_is_named() -> None:
    environment = make_environment()
    (gpu,) = environment.gpus
    other = gpu.model_copy(update={"uuid": "GPU-other", "name": "NVIDIA L4", "index": 1})
    one = make_result(environment=make_environment(gpus=(other, gpu)))
    assert "Machine      NVIDIA H200\n" in one.summary()
    unknown = make_result(
        environment=make_environment(gpus=(other, gpu, gpu)), energy=make_energy(None)
    )
    assert "Machine      NVIDIA L4, 2 x NVIDIA H200\n" in unknown.summary()
    on_cpu = MemoryResult(kind="resident_set", peak_mb=1.0, model_mb=None, capacity_mb=None)
    cpu = make_result(energy=make_energy(None), memory=on_cpu)
    assert "Machine      Example CPU 9000, 8 logical CPUs, 64.0 GiB\n" in cpu.summary()


@pytest.mark.parametrize(
    ("value", "half_width", "expected"),
    [
        (812.4, 6.2, "812 J ± 6"),
        (812.4, 14.6, "812 J ± 15"),
        (812.4, 0.13, "812.40 J ± 0.13"),
        (812_345.0, 20_000.0, "810 kJ ± 20"),
        (8123.0, 62.0, "8.12 kJ ± 0.06"),
        (0.001269, 0.0000097, "1.269 mJ ± 0.010"),
        (999.96, 0.3, "1.0000 kJ ± 0.0003"),
        (3.0, 20.0, "3 J ± 20"),
        (-12.3, 0.4, "-12.3 J ± 0.4"),
        (0.0, 0.4, "0.0 J ± 0.4"),
        (41.16, None, "41.2 J"),
        (41.16, 0.0, "41.2 J"),
    ],
)
def test_the_interval_decides_the_digits(
    value: float, half_width: float | None, expected: str
) -> None:
    assert fmt.with_interval(value, half_width, "J") == expected


@given(
    value=st.floats(-1e12, 1e12, allow_subnormal=False).filter(lambda v: v == 0 or abs(v) > 1e-9),
    half_width=st.floats(1e-9, 1e12),
)
def test_what_is_shown_lies_within_the_interval_of_the_value(
    value: float, half_width: float
) -> None:
    shown, unit, _, width = fmt.with_interval(value, half_width, "J").split()
    scale = {"n": 1e-9, "µ": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
    factor = scale[unit.removesuffix("J")]
    read = float(shown.replace(",", "")) * factor
    assert abs(read - value) <= 0.6 * half_width + 1e-9 * abs(value)
    assert float(width.replace(",", "")) * factor == pytest.approx(half_width, rel=0.55)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (fmt.quantity(999.6, "J"), "1.00 kJ"),
        (fmt.quantity(0.0, "J"), "0.00 J"),
        (fmt.quantity(1.53e12, "FLOP"), "1.53 TFLOP"),
        (fmt.quantity(1e30, "J"), "1,000,000,000,000 EJ"),
        (fmt.quantity(1e-12, "J"), "0.00100 nJ"),
        (fmt.seconds(0.0123), "12.3 ms"),
        (fmt.seconds(12_345.6), "12,346 s"),
        (fmt.milliseconds(0.02), "20.0 µs"),
        (fmt.significant(5.0), "5.00"),
        (fmt.significant(12345.0), "12,345"),
        (fmt.memory(612.0), "612 MiB"),
        (fmt.memory(15_667.0), "15.3 GiB"),
        (fmt.count(1, "pass", "passes"), "1 pass"),
        (fmt.count(2, "pass", "passes"), "2 passes"),
        (fmt.count(1234), "1,234"),
        (fmt.percent(0.1234), "12.3 %"),
    ],
)
def test_numbers_read_well(shown: str, expected: str) -> None:
    assert shown == expected
