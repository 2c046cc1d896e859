from __future__ import annotations

from dataclasses import replace

import pytest

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.models import catalogue
from llenergymeasure.core.models.architecture import ModelArchitecture
from llenergymeasure.core.models.counted import Counted
from llenergymeasure.domain.energy import EnergyComponent, EnergyRecording
from llenergymeasure.domain.environment import DeviceState, DeviceTarget
from llenergymeasure.domain.results import BaselineResult, CPULoad, CPUThrottling, ExperimentResult
from llenergymeasure.domain.samples import Window
from llenergymeasure.exceptions import LLEMError
from llenergymeasure.orchestration.assemble import ResultCollector
from tests.support.known_power import KnownPower, constant
from tests.support.make_result import UUID, make_environment, make_process, make_sample
from tests.support.plugins import installed_plugin
from tests.support.scripted_run import run_scripted, scripted_config


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """What the coordinating process measured, with energy from a device of 250 W."""
    folder = tmp_path_factory.mktemp("run")
    return run_scripted(folder, scripted_config(), KnownPower(constant(250.0)).select).measurement


def collect(first, *processes) -> ExperimentResult:
    return ResultCollector(first, make_environment())(processes or [first.raw])


def test_headline_figures_are_those_of_the_sections(first):
    result = collect(first)

    assert result.energy_total_j == result.energy.total_j
    assert result.energy_per_output_token_j == result.energy.per_output_token_j
    assert result.energy_adjusted_j == result.energy.adjusted_j
    assert result.tokens_per_second == result.throughput.output_tokens_per_second
    assert result.ttft_ms == result.latency.ttft_ms.p50
    assert result.tpot_ms == result.latency.tpot_ms.p50
    assert result.peak_memory_mb == result.memory.peak_mb
    assert result.flops_total is None, "the scripted backend has no architecture"


def test_what_was_asked_and_what_was_in_force_stand_side_by_side(first):
    result = collect(first)

    assert result.config == first.order.config
    assert result.measurement_config_hash == first.order.config.fingerprint()
    assert result.resolved.backend["batch_size"] == 2
    assert result.resolved.energy_source == "known"
    assert result.resolved.dataset.used == 4
    assert result.energy.selection_reason.endswith("decides: known in a test")
    assert result.energy.scope == "the device"


def test_samples_of_all_processes_are_pooled_before_any_statistic(first):
    """Three quick requests and one slow one: the median is that of requests, not of processes."""
    quick = [make_sample(i, first_token_ns=make_sample(i).scheduled_ns + 10**6) for i in range(3)]
    slow = make_sample(3, first_token_ns=make_sample(3).scheduled_ns + 9 * 10**6)
    result = collect(
        first,
        make_process(0, requests=tuple(quick)),
        make_process(1, requests=(slow,)),
    )

    assert result.ttft_ms == pytest.approx(1.0), "the mean of process medians would be 5"
    assert result.latency.ttft_ms.count == 4
    assert result.latency.ttft_ms.mean == pytest.approx(3.0)
    assert result.throughput.output_tokens == 12


@pytest.mark.parametrize("cached", [None, 0, 2])
def test_a_share_of_the_peak_needs_all_the_work_to_be_done_in_the_window(first, cached):
    """What a prefix cache saved is asked for, and neither executed nor set against the peak."""
    shape = ModelArchitecture.from_config(catalogue.config("tiny-llama"))
    known = replace(first, report=replace(first.report, architecture=shape),
                    target=DeviceTarget("gpu", (UUID,)))  # fmt: skip
    sample = make_sample(0, cached_input_tokens=cached, padded_input_tokens=10)
    result = collect(known, make_process(0, requests=(sample,)))

    less = result.flops.executed_prefill.linear / result.flops.useful_prefill.linear
    assert less == pytest.approx(1 - (cached or 0) / 10)
    assert (result.flops.mfu is None) == bool(cached)
    told = [note for note in result.reproducibility_notes if "prefix cache" in note]
    assert [note[:24] for note in told] == (["2 prompt tokens were in "] if cached else [])


TINY = ModelArchitecture.from_config(catalogue.config("tiny-llama"))


def of_model(first, **report):
    """Give the result of a model whose engine reports this."""
    return collect(replace(first, report=replace(first.report, weights="random", **report)))


