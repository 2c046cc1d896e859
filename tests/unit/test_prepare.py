"""The plan of a study: what the study leaves open is taken from the user's settings."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.config.models import ExecutionConfig, StudyConfig
from llenergymeasure.config.user_config import UserConfig
from llenergymeasure.exceptions import StudyError
from llenergymeasure.results.layout import StudyDirectory
from llenergymeasure.study import prepare
from llenergymeasure.study.collect import study_result
from llenergymeasure.study.forecast import Machine
from llenergymeasure.study.manifest import StudyPlan, write_manifest, write_plan

NOW = datetime(2026, 2, 18, 14, 30, 5, tzinfo=UTC)
USER = UserConfig.model_validate(
    {
        "execution": {
            "config_gap_seconds": 7.0,
            "cycle_gap_seconds": 9.0,
            "start_method": "spawn",
        }
    }
)


def make_study(**fields: Any) -> StudyConfig:
    values: dict[str, Any] = {
        "name": "sizes",
        "model": "m",
        "backend": "scripted",
        "sweep": {"scripted.batch_size": [1, 8]},
    }
    return StudyConfig.model_validate({**values, **fields})


def plan_of(study: StudyConfig) -> StudyPlan:
    return prepare.new_plan(study, USER, now=NOW)


def test_what_the_study_leaves_open_comes_from_the_user() -> None:
    execution = prepare.resolved(ExecutionConfig(), USER, heats=True)
    assert (execution.config_gap_seconds, execution.cycle_gap_seconds) == (7.0, 9.0)
    assert execution.start_method == "spawn"


def test_what_the_study_says_wins() -> None:
    asked = ExecutionConfig(config_gap_seconds=0.0, start_method="forkserver", timeout_s=5.0)
    execution = prepare.resolved(asked, USER, heats=True)
    assert (execution.config_gap_seconds, execution.cycle_gap_seconds) == (0.0, 9.0)
    assert (execution.start_method, execution.timeout_s) == ("forkserver", 5.0)


def test_a_plan_holds_everything_that_is_decided_before_the_first_experiment() -> None:
    plan = plan_of(make_study(cold_start=True, execution={"n_cycles": 2, "seed": 3}))
    assert [one.scripted.batch_size for one in plan.experiments if one.scripted] == [1, 8]
    assert sorted((slot.configuration, slot.cycle) for slot in plan.slots) == [
        (0, 1), (0, 2), (1, 1), (1, 2),
    ]  # fmt: skip
    assert [slot.number for slot in plan.slots] == [1, 2, 3, 4]
    assert (plan.cold_start, plan.execution.seed, plan.created_at) == (True, 3, NOW)
    assert plan.generated == 2


def test_a_design_has_the_same_hash_however_it_is_run() -> None:
    one, other = plan_of(make_study()), plan_of(make_study(execution={"n_cycles": 5}))
    assert one.study_design_hash == other.study_design_hash
    assert one.slots != other.slots
    assert plan_of(make_study()) == one


def test_a_length_that_every_prompt_overrides_is_not_swept(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    lines = [json.dumps({"prompt": "a b c", "max_new_tokens": 4}) for _ in range(3)]
    prompts.write_text("\n".join(lines) + "\n")
    study = make_study(dataset=str(prompts), n=3, sweep={"max_new_tokens": [16, 32]})

    own = prepare.expanded(study)
    assert [one.max_new_tokens for one in own.experiments] == [16]
    (skipped,) = own.skipped
    assert "every prompt of the dataset has its own" in skipped.reason

    prompts.write_text("\n".join([*lines[1:], json.dumps({"prompt": "d"})]) + "\n")
    swept = prepare.expanded(study)
    assert [one.max_new_tokens for one in swept.experiments] == [16, 32]


@pytest.fixture
def stored(tmp_path: Path) -> StudyDirectory:
    directory = StudyDirectory(tmp_path / "study")
    directory.root.mkdir()
    write_manifest(directory, plan_of(make_study(execution={"n_cycles": 2})))
    return directory


def test_a_study_goes_on_as_it_was_planned_where_nothing_is_asked(stored: StudyDirectory) -> None:
    goes_on = prepare.continuation(stored, None, UserConfig(), {})
    assert goes_on.notes == ()
    assert goes_on.plan.execution.config_gap_seconds == 7.0, "not what the user has set since"


def test_flags_change_how_it_goes_on(stored: StudyDirectory) -> None:
    flags = {"n_cycles": 3, "config_gap_seconds": 0.0}
    goes_on = prepare.continuation(stored, None, UserConfig(), flags)
    assert len(goes_on.plan.slots) == 6
    assert goes_on.plan.execution.config_gap_seconds == 0.0
    assert len(goes_on.notes) == 2


def test_what_the_design_does_not_say_now_is_kept(stored: StudyDirectory) -> None:
    goes_on = prepare.continuation(stored, make_study(), USER, {})
    assert goes_on.plan.execution.n_cycles == 2
    said = make_study(execution={"n_cycles": 4})
    more = prepare.continuation(stored, said, USER, {})
    assert more.plan.execution.n_cycles == 4


def test_cycles_that_were_added_by_a_flag_are_kept_beside_the_file(stored: StudyDirectory) -> None:
    said = make_study(execution={"n_cycles": 1})
    goes_on = prepare.continuation(stored, said, USER, {})
    assert goes_on.plan.execution.n_cycles == 2
    with pytest.raises(StudyError, match="n_cycles: 2 in the plan, 1 now"):
        prepare.continuation(stored, said, USER, {"n_cycles": 1})


def test_damage_of_one_of_the_files_of_a_plan_is_noted(stored: StudyDirectory) -> None:
    write_plan(stored, prepare.continuation(stored, None, USER, {}).plan)
    stored.manifest.write_bytes(stored.manifest.read_bytes()[:300])
    (note,) = prepare.continuation(stored, make_study(), USER, {}).notes
    assert "study_manifest.json is damaged" in note


def test_another_design_is_refused(stored: StudyDirectory) -> None:
    other = make_study(sweep={"scripted.batch_size": [1, 4]})
    with pytest.raises(StudyError, match="the design has changed"):
        prepare.continuation(stored, other, USER, {})


def test_how_a_plan_is_run_is_what_its_result_reports() -> None:
    plan = plan_of(make_study(execution={"cycle_order": "shuffled", "seed": 11}))
    result = study_result(plan, [])
    assert (result.name, result.study_design_hash) == ("sizes", plan.study_design_hash)
    assert result.generated == plan.generated
    protocol = result.protocol
    assert protocol is not None
    assert (protocol.cycle_order, protocol.seed) == ("shuffled", 11)
    assert (protocol.config_gap_s, protocol.cycle_gap_s) == (7.0, 9.0)


@pytest.mark.parametrize(
    ("machine", "fields", "pauses_s"),
    [
        (Machine("H100"), {"backend": "pytorch"}, (60.0, 300.0)),
        (Machine("H100", torch_uses_gpus=False), {"backend": "pytorch"}, (0.0, 0.0)),
        (Machine("H100"), {"backend": "pytorch", "pytorch": {"device": "cpu"}}, (0.0, 0.0)),
        (Machine("H100"), {"backend": ["scripted", "vllm"]}, (60.0, 300.0)),
        (Machine("H100"), {"backend": "scripted"}, (0.0, 0.0)),
        (Machine(None), {"backend": "pytorch"}, (0.0, 0.0)),
        (Machine(None), {"execution": {"config_gap_seconds": 5.0}}, (5.0, 0.0)),
    ],
)
def test_a_study_rests_only_where_something_has_heated(
    machine: Machine, fields: dict[str, Any], pauses_s: tuple[float, float]
) -> None:
    study = make_study(**{"sweep": {"n": [1, 2]}, **fields})
    execution = prepare.new_plan(study, UserConfig(), NOW, lambda: machine).execution
    assert (execution.config_gap_seconds, execution.cycle_gap_seconds) == pauses_s
