"""What a user waits for before and after the work: nothing is imported that nobody needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from scripts.structure import executed

from llenergymeasure.cli.app import DISTRIBUTIONS
from llenergymeasure.config.energy_sources import ENERGY_SOURCES
from llenergymeasure.config.registry import BACKENDS
from tests.support.cli import QUICK, Llem
from tests.support.study_run import Left, scripted_study

HEAVY = ("scipy.stats", "scipy.sparse", "scipy.optimize", "pandas", "torch", "transformers")
PROGRAM = """
import sys
from llenergymeasure.cli.app import main
try:
    main(sys.argv[1:])
finally:
    sys.stderr.write("\\nimported " + " ".join(sys.modules))
"""


LISTENING = """
import sys
import llenergymeasure.cli.app as app


class Early:
    def write(self, text):
        text = text.decode() if isinstance(text, bytes) else text
        if text.strip():
            sys.__stderr__.write(" ".join([text.strip(), "|", *sys.modules]) + "\\n")
            sys.__stderr__.flush()
            __import__("os")._exit(0)

    def flush(self):
        pass

    def isatty(self):
        return False


sys.stderr = Early()
app.main(sys.argv[1:])
"""


def first_words(llem: Llem, *arguments: str) -> tuple[str, set[str]]:
    """Give the first line on standard error, and what had been imported by then."""
    done = subprocess.run(
        [sys.executable, "-c", LISTENING, *arguments],
        cwd=llem.folder,
        env=llem.variables(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    line, _, modules = done.stderr.partition(" | ")
    return line, set(modules.split())


def imported_by(llem: Llem, *arguments: str) -> set[str]:
    """Run a command that ends well; give every module that its process had imported."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=llem.folder,
        env=llem.variables(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.rpartition("\nimported ")[2].split())


@pytest.fixture
def llem(tmp_path: Path) -> Llem:
    return Llem(tmp_path)


@pytest.mark.parametrize("seeds", ["[1, 2]", "[1, 2, 3]"])
def test_a_study_its_resume_and_its_report_import_nothing_heavy(llem: Llem, seeds: str):
    study = scripted_study(llem, f"random_seed: {seeds}", cycles=3)
    found = imported_by(llem, "run", study, "-q")
    assert "llenergymeasure.study.statistics" in found
    assert found.isdisjoint(HEAVY)
    found = imported_by(llem, "run", "--resume", Left.by(llem).path)
    assert found.isdisjoint(HEAVY)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "study.yaml"), "llem: study sizes: preparing scripted"),
        (("run", *QUICK), "llem: m: preparing scripted"),
        (("run", "--resume", "results/x"), "llem: going on with results/x"),
        (("config",), "llem: looking at this machine"),
    ],
)
def test_the_first_line_is_said_before_anything_slow_is_imported(
    llem: Llem, arguments: tuple[str, ...], said: str
) -> None:
    scripted_study(llem)
    line, imported = first_words(llem, *arguments)
    assert line == said
    assert "llenergymeasure.cli.app" in imported
    slow = {"numpy", "scipy", "pyarrow", "psutil", "llenergymeasure._api", "llenergymeasure.study"}
    assert imported.isdisjoint(slow)


def test_quiet_says_nothing_first(llem: Llem) -> None:
    assert llem("run", *QUICK, "-q").err == ""


@pytest.mark.parametrize("arguments", [("--help",), ("--version",)])
def test_help_and_versions_need_no_models(llem: Llem, arguments: tuple[str, ...]) -> None:
    assert "pydantic" not in imported_by(llem, *arguments)


def test_the_versions_told_are_those_of_every_backend() -> None:
    engines = [name for facts in BACKENDS.values() for name in facts.distributions]
    meters = [facts.package for facts in ENERGY_SOURCES.values() if facts.package]
    assert (*engines, *meters) == DISTRIBUTIONS


def test_help_of_a_command_reads_no_file_looks_for_no_plugin_and_builds_no_model(
    llem: Llem,
) -> None:
    found = imported_by(llem, "run", "--help")
    assert "llenergymeasure.config.models" in found
    assert found.isdisjoint(
        {"yaml", "platformdirs", "importlib.metadata", "pydantic.plugin._loader"}
    )


def test_the_simplest_experiment_takes_few_functions_in_few_files() -> None:
    """Whoever follows one by reading can do so; a few are left for what comes."""
    called = executed()
    assert len(called) <= 265, called
    files = {file for file, _ in called}
    assert len(files) <= 56, sorted(files)
