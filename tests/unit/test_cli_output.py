"""What the commands print about a machine, and where results went."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from typer.testing import CliRunner

from llenergymeasure.cli.commands import config, run
from llenergymeasure.cli.commands.run import confirmed
from llenergymeasure.config.models import StudyConfig
from llenergymeasure.config.user_config import data_path
from llenergymeasure.core.energy.stored import CALIBRATIONS
from llenergymeasure.orchestration import inventory
from llenergymeasure.report.format import WIDTH
from tests.support.cli import QUICK


def shown(folder: Path, **environ: str) -> str:
    """What ``llem config`` shows on a machine without docker."""
    where = {"XDG_CONFIG_HOME": str(folder), "PATH": str(folder), **environ}
    done = CliRunner().invoke(config.app, [], env=where)
    assert done.exit_code == 0, done.exception
    return done.stdout


def section(text: str, title: str) -> list[str]:
    (found,) = [block for block in text.split("\n\n") if block.startswith(title)]
    return found.splitlines()[1:]


def test_the_source_that_auto_takes_is_named_and_what_reads_gpus_says_so(tmp_path: Path) -> None:
    text = shown(tmp_path)
    rows = [line.split(maxsplit=2) for line in section(text, "energy sources")]

    assert ["auto", "->", "cpu: codecarbon"] in rows or ["auto", "->", "cpu: rapl"] in rows
    assert "that did the work" not in text, "nothing has been done yet"


def test_settings_of_the_file_name_it_once(tmp_path: Path) -> None:
    folder = tmp_path / "llenergymeasure"
    folder.mkdir()
    (folder / "config.yaml").write_text("measurement: {datacenter_pue: 1.5}\nui: {prompt: false}")
    text = shown(tmp_path)

    assert text.count(str(folder / "config.yaml")) == 1
    assert sum(line.endswith(" config.yaml") for line in text.splitlines()) == 2


def test_every_backend_is_listed_with_its_runner_and_where_that_came_from(tmp_path: Path) -> None:
    text = shown(tmp_path, LLEM_RUNNER_VLLM="docker:image")
    rows = {tuple(line.split()) for line in section(text, "runners")}

    assert ("pytorch", "local", "default") in rows
    assert ("vllm", "docker:image", "$LLEM_RUNNER_VLLM") in rows
    assert text.count("docker:image") == 2, "in its row, and over what it has"


def test_this_interpreter_is_shown_with_every_backend(tmp_path: Path) -> None:
    _, *rows = shown(tmp_path).partition("\nbackends of this interpreter")[2].split("\n")
    rows = [row for row in rows[: rows.index("")] if "(" + sys.executable not in row]
    names = [row.split()[0] for row in rows if row[2] != " "]

    assert names == [state.name for state in inventory.take().backends]


def test_a_place_that_cannot_be_used_is_shown_with_what_mends_it(tmp_path: Path) -> None:
    runners = {f"LLEM_RUNNER_{name}": "docker:image" for name in ("VLLM", "TENSORRT")}
    text = shown(tmp_path, **runners)
    first, *remedy, last = section(text, "backends of docker:image")

    assert first.split(maxsplit=2) == ["vllm", "no", "the command docker is not on PATH"]
    assert remedy[0].split()[:3] == ["install", "Docker", "Engine,"]
    assert last.split() == ["tensorrt", "no", "as", "vllm"]
    assert text.index("backends of this") < text.index("backends of docker") < text.index("\nnext")


def test_this_interpreter_named_as_a_runner_is_no_other_place(tmp_path: Path) -> None:
    text = shown(tmp_path, LLEM_RUNNER_VLLM=f"python:{sys.executable}")

    assert text.count("\nbackends of ") == 1


def test_only_a_path_or_a_command_makes_a_line_longer_than_a_terminal(tmp_path: Path) -> None:
    settings = {"LLEM_CARBON_INTENSITY": "300", "LLEM_RESULTS_DIR": "/results/" + "x" * 40}
    text = shown(
        tmp_path, LLEM_RUNNER_VLLM="docker:a/b:c", LLEM_RUNNER_TENSORRT="docker:d", **settings
    )

    for place in (data_path() / CALIBRATIONS, tmp_path / "llenergymeasure", sys.executable):
        text = text.replace(str(place), "/" * len(str(place)))  # a place may have spaces
    long = [line for line in text.splitlines() if len(line) > WIDTH]
    assert not [line for line in long if len(line.split()) > 2], long


def test_a_long_place_has_a_line_of_its_own(tmp_path: Path) -> None:
    far = tmp_path / ("x" * WIDTH)
    lines = shown(tmp_path, XDG_DATA_HOME=str(far)).splitlines()

    title = lines.index("energy sensors")
    assert lines[title + 1] == f"  ({far / 'llenergymeasure' / CALIBRATIONS})"


def test_json_on_stdout_is_the_result_and_stderr_says_where_it_lies(tmp_path: Path) -> None:
    where = {"XDG_CONFIG_HOME": str(tmp_path)}
    flags = [*QUICK, "--json", "--output", str(tmp_path / "out")]
    done = CliRunner().invoke(run.app, flags, env=where)
    (directory,) = (tmp_path / "out").iterdir()

    assert json.loads(done.stdout) == json.loads((directory / "result.json").read_text())
    assert f"results in {directory}" in done.stderr


def test_quiet_json_says_nothing_else(tmp_path: Path) -> None:
    where = {"XDG_CONFIG_HOME": str(tmp_path)}
    flags = [*QUICK, "--json", "--quiet", "--output", str(tmp_path / "out")]
    done = CliRunner().invoke(run.app, flags, env=where)

    assert done.exit_code == 0
    assert done.stderr == ""


def test_a_grid_over_the_limit_is_asked_about_and_a_smaller_one_is_not() -> None:
    asked: list[str] = []

    def yes(question: str) -> bool:
        asked.append(question)
        return True

    sweep = {"random_seed": list(range(500)), "n": list(range(1, 501))}
    large = StudyConfig(model="m", sweep=sweep)
    assert confirmed(large, yes)
    assert asked == ["llem: the design has 250,000 combinations; run 750,000 experiments?"]
    assert not confirmed(large, lambda _: False)
    assert not confirmed(StudyConfig(model="m", sweep={"n": [1, 2]}), yes)
    assert len(asked) == 1
