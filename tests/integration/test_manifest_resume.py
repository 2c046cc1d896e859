"""A study whose coordinator is killed with SIGKILL, again and again, is completed by resuming."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from llenergymeasure.domain.results import ExperimentResult
from llenergymeasure.results.layout import StudyDirectory
from llenergymeasure.study.manifest import read_plan
from llenergymeasure.study.resume import outcome, scan
from tests.support.cli import SOURCE, wait_for
from tests.support.study_on_disk import make_execution, make_plan, make_study, scripted

SEED = 20260218
KILLS = 6
COORDINATOR = """
import subprocess, sys
from pathlib import Path
from llenergymeasure.orchestration.order import WorkOrder
from llenergymeasure.results.layout import StudyDirectory
from llenergymeasure.results.files import write_json_atomically
from llenergymeasure.locks import owned
from llenergymeasure.study.manifest import read_plan
from llenergymeasure.study.resume import make_ready, scan

study = StudyDirectory(Path(sys.argv[1]))
with owned(study):
    plan = read_plan(study).plan
    for state in scan(plan, study):
        config = plan.config(state.slot)
        if state.status == "complete" or not make_ready(state.directory, config):
            continue
        order = WorkOrder(config=config, energy_backend="none", model_cache_dir=".")
        write_json_atomically(state.directory.config, order.model_dump_json())
        module = "llenergymeasure.orchestration.worker"
        subprocess.run([sys.executable, "-m", module, str(state.directory.root)], check=True)
"""


def start(study: StudyDirectory) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COORDINATOR, str(study.root)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        start_new_session=True,
    )


def results(study: StudyDirectory) -> dict[str, bytes]:
    found = study.experiments.glob("*/result.json")
    return {path.parent.name: path.read_bytes() for path in found}


def kill_at(study: StudyDirectory, results_there: int, *, half_way: bool, group: bool) -> None:
    """Run the study and kill its coordinator at some instant, with its worker or without."""
    process = start(study)
    wait_for(
        lambda: process.poll() is not None or has_come(study, results_there, half_way=half_way), 120
    )
    if process.returncode is not None:
        assert process.returncode == 0, process.communicate()[1]
        return
    workers = psutil.Process(process.pid).children(recursive=True)
    if group:
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.communicate()
    psutil.wait_procs(workers, timeout=60)  # an orphan finishes what it was told to do


def test_nothing_finished_is_lost_and_none_counts_twice(tmp_path: Path) -> None:
    instants = random.Random(SEED)
    configs = [scripted(size, n=4, max_new_tokens=3) for size in (1, 2)]
    plan = make_plan(configs, execution=make_execution(n_cycles=3))
    study = make_study(tmp_path / "study", plan)
    kept: dict[str, bytes] = {}
    for kill in range(KILLS):
        half_way = instants.random() < 0.5
        kill_at(study, len(kept) + 1, half_way=half_way, group=bool(kill % 2))
        after = results(study)
        assert kept.items() <= after.items(), "a finished result was lost or changed"
        kept = after
    last = start(study)
    _out, err = last.communicate(timeout=300)
    assert last.returncode == 0, err

    assert kept.items() <= results(study).items()
    plan = read_plan(study).plan
    states = scan(plan, study)
    found = [outcome(state, plan.config(state.slot)) for state in states]
    assert all(isinstance(one, ExperimentResult) for one in found)
    assert len(results(study)) == len(plan.slots) == 6


def has_come(study: StudyDirectory, results_there: int, *, half_way: bool) -> bool:
    """Tell whether there are so many results, or a worker has come to its third phase."""
    if len(list(study.experiments.glob("*/result.json"))) >= results_there:
        return True
    running = [path for path in study.experiments.glob("*/events.jsonl") if not whole(path)]
    return half_way and any(phases(path) > 2 for path in running)


def whole(path: Path) -> bool:
    return path.with_name("result.json").exists()


def phases(path: Path) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return sum(1 for line in lines if line.endswith("}") and json.loads(line)["done"] is None)
