"""What the commands print about a machine, and where results went."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from llenergymeasure.cli.commands import config, run
from tests.support.cli import QUICK


def test_every_backend_is_listed_with_its_runner_and_where_that_came_from(tmp_path: Path) -> None:
    where = {"XDG_CONFIG_HOME": str(tmp_path), "LLEM_RUNNER_VLLM": "docker:image"}
    text = CliRunner().invoke(config.app, [], env=where).stdout
    rows = {tuple(line.split()) for line in text.splitlines()}

    assert ("pytorch", "local", "default") in rows
    assert ("vllm", "docker:image", "$LLEM_RUNNER_VLLM") in rows
    assert text.count("docker:image") == 1


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
