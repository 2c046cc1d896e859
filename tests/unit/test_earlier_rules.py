"""A stored result says which of its figures were made by rules that have changed since."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure import ExperimentResult, StudyResult
from llenergymeasure.domain.earlier_rules import OF_EXPERIMENTS, EarlierRule, earlier, figure
from tests.support.make_result import make_result

STORED = Path(__file__).parents[1] / "data" / "stored_2.0"


def stored(**changes: Any) -> dict[str, Any]:
    """Give a result as a file of schema 2.0 holds it."""
    data: dict[str, Any] = json.loads(make_result().to_json())
    return {**data, "schema_version": "2.0", **changes}


@pytest.mark.parametrize("figure_of", ["parameters", "FLOPs"])
def test_figures_of_an_earlier_schema_say_by_which_rule_they_were_made(figure_of: str) -> None:
    told = earlier(OF_EXPERIMENTS, stored())
    assert sum(text.startswith(figure_of) for text in told) == 1


def test_times_of_beam_search_say_so_and_those_of_other_decoding_do_not() -> None:
    beam = {"decoding_strategy": "beam", "num_beams": 2}
    searched = stored(config={"decoder": beam})
    assert [text[:9] for text in earlier(OF_EXPERIMENTS, searched)][-1] == "E2E, TPOT"
    untimed = stored(config={"decoder": beam}, latency={"e2e_ms": None})
    for other in (stored(), untimed):
        assert not any("beam" in text for text in earlier(OF_EXPERIMENTS, other))


def test_what_a_result_does_not_hold_needs_no_word() -> None:
    model = {"name": "m", "weights": "none", "parameters": None}
    bare = stored(flops=None, resolved={"model": model})
    assert earlier(OF_EXPERIMENTS, bare) == ()


def test_results_of_today_are_made_by_the_rules_of_today(tmp_path: Path) -> None:
    make_result().to_json(tmp_path / "result.json")
    assert ExperimentResult.from_json(tmp_path).earlier_rules == ()


def test_a_result_of_an_earlier_schema_says_so_once_it_is_loaded_and_again_when_stored_anew(
    tmp_path: Path,
) -> None:
    loaded = ExperimentResult.from_json(STORED / "pytorch")
    assert loaded.schema_version == "2.0"
    assert len(loaded.earlier_rules) == 2
    assert "Old rules" in loaded.summary()

    loaded.to_json(tmp_path / "result.json")
    assert ExperimentResult.from_json(tmp_path) == loaded


def test_a_figure_is_made_by_an_earlier_rule_in_every_schema_before_the_first_of_the_new() -> None:
    rule = EarlierRule("2.10", lambda _: True, "it was")
    told = {
        schema: bool(earlier([rule], {"schema_version": schema}))
        for schema in ("2.0", "2.9", "2.10", "3.0", "damaged", None)
    }
    assert told == {
        "2.0": True,
        "2.9": True,
        "2.10": False,
        "3.0": False,
        "damaged": False,
        None: False,
    }


@pytest.mark.parametrize("damaged", [{"flops": 3}, {"flops": [1]}, {"resolved": "x"}, {}])
def test_damage_is_for_others_to_refuse(damaged: dict[str, Any]) -> None:
    assert figure(damaged, "flops.useful_total") is None
    assert earlier(OF_EXPERIMENTS, {"schema_version": "2.0", **damaged}) == ()


def test_a_study_of_an_earlier_schema_says_how_its_differences_were_judged() -> None:
    text = (STORED / "study" / "study_summary.json").read_text(encoding="utf-8")
    study = StudyResult.model_validate_json(text)
    assert study.schema_version != json.loads(text)["schema_version"]
    assert [rule.split(" ")[1] for rule in study.earlier_rules] == ["differences", "configurations"]
    assert "shows them in 53 to 73 % of cases" in " ".join(study.summary().split())
    assert StudyResult.model_validate_json(study.model_dump_json()) == study


def test_a_study_that_compares_nothing_needs_no_word() -> None:
    bare = {"schema_version": "2.1", "study_design_hash": "0" * 16, "generated": 1, "ran": 1}
    assert StudyResult.model_validate(bare).earlier_rules == ()
