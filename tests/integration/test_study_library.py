"""Studies from Python: scripts without a main guard, threads, and nothing left where not wanted."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.cli import Llem, wait_for
from tests.support.study_run import Left, in_phase, misbehaving_study, scripted_study

STUDY = """
import json
from llenergymeasure import run_study

study = run_study("study.yaml"{output})
print(json.dumps({{
    "ran": study.ran, "failed": len(study.failed),
    "files": [path and study.located(path) for path in study.result_files],
    "experiments": len(study.experiments), "table": "highest first" in study.summary(),
}}))
"""


@pytest.fixture
def llem(tmp_path: Path) -> Llem:
    return Llem(tmp_path)


def test_a_script_without_a_main_guard_runs_a_study_where_the_user_configuration_says(
    llem: Llem,
) -> None:
    scripted_study(llem, cycles=2)
    llem.user_config("output: {results_dir: measured}\n")
    done = llem.script(STUDY.format(output=""))
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["ran"], told["experiments"], told["table"]) == (4, 4, True)
    assert done.out.count("ran") == 1, "the script ran again in a child"
    assert all(Path(llem.folder, path).is_file() for path in told["files"])
    assert len(Left.by(llem, "measured").results) == 4


def test_without_a_place_nothing_is_left_and_paths_are_null(llem: Llem) -> None:
    scripted_study(llem)
    before = {path for path in llem.folder.rglob("*") if "llem-device" not in path.name}
    done = llem.script(STUDY.format(output=", output_dir=None"))
    assert done.code == 0, done.err
    assert json.loads(done.out)["files"] == [None, None]
    left = {path for path in llem.folder.rglob("*") if "llem-device" not in path.name} - before
    written = {path.name for path in left if path.is_file()}
    assert written == {"script.py"}, left
    assert not (llem.folder / "results").exists()
    assert list((llem.folder / "tmp").glob("llem-study-*")) == []


def test_a_failure_without_a_place_gives_no_way_on_that_is_not_there(llem: Llem) -> None:
    misbehaving_study(llem, "refuse", cycles=3)
    done = llem.script(
        "from llenergymeasure import run_study\n"
        "from llenergymeasure.exceptions import StudyError\n"
        "try:\n    run_study('study.yaml', output_dir=None)\n"
        "except StudyError as error:\n    print(error)\n"
    )
    assert "failed the same way" in done.out
    assert "--resume" not in done.out
    assert list((llem.folder / "tmp").glob("llem-study-*")) == []


def test_failed_experiments_are_in_the_result_and_not_an_exception(llem: Llem) -> None:
    misbehaving_study(llem, "well", "kill")
    done = llem.script(STUDY.format(output=", output_dir='out'"))
    told = json.loads(done.out)
    assert (told["ran"], told["failed"], told["experiments"]) == (1, 1, 1)


def test_a_study_in_a_thread_as_in_a_notebook(llem: Llem) -> None:
    scripted_study(llem)
    script = (
        "import threading\nfrom llenergymeasure import run_study\n"
        "got = []\n"
        "thread = threading.Thread(target=lambda: got.append(run_study('study.yaml')))\n"
        "thread.start()\nthread.join()\nprint(got[0].ran)\n"
    )
    done = llem.script(script)
    assert (done.code, done.out) == (0, "2\n"), done.err


def test_two_studies_on_one_device_take_turns_and_say_so(llem: Llem) -> None:
    slow = scripted_study(llem, "scripted.itl_ms: [1000]", cycles=2, name="slow")
    slow = str(Path(slow).rename(llem.folder / "slow.yaml"))
    text = Path(slow).read_text().replace("max_new_tokens: 2", "max_new_tokens: 3")
    Path(slow).write_text(text)
    first = llem.start("run", slow, "-o", "one")
    try:
        wait_for(lambda: in_phase(llem, "measure", "one") or first.poll() is not None)
        second = llem.start("run", scripted_study(llem), "-o", "two", "-v")
        wait_for(lambda: in_phase(llem, "wait", "two") or second.poll() is not None)
        assert Left.by(llem, "two").results == {}, "it must not measure beside the other one"
        _out, err = second.communicate(timeout=120)
    finally:
        ended = end(first)
    assert second.returncode == 0, err
    assert "waiting for the CPU of this machine, measured by pid" in err
    assert ended
    assert len(Left.by(llem, "two").results) == 2


def end(process: subprocess.Popen[str]) -> bool:
    try:
        process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
    return process.returncode == 0
