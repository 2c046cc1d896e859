"""What a study says of itself as a whole: its subject, and every finding with its count."""

from __future__ import annotations

import json

import pytest

from llenergymeasure.domain.environment import DeviceState
from llenergymeasure.domain.results import (
    CPULoad,
    DatasetInfo,
    ExperimentResult,
    PassComparison,
    StudyResult,
    TrustReason,
    TrustVerdict,
)
from llenergymeasure.domain.study_result import FIGURES, METRICS
from llenergymeasure.domain.warnings import FINDINGS
from llenergymeasure.results.layout import StudyDirectory
from llenergymeasure.study.collect import write_summary
from llenergymeasure.study.describe import cautions, subject_of, trust_counts
from tests.support.make_result import (
    UUID,
    make_energy,
    make_environment,
    make_latency,
    make_resolved,
    make_result,
    make_throughput,
    make_window,
)
from tests.support.make_study import make_configs, make_run, make_study

NOISE = {1: 0.99, 2: 1.0, 3: 1.012}


def finding(*codes: str) -> TrustVerdict:
    return TrustVerdict.of((TrustReason.of(code, "it was") for code in codes), energy_asked=True)


def shared(config, number, cycle):
    """A study on a machine that was busy in all runs of #1 and in one of #2."""
    busy = number == 1 or cycle == 2
    load = CPULoad(own_share=0.1, other_share=0.84 + 0.01 * cycle) if busy else None
    codes = ("cpu_shared", "random_weights") if busy else ("random_weights",)
    return make_run(config, 800 * number * NOISE[cycle], cpu_load=load, trust=finding(*codes))


def test_every_code_has_its_count_its_range_its_configurations_and_its_remedy():
    weights, cpu = make_study(shared).trust
    assert (weights.code, weights.count, weights.of) == ("random_weights", 6, 6)
    assert (weights.lowest, weights.highest, weights.unit) == (None, None, "")
    assert (cpu.code, cpu.level, cpu.count, cpu.of) == ("cpu_shared", "caution", 4, 6)
    assert (cpu.configurations, cpu.counts) == ((1, 2), (3, 1))
    assert (cpu.lowest, cpu.highest) == (pytest.approx(85), pytest.approx(87))
    assert cpu.remedy == FINDINGS["cpu_shared"].remedy
    assert cpu.found == "cpu_shared in 4 of 6 runs (85 to 87 % of the CPU time)"


@pytest.mark.parametrize("code", FINDINGS)
def test_no_finding_there_is_gets_lost_on_the_way_to_a_study(code):
    (one,) = trust_counts([(3, make_result(trust=finding(code)))])
    about = FINDINGS[code]
    assert (one.code, one.level, one.remedy) == (code, about.level, about.remedy)
    assert (one.count, one.of, one.configurations, one.counts) == (1, 1, (3,), (1,))
    assert one.found.startswith(f"{code} in 1 of 1 run")


def test_what_is_invalid_comes_first_and_what_is_frequent_before_what_is_not():
    found = [
        ("window_short",),
        ("window_short", "prompts_truncated"),
        ("counter_reset", "no_guard"),
    ]
    counts = trust_counts((1, make_result(trust=finding(*codes))) for codes in found)
    assert [one.code for one in counts] == [
        "counter_reset",
        "window_short",
        "no_guard",
        "prompts_truncated",
    ]


def test_figures_of_devices_and_of_halves_have_their_range():
    states = tuple(
        DeviceState(device=UUID, state_samples=50, clock_events={"software_thermal": seen})
        for seen in (5, 20)
    )
    halves = PassComparison.model_validate(
        {
            **dict.fromkeys(PassComparison.model_fields, 1),
            "power_change": -0.031,
            "closes": True,
        }
    )
    result = make_result(
        trust=finding("software_thermal_slowdown", "power_drift"),
        device_state=states,
        energy=make_energy(comparison=halves),
    )
    thermal, drift = trust_counts([(1, result)])
    assert thermal.found.endswith("(10 to 40 % of samples)")
    assert drift.found.endswith("(-3.1 % of the power)")


def test_a_code_of_another_version_is_told_with_its_own_remedy():
    reason = TrustReason(code="no_longer_there", level="caution", detail="d", remedy="do it")
    verdict = TrustVerdict(verdict="caution", energy="caution", reasons=(reason,))
    (one,) = trust_counts([(1, make_result(trust=verdict))])
    assert (one.code, one.remedy) == ("no_longer_there", "do it")
    assert cautions([verdict, finding("window_short")]) == ("window_short", "no_longer_there")


