from __future__ import annotations

import importlib.metadata

import pytest

from llenergymeasure.config.base import nearest
from llenergymeasure.config.energy_sources import ENERGY_SOURCES
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.plugins import (
    PluginEntry,
    installed_package,
    installed_version,
    load_object,
    missing,
)
from llenergymeasure.config.registry import BACKENDS, backend_entry, backend_names
from llenergymeasure.exceptions import ConfigError
from tests.support.plugins import installed_plugin


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_has_a_section_of_its_name_with_its_batch_field(name):
    entry = backend_entry(name)
    section = load_object(entry.section)

    assert entry.name == name
    assert name in ExperimentConfig.model_fields
    assert entry.batch_field in section.model_fields
    assert entry.precisions
    assert entry.decoding


@pytest.mark.parametrize("entry", ENERGY_SOURCES.values(), ids=ENERGY_SOURCES)
def test_every_energy_source_of_this_version_is_there(entry):
    assert load_object(entry.implementation).name == entry.name


def test_an_unknown_backend_is_answered_with_the_valid_names():
    with pytest.raises(ConfigError) as caught:
        backend_entry("zzz")

    assert all(name in caught.value.message for name in backend_names())
    assert caught.value.where == "backend"


def _entry(**changes: object) -> PluginEntry:
    values = {
        "name": "x",
        "implementation": "json:JSONDecoder",
        "package": "pydantic",
        "module": "pydantic",
        "install": "pip install x",
    }
    return PluginEntry(**{**values, **changes})  # type: ignore[arg-type]


def test_a_package_that_is_there_is_not_missing():
    version = importlib.metadata.version("pydantic")

    assert installed_version(_entry()) == version
    assert missing(_entry(), "backend") is None
    assert missing(_entry(minimum=version), "backend") is None
    assert missing(_entry(minimum="2"), "backend") is None
    assert missing(_entry(package=None), "backend") is None


def test_a_package_that_is_absent_is_answered_with_the_pip_line():
    problem = missing(_entry(package="not-a-package", module="not_a_package"), "backend")

    assert problem is not None
    assert "needs the package not-a-package" in problem.what
    assert problem.remedy == "pip install x"


def test_whatever_else_it_needs_is_missed_too():
    problem = missing(_entry(also=("pytest", "not_a_package")), "backend")

    assert problem is not None
    assert "needs the package not_a_package" in problem.what
    assert problem.remedy == "pip install x"
    assert missing(_entry(also=("pytest",)), "backend") is None


def test_metadata_without_the_module_counts_as_absent():
    assert missing(_entry(module="not_a_module"), "backend") is not None


def test_a_package_that_is_too_old_is_answered_with_both_versions():
    problem = missing(_entry(minimum="999.1"), "backend")

    assert problem is not None
    assert "needs pydantic 999.1 or newer, found" in problem.what
    assert problem.remedy.endswith("--upgrade")


@pytest.mark.parametrize(
    ("version", "minimum", "old"),
    [
        ("5.0", "5", False),
        ("5", "5.0", False),
        ("5.0.0", "5.0", False),
        ("5.10", "5.9", False),
        ("5.9", "5.10", True),
        ("4.57.1", "5.0", True),
        ("3.1rc1", "3.0", False),
        ("2.8.0+cu128", "2.8", False),
        ("5.1.dev0", "5.0", False),
    ],
)
def test_versions_are_compared_by_number(tmp_path, monkeypatch, version, minimum, old):
    metadata = tmp_path / "numbered-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: numbered\nVersion: {version}")
    (tmp_path / "numbered.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    entry = _entry(package="numbered", module="numbered", minimum=minimum)

    assert (missing(entry, "backend") is not None) is old


def test_a_plugin_adds_its_backend(tmp_path):
    with installed_plugin(tmp_path):
        assert "echo-engine" in backend_names()
        assert backend_entry("echo-engine").precisions == ("bf16",)
    assert "echo-engine" not in backend_names()


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("echo_plugin:ABSENT", "ABSENT"),
        ("absent_module:ENTRY", "absent_module"),
        ("echo_plugin:NOT_AN_ENTRY", "it is a str, not BackendFacts"),
    ],
)
def test_a_broken_plugin_is_named_with_the_line_that_removes_it(tmp_path, target, reason):
    with installed_plugin(tmp_path, target), pytest.raises(ConfigError) as caught:
        backend_names()

    assert reason in caught.value.message
    assert "pip uninstall echo-plugin" in caught.value.message


def test_the_nearest_name_or_all_names():
    assert nearest("pytorhc", ["pytorch", "vllm"]) == "did you mean 'pytorch'?"
    assert nearest("zzz", ["pytorch", "vllm"]) == "valid names: pytorch, vllm"


def test_another_distribution_of_the_same_module_will_do():
    entry = PluginEntry(
        "x", "m:C", package="no-such-package", module="pytest", alternatives=("pytest",)
    )

    assert missing(entry, "backend") is None
    assert installed_package(entry) == ("pytest", importlib.metadata.version("pytest"))


def test_another_distribution_that_is_too_old_is_named_with_its_own_line():
    entry = PluginEntry(
        "x",
        "m:C",
        package="no-such-package",
        module="pytest",
        minimum="9999",
        install="pip install no-such-package",
        alternatives=("pytest",),
    )
    problem = missing(entry, "backend")

    assert "needs pytest 9999 or newer" in problem.what
    assert problem.remedy == "pip install pytest --upgrade"
