"""The documentation builds as a site, and examples run by their names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llenergymeasure.config import examples
from tests.support.cli import Llem

ROOT = Path(__file__).parents[2]


@pytest.mark.exhaustive
def test_the_site_builds_without_a_dead_link(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="the extra `site` is not installed")
    command = [sys.executable, str(ROOT / "scripts/make_site.py"), "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "site/docs/reference/api.html").read_text(encoding="utf-8")
    assert "llenergymeasure.run_experiment" in page


def test_an_example_runs_by_its_name_and_flags_override_it(tmp_path: Path) -> None:
    llem = Llem(tmp_path)
    assert llem.inline("run", "--example", "list").out.split() == examples.names()
    done = llem.inline("run", "--example", "rehearsal", "-n", "2", "-o", "out")
    assert done.code == 0, done.err
    assert "2 of 1,000" in done.out


def test_an_example_stands_in_the_place_of_a_file_or_a_study(tmp_path: Path) -> None:
    for other in (("study.yaml",), ("--resume", "out")):
        done = Llem(tmp_path).inline("run", "--example", "rehearsal", *other)
        assert (done.code, done.out) == (2, "")
        assert "leave one out" in done.err
