"""What a user waits for before and after the work: nothing is imported that nobody needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cli import Llem
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
