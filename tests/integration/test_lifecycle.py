"""A whole experiment on the scripted backend, against energy that is known exactly."""

from __future__ import annotations

import contextlib
from itertools import pairwise

import pytest

from llenergymeasure.exceptions import BackendError, PreFlightError
from llenergymeasure.orchestration.events import EventLog
from llenergymeasure.orchestration.orchestrator import ExperimentOrchestrator
from llenergymeasure.state.machine import ExperimentState, StateMachine
from tests.support.known_power import KnownPower, constant, load_log
from tests.support.scripted_run import make_order, run_scripted, scripted_config

WATTS = 250.0
IDLE_W, PREFILL_W, DECODE_W = 60.0, 400.0, 300.0


def test_phases_come_in_order_and_each_in_its_state(tmp_path):
    config = scripted_config(window={"phases": "differential"})
    run = run_scripted(tmp_path, config, KnownPower(constant(WATTS)).select)

    assert run.phases == [
        "baseline", "load", "prepare", "idle", "warmup", "settle", "measure", "prefill", "collect",
    ]  # fmt: skip
    assert {phase for phase, state in run.states.items() if state == "measuring"} == {
        "measure",
        "prefill",
    }
    assert run.states["settle"] == "initialising"
    assert run.machine.state is ExperimentState.DONE
    times = [event["t_ns"] for event in run.events]
    assert times == sorted(times)


def test_without_energy_the_baseline_and_the_floor_are_skipped_and_say_so(tmp_path):
    config = scripted_config(warmup={"n_warmup": 1, "thermal_floor_seconds": 60})
    run = run_scripted(tmp_path, config)

    assert run.phases == ["load", "prepare", "warmup", "measure", "collect"]
    assert run.result.baseline.skipped == "energy is unmeasurable, not measured"
    assert run.result.baseline.loaded_idle_w is None
    assert run.result.baseline.duration_s is None
    assert run.result.warmup.thermal_floor.startswith("skipped: energy is unmeasurable")
    assert run.result.energy_total_j is None
    assert run.result.energy_adjusted_j is None


def test_modelled_energy_has_neither_baseline_nor_floor(tmp_path):
    source = KnownPower(constant(WATTS), "modelled")
    config = scripted_config(warmup={"n_warmup": 1, "thermal_floor_seconds": 60})
    result = run_scripted(tmp_path, config, source.select).result

    assert result.baseline.skipped == "energy is modelled, not measured"
    assert result.warmup.thermal_floor == "skipped: energy is modelled, not measured"
    assert result.energy.kind == "modelled"
    assert source.calls == ["start", "open", "close", "stop"]


def test_a_baseline_that_is_not_wanted_is_not_taken(tmp_path):
    source = KnownPower(constant(WATTS))
    config = scripted_config(baseline={"enabled": False})
    run = run_scripted(tmp_path, config, source.select)

    assert run.result.baseline.skipped == "baseline.enabled is false"
    assert run.result.energy_adjusted_j is None
    assert run.result.energy_total_j is not None
    assert "idle" not in run.phases


def test_energy_is_power_times_time_exactly(tmp_path):
    result = run_scripted(tmp_path, scripted_config(), KnownPower(constant(WATTS)).select).result
    window_s = (result.window.t1_ns - result.window.t0_ns) / 1e9
    energy_j = WATTS * window_s

    assert result.throughput.output_tokens == 12
    assert result.energy_total_j == pytest.approx(energy_j, rel=1e-7)
    assert result.energy_per_output_token_j == pytest.approx(energy_j / 12, rel=1e-7)
    assert result.energy.per_request_j == pytest.approx(energy_j / 4, rel=1e-7)
    assert result.energy.tokens_per_j == pytest.approx(12 / energy_j, rel=1e-7)
    assert result.energy.mean_power_w == pytest.approx(WATTS, rel=1e-7)
    assert result.tokens_per_second == pytest.approx(12 / window_s, rel=1e-7)


def test_a_device_that_never_idles_has_no_energy_above_idle(tmp_path):
    result = run_scripted(tmp_path, scripted_config(), KnownPower(constant(WATTS)).select).result

    assert result.baseline.device_idle_w == pytest.approx(WATTS, rel=1e-7)
    assert result.baseline.loaded_idle_w == pytest.approx(WATTS, rel=1e-7)
    assert result.baseline.duration_s == 0.02
    assert result.energy_adjusted_j == pytest.approx(0.0, abs=1e-6)


@pytest.fixture
def stepped(tmp_path):
    """A device that follows the load the script writes down, at 20 W until a model is there."""
    log = tmp_path / "load.log"
    source = KnownPower(load_log(log, before_w=20.0))
    script = {
        "ttft_ms": 20.0,
        "itl_ms": 5.0,
        "batch_size": 2,
        "load_log": str(log),
        "idle_w": IDLE_W,
        "prefill_w": PREFILL_W,
        "decode_w": DECODE_W,
    }
    return source, script


