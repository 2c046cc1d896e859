"""Paths as the system allows them: any bytes, quotes, line ends; from start to end."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from llenergymeasure import ExperimentResult
from tests.support.cli import QUICK, Done, Llem
from tests.support.study_run import Left, scripted_study

LATIN = os.fsdecode(b"caf\xe9")
NAMES = (
    LATIN,
    'it\'s "quoted"',
    "two\nlines",
    "\u00e9\u4e2d",
    os.fsdecode(b"-\xff\xfe all 'of\nit"),
)
JSONL = '{"prompt": "some words"}\n{"prompt": "other words"}\n'


@pytest.fixture(params=NAMES, ids=range(len(NAMES)))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(llem: Llem, *arguments: str) -> Done:
    """Run the command and read what it prints as the system's bytes."""
    return llem.afresh(*arguments, errors="surrogateescape")


def go_on_line(done: Done) -> list[str]:
    """Give the command that a message tells, as a shell would read it."""
    line = done.err[done.err.index("llem run --resume") :]
    return shlex.split(line.removesuffix("\n"))[1:4]


def test_an_experiment_is_left_at_any_path(tmp_path: Path, name: str) -> None:
    llem = Llem(tmp_path)
    done = run(llem, "run", *QUICK, "-o", f"./{name}")
    assert done.code == 0, done.err
    (directory,) = (tmp_path / name).iterdir()
    assert f"results in {name}/{directory.name}" in done.out
    assert ExperimentResult.from_json(directory).throughput.requests_completed == 2


@pytest.mark.parametrize("name", [LATIN, NAMES[-1]], indirect=True)
def test_json_on_the_screen_and_on_disk_names_the_files_that_are_there(
    tmp_path: Path, name: str
) -> None:
    llem = Llem(tmp_path)
    done = run(llem, "run", scripted_study(llem), "-o", f"./{name}", "--json")
    assert done.code == 0, done.err
    left = Left.by(llem, name)
    assert done.out.isascii(), "a reader of JSON wants Unicode"
    for summary in (json.loads(done.out), left.summary):
        assert all((left.study.root / file).is_file() for file in summary["result_files"])


@pytest.mark.parametrize("name", [LATIN, NAMES[-1]], indirect=True)
def test_a_study_breaks_off_and_goes_on_at_any_path(tmp_path: Path, name: str) -> None:
    llem = Llem(tmp_path)
    study = scripted_study(llem)
    text = Path(study).read_text().replace("{ttft_ms: 1, itl_ms: 1}", "{fail_at: measure}")
    Path(study).write_text(text)
    done = run(llem, "run", study, "-o", f"./{name}")
    assert done.code == 1
    left = Left.by(llem, name)
    assert len(left.errors) == 2
    assert all((left.study.root / one["directory"]).is_dir() for one in left.summary["failed"])
    arguments = go_on_line(done)
    assert (tmp_path / arguments[2]).is_dir(), arguments
    again = run(llem, *arguments)
    assert again.code == 1
    assert "going on with" in again.err


def test_everything_lies_in_a_folder_of_another_encoding(tmp_path: Path) -> None:
    """Home, cache, temporary folder, locks, configuration, prompts and results."""
    folder = tmp_path / LATIN
    folder.mkdir()
    llem = Llem(folder)
    llem.write("prompts.jsonl", JSONL)
    study = scripted_study(llem, cycles=2, more="dataset: prompts.jsonl\n")

    assert run(llem, "run", study, "--dry-run").code == 0
    assert run(llem, "run", study, "--dry-run", "--json").code == 0
    assert run(llem, "config").code == 0
    done = run(llem, "run", study)

    assert done.code == 0, done.err
    left = Left.by(llem)
    sorted(left.study.experiments.glob("*/result.json"))[-1].unlink()
    done = run(llem, "run", study, "--resume", left.path)
    assert done.code == 0, done.err
    assert "3 already done" in done.err
    table = pq.read_table(io.BytesIO(left.study.table.read_bytes()))
    assert table["resolved.dataset.name"][0].as_py().endswith("caf\\udce9/prompts.jsonl")
    first = ExperimentResult.from_json(next(left.study.experiments.glob("0001_*")))
    assert first.config.dataset == str(folder / "prompts.jsonl")


