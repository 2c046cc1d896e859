"""The tests that need a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from gpu_check.plan import Outcome, Plan
from gpu_check.report import ROOT

FIRST_LINES = 3


def check(plan: Plan) -> Outcome:
    """Run them, and list those that failed or were skipped with the reason."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "tests.xml")
        code = _pytest(plan, file)
        if not file.exists():
            return Outcome("failed", f"pytest ended with exit code {code} and no report", {})
        return judged(code, ET.parse(file).getroot())


def judged(exit_code: int, found: ET.Element) -> Outcome:
    """Sum up a report of pytest (JUnit's form)."""
    cases = list(found.iter("testcase"))
    failed = {**_told(cases, "failure"), **_told(cases, "error")}
    skipped = _told(cases, "skipped")
    passed = len(cases) - len(failed) - len(skipped)
    figures: dict[str, Any] = {"passed": passed, "failed": failed, "skipped": skipped}
    if failed or exit_code:
        what = f"{len(failed)} of {len(cases)} tests failed, pytest's exit code is {exit_code}"
        return Outcome("failed", what, figures)
    if not passed:
        return Outcome("skipped", "; ".join(sorted(set(skipped.values()))), figures)
    return Outcome("ok", "", figures)


def _told(cases: list[ET.Element], kind: str) -> dict[str, str]:
    found = ((case, case.find(kind)) for case in cases)
    return {
        f"{case.get('classname')}::{case.get('name')}": _first_lines(one.get("message") or "")
        for case, one in found
        if one is not None
    }


def _first_lines(text: str) -> str:
    return " ".join(text.splitlines()[:FIRST_LINES])


def _pytest(plan: Plan, file: Path) -> int:
    options = ("-q", "-p", "no:cacheprovider", f"--junitxml={file}")
    # numbers of CUDA stay as they are for the tests, which find devices by UUID
    environ = {k: v for k, v in os.environ.items() if k != "CUDA_DEVICE_ORDER"}
    command = [sys.executable, "-m", "pytest", *options, *plan.tests]
    return subprocess.run(command, cwd=ROOT, env=environ, check=False).returncode
