"""The command is given what is no configuration: what it says, and with which exit code."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support.cli import Llem

STORED = Path(__file__).parents[1] / "data" / "stored_2.0"


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("study", "the directory of a study; go on with it: llem run --resume"),
        ("study/study_summary.json", "the summary of a study; go on with it: llem run --resume"),
        ("experiment/result.json", "the result of an experiment; llem report"),
    ],
)
def test_a_result_says_what_it_is(tmp_path: Path, name: str, what: str) -> None:
    done = Llem(tmp_path).inline("run", str(STORED / name), "--json")
    assert done.code == 1
    error = json.loads(done.out)["error"]
    assert error["code"] == "config"
    assert error["where"] == str(STORED / name)
    assert error["message"].startswith(f"{STORED / name} is {what}")


def test_a_resume_of_a_single_result_says_what_it_is(tmp_path: Path) -> None:
    done = Llem(tmp_path).inline("run", "--resume", str(STORED / "experiment"))
    assert done.code == 2
    assert "is the directory of a result; llem report" in done.err


def test_a_pipe_that_nobody_writes_to_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    done = Llem(tmp_path).inline("run", "pipe.yaml")
    assert done.code == 1
    assert "it is a pipe that nobody writes to" in done.err
