"""Time and memory of showing many results again: a study of 10,000 on disk, loaded in a process.

    python benchmarks/report_scale.py [RESULTS] [--keep DIR]

Writes the study into a temporary folder from made-up results, so no engine runs, then loads it in a
fresh process and prints one JSON object: results, seconds of loading and of the text, peak memory.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIGURATIONS = 100

LOAD = """
import json, resource, sys, time
begun = time.perf_counter()
from llenergymeasure.domain.results import StudyResult
study = StudyResult.from_json(sys.argv[1])
loaded = time.perf_counter()
text = study.summary()
done = time.perf_counter()
print(json.dumps({
    "results": study.ran,
    "configurations": len(study.configurations),
    "load_s": round(loaded - begun, 2),
    "text_s": round(done - loaded, 2),
    "cpu_s": round(time.process_time(), 2),
    "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    "lines": len(text.splitlines()),
}))
"""


def make(root: Path, results: int) -> float:
    """Write a study with so many results; give the seconds that took."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    disk = importlib.import_module("tests.support.study_on_disk")
    begun = time.perf_counter()
    cycles = max(1, results // CONFIGURATIONS)
    experiments = [disk.scripted(size) for size in range(1, CONFIGURATIONS + 1)]
    plan = disk.make_plan(experiments, execution=disk.make_execution(n_cycles=cycles))
    disk.make_study(root, plan, complete=range(1, len(plan.slots) + 1))
    return time.perf_counter() - begun


def main() -> None:
    """Make the study, load it, print what that took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=int, nargs="?", default=10_000)
    parser.add_argument("--keep", type=Path, help="where the study is to stay")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = (asked.keep or Path(folder)) / "study"
        made_s = 0.0 if root.exists() else make(root, asked.results)
        command = [sys.executable, "-c", LOAD, str(root)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    print(json.dumps({"made_s": round(made_s, 1), **json.loads(said)}))


if __name__ == "__main__":
    main()
