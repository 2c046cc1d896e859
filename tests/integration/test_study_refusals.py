"""Studies that cannot begin: one message that says what to change, and nothing on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli import Llem
from tests.support.study_run import scripted_study


@pytest.fixture
def llem(tmp_path: Path) -> Llem:
    return Llem(tmp_path)


@pytest.mark.parametrize("name", ["a/b", "../up", "/etc/passwd", ".."])
def test_a_name_with_path_separators(llem: Llem, name: str) -> None:
    said = llem.fails("run", scripted_study(llem, name=f'"{name}"'), inline=True)
    assert "study.yaml" in said
    assert "name" in said
    assert not (llem.folder.parent / "up").exists()


MILLION = (
    "random_seed: [" + ", ".join(map(str, range(1000))) + "], "
    "n: [" + ", ".join(map(str, range(1, 1001))) + "]"
)


def test_a_grid_of_a_million_is_refused_with_the_count(llem: Llem) -> None:
    said = llem.fails("run", scripted_study(llem, MILLION), inline=True)
    assert "1,000,000" in said
    assert "--yes" in said


@pytest.mark.parametrize("flags", [(), ("--dry-run",)])
def test_a_grid_of_a_million_is_refused_in_json_too(llem: Llem, flags: tuple[str, ...]) -> None:
    done = llem("run", scripted_study(llem, MILLION), "--json", *flags)
    assert done.code == 1
    assert done.error["code"] == "study"
    assert "1,000,000" in done.error["message"]


def test_a_grid_of_which_nothing_can_run_is_refused_with_the_reasons(llem: Llem) -> None:
    sweep = "decoder.temperature: [0.5, 0.7]"
    said = llem.fails("run", scripted_study(llem, sweep), inline=True)
    assert "temperature" in said
    assert "none" in said.lower() or "no " in said.lower()


@pytest.mark.parametrize(
    ("sweep", "says"),
    [
        ("random_sed: [1]", "random_seed"),
        ("scripted.ttft: [1]", "ttft_ms"),
        ("pytorch.batch_size: [1]", "pytorch"),
        ("random_seed: []", "random_seed"),
        ("random_seed: 4", "[4]"),
    ],
)
def test_a_line_of_the_sweep_that_means_nothing(llem: Llem, sweep: str, says: str) -> None:
    said = llem.fails("run", scripted_study(llem, sweep), inline=True)
    assert "study.yaml:10" in said or "sweep" in said
    assert says in said


def test_preflight_lists_every_problem_before_a_directory_is_made(llem: Llem) -> None:
    sweep = "dataset: [absent-1.jsonl, absent-2.jsonl]"
    said = llem.fails("run", scripted_study(llem, sweep))
    assert "2 problems before anything was loaded" in said
    assert "absent-1.jsonl" in said
    assert "absent-2.jsonl" in said
    assert not (llem.folder / "results").exists()


@pytest.mark.parametrize(
    ("flags", "code", "kind"),
    [
        (("--cycles", "many"), 2, "usage"),
        (("--cycles", "0"), 2, "usage"),
        (("--order", "random"), 2, "usage"),
        (("--resume",), 2, "usage"),
        (("--nonsense",), 2, "usage"),
    ],
)
def test_wrong_flags(llem: Llem, flags: tuple[str, ...], code: int, kind: str) -> None:
    done = llem.inline("run", scripted_study(llem), "--json", *flags)
    assert done.code == code, done.err
    assert done.error["code"] == kind
    assert done.err.startswith("llem: ")
