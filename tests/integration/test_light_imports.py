"""What importing the package and its parts brings, and what it does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import llenergymeasure

SOURCE = Path(llenergymeasure.__file__).parent.parent


def python(code: str) -> str:
    """Run code in a fresh interpreter and give what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_star_import_brings_exactly_the_public_names():
    names = python(
        "before = set(globals())\nfrom llenergymeasure import *\n"
        "print(*sorted(set(globals()) - before - {'before'}))"
    )

    assert names.split() == sorted(llenergymeasure.__all__)


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import llenergymeasure", "torch transformers pyarrow pydantic numpy typer"),
        ("import llenergymeasure; dir(llenergymeasure)", "torch pyarrow pydantic numpy"),
        ("from llenergymeasure import ExperimentConfig", "torch transformers pyarrow numpy"),
        ("from llenergymeasure import ExperimentResult", "torch transformers pyarrow"),
        ("from llenergymeasure import run_experiment, run_study", "torch transformers pyarrow"),
        ("import llenergymeasure.cli.app", "torch transformers pyarrow pydantic"),
    ],
)  # fmt: skip
def test_importing_does_not_bring_what_is_heavy(statement, forbidden):
    loaded = python(f"{statement}\nimport sys\nprint(*sys.modules)").split()

    assert set(loaded) & set(forbidden.split()) == set()


@pytest.mark.parametrize("name", ["ExperimentConfig", "StudyConfig"])
def test_a_configuration_shows_its_fields_before_one_is_made(name):
    parameters = python(
        f"import inspect, llenergymeasure as l\nprint(*inspect.signature(l.{name}).parameters)"
    )

    assert {"ExperimentConfig": "precision", "StudyConfig": "sweep"}[name] in parameters.split()
