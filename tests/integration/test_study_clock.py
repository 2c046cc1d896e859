"""A wall clock that is set while a study runs changes labels, never a duration or a pause."""

from __future__ import annotations

import re
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import llenergymeasure
from llenergymeasure.domain.results import ExperimentResult
from tests.support.cli import Llem
from tests.support.injectors import jumping_clock
from tests.support.study_run import Left, scripted_study

SOURCE = Path(llenergymeasure.__file__).parent


def test_no_duration_is_taken_from_the_wall_clock() -> None:
    asks = re.compile(r"\btime\.(time|time_ns|ctime|localtime)\(")
    asking = [path.name for path in SOURCE.rglob("*.py") if asks.search(path.read_text())]
    # Both look at the age of a file, as the kernel dates it.
    assert sorted(asking) == ["files.py", "temporary.py"]


def test_a_study_goes_through_a_clock_that_jumps_by_days(tmp_path: Path) -> None:
    llem = Llem(tmp_path)
    everywhere = jumping_clock(llem)
    limits = "config_gap_seconds: 0.2, cycle_gap_seconds: 0.2, timeout_s: 300"
    done = llem("run", scripted_study(llem, cycles=2, execution=limits))

    assert done.code == 0, done.err
    left = Left.by(llem)
    began = [datetime.fromisoformat(str(line.at)).timestamp() for line in left.progress]
    jumps_s = [abs(after - before) for before, after in pairwise(began)]
    assert max(jumps_s) > 1800 or not everywhere, "no jump was seen"
    durations_s = [line.duration_s for line in left.progress if line.duration_s is not None]
    assert len(durations_s) == 4
    assert all(0 < seconds < 1800 for seconds in durations_s)
    assert not re.search(r"\d (min|h|d)\b", done.err), "the time that is left follows the clock"
    for path in left.study.experiments.glob("*/result.json"):
        result = ExperimentResult.from_json(path)
        assert 0 < result.throughput.window_s < 1800

    assert llem("run", "--resume", left.path, "--cycles", "3").code == 0
    assert left.summary["ran"] == len(left.results) == 6