def test_idle_power_is_told_before_and_after_the_model_is_there(tmp_path, stepped):
    source, script = stepped
    result = run_scripted(tmp_path, scripted_config(scripted=script), source.select).result

    assert result.baseline.device_idle_w == pytest.approx(20.0, rel=1e-7)
    assert result.baseline.loaded_idle_w == pytest.approx(IDLE_W, rel=1e-7)


def test_the_energy_of_the_window_is_that_of_its_prefills_and_decodes(tmp_path, stepped):
    source, script = stepped
    result = run_scripted(tmp_path, scripted_config(scripted=script), source.select).result
    window_s = result.throughput.window_s
    # Two batches of 20 ms prefill and two steps of 5 ms; sleeping can only take longer.
    least_j = 2 * (PREFILL_W * 0.020 + DECODE_W * 0.010)

    assert least_j <= result.energy_total_j <= PREFILL_W * window_s
    assert result.energy_adjusted_j == pytest.approx(result.energy_total_j - IDLE_W * window_s)


def test_a_prefill_only_window_tells_prefill_from_decode(tmp_path, stepped):
    source, script = stepped
    config = scripted_config(max_new_tokens=9, scripted=script, window={"phases": "differential"})
    run = run_scripted(tmp_path, config, source.select)
    phases = run.result.energy.phases

    assert phases.prefill_passes == 1
    # Two prefills of 20 ms; sleeping can only take longer, and nothing draws more than a prefill.
    assert 2 * PREFILL_W * 0.020 <= phases.prefill_j <= PREFILL_W * phases.prefill_window_s
    assert phases.decode_j > 0
    assert phases.prefill_j + phases.decode_j == pytest.approx(run.result.energy_total_j)
    assert phases.prefill_window_s < run.result.throughput.window_s
    assert run.result.throughput.output_tokens == 4 * 9, "prefill-only tokens are in no metric"


def test_the_amortised_window_has_no_phases(tmp_path):
    run = run_scripted(tmp_path, scripted_config(), KnownPower(constant(WATTS)).select)

    assert run.measurement.prefill is None
    assert run.result.energy.phases is None
    assert "prefill" not in run.phases


def test_passes_are_repeated_until_the_window_is_long_enough(tmp_path):
    config = scripted_config(window={"min_duration_seconds": 0.05})
    run = run_scripted(tmp_path, config, KnownPower(constant(WATTS)).select)
    raw, result = run.measurement.raw, run.result
    *earlier, last = raw.passes

    assert result.throughput.passes == len(raw.passes) > 1
    assert raw.window.seconds >= 0.05
    assert last.t0_ns - raw.window.t0_ns < 0.05e9, "no pass is begun once the window is long enough"
    assert [one.t1_ns for one in earlier] == [one.t0_ns for one in raw.passes[1:]]
    assert (raw.window.t0_ns, raw.window.t1_ns) == (raw.passes[0].t0_ns, last.t1_ns)
    assert result.throughput.output_tokens == 12 * len(raw.passes)
    assert {sample.pass_index for sample in raw.requests} == set(range(len(raw.passes)))
    assert result.energy_total_j == pytest.approx(WATTS * raw.window.seconds, rel=1e-7)


def test_one_pass_is_enough_without_a_shortest_window(tmp_path):
    assert len(run_scripted(tmp_path, scripted_config()).measurement.raw.passes) == 1


def test_every_request_lies_inside_the_window(tmp_path):
    raw = run_scripted(tmp_path, scripted_config()).measurement.raw

    for sample in raw.requests:
        times = [
            raw.window.t0_ns,
            sample.issued_ns,
            sample.scheduled_ns,
            sample.first_token_ns,
            sample.last_token_ns,
            sample.delivered_ns,
            raw.window.t1_ns,
        ]
        assert times == sorted(times)


@pytest.mark.parametrize("batches", [0, 1, 5])
def test_warm_up_is_counted_apart_and_in_no_metric(tmp_path, batches):
    config = scripted_config(warmup={"n_warmup": batches, "thermal_floor_seconds": 0})
    result = run_scripted(tmp_path, config).result

    assert result.warmup.batches == batches
    assert result.warmup.output_tokens == batches * 2 * 3
    assert result.warmup.thermal_floor == "off"
    assert result.throughput.output_tokens == 12
    assert result.latency.ttft_ms.count == 4


def test_warm_up_goes_on_under_load_until_the_thermal_floor(tmp_path, stepped):
    source, script = stepped
    config = scripted_config(scripted=script, warmup={"n_warmup": 1, "thermal_floor_seconds": 0.2})
    run = run_scripted(tmp_path, config, source.select)
    warmup = run.result.warmup

    assert warmup.batches > 1
    assert warmup.seconds >= 0.2
    assert warmup.output_tokens == warmup.batches * 2 * 3
    assert warmup.thermal_floor == "reached: 0.2 s under load"
    assert run.result.throughput.output_tokens == 12