def test_rows_that_rest_on_cautions_are_marked_and_the_others_are_not():
    def run(config, number, cycle):
        trust = finding("cpu_shared", "prompts_truncated") if (number, cycle) == (1, 2) else None
        more = {} if trust is None else {"trust": trust}
        return make_run(config, 800 * number * NOISE[cycle], **more)

    study = make_study(run)
    assert [one.trust for one in study.configurations] == [("cpu_shared",), ()]
    text = study.summary()
    assert " !   #1 batch_size=1" in text
    assert "     #2 batch_size=8" in text
    assert "    !#1" in text.partition("TTFT")[2], "and so in the other tables"
    assert "! marks what rests on results with cautions" in text
    assert "  caution    cpu_shared in 1 of 6 runs: #1\n" in text
    assert f"-> {FINDINGS['cpu_shared'].remedy.partition(' (')[0]}" in text
    assert "  info       prompts_truncated in 1 of 6 runs (0 of the prompts): #1" in text


def test_a_result_that_is_in_no_figure_marks_no_row_and_is_told_all_the_same():
    def run(config, number, cycle):
        more = {"trust": finding("counter_reset")} if (number, cycle) == (1, 2) else {}
        return make_run(config, 800 * number * NOISE[cycle], **more)

    study = make_study(run)
    assert [one.trust for one in study.configurations] == [(), ()]
    text = study.summary()
    assert "Trust        ok; 1 run invalid and in no figure\n" in text
    assert "  invalid    counter_reset in 1 of 6 runs: #1\n" in text


def test_a_study_without_findings_says_so():
    text = make_study(lambda config, *_: make_run(config)).summary()
    assert "Trust        ok: nothing speaks against these figures" in text


def test_a_study_says_what_it_measured_on_what_and_when():
    def run(config, number, cycle):
        window = make_window().model_copy(
            update={"started_at": f"2026-03-0{cycle}T1{number}:30:00.000+01:00"}
        )
        return make_run(config, 800 * NOISE[cycle], window=window)

    study = make_study(run)
    subject = study.subject
    assert subject is not None
    assert (subject.models, subject.datasets, subject.n) == (("m",), ("mixed-1k",), (20,))
    assert subject.machines == ("Example CPU 9000, 8 logical CPUs, 64 GiB",)
    assert subject.boards == (f"NVIDIA H200 ({UUID})",)
    assert [(one.source, one.kind, one.count) for one in subject.energy] == [
        ("nvml", "measured", 6)
    ]
    assert subject.versions["llenergymeasure"] == ("2.0.0",)
    assert subject.versions["torch"] == ("2.8.0",)
    assert subject.inputs["dataset"] == ("0" * 64,)
    assert (subject.first[:16], subject.last[:16]) == ("2026-03-01T11:30", "2026-03-03T12:30")
    head = study.summary().partition("\n\n")[0]
    assert "  m; mixed-1k, 20 prompts\n" in head
    assert f"  on NVIDIA H200 ({UUID})\n" in head
    assert "  energy measured by nvml; 2026-03-01 11:30 to 2026-03-03 12:30" in head
    assert len(head.splitlines()) <= 7


def test_several_kinds_of_energy_are_all_named():
    kinds = {
        1: make_energy(),
        2: make_energy(source="codecarbon", kind="modelled", interval95_j=None),
        3: make_energy(None),
    }
    study = make_study(lambda config, number, cycle: make_run(config, energy=kinds[cycle]))
    assert study.subject is not None
    assert {(one.source, one.kind, one.count) for one in study.subject.energy} == {
        ("nvml", "measured", 2),
        ("codecarbon", "modelled", 2),
        ("none", "unmeasurable", 2),
    }
    head = " ".join(study.summary().partition("\n\n")[0].split())
    assert "measured by nvml in 2 runs, modelled by codecarbon in 2 runs" in head
    assert "no energy was read in 2 runs" in head


def test_the_first_and_the_last_are_told_by_the_clock_and_not_by_the_letters():
    begun = ("2026-03-29T02:30:00+02:00", "2026-03-29T01:45:00+01:00", "at noon")
    results = [
        make_result(window=make_window().model_copy(update={"started_at": text})) for text in begun
    ]
    subject = subject_of(results[:2])
    assert subject is not None
    assert (subject.first, subject.last) == begun[:2]
    damaged = subject_of(results)
    assert damaged is not None
    assert damaged.last == begun[1]


def test_without_a_result_there_is_no_subject():
    assert subject_of([]) is None
    assert trust_counts([]) == ()


def test_prompts_of_several_sizes_are_all_named():
    def run(config, number, cycle):
        used = DatasetInfo(name="mixed-1k", size=1000, used=10 * number, sha256="0" * 64)
        return make_run(config, resolved=make_resolved(config, dataset=used))

    assert "mixed-1k, 10 prompts and 20 prompts" in make_study(run).summary()


# Percentiles --------------------------------------------------------------------------------------


def timed(config, number, cycle) -> ExperimentResult:
    latency = make_latency()
    tpot = latency.tpot_ms.model_copy(update={"p95": 20.0 + cycle})
    return make_run(config, latency=latency.model_copy(update={"tpot_ms": tpot}))


