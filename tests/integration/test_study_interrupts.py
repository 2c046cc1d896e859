"""Ctrl-C at any point of a study: what is finished is kept, nothing runs on, and it resumes."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.cli import THIRD_PARTY, Done, Llem, interrupt, wait_for
from tests.support.injectors import healed_disk, is_napping, slow_disk
from tests.support.nursery import Nursery
from tests.support.samples import EXHAUSTIVE
from tests.support.study_run import Left, in_phase, leftovers, scripted_study

NAPS = """
import time
from pathlib import Path


def nap(*_):
    Path("home/napping").touch()
    time.sleep(3600)


class Backend(ScriptedBackend):
    def load(self, config, cache_dir):
        engine = super().load(config, cache_dir)
        if config.random_seed == 2 and not Path("mended").exists():
            {nap}
        return engine
"""


@pytest.fixture
def llem(tmp_path: Path) -> Llem:
    return Llem(tmp_path)


def interrupted(
    llem: Llem, study: str, there: Callable[[], object], *, times: int = 1, code: int = 130
) -> Done:
    """Run a study, interrupt it once something is so, and look at what is told and kept."""
    number = signal.Signals(code - 128)
    process = llem.start("run", study)
    wait_for(lambda: there() or process.poll() is not None)
    done = interrupt(process, times=times, number=number)
    assert done.code == code, done.err
    left = Left.by(llem)
    assert left.resume_line in done.err
    assert leftovers(left.study.root) == []
    assert set(left.results) == {"0001_" + name[5:] for name in left.results}, "one had finished"
    if times == 1:  # who is impatient does not wait for it
        assert left.summary["ran"] == len(left.results) == 1
        assert "1 experiment ran, 1 missing\n" in done.out or "1 failed\n" in done.out
        assert "\n  done: 1 of 2 experiments\n" in done.err
    return done


def resumes(llem: Llem, experiments: int = 2) -> None:
    """Go on to the end, and see that nothing was measured twice."""
    left = Left.by(llem)
    kept = left.results
    healed_disk(llem)
    (llem.folder / "mended").touch()
    done = llem("run", "--resume", left.path)
    assert done.code == 0, done.err
    assert kept.items() <= left.results.items()
    assert len(left.results) == left.summary["ran"] == experiments
    assert left.errors == {}


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(
    ("phase", "nap"),
    [
        ("load", "nap()"),
        ("prepare", "engine.plan = nap"),
        ("measure", "engine.run = nap"),
    ],
)
def test_while_an_engine_is_busy(llem: Llem, phase: str, nap: str, times: int) -> None:
    llem.plugin(NAPS.format(nap=nap))
    text = (
        "name: naps\nmodel: random:tiny-llama\nbackend: thirdparty\nenergy_backend: none\nn: 1\n"
        "max_new_tokens: 2\nwarmup: {n_warmup: 0}\nsweep: {random_seed: [1, 2]}\n"
        "execution: {n_cycles: 1, cycle_order: interleaved, config_gap_seconds: 0}\n"
    )
    study = str(llem.write("study.yaml", text))

    done = interrupted(llem, study, lambda: is_napping(llem), times=times)

    assert f"llem: interrupted in phase '{phase}'; no result was written" in done.err
    left = Left.by(llem)
    (kept,) = left.errors.values()
    assert (kept["code"], kept["phase"]) == ("interrupted", phase)
    assert left.statuses(2) == ["running", "interrupted"]
    resumes(llem)
    assert "error.1.json" not in left.names("0002"), "an interrupt is no failure to keep"


@pytest.mark.parametrize(("phase", "warmup"), [("warmup", 3), ("measure", 0)])
def test_while_requests_run(llem: Llem, phase: str, warmup: int) -> None:
    sweep = "scripted.itl_ms: [1, 50]"
    more = f"max_new_tokens: 100\nwarmup: {{n_warmup: {warmup}}}\n"
    study = str(
        llem.write(
            "study.yaml",
            "name: slow\nmodel: m\nbackend: scripted\nenergy_backend: none\nn: 1\n"
            f"{more}scripted: {{ttft_ms: 1}}\nsweep: {{{sweep}}}\n"
            "execution: {n_cycles: 1, cycle_order: interleaved, config_gap_seconds: 0}\n",
        )
    )

    def there() -> bool:
        second = (llem.folder / "results").glob("*/experiments/0002_*/events.jsonl")
        return any(f'"{phase}"' in path.read_text() for path in second)

    done = interrupted(llem, study, there)

    assert f"interrupted in phase '{phase}'; no result was written" in done.err
    resumes(llem)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(
    ("point", "name", "says"),
    [
        ("while a result is saved", "/0002_scripted_bf16_bs1_c1/.result.json", "in phase 'save'"),
        ("between experiments", "/0002_scripted_bf16_bs1_c1/.config.json", "interrupted"),
    ],
)
def test_on_a_disk_that_hesitates(llem: Llem, point: str, name: str, says: str, times: int) -> None:
    study = scripted_study(llem)
    slow_disk(llem, name)
    done = interrupted(llem, study, lambda: is_napping(llem), times=times)
    assert says in done.err, point
    resumes(llem)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("name", [".study_summary.json", ".summary.parquet"])
def test_while_the_results_are_brought_together(llem: Llem, name: str, times: int) -> None:
    study = scripted_study(llem)
    slow_disk(llem, name)
    process = llem.start("run", study)
    wait_for(lambda: is_napping(llem) or process.poll() is not None)

    done = interrupt(process, times=times)

    assert (done.code, done.out) == (130, ""), done.err
    left = Left.by(llem)
    assert left.resume_line in done.err
    assert len(left.results) == 2
    assert leftovers(left.study.root) == []
    resumes(llem)
    assert left.statuses(1) == ["running", "complete"]


@pytest.mark.parametrize(("times", "code"), [(1, 130), (2, 130), (1, 143)])
def test_in_a_pause(llem: Llem, times: int, code: int) -> None:
    study = scripted_study(llem, execution="config_gap_seconds: 600, cycle_gap_seconds: 0")

    def there() -> bool:
        done = (llem.folder / "results").glob("*/study_progress.jsonl")
        return any('"complete"' in path.read_text() for path in done)

    done = interrupted(llem, study, there, times=times, code=code)

    assert "llem: interrupted\n" in done.err
    left = Left.by(llem)
    assert llem("run", "--resume", left.path, "--no-gaps").code == 0
    assert len(left.results) == 2


@pytest.fixture
def closing_a_terminal_counts() -> Iterator[None]:
    """Undo ``nohup``: what ignores a signal hands that on to its children."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("closing_a_terminal_counts")