def test_parameters_are_those_that_were_counted_on_the_loaded_model(first):
    counted = Counted(total=TINY.parameters + 500, text=TINY.parameters, active=TINY.parameters)
    result = of_model(first, architecture=TINY, counted=counted)

    model = result.resolved.model
    assert (model.parameters, model.parameters_source) == (TINY.parameters + 500, "counted")
    assert model.parameters_active == TINY.parameters
    assert result.flops is not None, "the language model is as its configuration reads"


def test_without_a_count_parameters_are_analytic(first):
    model = of_model(first, architecture=TINY).resolved.model

    assert (model.parameters, model.parameters_source) == (TINY.parameters, "analytic")


def doubtful_reports():
    more = round(TINY.parameters * 1.01)
    return {
        "unread": {"architecture": None},
        "another count": {"architecture": TINY, "counted": Counted(more, more, more)},
        "unknown layers": {"architecture": replace(TINY, doubt="layers of kind 'conv'")},
    }


@pytest.mark.parametrize("report", doubtful_reports().values(), ids=doubtful_reports())
def test_what_the_formulas_do_not_know_is_null_with_the_reason(first, report):
    result = of_model(first, **report)

    assert (result.flops, result.flops_total) == (None, None)
    doubt = result.resolved.model.doubt
    assert doubt
    (note,) = [one for one in result.reproducibility_notes if "FLOPs, MFU and MBU are null" in one]
    assert doubt in note
    assert "FLOPs are not known" in result.summary()
    counted = report.get("counted")
    assert result.resolved.model.parameters == (counted and counted.total), "never a wrong one"


def test_a_backend_without_a_model_needs_no_word_about_its_parameters(first):
    result = collect(first)

    assert (result.flops, result.resolved.model.doubt) == (None, None)
    assert result.resolved.model.parameters is None


def test_a_baseline_that_was_not_taken_leaves_the_adjusted_figure_unknown(first):
    skipped = BaselineResult(
        device_idle_w=None, loaded_idle_w=None, duration_s=None, skipped="not measured"
    )

    assert collect(replace(first, baseline=skipped)).energy_adjusted_j is None


def test_energy_above_idle_is_never_clipped(first):
    warm = BaselineResult(device_idle_w=None, loaded_idle_w=300.0, duration_s=1.0, skipped=None)
    result = collect(replace(first, baseline=warm))

    assert result.energy_adjusted_j == pytest.approx(-50.0 * result.throughput.window_s)


def test_several_devices_are_told_one_by_one(first):
    known = EnergyRecording(
        "nvml",
        (EnergyComponent(name=UUID, energy_j=5.0, kind="measured", method="c", in_scope=True),),
    )
    several = replace(
        first,
        target=DeviceTarget("gpu", (UUID, "GPU-other")),
        raw=replace(first.raw, energy=known),
    )
    result = ResultCollector(several, make_environment())([several.raw])

    assert result.multi_gpu.devices == (UUID, "GPU-other")
    assert result.multi_gpu.energy_j == {UUID: 5.0, "GPU-other": None}
    assert collect(first).multi_gpu is None


def test_two_equal_shares_on_two_gpus_use_as_much_bandwidth_as_one(first):
    """Batch 0 of one process is not batch 0 of the other."""
    report = replace(
        first.report, architecture=ModelArchitecture.from_config(catalogue.config("llama-3.1-8b"))
    )
    one = replace(first, report=report, target=DeviceTarget("gpu", (UUID,)))
    two = replace(one, report=replace(report, compute_devices=2))
    shares = [make_process(rank, requests=(make_sample(rank),)) for rank in (0, 1)]

    alone = collect(one, shares[0]).flops.mbu
    assert alone > 0
    assert collect(two, *shares).flops.mbu == pytest.approx(alone)


@pytest.mark.parametrize("speculative", [False, True])
def test_bandwidth_is_unknown_where_a_step_gives_several_tokens(first, speculative):
    decoder = {"speculative_decoding": True, "draft_model": "m"} if speculative else {}
    known = replace(
        first,
        order=first.order.model_copy(
            update={"config": ExperimentConfig(model="m", decoder=decoder)}
        ),
        report=replace(
            first.report,
            architecture=ModelArchitecture.from_config(catalogue.config("tiny-llama")),
        ),
        target=DeviceTarget("gpu", (UUID,)),
    )

    assert (collect(known).flops.mbu is None) is speculative
    assert collect(known).flops.mfu > 0