def test_a_percentile_is_that_of_each_run_and_then_the_mean_over_cycles():
    figures = make_study(timed).configurations[0].figures
    assert figures["tpot_ms.p95"].mean == pytest.approx(22.0)
    assert figures["tpot_ms.p95"].n == 3
    low, high = figures["tpot_ms.p95"].interval95
    assert (low + high) / 2 == pytest.approx(22.0)
    assert high - low == pytest.approx(2 * 4.3027 / 3**0.5, rel=1e-4)
    assert figures["tpot_ms.p50"] == figures["tpot_ms"]
    names = {name for name in figures if "." in name}
    assert names == {
        f"{time}.{p}"
        for time in ("ttft_ms", "tpot_ms", "itl_ms", "e2e_ms")
        for p in ("p50", "p90", "p95", "p99")
    }


def test_figures_of_a_large_study_share_what_they_can():
    first, second, *_ = make_study(timed).configurations[0].figures.values()
    assert first.model_fields_set is second.model_fields_set
    other = first.model_copy(update={"mean": 1.0})
    assert (other.mean, first.mean != 1.0) == (1.0, True)
    assert type(first).model_validate_json(first.model_dump_json()) == first


def test_figures_beyond_those_that_are_compared_are_compared_by_nobody():
    study = make_study(lambda config, number, cycle: make_run(config, 800 * number * NOISE[cycle]))
    assert {one.metric for one in study.comparisons} == {metric.name for metric in METRICS}
    assert {one.metric for one in study.sensitivity} <= {metric.name for metric in METRICS}


def test_every_figure_is_named_as_the_table_of_figures_names_it():
    study = make_study(timed)
    for one in study.configurations:
        assert one.figures.keys() <= FIGURES.keys()
        for name, figure in one.figures.items():
            assert figure.mean == pytest.approx(
                sum(FIGURES[name].of(timed(make_configs()[0], 1, c)) for c in (1, 2, 3)) / 3
            )


def test_an_experiment_without_token_times_has_no_percentiles_of_them():
    latency = make_latency(itl_ms=None, tpot_ms=None)
    study = make_study(lambda config, *_: make_run(config, latency=latency))
    names = study.configurations[0].figures
    assert not [name for name in names if name.startswith(("itl_ms", "tpot_ms"))]
    assert "e2e_ms.p95" in names


def test_percentiles_stand_in_the_table_with_their_intervals():
    text = make_study(timed).summary()
    heads = next(line for line in text.splitlines() if "TTFT p95" in line)
    assert "TPOT p95, ms" in heads
    assert "22 ± 2" in text.partition(heads)[2].splitlines()[1]
    assert "E2E p95, ms" in text
    assert "ITL p95, ms" in text


# A study of one configuration ---------------------------------------------------------------------


def test_a_study_of_one_configuration_tells_all_that_an_experiment_does():
    def run(config, number, cycle):
        factor = NOISE[cycle]
        throughput = make_throughput(output_tokens_per_second=200 / factor)
        return make_run(config, 812 * factor, latency=make_latency(), throughput=throughput)

    text = make_study(run, make_configs([8])).summary()
    for said in (
        "Energy       810 J ± 20 in the window",
        "per output token",
        "per request",
        "on average",
        "above loaded idle",
        "tokens/s of output",
        "requests/s",
        "16,500 MiB peak",
        "15,300 MiB after loading",
        "12.3 % MFU",
        "E2E",
        "p99",
    ):
        assert said in text, text
    assert "lowest first" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_one_of_several_configurations_that_ran_is_ranked_as_before():
    study = make_study(lambda config, number, _: make_run(config) if number == 1 else None)
    assert "lowest first" in study.summary()


# Paths and the table ------------------------------------------------------------------------------


def test_a_study_that_is_moved_still_finds_its_results():
    study = make_study(lambda config, *_: make_run(config), cycles=1)
    moved = study.model_copy(update={"directory": "/elsewhere/sizes"})
    assert moved.located("experiments/0001_x/result.json") == (
        "/elsewhere/sizes/experiments/0001_x/result.json"
    )
    of_before = "/gone/sizes_1/experiments/0001_x/result.json"
    assert moved.located(of_before) == "/elsewhere/sizes/experiments/0001_x/result.json"
    unknown = study.model_copy(update={"directory": None})
    assert unknown.located(of_before) == of_before


def test_where_a_study_lies_is_in_none_of_its_files(tmp_path):
    study = make_study(lambda config, *_: make_run(config), cycles=1)
    write_summary(study, StudyDirectory(tmp_path))
    data = json.loads((tmp_path / "study_summary.json").read_text())
    assert "directory" not in data
    assert StudyResult.model_validate(data).directory is None


def test_the_table_has_the_label_of_each_row_and_no_column_a_package():
    environment = make_environment(packages={f"package-{n}": "1" for n in range(300)})
    study = make_study(lambda config, *_: make_run(config, environment=environment), cycles=1)
    table = study.to_arrow()
    assert table.column_names[:4] == [
        "study.configuration",
        "study.label",
        "study.cycle",
        "study.slot",
    ]
    assert table["study.label"].to_pylist() == ["batch_size=1", "batch_size=8"]
    assert not [name for name in table.column_names if "packages" in name]
    assert "environment.engine_versions.torch" in table.column_names
