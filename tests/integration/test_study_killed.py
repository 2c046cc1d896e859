"""A study whose process is killed at any instant loses nothing that was finished."""

from __future__ import annotations

import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import psutil
import pyarrow.parquet as pq
import pytest

from tests.support.cli import Llem, wait_for
from tests.support.nursery import Nursery
from tests.support.samples import EXHAUSTIVE
from tests.support.study_run import Left, leftovers, scripted_study

SIDE_BY_SIDE = 2
SEED = 20260218
CONFIGURATIONS, CYCLES = 3, 3
SLOTS = CONFIGURATIONS * CYCLES
KILLED = -9


class Instant(NamedTuple):
    """When to kill: how long after the start, or after the first experiment has begun."""

    from_start: bool
    after_s: float


class Ordeal:
    """Studies that are killed at random instants and resumed, one after another."""

    def __init__(self, folder: Path, seed: int) -> None:
        folder.mkdir()
        self.llem, self.instants = Llem(folder), random.Random(seed)
        self.yaml = scripted_study(self.llem, "random_seed: [1, 2, 3]", cycles=CYCLES)
        self.kills: Counter[str] = Counter()
        self.studies = 0

    def __call__(self, kills: int) -> Counter[str]:
        with Nursery(self.llem) as self.nursery:
            whole_s = self.time_one()
            while self.kills.total() < kills:
                self.one_study(whole_s, kills)
        return self.kills

    def time_one(self) -> float:
        """Take the time of a study that nobody disturbs."""
        begun_s = time.monotonic()
        self.nursery.start("run", self.yaml, "-o", "undisturbed", "-q")
        assert self.nursery.end() == 0, self.nursery.said
        return time.monotonic() - begun_s

    def one_study(self, whole_s: float, kills: int) -> None:
        self.studies += 1
        folder = f"results-{self.studies}"
        kept: dict[str, bytes] = {}
        while True:
            killing = self.kills.total() < kills
            code = self.attempt(folder, self.instant(whole_s) if killing else None)
            left = self.left(folder)
            found = {} if left is None else left.results
            assert kept.items() <= found.items(), "a finished result was lost or changed"
            kept = found
            if code == 0:
                break
            assert code == KILLED, self.nursery.said
            self.kills[where(left)] += 1
        self.is_complete(Left.by(self.llem, folder), kept)

    def instant(self, whole_s: float) -> Instant:
        """Draw when to kill.

        Within a third of a study, so that it takes several kills to come to the end. One in three
        counts from the start, which takes most of the time on a busy machine.
        """
        return Instant(self.instants.random() < 1 / 3, self.instants.uniform(0, whole_s / 3))

    def attempt(self, folder: str, instant: Instant | None) -> int:
        """Run the study, or the rest of it, and kill it after a while."""
        left, noted = self.left(folder), self.noted(folder)
        what = [self.yaml, "-o", folder] if left is None else ["--resume", left.path]
        pid = self.nursery.start("run", *what)
        if instant is None:
            code = self.nursery.end()
        else:
            if not instant.from_start:
                wait_for(lambda: self.noted(folder) > noted or not psutil.pid_exists(pid), 120)
            time.sleep(instant.after_s)
            code = self.nursery.kill(pid)
        self.nursery.wait_until_alone()
        return code

    def noted(self, folder: str) -> int:
        """Give the length of the study's diary, which grows when an experiment starts."""
        diaries = (self.llem.folder / folder).glob("*/study_progress.jsonl")
        return sum(diary.stat().st_size for diary in diaries)

    def left(self, folder: str) -> Left | None:
        """Find the study; ``None`` while there is none, with nothing in its place that is lost."""
        if list((self.llem.folder / folder).glob("*/study_manifest.json")):
            return Left.by(self.llem, folder)
        assert not list((self.llem.folder / folder).rglob("result.json"))
        return None

    def is_complete(self, left: Left, kept: dict[str, bytes]) -> None:
        """Look at the study that has come to its end."""
        summary = left.summary
        assert (summary["ran"], summary["failed"], summary["missing"]) == (SLOTS, [], 0)
        assert len(kept) == len(set(summary["result_files"])) == SLOTS
        counted = [(one["configuration"], one["cycle"]) for one in summary["placements"]]
        assert len(counted) == len(set(counted)) == SLOTS
        assert pq.read_table(left.study.table).num_rows == SLOTS
        assert [one["n_cycles"] for one in summary["configurations"]] == [CYCLES] * CONFIGURATIONS
        for slot in range(1, SLOTS + 1):
            said = left.statuses(slot)
            assert "complete" not in said[:-1], f"{slot} was measured again: {said}"
        assert leftovers(left.study.root) == []
        assert list((self.llem.folder / "tmp").glob("llem-*")) == [], "folders of killed processes"


def where(left: Left | None) -> str:
    """Say what a kill has hit."""
    if left is None:
        return "before the plan"
    if left.study.summary.exists():
        return "after the summary"
    done = len(left.results)
    return "before the first result" if not done else "at the end" if done == SLOTS else "between"


@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=EXHAUSTIVE)])
def test_killed_at_random_instants_it_loses_nothing_and_resumes_to_its_end(
    tmp_path: Path, kills: int
) -> None:
    print(f"seeds {SEED} and following")
    share = kills // SIDE_BY_SIDE
    ordeals = [Ordeal(tmp_path / str(number), SEED + number) for number in range(SIDE_BY_SIDE)]
    with ThreadPoolExecutor(SIDE_BY_SIDE) as side_by_side:
        hit = sum(side_by_side.map(lambda ordeal: ordeal(share), ordeals), Counter())
    print(hit)
    assert hit.total() >= kills
    assert hit["between"] > kills / 10, f"most instants missed the experiments: {hit}"