def drafting(first, model, draft, weights):
    """Give what was measured as if a model had drafted."""
    decoder = {"speculative_decoding": True, "draft_model": draft}
    config = ExperimentConfig(model=model, decoder=decoder)
    order = first.order.model_copy(update={"config": config})
    return replace(first, order=order, report=replace(first.report, weights=weights))


def test_what_was_drafted_and_accepted_is_counted_and_has_its_energy(first):
    known = drafting(first, "m", "d", "pretrained")
    samples = [make_sample(n, drafted_tokens=8, accepted_tokens=n) for n in range(3)]
    result = collect(known, make_process(0, requests=tuple(samples)))

    assert (result.throughput.drafted_tokens, result.throughput.accepted_tokens) == (24, 3)
    assert result.throughput.acceptance_rate == 0.125
    assert result.energy.per_accepted_token_j == pytest.approx(result.energy_total_j / 3)
    assert "3 of 24 drafted tokens accepted (12.5 %)" in result.summary()
    assert "per accepted token" in result.summary()
    assert not any("draft" in note for note in result.reproducibility_notes)


@pytest.mark.parametrize(
    ("model", "draft", "weights", "said"),
    [
        ("random:tiny-llama", "random:tiny-llama", "random", "the most that drafting can"),
        ("random:tiny-llama", "random:qwen2.5-0.5b", "random", "the least that drafting can"),
        ("random:tiny-llama", "d", "random", "the least that drafting can save"),
        ("m", "random:tiny-llama", "pretrained", "the least that drafting can save"),
    ],
)
def test_an_acceptance_rate_of_random_weights_says_what_it_is(first, model, draft, weights, said):
    known = drafting(first, model, draft, weights)
    sample = make_sample(0, drafted_tokens=8, accepted_tokens=1)
    (told,) = [
        note
        for note in collect(known, make_process(0, requests=(sample,))).reproducibility_notes
        if "draft" in note
    ]

    assert said in told


def test_an_engine_that_does_not_count_drafts_is_told_of(first):
    result = collect(drafting(first, "m", "d", "pretrained"))

    assert result.throughput.drafted_tokens is None
    assert any("does not tell how many tokens were drafted" in one
               for one in result.reproducibility_notes)  # fmt: skip


def test_end_to_end_and_its_product_with_energy_are_until_a_search_delivers(first):
    config = ExperimentConfig(model="m", decoder={"decoding_strategy": "beam", "num_beams": 2})
    searched = replace(first, order=first.order.model_copy(update={"config": config}))
    late = make_sample(0)
    late = replace(late, delivered_ns=late.scheduled_ns + 200_000_000)
    result = collect(searched, make_process(0, requests=(late,)))

    assert result.latency.e2e_ms.p50 == 200.0, "its last step was done after 30 ms"
    assert result.energy.edp_js == pytest.approx(result.energy.per_request_j * 0.2)
    assert result.tpot_ms is None
    assert "no token is final before a search ends" in result.summary()


def test_a_stop_inside_the_window_makes_the_result_invalid(first):
    sample = make_sample(0, output_tokens=6, gaps_ns=(10_000_000,) * 4 + (900_000_000_000,))
    window = Window(sample.issued_ns, sample.first_token_ns + 901_000_000_000)
    result = collect(first, make_process(0, requests=(sample,), window=window, suspended_s=0.0))

    assert result.throughput.stalled_s == pytest.approx(900, abs=0.1)
    assert result.throughput.suspended_s == 0.0
    assert result.measurement_warnings[0] == "stalled"
    assert result.trust.verdict == "invalid"


def test_a_baseline_without_a_figure_says_why(tmp_path):
    source = KnownPower(constant(250.0))
    source.close_window = lambda window, steps=None: EnergyRecording("known")
    run = run_scripted(tmp_path, scripted_config(), source.select)

    assert run.result.baseline.loaded_idle_w is None
    assert run.result.baseline.skipped == "the energy source gave no figure"


def test_emissions_need_an_intensity(first):
    place = make_environment(carbon_intensity_gco2_kwh=360.0, datacenter_pue=2.0)
    result = ResultCollector(first, place)([first.raw])

    assert collect(first).co2_estimate.co2_grams is None
    assert result.co2_estimate.co2_grams == pytest.approx(result.energy_total_j / 3.6e6 * 720.0)


def test_what_a_repeat_depends_on_is_noted(first, tmp_path):
    config = scripted_config(decoder={"decoding_strategy": "sampling"}, random_seed=7)
    notes = run_scripted(tmp_path, config).result.reproducibility_notes

    assert "tokens are sampled, seed 7" in notes
    assert any("token counts depend on the arithmetic" in note for note in notes)
    assert not any("sampled" in note for note in collect(first).reproducibility_notes)


