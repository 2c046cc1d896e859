"""What a study prints: lines for a pipe, a table of 80 columns, JSON for programs."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import termios
from pathlib import Path

import pytest

from llenergymeasure.domain.results import StudyResult
from tests.support.cli import Done, Llem
from tests.support.study_run import Left, misbehaving_study, scripted_study


@pytest.fixture
def llem(tmp_path: Path) -> Llem:
    return Llem(tmp_path)


@pytest.mark.parametrize("colour", ["", "1"])
def test_in_a_pipe_nothing_is_wider_than_80_columns_or_coloured(llem: Llem, colour: str) -> None:
    llem.environment |= {"NO_COLOR": colour, "COLUMNS": "300"}
    sweep = "random_seed: [1, 2, 3], scripted.itl_ms: [1, 2]"
    done = llem("run", scripted_study(llem, sweep, cycles=3))
    assert done.code == 0
    assert [line for line in (done.out + done.err).splitlines() if len(line) > 80] == []
    assert "\x1b" not in done.out + done.err
    assert "\r" not in done.out + done.err


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Llem, Done]:
    """A study of which one experiment was killed, and what was said of it."""
    llem = Llem(tmp_path_factory.mktemp("failing"))
    return llem, llem("run", misbehaving_study(llem, "well", "kill"))


def test_a_failure_is_told_within_80_columns_too_but_for_paths_which_stay_whole(
    failing: tuple[Llem, Done],
) -> None:
    _llem, done = failing
    long = [line for line in (done.out + done.err).splitlines() if len(line) > 80]
    assert [line for line in long if "/experiments/0002_" not in line] == []


def test_a_failure_names_its_log_its_configuration_and_the_way_on(
    failing: tuple[Llem, Done],
) -> None:
    llem, done = failing
    left = Left.by(llem)
    lies = next(left.study.experiments.glob("0002_*")).relative_to(llem.folder)
    assert f"    log: {lies}/log.txt\n" in done.err
    assert f"llem run --resume {lies.parent.parent}\n" in done.err
    assert f"    #2 shout=kill, 1 x\n    in {lies}\n" in done.out
    (failed,) = left.summary["failed"]
    assert (failed["slot"], failed["cycle"], failed["configuration"]) == (2, 1, 2)
    assert failed["directory"] == str(lies.relative_to(lies.parent.parent))


def test_lines_count_the_experiments_and_name_the_pauses(llem: Llem) -> None:
    gaps = "config_gap_seconds: 1.1, cycle_gap_seconds: 1.2"
    done = llem("run", scripted_study(llem, cycles=2, execution=gaps))
    at_once, *said = done.err.splitlines()
    assert at_once == "llem: study sizes: preparing scripted"
    assert said[0] == "llem: study sizes: 2 configurations, 4 experiments"
    assert said[1].startswith("llem: results in results/sizes_")
    kinds = ["finished" if line.startswith("[") else line for line in said[2:]]
    assert kinds[1].startswith("    caution window_short: window of 0.")  # once, not at each run
    assert [kinds[0], *kinds[2:]] == [
        "finished",
        "llem: pause before the next experiment: 1.1 s",
        "finished",
        "llem: pause before the next cycle: 1.2 s",
        "finished",
        "llem: pause before the next experiment: 1.1 s",
        "finished",
    ], done.err
    assert [line[:5] for line in said if line.startswith("[")] == [f"[{n}/4]" for n in range(1, 5)]
    *early, last = [line for line in said if line.startswith("[")]
    assert all(line.endswith(" left)") and "  !1  (" in line for line in early)
    assert " left)" not in last


def test_quiet_says_only_the_table(llem: Llem) -> None:
    done = llem("run", scripted_study(llem), "-q")
    assert (done.code, done.err) == (0, "")
    assert "Throughput, highest first" in done.out


def test_no_gaps_overrides_the_file(llem: Llem) -> None:
    study = scripted_study(llem, execution="config_gap_seconds: 9999, cycle_gap_seconds: 9999")
    done = llem("run", study, "--no-gaps")
    assert done.code == 0
    assert "pause" not in done.err


def test_json_is_the_study_result_and_the_directory_stays_on_standard_error(llem: Llem) -> None:
    done = llem("run", scripted_study(llem, cycles=2), "--json")
    assert done.code == 0
    study = StudyResult.model_validate_json(done.out)
    assert (study.ran, study.generated, study.failed, study.experiments) == (4, 2, (), ())
    left = Left.by(llem)
    assert json.loads(done.out) == left.summary
    assert f"results in results/{left.study.root.name}" in done.err


def test_json_of_a_study_with_failures_is_its_result_and_the_code_is_1(llem: Llem) -> None:
    done = llem("run", misbehaving_study(llem, "well", "kill"), "--json")
    assert done.code == 1
    (failure,) = json.loads(done.out)["failed"]
    assert failure["code"] == "killed"


def test_json_of_a_resume_is_that_of_the_run(llem: Llem) -> None:
    first = llem("run", scripted_study(llem), "--json", "-q")
    again = llem("run", "--resume", Left.by(llem).path, "--json", "-q")
    told, retold = json.loads(first.out), json.loads(again.out)
    assert told == retold


def test_in_a_terminal_a_pause_is_counted_down_on_one_line(llem: Llem) -> None:
    gaps = "config_gap_seconds: 2, cycle_gap_seconds: 0"
    command = llem.command("run", scripted_study(llem, execution=gaps))
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    process = subprocess.Popen(
        command, cwd=llem.folder, env=llem.variables(), stdout=subprocess.DEVNULL, stderr=slave
    )
    os.close(slave)
    said = b""
    while chunk := read(master):
        said += chunk
    assert process.wait(60) == 0
    text = said.decode()
    assert "pause before the next experiment: 2 s" in text
    assert "pause before the next experiment: 1 s" in text
    assert "llem: pause" not in text


LARGE = (
    "random_seed: [" + ", ".join(map(str, range(500))) + "], "
    "n: [" + ", ".join(map(str, range(1, 501))) + "]"
)


@pytest.mark.parametrize(
    ("flags", "variables", "asks"),
    [
        ((), {}, True),
        (("--quiet",), {}, False),
        (("--json",), {}, False),
        ((), {"LLEM_NO_PROMPT": "1"}, False),
    ],
)
def test_a_grid_over_the_limit_is_asked_about_at_a_terminal(
    llem: Llem, flags: tuple[str, ...], variables: dict[str, str], asks: bool
) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        llem.command("run", scripted_study(llem, LARGE), *flags),
        cwd=llem.folder,
        env={**llem.variables(), **variables},
        stdin=slave,
        stdout=subprocess.DEVNULL,
        stderr=slave,
    )
    os.close(slave)
    os.write(master, b"n\n")
    said = b""
    while chunk := read(master):
        said += chunk
    assert process.wait(60) == 1
    text = " ".join(said.decode().split())
    assert ("run 250,000 experiments? [y/N]" in text) == asks
    assert "or confirm with --yes" in text
    assert not llem.left("results")


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other side has closed
        return b""
