"""A working directory that is gone, and results where no directory can be: named as that."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli import QUICK, Done, Llem
from tests.support.study_run import scripted_study

GONE = "the working directory is gone, removed or replaced by another of its name"


@pytest.fixture
def llem(tmp_path: Path) -> Llem:
    return Llem(tmp_path)


def in_a_lost_folder(llem: Llem, *arguments: str) -> Done:
    """Run the command where a folder was until a moment ago."""
    done = llem.in_shell("mkdir lost && cd lost && rmdir ../lost && {}", *arguments)
    assert "defect" not in done.err
    return done


@pytest.mark.parametrize("more", [(), ("--dry-run",), ("--output", "/tmp"), ("--json",)])
def test_nothing_is_run_there(llem: Llem, more: tuple[str, ...]) -> None:
    done = in_a_lost_folder(llem, "run", *QUICK, *more)
    assert done.code == 1
    assert done.err.startswith(f"llem: {GONE}; change to one that is there (cd)\n")
    assert len(done.err.splitlines()) == 1
    if "--json" in more:
        assert done.error["code"] == "config"


@pytest.mark.parametrize(
    "arguments", [("--version",), ("--help",), ("run", "--help"), ("config",)], ids=" ".join
)
def test_what_needs_no_folder_works_there(llem: Llem, arguments: tuple[str, ...]) -> None:
    done = in_a_lost_folder(llem, *arguments)
    assert done.code == 0, done.err
    assert done.out


@pytest.mark.parametrize("study", [False, True])
@pytest.mark.parametrize("variable", [False, True])
def test_results_behind_a_link_to_nowhere(llem: Llem, study: bool, variable: bool) -> None:
    (llem.folder / "out").symlink_to("nowhere")
    arguments = [scripted_study(llem)] if study else [*QUICK]
    if variable:
        llem.environment["LLEM_RESULTS_DIR"] = "out"
    else:
        arguments += ["-o", "out"]
    said = llem.fails("run", *arguments)
    assert "directory for results in out: out is a link to nowhere, which leads nowhere" in said


def test_a_configuration_that_is_a_link_to_nowhere_is_not_passed_over(llem: Llem) -> None:
    link = llem.user_config("")
    link.unlink()
    link.symlink_to("gone.yaml")
    for arguments in (("run", *QUICK), ("config",)):
        said = llem.fails(*arguments, inline=True)
        assert f"{link} is a link to gone.yaml, which leads nowhere; mend the link" in said
