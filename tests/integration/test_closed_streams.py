"""Standard streams that the shell has closed: the work is done, and no file gets what was said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cli import QUICK, THIRD_PARTY, Done, Llem
from tests.support.study_run import scripted_study

ALL = "<&- >&- 2>&-"
NOISY = """
import os, sys, subprocess


class Backend(ScriptedBackend):
    def load(self, config, cache_dir):
        for number in (1, 2):
            os.write(number, b"stray")
        subprocess.run(["sh", "-c", "echo stray; echo stray >&2; cat"], check=True)
        print("stray")
        return super().load(config, cache_dir)
"""


@pytest.fixture
def llem(tmp_path: Path) -> Llem:
    return Llem(tmp_path)


def redirected(llem: Llem, how: str, *arguments: str) -> Done:
    """Run the command as a shell does whose user has closed some of its streams."""
    return llem.in_shell(f"{{}} {how}", *arguments)


@pytest.mark.parametrize("how", [ALL, ">&-", "2>&-", "<&-", ">&- 2>&-"])
def test_an_experiment_is_measured_and_no_file_has_a_stray_line(llem: Llem, how: str) -> None:
    llem.plugin(NOISY)
    done = redirected(llem, how, "run", *THIRD_PARTY, "-o", "results")

    assert done.code == 0, done.err
    (result,) = llem.folder.glob("results/*/result.json")
    assert json.loads(result.read_bytes())["trust"]
    assert [path.name for path in holding(llem, "stray")] in ([], ["log.txt"])
    if ">&-" not in how:
        assert "results in results/" in done.out


def holding(llem: Llem, word: str) -> list[Path]:
    """List what was written that has a word in it; what was installed for the test aside."""
    files = [*llem.left("results"), *llem.left("home"), *llem.left("tmp")]
    return [path for path in files if path.is_file() and word.encode() in path.read_bytes()]


@pytest.mark.parametrize("how", [ALL, ">&- 2>&-"])
def test_a_study_runs_to_its_end(llem: Llem, how: str) -> None:
    done = redirected(llem, how, "run", scripted_study(llem))

    assert done.code == 0
    (summary,) = llem.folder.glob("results/*/study_summary.json")
    assert json.loads(summary.read_bytes())["ran"] == 2
    for path in llem.folder.glob("results/**/*.jsonl"):
        assert [json.loads(line) for line in path.read_bytes().splitlines()]
    for path in llem.folder.glob("results/**/*.json"):
        json.loads(path.read_bytes())


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--version",), 0),
        (("--help",), 0),
        (("config",), 0),
        (("run", *QUICK, "--dry-run"), 0),
        (("run", *QUICK, "--json"), 0),
        (("run", "nowhere.yaml", "--json"), 1),
        (("run", "--strange"), 2),
        ((), 2),
    ],
)
def test_the_exit_code_is_what_it_is_with_open_streams(
    llem: Llem, arguments: tuple[str, ...], code: int
) -> None:
    assert redirected(llem, ALL, *arguments).code == code


@pytest.mark.parametrize("arguments", [("--version",), ("config",), ("run", *QUICK)])
def test_a_reader_that_stops_after_a_line_gets_it_and_no_traceback(
    llem: Llem, arguments: tuple[str, ...]
) -> None:
    done = redirected(llem, "| head -n 1", *arguments)
    assert done.code == 0
    assert len(done.out.splitlines()) == 1
    assert "Exception" not in done.err
    assert "Broken pipe" not in done.err


def test_a_message_still_comes_on_the_stream_that_is_open(llem: Llem) -> None:
    done = redirected(llem, ">&-", "run", "nowhere.yaml")
    assert done.code == 1
    assert done.err.startswith("llem: cannot read nowhere.yaml")
