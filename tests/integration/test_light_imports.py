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
        (
            "import llenergymeasure.results.persistence, llenergymeasure.results.tables",
            "pyarrow pandas",
        ),
        ("import llenergymeasure.core.energy", "pydantic"),
        ("import llenergymeasure.core.energy as e; e.Selection", "codecarbon zeus"),
        ("import llenergymeasure.core.energy.rapl_reader", "numpy pydantic pynvml"),
        ("import llenergymeasure.core.energy.zeus_reader", "numpy pydantic pynvml zeus"),
        ("import llenergymeasure.core.energy.zeus", "zeus"),
        (
            "from llenergymeasure.core.environment import capture\n"
            "capture()",
            "torch transformers pyarrow vllm",
        ),
        (
            "from llenergymeasure.results.columns import make_column\n"
            "make_column([1, None], 'int64'); make_column(['a'], 'string')\n"
            "make_column([True], 'bool'); make_column([(1,), None], 'list<int64>')",
            "pandas",
        ),
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


def test_what_codecarbon_covers_is_told_without_importing_it():
    said = python(
        "import sys\n"
        "from llenergymeasure.core.energy.codecarbon import CodeCarbonSource\n"
        "from llenergymeasure.domain.environment import DeviceTarget\n"
        "for kind in ('cpu', 'gpu'):\n"
        "    CodeCarbonSource.coverage(DeviceTarget(kind))\n"
        "print('codecarbon' in sys.modules)"
    )

    assert said == "False"
