"""Run every section in a process of its own, and write the report after each.

A section that fails, hangs or is killed costs the report nothing but its own figures.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from gpu_check.plan import Outcome, Plan, Section, read_plan
from gpu_check.report import ROOT, Finished, make_report, now, report_name, write_report

RESULTS = ROOT / "benchmarks" / "results" / "gpu"
TAIL_LINES = 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, report, and give the exit code: 0 only if all is well."""
    options = _parser().parse_args(arguments)
    plan, started_at = read_plan(options.plan), now()
    finished: list[Finished] = []
    path: Path | None = options.out
    for section in _wanted(plan, options.sections):
        print(f"{section.name} (at most {section.limit_s:.0f} s) ... ", end="", flush=True)
        finished.append(run_section(section, plan))
        print(_line(finished[-1]), flush=True)
        report = make_report(finished, started_at)
        path = path or RESULTS / report_name(report)
        write_report(path, report)
    print(f"report: {path}")
    return 0 if finished and all(one.good for one in finished) else 1


def run_section(section: Section, plan: Plan) -> Finished:
    """Run a section to its end, or to its limit."""
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        answer, log = Path(scratch, "answer.json"), Path(scratch, "log.txt")
        ended = _run(section, plan, answer, log)
        outcome = _outcome(answer, ended, log)
    return Finished(section, outcome, time.monotonic() - began_s)


def _run(section: Section, plan: Plan, answer: Path, log: Path) -> str:
    """Run the process of a section; say how it ended."""
    job = [section.function, plan.to_json(), json.dumps(section.argument), str(answer)]
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-m", "gpu_check.section", *job],
            cwd=ROOT,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            return f"it ended with exit code {process.wait(section.limit_s)}"
        except subprocess.TimeoutExpired:
            return f"it took longer than {section.limit_s:g} s and was ended"
        finally:
            _end_group(process)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End what a section may have left running."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _outcome(answer: Path, ended: str, log: Path) -> Outcome:
    try:
        status, reason, figures = json.loads(answer.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        status, reason, figures = "failed", f"it left no answer: {ended}", {}
    if status == "failed":
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        figures = {**figures, "log": lines[-TAIL_LINES:]}
    return Outcome(status, reason, figures)


def _environment() -> dict[str, str]:
    """Let numbers of CUDA be those of NVML, and forbid the network."""
    path = os.pathsep.join([str(ROOT / "scripts"), os.environ.get("PYTHONPATH", "")])
    fixed = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "HF_HUB_OFFLINE": "1"}
    return {**os.environ, **fixed, "PYTHONPATH": path.rstrip(os.pathsep)}


def _wanted(plan: Plan, names: str | None) -> list[Section]:
    sections = {one.name: one for one in plan.sections}
    if names is None:
        return list(sections.values())
    chosen = ["environment", *(name for name in names.split(",") if name != "environment")]
    unknown = [name for name in chosen if name not in sections]
    if unknown:
        raise SystemExit(f"no such section: {', '.join(unknown)}; there is {', '.join(sections)}")
    return [sections[name] for name in chosen]


def _line(one: Finished) -> str:
    reason = f": {one.outcome.reason}" if one.outcome.reason else ""
    return f"{one.outcome.status}, {one.seconds:.0f} s{reason}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gpu_check", description=__doc__)
    parser.add_argument("--out", type=Path, help="the report; by default named by GPU and day")
    parser.add_argument("--sections", help="only these, separated by commas")
    parser.add_argument("--plan", type=Path, help="JSON with settings, for a trial")
    return parser


if __name__ == "__main__":
    sys.exit(main())