def test_the_source_is_asked_for_each_window_in_turn_and_stopped_once(tmp_path):
    source = KnownPower(constant(WATTS))
    run = run_scripted(tmp_path, scripted_config(window={"phases": "differential"}), source.select)
    one = ["open", "close"]

    assert source.calls == ["start", *one, *one, *one, *one, "stop"]
    assert source.windows[2] == run.measurement.raw.window
    assert source.windows[3] == run.measurement.prefill.window
    assert all(a.t1_ns <= b.t0_ns for a, b in pairwise(source.windows))


@pytest.mark.parametrize("phase", ["load", "warmup", "measure"])
def test_a_failure_stops_the_source_and_names_the_phase(tmp_path, phase):
    source = KnownPower(constant(WATTS))
    config = scripted_config(scripted={"ttft_ms": 0, "itl_ms": 0, "fail_at": phase})
    with contextlib.closing(EventLog(tmp_path / "events.jsonl")) as events:
        machine = StateMachine(events.phase)
        order = make_order(config, tmp_path)
        with pytest.raises(BackendError, match=f"fail in {phase}"):
            ExperimentOrchestrator(order, machine, events, source.select).run()

    assert machine.phase == phase
    assert source.calls[-1] == "stop"
    assert source.calls.count("stop") == 1


def test_a_source_that_cannot_be_used_is_refused_before_anything_is_loaded(tmp_path):
    with pytest.raises(PreFlightError, match="rapl"):
        run_scripted(tmp_path, scripted_config(), energy_backend="rapl")

    assert (tmp_path / "events.jsonl").read_text() == ""


def test_progress_is_told_at_most_twice_a_second(tmp_path):
    config = scripted_config(n=100, scripted={"ttft_ms": 8, "itl_ms": 0}, max_new_tokens=1)
    run = run_scripted(tmp_path, config)
    told = [event for event in run.events if event["done"] is not None]

    assert told, "a window of 0.8 s is long enough to tell progress once"
    assert all(b["t_ns"] - a["t_ns"] >= 500_000_000 for a, b in pairwise(told))
    assert {event["total"] for event in told if event["phase"] == "measure"} <= {100}
    assert all(0 < event["done"] <= event["total"] for event in told)


def test_a_sample_of_every_request_is_kept_once_a_pass(tmp_path):
    config = scripted_config(window={"min_duration_seconds": 0.04})
    raw = run_scripted(tmp_path, config).measurement.raw
    keys = [(sample.pass_index, sample.request) for sample in raw.requests]

    assert sorted(keys) == [(p, r) for p in range(len(raw.passes)) for r in range(4)]


def test_every_window_is_kept_by_name_in_the_order_of_time(tmp_path):
    config = scripted_config(window={"phases": "differential"})
    run = run_scripted(tmp_path, config, KnownPower(constant(WATTS)).select, cold_start=True)

    windows = run.measurement.windows
    assert [one.name for one in windows] == [
        "device_idle", "load", "loaded_idle", "measure", "prefill",
    ]  # fmt: skip
    assert windows[3].window == run.measurement.raw.window


def test_a_cold_start_has_no_warm_up_and_loading_is_a_window(tmp_path):
    run = run_scripted(
        tmp_path, scripted_config(), KnownPower(constant(WATTS)).select, cold_start=True
    )
    load = run.result.load

    assert "warmup" not in run.phases
    assert (run.result.warmup.batches, run.result.warmup.output_tokens) == (0, 0)
    assert run.result.warmup.thermal_floor == "off: cold start"
    assert load.seconds > 0
    assert load.energy_j == pytest.approx(WATTS * load.seconds)
    assert (load.kind, load.source) == ("measured", "known")
    assert "(measured); cold start" in run.result.summary()
    assert run.result.throughput.requests_completed == 4


def test_a_cold_start_without_a_source_still_tells_how_long_loading_took(tmp_path):
    load = run_scripted(tmp_path, scripted_config(), cold_start=True).result.load

    assert load.seconds > 0
    assert (load.energy_j, load.interval95_j, load.kind) == (None, None, "unmeasurable")


def test_loading_is_in_the_summary_of_a_cold_start_alone(tmp_path):
    cold, warm = tmp_path / "cold", tmp_path / "warm"
    cold.mkdir()
    warm.mkdir()

    assert "Loading" in run_scripted(cold, scripted_config(), cold_start=True).result.summary()
    assert "Loading" not in run_scripted(warm, scripted_config()).result.summary()


def test_loading_is_no_window_otherwise(tmp_path):
    run = run_scripted(tmp_path, scripted_config(), KnownPower(constant(WATTS)).select)

    assert run.result.load is None
    assert "load" not in [one.name for one in run.measurement.windows]
