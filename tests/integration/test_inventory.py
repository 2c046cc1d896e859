"""What an interpreter is said to have."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llenergymeasure import __version__
from llenergymeasure.config.plugins import installed_package, missing
from llenergymeasure.config.registry import BACKENDS
from llenergymeasure.exceptions import ConfigError, Problem
from llenergymeasure.orchestration import inventory
from llenergymeasure.orchestration.inventory import BackendState, Inventory
from tests.support.cli import SOURCE
from tests.support.plugins import installed_plugin

HEAVY = ("torch", "transformers", "vllm", "tensorrt_llm", "numpy", "pyarrow")


def state_of(name: str, found: Inventory) -> BackendState:
    (state,) = [state for state in found.backends if state.name == name]
    return state


def test_every_backend_is_there_as_the_registry_finds_it() -> None:
    found = inventory.take()
    assert found.llenergymeasure_version == __version__
    for name, entry in BACKENDS.items():
        state, package = state_of(name, found), installed_package(entry)
        assert state.problem == missing(entry, "backend")
        assert state.version == (package and package.version)
        assert (state.folder is None) == (package is None)


def test_the_folder_is_where_the_module_would_be_imported_from() -> None:
    state = state_of("pytorch", inventory.take())
    spec = importlib.util.find_spec("transformers")
    assert spec is not None
    assert spec.origin is not None
    assert state.folder == str(Path(spec.origin).parents[1])
    assert state.version == importlib.metadata.version("transformers")
    assert state.also == (("torch", importlib.metadata.version("torch")),)


def test_a_backend_of_this_package_needs_no_other() -> None:
    state = state_of("scripted", inventory.take())
    assert (state.package, state.version, state.folder, state.problem) == (None,) * 4


def test_a_plugin_is_shown_with_the_package_that_adds_it(tmp_path: Path) -> None:
    with installed_plugin(tmp_path):
        state = state_of("echo-engine", inventory.take())
    assert (state.package, state.version) == ("echo-plugin", "1.0")
    assert state.problem is None


def test_a_plugin_that_is_broken_is_named(tmp_path: Path) -> None:
    with (
        installed_plugin(tmp_path, "echo_plugin:NOT_AN_ENTRY"),
        pytest.raises(ConfigError) as caught,
    ):
        inventory.take()
    assert "echo-engine" in caught.value.message


def test_remedies_are_put_into_the_words_of_another_place() -> None:
    problem = Problem("'a' needs b", "backend", "pip install b")
    lacking = BackendState(name="a", package="b", version=None, folder=None, problem=problem)
    having = lacking.model_copy(update={"name": "c", "problem": None})
    found = Inventory(llenergymeasure_version="1", backends=(lacking, having))
    there = found.with_remedies(lambda name, remedy: f"{name}: there {remedy}")
    assert there.backends[0].problem == Problem("'a' needs b", "backend", "a: there pip install b")
    assert there.backends[1] == having


def run(*arguments: str, path: Path = SOURCE) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE), str(path)])}
    return subprocess.run(
        [sys.executable, "-P", *arguments], capture_output=True, text=True, env=environ, check=False
    )


def test_the_module_prints_what_it_finds() -> None:
    done = run("-m", inventory.MODULE)
    assert Inventory.model_validate_json(done.stdout) == inventory.take()


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import json, sys; from llenergymeasure.orchestration import inventory; inventory.take(); "
        f"print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    )
    assert json.loads(run("-c", code).stdout) == []


def test_the_module_says_in_plain_words_which_plugin_is_broken(tmp_path: Path) -> None:
    with installed_plugin(tmp_path, "echo_plugin:NOT_AN_ENTRY"):
        done = run("-m", inventory.MODULE, path=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "echo-engine" in done.stderr
    assert "Traceback" not in done.stderr
