"""From experiments to the result of a study: counts, what is pooled, and its files."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.settings_words import varied_settings
from llenergymeasure.domain.earlier_rules import OF_EXPERIMENTS
from llenergymeasure.domain.energy import BudgetEntry, EnergyComponent
from llenergymeasure.domain.environment import GPUInfo
from llenergymeasure.domain.results import MultiGPUResult, Skipped, StudyResult, TrustReason
from llenergymeasure.results.layout import StudyDirectory
from llenergymeasure.study.blocks import devices_of, stations
from llenergymeasure.study.collect import (
    SlotOutcome,
    study_result,
    write_summary,
)
from llenergymeasure.study.manifest import Slot
from tests.support.make_result import (
    OUTPUT_TOKENS,
    UUID,
    make_energy,
    make_environment,
    make_resolved,
    make_result,
    make_trust,
)
from tests.support.make_study import (
    make_configs,
    make_design,
    make_failure,
    make_run,
    make_study,
    verdicts,
)

OTHER = "GPU-5f4dcc3b-0000-4000-8000-000000000002"
NOISE = {1: 0.995, 2: 1.0, 3: 1.006}


def told(study: StudyResult, kind: str) -> list[str]:
    """Give the texts of notes of one kind."""
    return [note.text for note in study.notes if note.kind == kind]


def on_board(uuid: str, energy_j: float) -> dict[str, object]:
    """Say that a run was on this board."""
    part = EnergyComponent(
        name=uuid, energy_j=energy_j, kind="measured", method="nvml", in_scope=True
    )
    gpus = (GPUInfo(index=0, uuid=uuid, name="NVIDIA H200"),)
    return {
        "energy": make_energy(energy_j, components=(part,)),
        "environment": make_environment(gpus=gpus),
    }


def invalid(config: ExperimentConfig, energy_j: float) -> object:
    """Make a result that is not to be trusted."""
    reason = TrustReason(code="counter_reset", level="invalid", detail="d", remedy="r")
    trust = make_trust().model_copy(update={"verdict": "invalid", "reasons": (reason,)})
    return make_run(config, energy_j, trust=trust)


def test_a_study_counts_what_ran_what_broke_and_what_is_missing():
    def run(config, number, cycle):
        if (number, cycle) == (1, 2):
            return make_failure(config)
        return None if (number, cycle) == (2, 3) else make_run(config)

    skipped = (Skipped(config={"precision": "fp8"}, reason="not supported"),)
    study = make_study(run, skipped=skipped)
    assert (study.generated, study.ran, study.missing) == (3, 4, 1)
    assert [one.message for one in study.failed] == ["out of memory"]
    assert study.failed[0].config == make_configs()[0]
    assert study.skipped == skipped
    assert study.protocol is not None
    assert (study.protocol.n_cycles, study.protocol.start_methods) == (3, ("inline",))


def test_each_result_keeps_its_place_and_its_file():
    study = make_study(lambda config, *_: make_run(config), cycles=2)
    places = [(one.slot, one.configuration, one.cycle) for one in study.placements]
    assert places == [(1, 1, 1), (2, 2, 1), (3, 2, 2), (4, 1, 2)]
    assert study.result_files == tuple(f"000{slot}/result.json" for slot in (1, 2, 3, 4))


def test_a_configuration_tells_its_varied_settings_alone():
    study = make_study(lambda config, *_: make_run(config))
    assert [one.settings for one in study.configurations] == [
        {"pytorch.batch_size": 1},
        {"pytorch.batch_size": 8},
    ]
    assert study.configurations[0].label == "batch_size=1"
    assert study.configurations[1].fingerprint == make_configs()[1].fingerprint()


def test_defaults_that_are_spelt_out_are_no_difference_and_told_where_others_differ():
    plain = ExperimentConfig(model="m", backend="scripted", n=1)
    spelt = plain.model_copy(update={"scripted": plain.section, "precision": "fp32"})
    assert varied_settings([plain, spelt]) == [{"precision": "bf16"}, {"precision": "fp32"}]
    batch = ExperimentConfig(model="m", backend="scripted", n=1, scripted={"batch_size": 4})
    default = plain.section.model_dump()["batch_size"]
    assert varied_settings([plain, batch]) == [
        {"scripted.batch_size": default},
        {"scripted.batch_size": 4},
    ]


def test_a_dataset_by_name_stands_beside_a_synthetic_one():
    named = ExperimentConfig(model="m", n=2)
    made = ExperimentConfig(model="m", n=2, dataset={"synthetic": {"input_len": 9, "n": 2}})
    first, second = varied_settings([named, made])
    assert first["dataset"] == "mixed-1k"
    assert second["dataset.synthetic.input_len"] == 9


def test_a_failure_says_where_in_the_study_it_belongs_and_where_it_lies():
    def run(config, number, cycle):
        broken = (number, cycle) == (2, 2)
        return make_failure(config) if broken else make_run(config)

    (failure,) = make_study(run).failed
    assert (failure.slot, failure.cycle, failure.configuration) == (3, 2, 2)
    assert failure.settings == {"pytorch.batch_size": 8}
    assert failure.directory == "0003"


def test_experiments_that_were_not_started_as_asked_are_noted_with_the_reason():
    def run(config, number, cycle):
        result = make_run(config)
        spawned = {"start_method": "spawn", "start_reason": "it has 3 threads"}
        resolved = result.resolved.model_copy(update=spawned if number == 1 else {})
        return result.model_copy(update={"resolved": resolved})

    assert "3 experiments were spawned, not forked: it has 3 threads" in told(
        make_study(run), "start"
    )


def test_settings_of_another_backend_are_not_told():
    one = ExperimentConfig(model="m", pytorch={"batch_size": 4})
    other = ExperimentConfig(model="m", backend="scripted", scripted={"ttft_ms": 5.0})
    first, second = varied_settings([one, other])
    assert first == {"backend": "pytorch", "pytorch.batch_size": 4}
    assert second["backend"] == "scripted"
    assert "pytorch.batch_size" not in second


def test_a_difference_far_over_the_noise_is_shown():
    study = make_study(lambda config, number, cycle: make_run(config, 800 * number * NOISE[cycle]))
    assert verdicts(study, "energy_total_j") == {(1, 2): "lower"}
    assert verdicts(study, "energy_per_output_token_j") == {(1, 2): "lower"}
    assert verdicts(study, "tokens_per_second") == {(1, 2): "no_difference_shown"}


def test_an_invalid_result_is_counted_and_in_no_figure():
    def run(config, number, cycle):
        broken = (number, cycle) == (1, 2)
        return invalid(config, 9e9) if broken else make_run(config, 800 * NOISE[cycle])

    study = make_study(run)
    first = study.configurations[0]
    assert (study.ran, study.invalid, first.invalid, first.n_cycles) == (6, 1, 1, 2)
    assert first.figures["energy_total_j"].mean == pytest.approx(800 * (0.995 + 1.006) / 2)
    assert "1 result is in no figure: counter_reset" in told(study, "trust")


def resumed(number: int, session: int, energy_j: float, config: ExperimentConfig) -> object:
    resolved = make_resolved(config, session=session)
    return make_run(config, energy_j * number, resolved=resolved)


def test_what_changed_while_a_study_was_stopped_is_no_difference_and_hides_none():
    def run(config, number, cycle):
        second = cycle == 3 or (cycle == 2 and number > 2)
        energy_j = 800.0 * NOISE[cycle] * (1.1 if second else 1.0)
        return resumed(number if number < 4 else 3, 2 if second else 1, energy_j, config)

    study = make_study(run, make_configs((1, 2, 4, 8)))
    found = verdicts(study, "energy_total_j")
    assert found.pop((3, 4)) == "no_difference_shown"
    assert set(found.values()) == {"lower"}
    assert told(study, "resume") == []


def test_a_result_that_a_resume_has_parted_from_its_cycle_is_in_no_comparison():
    def run(config, number, cycle):
        session = 2 if cycle == 3 or (cycle, number) == (1, 1) else 1
        return resumed(1, session, 800.0 * NOISE[cycle] * (3.0 if session == 2 else 1.0), config)

    study = make_study(run, make_configs((1, 2, 4)))
    assert "no_difference_shown" in verdicts(study, "energy_total_j").values()
    assert [text.partition(":")[0] for text in told(study, "resume")] == [
        "1 result is in no comparison"
    ]
    assert study.configurations[0].figures["energy_total_j"].n == 3


def test_figures_that_rest_on_results_of_an_earlier_rule_say_so():
    """Of beam search the TPOT of before is beside none of today; parameters are no such figure."""
    of_parameters, _, of_beams = (rule.text for rule in OF_EXPERIMENTS)

    def run(config, _, cycle):
        return make_run(config, earlier_rules=(of_parameters, of_beams) if cycle < 3 else ())

    told = [note.text for note in make_study(run).notes if "earlier rule" in note.text]
    assert told == [f"in 4 of 6 results, by an earlier rule: {of_beams}"]


def test_results_of_different_boards_are_never_pooled():
    def run(config, number, cycle):
        energy_j = 800.0 * NOISE[cycle] * number * (1.1 if cycle == 3 else 1.0)
        board = OTHER if cycle == 3 else UUID
        return make_run(config, **on_board(board, energy_j))

    study = make_study(run)
    apart = [(one.id, one.devices, one.n_cycles) for one in study.configurations]
    assert apart == [(1, (UUID,), 2), (1, (OTHER,), 1), (2, (UUID,), 2), (2, (OTHER,), 1)]
    assert verdicts(study, "energy_total_j") == {(1, 2): "lower"}
    assert any("more than one board" in text for text in told(study, "trust"))


def test_configurations_that_never_shared_a_board_are_not_compared():
    def run(config, number, cycle):
        return make_run(config, **on_board((UUID, OTHER)[number - 1], 800.0 * NOISE[cycle]))

    study = make_study(run)
    assert study.comparisons == ()
    assert any("never share" in text for text in told(study, "metric"))


def test_one_gpu_and_the_same_with_its_neighbour_are_one_place():
    places = stations([(1, (UUID,)), (2, (UUID, OTHER)), (3, ("other",))])
    assert places[UUID,] == places[UUID, OTHER] != places["other",]


def test_a_configuration_that_moved_keeps_every_board_apart():
    places = stations([(1, (UUID,)), (1, (OTHER,)), (2, (UUID, OTHER))])
    assert len(set(places.values())) == 3


def test_the_devices_of_a_result_are_those_that_did_the_work():
    assert devices_of(make_result()) == (UUID,)
    several = MultiGPUResult(devices=(OTHER, UUID), energy_j={})
    assert devices_of(make_result(multi_gpu=several)) == (UUID, OTHER)
    unmeasured = make_result(energy=make_energy(None))
    assert devices_of(unmeasured) == (UUID,)
    on_cpu = unmeasured.memory.model_copy(update={"kind": "resident_set"})
    assert devices_of(make_result(energy=make_energy(None), memory=on_cpu)) == ("Example CPU 9000",)


def test_what_is_assumed_of_the_sensor_is_common_and_the_rest_is_not():
    budget = (
        BudgetEntry(name="level_step_times_edge_time", standard_j=3.0),
        BudgetEntry(name="averaging_window", standard_j=4.0),
        BudgetEntry(name="counter_quantum", standard_j=100.0),
    )
    part = EnergyComponent(
        name=UUID, energy_j=800.0, kind="measured", method="m", in_scope=True, budget=budget
    )
    energy = make_energy(800.0, components=(part,))
    study = make_study(lambda config, *_: make_run(config).model_copy(update={"energy": energy}))
    figures = study.configurations[0].figures
    assert figures["energy_total_j"].common_standard == pytest.approx(5.0)
    per_token = figures["energy_per_output_token_j"].common_standard
    assert per_token == pytest.approx(5.0 / OUTPUT_TOKENS)
    assert figures["ttft_ms"].common_standard is None


def test_without_energy_the_other_figures_are_compared_all_the_same():
    study = make_study(
        lambda config, number, cycle: make_run(config, None, 200 * number * NOISE[cycle])
    )
    assert verdicts(study, "energy_total_j") == {}
    assert verdicts(study, "tokens_per_second") == {(1, 2): "lower"}
    assert "energy_total_j" not in study.configurations[0].figures


def test_a_later_outcome_of_a_slot_replaces_an_earlier_one():
    (config,) = make_configs([1])
    slot = Slot(1, 0, 1)
    outcomes = [SlotOutcome(slot, make_failure(config)), SlotOutcome(slot, make_run(config))]
    study = study_result(make_design([config], 1), outcomes)
    assert (study.ran, study.failed) == (1, ())


def test_a_study_with_nothing_but_failures_still_has_a_result():
    study = make_study(lambda config, *_: make_failure(config))
    assert (study.ran, len(study.failed), study.configurations) == (0, 6, ())
    assert "6 failed" in study.summary()


def test_the_summary_file_has_all_but_the_results_and_the_table_has_a_row_each(tmp_path):
    study = make_study(lambda config, number, cycle: make_run(config, 800 * NOISE[cycle]))
    directory = StudyDirectory(tmp_path)
    write_summary(study, directory)
    data = json.loads(directory.summary.read_text())
    assert "experiments" not in data
    assert StudyResult.model_validate(data).comparisons == study.comparisons
    table = pq.read_table(directory.table)
    assert table.num_rows == 6
    assert table["study.configuration"].to_pylist() == [1, 2, 2, 1, 1, 2]
    assert table["study.cycle"].to_pylist() == [1, 1, 2, 2, 3, 3]
    assert table["energy_total_j"].to_pylist() == [r.energy_total_j for r in study.experiments]


def test_a_free_setting_of_two_types_becomes_text_in_the_table():
    first, second = make_configs()
    results = []
    for config, value in ((first, "auto"), (second, 4)):
        made = make_run(config)
        resolved = made.resolved.model_copy(update={"backend": {"workers": value}})
        results.append(made.model_copy(update={"resolved": resolved}))
    study = StudyResult(study_design_hash="0" * 16, generated=2, ran=2, experiments=tuple(results))
    assert study.to_arrow()["resolved.backend.workers"].to_pylist() == ["auto", "4"]


def test_a_note_on_several_figures_is_one_record_that_names_them():
    study = make_study(lambda config, *_: make_run(config), cycles=1)
    (note,) = (note for note in study.notes if note.kind == "metric")
    assert note.text == "too few repeats to compare; at least two cycles are needed"
    assert {"energy_total_j", "tokens_per_second", "ttft_ms"} <= set(note.about)


def test_notes_that_were_sentences_are_read_as_the_records_they_would_be_today():
    old = {
        "schema_version": "2.0",
        "study_design_hash": "0" * 16,
        "generated": 1,
        "ran": 1,
        "notes": [
            "1 result is in no figure: counter_reset",
            "engines differ in clocks (TTFT, TPOT, ITL): pytorch: one; vllm: two. So what.",
            "energy_total_j: too few repeats to compare",
            "ttft_ms: too few repeats to compare",
            "ttft_ms: configuration 2 has values that are not above 0",
        ],
    }
    study = StudyResult.model_validate(old)
    assert study.schema_version == "2.2"
    assert [(note.kind, note.text, note.about) for note in study.notes] == [
        ("other", "1 result is in no figure: counter_reset", ()),
        ("difference", "pytorch: one; vllm: two. So what.", ("clocks (TTFT, TPOT, ITL)",)),
        ("metric", "too few repeats to compare", ("energy_total_j", "ttft_ms")),
        ("metric", "configuration 2 has values that are not above 0", ("ttft_ms",)),
    ]
    assert StudyResult.model_validate_json(study.model_dump_json()) == study


def test_a_note_that_is_neither_a_sentence_nor_a_record_is_refused():
    damaged = {"schema_version": "2.0", "study_design_hash": "0" * 16, "generated": 1, "ran": 1}
    with pytest.raises(ValidationError, match="notes"):
        StudyResult.model_validate({**damaged, "notes": [7]})


def test_a_summary_of_before_there_were_statistics_still_loads():
    old = {"schema_version": "2.0", "study_design_hash": "0" * 16, "generated": 1, "ran": 1}
    assert StudyResult.model_validate(old).comparisons == ()


@pytest.mark.parametrize(("order", "warned"), [("interleaved", True), ("balanced", False)])
def test_an_order_that_lets_drift_pose_as_a_difference_is_told(order, warned):
    study = make_study(lambda config, *_: make_run(config), order=order)
    assert any("can pose as a difference" in text for text in told(study, "design")) == warned


def test_modelled_energy_is_told():
    energy = make_energy(800.0, kind="modelled", interval95_j=None)
    study = make_study(lambda config, *_: make_run(config).model_copy(update={"energy": energy}))
    assert any("energy is modelled" in text for text in told(study, "design"))
