"""Where an engine finds the programs that its packages brought."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from llenergymeasure.processes import variables, with_programs_of


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """Make an interpreter of an environment: a link, as in a virtual one."""
    folder = tmp_path / "environment" / "bin"
    folder.mkdir(parents=True)
    (folder / "python-of-ours").symlink_to(sys.executable)
    return folder / "python-of-ours"


def test_the_folder_of_an_interpreter_comes_first(python: Path) -> None:
    assert with_programs_of(str(python), "/usr/bin:/bin") == f"{python.parent}:/usr/bin:/bin"
    assert with_programs_of(str(python), "") == str(python.parent)


def test_a_relative_interpreter_is_found_from_anywhere(
    python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(python.parents[1])

    assert with_programs_of("bin/python-of-ours", "/bin") == f"{python.parent}:/bin"


def test_a_path_that_has_it_keeps_its_order(python: Path) -> None:
    path = f"/opt/cuda/bin:{python.parent}"

    assert with_programs_of(str(python), path) == path
    assert with_programs_of(python.name, path) == path


def test_an_interpreter_that_is_not_there_changes_nothing() -> None:
    assert with_programs_of("/nowhere/python", "/bin") == "/bin"
    assert with_programs_of("", "/bin") == "/bin"


@pytest.mark.parametrize("before", ["/nowhere", None])
def test_the_path_is_put_back(before: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PATH", raising=False)
    if before is not None:
        monkeypatch.setenv("PATH", before)
    search_path = with_programs_of(sys.executable, os.environ.get("PATH", os.defpath))
    with variables({"PATH": search_path}):
        assert os.environ["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)

    assert os.environ.get("PATH") == before
