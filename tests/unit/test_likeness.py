"""What is pooled over cycles, and what is kept apart because it is not the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.domain.results import ExperimentResult, ModelInfo, StudyResult
from llenergymeasure.exceptions import StudyError
from llenergymeasure.study.likeness import Inputs, Present, inputs_of
from tests.support.make_result import make_environment, make_resolved
from tests.support.make_study import make_configs, make_run, make_study, verdicts

NOISE = {1: 0.995, 2: 1.0, 3: 1.006, 4: 0.999}
METRIC = "energy_per_output_token_j"


def made_of(config: ExperimentConfig, **inputs: str) -> dict[str, Any]:
    """Say what a run was made of."""
    return {"resolved": make_resolved(config, inputs=inputs)}


def on(**changes: Any) -> dict[str, Any]:
    """Say what a run was made on."""
    return {"environment": make_environment(**changes)}


def rows(study: StudyResult) -> list[tuple[int, int, dict[str, str]]]:
    """Give number, cycles and conditions of each row."""
    return [(one.id, one.n_cycles, one.conditions) for one in study.configurations]


def apart(study: StudyResult) -> list[str]:
    return [note.text for note in study.notes if note.kind == "trust"]


def test_cycles_with_other_prompts_are_not_pooled_and_both_are_named() -> None:
    def run(config: ExperimentConfig, number: int, cycle: int) -> ExperimentResult:
        prompts = "a" * 64 if cycle < 4 else "b" * 64
        energy_j = 800.0 * number * NOISE[cycle] * (1 if cycle < 4 else 5)
        return make_run(config, energy_j, **made_of(config, dataset=prompts))

    study = make_study(run, cycles=4)

    assert rows(study) == [
        (number, cycles, {"dataset": letter * 64})
        for number in (1, 2)
        for cycles, letter in ((3, "a"), (1, "b"))
    ]
    first = study.configurations[0].figures[METRIC]
    assert first.n == 3
    assert first.cv is not None
    assert first.cv < 0.02
    (note,) = apart(study)
    assert "#1, #2: measured with prompts aaaaaaaaaaaa and with prompts bbbbbbbbbbbb" in note
    assert "dataset bbbbbbbbbbbb" in study.summary()
    assert "#1@1" in study.summary()


@pytest.mark.parametrize(
    ("then", "now", "name"),
    [
        ({"engine_versions": {"torch": "2.8.0"}}, {"engine_versions": {"torch": "2.9.0"}}, "torch"),
        ({"driver_version": "550.1"}, {"driver_version": "560.2"}, "driver"),
        ({"container_image": "sha256:1"}, {"container_image": "sha256:2"}, "image"),
    ],
)
def test_cycles_on_other_versions_are_kept_apart_and_it_is_said(
    then: dict[str, Any], now: dict[str, Any], name: str
) -> None:
    def run(config: ExperimentConfig, _: int, cycle: int) -> ExperimentResult:
        return make_run(config, 800.0 * NOISE[cycle], **on(**(then if cycle < 3 else now)))

    study = make_study(run, make_configs()[:1], cycles=4)
    assert [(cycles, list(conditions)) for _, cycles, conditions in rows(study)] == [
        (2, [name]),
        (2, [name]),
    ]
    (note,) = apart(study)
    assert note.startswith(f"#1: measured with {name} ")


def test_an_engine_that_others_bring_along_changes_nothing() -> None:
    def run(config: ExperimentConfig, _: int, cycle: int) -> ExperimentResult:
        versions = {"torch": "2.8.0", "vllm": f"0.{cycle}"}
        return make_run(config, 800.0 * NOISE[cycle], **on(engine_versions=versions))

    study = make_study(run)
    assert rows(study) == [(1, 3, {}), (2, 3, {})]
    assert apart(study) == []


def test_configurations_are_compared_within_what_ran_alike_only() -> None:
    """The second configuration takes 1.2 times as much; other prompts take five times as much."""

    def run(config: ExperimentConfig, number: int, cycle: int) -> ExperimentResult:
        prompts = "b" if cycle == 4 and number == 1 else "a"
        energy_j = 800.0 * (1.2 if number == 2 else 1.0) * NOISE[cycle]
        changes = made_of(config, dataset=prompts)
        return make_run(config, energy_j * (5 if prompts == "b" else 1), **changes)

    study = make_study(run, cycles=4)
    assert verdicts(study, METRIC) == {(1, 2): "lower"}
    (pair,) = [one for one in study.comparisons if one.metric == METRIC]
    assert pair.ratio == pytest.approx(1 / 1.2, rel=0.01)


def test_results_of_before_identities_were_kept_are_pooled_and_it_is_said_once() -> None:
    def run(config: ExperimentConfig, _: int, cycle: int) -> ExperimentResult:
        whole = {"dataset": "0" * 64, "model": "files 1"}
        changes = made_of(config, **whole) if cycle == 3 else {}
        return make_run(config, 800.0 * NOISE[cycle], **changes)

    study = make_study(run)
    assert rows(study) == [(1, 3, {}), (2, 3, {})]
    (note,) = apart(study)
    assert note.startswith("4 results were made by a version that did not record all inputs")


def test_an_earlier_result_tells_what_it_recorded() -> None:
    (config, _) = make_configs()
    model = ModelInfo(name="m", weights="pretrained", commit="1a", tokenizer_sha256="t")
    result = make_run(config, resolved=make_resolved(config, model=model))
    assert inputs_of(result) == {"dataset": "0" * 64, "tokenizer": "t", "model": "commit 1a"}


def test_what_a_study_began_with_is_told_by_its_plan_then_by_its_first_result() -> None:
    first, second = make_configs()
    results = [
        make_run(first, **made_of(first, dataset="b", model="files 1")),
        make_run(second, **made_of(second, dataset="c", model="files 2")),
    ]
    known = Inputs({"dataset": {"mixed-1k": "a"}}, results)
    assert known.of(second) == {"dataset": "a", "model": "files 1"}
    other = first.model_copy(update={"model": "other"})
    assert known.of(other) == {"dataset": "a"}


def prompts(folder: Path, *texts: str) -> ExperimentConfig:
    path = folder / "prompts.jsonl"
    path.write_text("".join(f'{{"prompt": "{text}"}}\n' for text in texts))
    return ExperimentConfig(model="m", backend="scripted", dataset=str(path), n=1)


def test_going_on_with_other_prompts_is_refused_and_with_the_same_it_is_not(tmp_path: Path) -> None:
    config, known = prompts(tmp_path, "once", "twice"), Inputs()
    known.look([config], tmp_path)
    known.refuse_others([config], tmp_path)
    prompts(tmp_path, "once", "thrice")
    with pytest.raises(StudyError, match="what it is made of has changed") as refused:
        known.refuse_others([config], tmp_path)
    assert f"the prompts ({tmp_path}/prompts.jsonl): " in refused.value.message
    assert known.of(config)["dataset"][:12] in refused.value.message
    assert "(without --resume)" in refused.value.message


def test_synthetic_prompts_and_what_is_gone_are_left_to_the_worker(tmp_path: Path) -> None:
    config, known = prompts(tmp_path, "once"), Inputs()
    known.look([config], tmp_path)
    (tmp_path / "prompts.jsonl").unlink()
    known.refuse_others([config], tmp_path)
    shape = {"synthetic": {"input_len": 4, "output_len": 4}}
    synthetic = ExperimentConfig.model_validate(
        {"model": "m", "backend": "scripted", "dataset": shape}
    )
    known.look([synthetic], tmp_path)
    assert "dataset" not in known.of(synthetic)


def test_a_model_with_many_prompts_is_looked_at_once(tmp_path: Path) -> None:
    """Without a network the Hub takes seconds not to answer, and a directory is read."""
    asked: list[tuple[str, bool]] = []

    def of_models(config: ExperimentConfig, *, ask: bool) -> dict[str, str]:
        asked.append((config.model, ask))
        return {"model": f"commit {config.model}"}

    present = Present(tmp_path, of_models)
    for model in ("one", "other"):
        for length in range(1, 21):
            shape = {"synthetic": {"input_len": length, "output_len": 4}}
            fields = {"model": model, "backend": "scripted", "dataset": shape}
            found = present.of(ExperimentConfig.model_validate(fields), ask=True)
            assert found == {"model": f"commit {model}"}
    assert asked == [("one", True), ("other", True)]
