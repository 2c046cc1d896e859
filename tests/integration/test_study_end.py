"""Real experiments of the scripted backend, from their directories to the end of a study."""

from __future__ import annotations

from pathlib import Path

from llenergymeasure.domain.results import ExperimentResult
from llenergymeasure.orchestration import worker
from llenergymeasure.results.files import write_json_atomically
from llenergymeasure.results.layout import StudyDirectory
from llenergymeasure.study.collect import SlotOutcome, study_result, write_summary
from llenergymeasure.study.resume import ResultReader, scan
from tests.support.make_study import make_design
from tests.support.scripted_run import make_order, scripted_config
from tests.support.study_on_disk import make_execution, make_plan, make_study

CYCLES = 3


def test_a_study_of_real_experiments_ends_with_figures_a_table_and_its_files(tmp_path: Path):
    configs = [
        scripted_config(scripted={"ttft_ms": 4.0, "itl_ms": itl_ms, "batch_size": 2})
        for itl_ms in (1.0, 40.0)
    ]
    failing = scripted_config(scripted={"ttft_ms": 4.0, "itl_ms": 1.0, "fail_at": "load"})
    plan = make_plan([*configs, failing], execution=make_execution(n_cycles=CYCLES))
    directory = make_study(tmp_path / "study", plan)
    for slot in plan.slots:
        experiment = plan.directory(directory, slot)
        experiment.root.mkdir(parents=True)
        order = make_order(plan.config(slot), tmp_path)
        write_json_atomically(experiment.config, order.model_dump_json())
        worker.run(experiment)

    reader = ResultReader(plan)
    outcomes = [
        SlotOutcome(state.slot, reader.read(state), state.directory)
        for state in scan(plan, directory)
    ]
    study = study_result(make_design([*configs, failing], CYCLES), outcomes)
    write_summary(study, StudyDirectory(tmp_path))

    assert (study.ran, len(study.failed), study.missing) == (6, 3, 0)
    assert [one.figures["tokens_per_second"].n for one in study.configurations] == [3, 3]
    fast, slow = (one.figures["tokens_per_second"].mean for one in study.configurations)
    assert fast > slow
    (pair,) = [one for one in study.comparisons if one.metric == "tokens_per_second"]
    low, high = pair.interval95
    assert low < pair.ratio < high
    assert pair.ratio > 1
    assert "itl_ms=40" in study.summary()
    assert study.to_arrow()["study.slot"].to_pylist() == [1, 2, 4, 5, 7, 8]
    kept = study.result_files[0]
    assert kept is not None
    assert ExperimentResult.from_json(study.located(kept)) == study.experiments[0]