@pytest.mark.parametrize("code", [143, 129])
def test_a_scheduler_that_asks_it_to_end_or_a_terminal_that_is_closed(
    llem: Llem, code: int
) -> None:
    study = scripted_study(llem)
    slow_disk(llem, "/0002_scripted_bf16_bs1_c1/.result.json")
    interrupted(llem, study, lambda: is_napping(llem), code=code)
    resumes(llem)


@pytest.mark.usefixtures("closing_a_terminal_counts")
def test_a_terminal_that_closes_is_told_of_twice_and_counts_once(llem: Llem) -> None:
    study = scripted_study(llem)
    slow_disk(llem, "/0002_scripted_bf16_bs1_c1/.result.json")
    done = interrupted(llem, study, lambda: is_napping(llem), times=2, code=129)
    assert "once more" not in done.err
    left = Left.by(llem)
    assert left.summary["ran"] == len(left.results)
    resumes(llem)


def test_before_anything_has_started(llem: Llem) -> None:
    problems = "    def problems(self, config): nap()\n"
    llem.plugin(NAPS.format(nap="pass") + problems)
    process = llem.start("run", *THIRD_PARTY, "--cycles", "2")
    wait_for(lambda: is_napping(llem) or process.poll() is not None)
    done = interrupt(process)
    assert (done.code, done.err.splitlines()[2:]) == (130, ["llem: interrupted"])
    assert not llem.left("results")


def test_while_the_plan_is_written(llem: Llem) -> None:
    study = scripted_study(llem)
    slow_disk(llem, "/.study_manifest.json")
    process = llem.start("run", study)
    wait_for(lambda: is_napping(llem) or process.poll() is not None)
    done = interrupt(process)
    assert (done.code, done.err.splitlines()[2:]) == (130, ["llem: interrupted"])
    assert not llem.left("results"), "without a plan there is nothing to go on with"


def test_json_says_so_too(llem: Llem) -> None:
    study = scripted_study(llem, execution="config_gap_seconds: 600")
    process = llem.start("run", study, "--json")
    wait_for(lambda: in_phase(llem, "save") or process.poll() is not None)
    done = interrupt(process)
    assert done.code == 130
    assert done.error["code"] == "interrupted"
    assert Left.by(llem).resume_line in done.error["message"]


@pytest.mark.parametrize("times", [6, pytest.param(15, marks=EXHAUSTIVE)])
def test_at_random_instants_it_keeps_what_is_finished_and_says_how_to_go_on(
    llem: Llem, times: int
) -> None:
    seed = 20260301
    print(f"seed {seed}")
    instants, kept = random.Random(seed), {}
    study = scripted_study(llem, "random_seed: [1, 2, 3]", cycles=3)

    def way_on() -> list[str]:
        planned = list(llem.folder.glob("results/*/study_manifest.json"))
        return ["--resume", Left.by(llem).path] if planned else [study]

    with Nursery(llem) as nursery:
        codes = []
        for _ in range(times):
            pid = nursery.start("run", *way_on())
            time.sleep(instants.uniform(0, 1.5))
            codes.append(nursery.kill(pid, signal.SIGINT))
            nursery.wait_until_alone()
            # Before the command has its handler, and after, the interpreter's own ends it.
            bare = codes[-1] == -signal.SIGINT
            assert codes[-1] in {0, 130} or bare, nursery.said
            assert bare or "Traceback" not in nursery.said
            found = Left.by(llem).results if way_on()[0] == "--resume" else {}
            assert kept.items() <= found.items()
            kept = found
    assert 130 in codes
    assert llem("run", *way_on()).code == 0
    left = Left.by(llem)
    assert left.summary["ran"] == len(left.results) == 9
    assert all("complete" not in left.statuses(slot)[:-1] for slot in range(1, 10))
    assert list((llem.folder / "results").iterdir()) == [left.study.root]