def test_the_library_takes_such_a_path_too(tmp_path: Path) -> None:
    llem = Llem(tmp_path)
    study = scripted_study(llem)
    done = llem.script(
        "import json, os\n"
        "from llenergymeasure import run_experiment, run_study\n"
        "place = os.fsdecode(b'caf\\xe9')\n"
        f"study = run_study({study!r}, output_dir=place)\n"
        "assert all(os.path.isfile(study.located(file)) for file in study.result_files)\n"
        "assert json.loads(study.model_dump_json())['result_files'] == list(study.result_files)\n"
        "again = type(study).model_validate_json(study.model_dump_json())\n"
        "assert again.result_files == study.result_files\n"
        "one = study.experiments[0]\n"
        "one.to_json(place + '/one.json'), one.to_parquet(place + '/one.parquet')\n"
        "run_experiment(one.config, output_dir=place)\n"
        "print(len(os.listdir(os.fsencode(place))))\n"
    )
    assert done.out.splitlines() == ["4"], done.err


def test_a_failure_at_such_a_path_is_said_in_json(tmp_path: Path) -> None:
    llem = Llem(tmp_path)
    (tmp_path / LATIN).write_text("a file")
    done = run(llem, "run", *QUICK, "-o", f"{LATIN}/below", "--json")
    assert done.code == 1
    assert done.error["where"] == f"{LATIN}/below"
    assert f"cannot create a directory for results in {LATIN}/below" in done.err


def test_words_that_the_terminal_cannot_show_are_spelled(tmp_path: Path) -> None:
    llem = Llem(tmp_path, {"PYTHONIOENCODING": "latin-1"})
    done = run(llem, "run", *QUICK, "-o", "\u4e2d")
    assert done.code == 0, done.err
    assert "results in \\u4e2d/" in done.out


def test_a_random_model_runs_from_a_cache_of_another_encoding(tmp_path: Path) -> None:
    folder = tmp_path / LATIN
    folder.mkdir()
    llem = Llem(folder)
    model = ("-m", "random:tiny-llama", "-n", "2", "--max-new-tokens", "2")
    done = run(llem, "run", *model, "--precision", "fp32", "--energy-backend", "none", "-o", "out")
    assert done.code == 0, done.err
    (result,) = (folder / "out").glob("*/result.json")
    inputs = ExperimentResult.from_json(result).resolved.inputs
    assert set(inputs) == {"dataset", "tokenizer", "model"}
    assert list(folder.glob("tmp/llem-*")) == [], "the link to the model is gone"


def test_another_interpreter_at_such_a_path_gets_the_same_bytes(tmp_path: Path) -> None:
    folder = tmp_path / LATIN
    folder.mkdir()
    python = folder / "python"
    python.write_bytes(b'#!/bin/sh\nexec "' + os.fsencode(sys.executable) + b'" "$@"\n')
    python.chmod(0o755)
    llem = Llem(folder, {"LLEM_RUNNER_SCRIPTED": f"python:{python}"})
    done = run(llem, "run", scripted_study(llem), "-o", LATIN)
    assert done.code == 0, done.err
    assert len(Left.by(llem, LATIN).results) == 2


def test_a_shell_gives_bytes_and_finds_them_again(tmp_path: Path) -> None:
    llem = Llem(tmp_path)
    command = b" ".join(os.fsencode(shlex.quote(word)) for word in llem.command("run", *QUICK))
    done = subprocess.run(
        [b"/bin/sh", b"-c", command + b" -o \xff"],
        cwd=tmp_path,
        env=llem.variables(),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert b"results in \xff/" in done.stdout
    assert len(list(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")).iterdir())) == 1