def test_a_short_window_of_few_batches_is_not_trusted_blindly(first):
    result = collect(first)

    assert "window_short" in result.measurement_warnings
    assert result.trust.verdict == "caution"


def test_a_result_comes_back_from_its_file(first, tmp_path):
    result = collect(first)
    result.to_json(tmp_path / "result.json")

    assert ExperimentResult.from_json(tmp_path / "result.json") == result


def test_a_result_of_a_plugin_that_is_not_installed_names_the_missing_backend(first, tmp_path):
    (tmp_path / "plugin").mkdir()
    with installed_plugin(tmp_path / "plugin"):
        config = scripted_config(backend="echo-engine", scripted=None, **{"echo-engine": {}})
        stored = collect(first).model_copy(update={"config": config})
        stored.to_json(tmp_path / "result.json")
        assert ExperimentResult.from_json(tmp_path).config.backend == "echo-engine"

    with pytest.raises(LLEMError, match="unknown backend 'echo-engine'") as caught:
        ExperimentResult.from_json(tmp_path)
    assert "needs that package installed here" in caught.value.message


def test_a_device_that_starts_away_from_its_reference_is_told(first):
    states = (DeviceState(device=UUID, start_c=61.0), DeviceState(device="GPU-other", start_c=52.0))
    warm = replace(
        first,
        order=first.order.model_copy(update={"reference_start_c": {UUID: 55.0, "GPU-other": 51.0}}),
        raw=replace(first.raw, energy=replace(first.raw.energy, device_state=states)),
    )
    result = collect(warm, warm.raw)

    assert "start_temperature" in result.measurement_warnings
    (reason,) = [one for one in result.trust.reasons if one.code == "start_temperature"]
    assert UUID in reason.detail
    assert "GPU-other" not in reason.detail, "within the limit"
    assert result.thermal.device_start_c == {UUID: 61.0, "GPU-other": 52.0}
    assert result.thermal.start_c == 61.0


def test_energy_that_the_settings_switch_off_is_no_missing_source(first):
    off = replace(first, selection=replace(first.selection, name="none"))
    codes = {
        named: collect(
            replace(off, order=first.order.model_copy(update={"energy_backend": named}))
        ).measurement_warnings
        for named in ("auto", "none")
    }

    assert "no_energy_source" in codes["auto"]
    assert "no_energy_source" not in codes["none"]


def test_work_of_others_on_the_cpu_is_told(first):
    busy = replace(first.measured, cpu_load=CPULoad(own_share=0.4, other_share=0.5))
    shared = collect(replace(first, measured=busy))

    assert shared.cpu_load.other_share == 0.5
    assert "cpu_shared" in shared.measurement_warnings
    (reason,) = [one for one in shared.trust.reasons if one.code == "cpu_shared"]
    assert "other work had 50 % of the CPU time" in reason.detail


def test_the_cpus_are_watched_over_a_window_that_is_long_enough(tmp_path):
    long = scripted_config(window={"min_duration_seconds": 1.1})
    on_gpu = scripted_config(
        window={"min_duration_seconds": 1.1},
        scripted={"ttft_ms": 4.0, "itl_ms": 1.0, "batch_size": 2, "device_uuids": [UUID]},
    )
    for name in ("cpu", "gpu"):
        (tmp_path / name).mkdir()
    found = run_scripted(tmp_path / "cpu", long).result.cpu_load

    assert 0 <= found.own_share <= found.own_share + found.other_share <= 1.01  # others may rest
    assert run_scripted(tmp_path / "gpu", on_gpu).result.cpu_load is None


def test_what_a_quota_held_back_is_told(first):
    held = CPUThrottling(group="the group", periods=9, throttled_periods=8, throttled_s=50.0)
    throttled = collect(replace(first, measured=replace(first.measured, cpu_throttling=held)))

    assert throttled.cpu_throttling == held
    assert "cpu_throttled" in throttled.measurement_warnings


def test_prompts_found_in_a_prefix_cache_are_told(first):
    found = make_process(0, requests=(make_sample(0, cached_input_tokens=3), make_sample(1)))

    assert "prefix_cache_hits" in collect(first, found).measurement_warnings
    assert "prefix_cache_hits" not in collect(first).measurement_warnings
