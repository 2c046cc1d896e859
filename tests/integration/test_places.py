"""Which backends other interpreters have, asked as ``llem config`` asks them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llenergymeasure import __version__
from llenergymeasure.exceptions import Problem
from llenergymeasure.orchestration import inventory
from llenergymeasure.orchestration.inventory import Inventory
from llenergymeasure.study.runners.local import InterpreterRunner
from tests.support.cli import SOURCE, Llem, interrupt

NEEDED = ("pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection")


def another_python(folder: Path, packages: Path | None = None) -> Path:
    """Make an interpreter with this package and what it needs, without any engine."""
    needed = folder / "needed"
    needed.mkdir()
    for name in NEEDED:
        found = importlib.util.find_spec(name)
        assert found is not None
        assert found.origin is not None
        source = Path(found.origin)
        source = source.parent if source.name.startswith("__init__") else source
        (needed / source.name).symlink_to(source)
    path = os.pathsep.join(map(str, filter(None, (SOURCE, needed, packages))))
    python = folder / "other python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{path}" exec "{sys.executable}" -S "$@"\n')
    python.chmod(0o755)
    return python


def test_the_backends_of_this_interpreter_are_listed_without_a_process() -> None:
    assert InterpreterRunner("vllm").inventory() == inventory.take()


def test_the_backends_of_another_interpreter_are_listed_with_lines_that_install_there(
    tmp_path: Path,
) -> None:
    python = another_python(tmp_path)
    found = InterpreterRunner("vllm", interpreter=str(python)).inventory()

    assert isinstance(found, Inventory), found
    states = {state.name: state for state in found.backends}
    assert states["pytorch"].problem is not None
    remedy = f"'{python}' -m pip install 'llenergymeasure[pytorch]'"
    assert states["pytorch"].problem.remedy == remedy
    assert states["scripted"].problem is None


def test_a_backend_that_only_another_interpreter_has_is_found_there(tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    (packages / "vllm").mkdir(parents=True)
    (packages / "vllm" / "__init__.py").write_text("raise RuntimeError('nobody imports it')")
    (packages / "vllm-0.99.dist-info").mkdir()
    (packages / "vllm-0.99.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: vllm\nVersion: 0.99\n"
    )
    python = another_python(tmp_path, packages)
    found = InterpreterRunner("vllm", interpreter=str(python)).inventory()

    assert isinstance(found, Inventory), found
    (vllm,) = [state for state in found.backends if state.name == "vllm"]
    assert vllm.version == "0.99"
    assert vllm.folder == str(packages)
    assert vllm.problem is None


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (None, "No such file"),
        ("echo 0.0.1", "has llenergymeasure 0.0.1"),
        (f"echo {__version__}", "does not say which backends"),
        (f"[ $2 = -c ] && echo {__version__} || {{ echo broken >&2; exit 3; }}", "used: broken"),
    ],
)
def test_an_interpreter_that_cannot_be_used_is_told_instead_of_its_backends(
    tmp_path: Path, script: str | None, says: str
) -> None:
    path = tmp_path / "python"
    if script is not None:
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    problem = InterpreterRunner("vllm", interpreter=str(path)).inventory()

    assert isinstance(problem, Problem)
    assert says in problem.what
    assert problem.where == "runners.vllm"


def test_llem_config_shows_every_place_and_what_each_has(tmp_path: Path) -> None:
    python = another_python(tmp_path)
    runners = {
        "LLEM_RUNNER_PYTORCH": f"python:{python}",
        "LLEM_RUNNER_SCRIPTED": f"python:{python}",
        "LLEM_RUNNER_VLLM": f"python:{tmp_path}/nowhere",
        "NO_COLOR": "1",
    }
    done = Llem(tmp_path, runners)("config")
    blocks = {block.partition("\n")[0]: block for block in done.out.split("\n\n")}
    there, nowhere = (
        blocks[f"backends of python:{path}"] for path in (python, f"{tmp_path}/nowhere")
    )

    assert done.code == 0
    assert f"'{python}' -m pip install 'llenergymeasure[pytorch]'\n" in there
    assert "\n  scripted    yes  built in" in there
    assert "vllm" not in there, "it neither runs there nor is it installed"
    assert "No such file or directory" in " ".join(nowhere.split())
    assert list(blocks)[-1] == "next"
    assert "\x1b" not in done.out


def asking_a_slow_place(folder: Path) -> subprocess.Popen[str]:
    """Start the command with an interpreter that answers once a line is written to ``answer``."""
    os.mkfifo(folder / "answer")
    slow = folder / "python"
    slow.write_text(f"#!/bin/sh\nread answer < '{folder}/answer'\necho 0.0.1\n")
    slow.chmod(0o755)
    return Llem(folder, {"LLEM_RUNNER_VLLM": f"python:{slow}"}).start("config")


def shown_up_to_the_place(process: subprocess.Popen[str]) -> set[str]:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if line.startswith("backends of python:"):
            return set(lines)
    raise AssertionError(f"it ended before the place: {lines}")


def test_what_is_known_is_shown_while_a_place_has_not_answered(tmp_path: Path) -> None:
    process = asking_a_slow_place(tmp_path)
    try:
        assert {"machine", "energy sources", "runners"} <= shown_up_to_the_place(process)
        with (tmp_path / "answer").open("r+b", buffering=0) as answer:
            answer.write(b"now\n")
            out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert "has llenergymeasure 0.0.1" in " ".join(out.split()), err
    assert "\nnext\n" in out


def test_ctrl_c_ends_the_wait_for_a_place(tmp_path: Path) -> None:
    process = asking_a_slow_place(tmp_path)
    try:
        shown_up_to_the_place(process)
        done = interrupt(process)
    finally:
        process.kill()
        process.communicate()
    assert done.code == 130
