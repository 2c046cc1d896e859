from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from pydantic import ValidationError

from llenergymeasure.config.user_config import (
    UserConfig,
    default_path,
    load_settings,
    named_runners,
    runner_problem,
)
from llenergymeasure.exceptions import ConfigError
from tests.support.plugins import installed_plugin


@pytest.fixture
def write(tmp_path):
    def make(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return path

    return make


@pytest.fixture
def absent(tmp_path):
    return tmp_path / "absent.yaml"


def values(settings) -> dict[str, tuple[object, str]]:
    return {row.name: (row.value, row.origin) for row in settings.rows()}


def test_defaults_hold_where_nothing_is_said(absent):
    settings = load_settings(absent, {})

    assert values(settings) == {
        "output.results_dir": ("./results", "default"),
        "output.model_cache_dir": (None, "default"),
        "measurement.energy_backend": ("auto", "default"),
        "measurement.carbon_intensity_gco2_kwh": (None, "default"),
        "measurement.datacenter_pue": (1.0, "default"),
        "measurement.calibrate": (True, "default"),
        "measurement.watch_ends": (True, "default"),
        "execution.config_gap_seconds": (None, "default"),
        "execution.cycle_gap_seconds": (None, "default"),
        "execution.wait_seconds": (None, "default"),
        "execution.start_method": ("auto", "default"),
        "ui.verbosity": ("standard", "default"),
        "ui.prompt": (True, "default"),
        "advanced.counter_poll_ms": (5.0, "default"),
        "advanced.power_poll_ms": (20.0, "default"),
    }
    assert settings.config.runner("vllm") == "local"


class Layered(NamedTuple):
    """One setting, and the value each layer gives it."""

    name: str
    yaml: str
    variable: str
    text: str
    in_file: object
    in_environment: object
    flag: object


LAYERS = [
    Layered(
        "output.results_dir", "output: {results_dir: a}", "LLEM_RESULTS_DIR", "b", "a", "b", "c"
    ),
    Layered(
        "measurement.carbon_intensity_gco2_kwh",
        "measurement: {carbon_intensity_gco2_kwh: 1}",
        "LLEM_CARBON_INTENSITY",
        "2.5",
        1.0,
        2.5,
        3.0,
    ),
    Layered(
        "measurement.datacenter_pue",
        "measurement: {datacenter_pue: 1.1}",
        "LLEM_DATACENTER_PUE",
        "1.2",
        1.1,
        1.2,
        1.3,
    ),
    Layered(
        "runners.vllm",
        "runners: {vllm: 'python:/a'}",
        "LLEM_RUNNER_VLLM",
        "docker:b",
        "python:/a",
        "docker:b",
        "local",
    ),
    Layered("ui.prompt", "ui: {prompt: true}", "LLEM_NO_PROMPT", "1", True, False, True),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_default_then_file_then_environment_then_flag(write, layer):
    file, environ = write(layer.yaml), {layer.variable: layer.text}
    from_environment = (layer.in_environment, f"${layer.variable}")

    assert values(load_settings(file, {}))[layer.name] == (layer.in_file, str(file))
    assert values(load_settings(file, environ))[layer.name] == from_environment
    flagged = load_settings(file, environ, {layer.name: layer.flag})
    assert values(flagged)[layer.name] == (layer.flag, "command line")
    not_given = load_settings(file, environ, {layer.name: None})
    assert values(not_given)[layer.name] == from_environment


def test_layers_that_set_different_things_add_up(write):
    file = write("runners: {pytorch: local}\nui: {verbosity: quiet}\n")
    settings = load_settings(file, {"LLEM_RUNNER_VLLM": "docker:x"}, {"ui.prompt": False})

    assert settings.config.runners == {"pytorch": "local", "vllm": "docker:x"}
    assert (settings.config.ui.verbosity, settings.config.ui.prompt) == ("quiet", False)


@pytest.mark.parametrize("text", ["", "# all commented out\n"])
def test_an_empty_file_is_as_good_as_none(write, text):
    assert load_settings(write(text), {}).config == UserConfig()


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("ui:\n  verbosity: loud\n", "line 2: ui.verbosity: "),
        ("measurment: {}\n", "line 1: measurment: unknown field 'measurment', did you mean"),
        ("ui: {verbosity\n", "not valid YAML"),
        ("- ui\n", "such as 'runners: {pytorch: local}'"),
        ("execution:\n  config_gap_seconds: -1\n", "line 2: execution.config_gap_seconds: "),
        ("measurement:\n  datacenter_pue: 0.9\n", "line 2: measurement.datacenter_pue: "),
        ("advanced: {counter_poll_ms: 0}\n", "line 1: advanced.counter_poll_ms: "),
        ("runners:\n  vlm: local\n", "there is no backend 'vlm', did you mean 'vllm'?"),
        ("runners:\n  vllm: podman\n", "'podman' is no runner"),
        ("runners: {vllm: 'singularity:x'}\n", "singularity is not yet supported"),
    ],
)
def test_a_broken_file_is_named_with_line_and_field(write, yaml, message):
    path = write(yaml)

    with pytest.raises(ConfigError) as caught:
        load_settings(path, {})

    assert message in caught.value.message
    assert caught.value.message.startswith(str(path))


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"LLEM_CARBON_INTENSITY": "high"}, "$LLEM_CARBON_INTENSITY is 'high'; it must be a"),
        ({"LLEM_CARBON_INTENSITY": "nan"}, "$LLEM_CARBON_INTENSITY: measurement.carbon"),
        ({"LLEM_CARBON_INTENSITY": "-1"}, "$LLEM_CARBON_INTENSITY: measurement.carbon"),
        ({"LLEM_DATACENTER_PUE": "0.5"}, "$LLEM_DATACENTER_PUE: measurement.datacenter_pue"),
        (
            {"LLEM_RUNNER_PYTROCH": "local"},
            "$LLEM_RUNNER_PYTROCH names no backend, did you mean 'LLEM_RUNNER_PYTORCH'?",
        ),
        ({"LLEM_RUNNER_VLLM": "podman:x"}, "$LLEM_RUNNER_VLLM: runners: vllm: 'podman:x' is no"),
    ],
)
def test_a_wrong_variable_is_named(absent, environ, message):
    with pytest.raises(ConfigError) as caught:
        load_settings(absent, environ)

    assert message in caught.value.message
    assert next(iter(environ)) in str(caught.value.where)


def test_a_wrong_flag_is_named_as_the_command_line(absent):
    with pytest.raises(ConfigError, match=r"command line: runners: pytorch: 'x' is no runner"):
        load_settings(absent, {}, {"runners.pytorch": "x"})


@pytest.mark.parametrize("text", ["", "0", "false", "No"])
def test_prompts_stay_where_the_variable_does_not_say_otherwise(absent, text):
    assert load_settings(absent, {"LLEM_NO_PROMPT": text}).config.ui.prompt


def test_empty_variables_say_nothing(absent):
    environ = dict.fromkeys(
        (
            "LLEM_RESULTS_DIR",
            "LLEM_CARBON_INTENSITY",
            "LLEM_DATACENTER_PUE",
            "LLEM_RUNNER_VLLM",
            "LLEM_NO_PROMPT",
        ),
        "",
    )

    assert load_settings(absent, environ).origins == {}


def test_the_runner_of_a_plugin_backend_can_come_from_the_environment(absent, tmp_path):
    with installed_plugin(tmp_path):
        settings = load_settings(absent, {"LLEM_RUNNER_ECHO_ENGINE": "docker:x"})

        assert settings.config.runner("echo-engine") == "docker:x"


@pytest.mark.parametrize("runner", ["local", "python:/opt/x/bin/python", "docker:repo/image:tag"])
def test_runners_that_are_valid(runner):
    assert runner_problem(runner) is None


@pytest.mark.parametrize("runner", ["", "python:", "docker:", "Local", "ssh:host"])
def test_runners_that_are_not(runner):
    assert "use local, python:<interpreter> or docker:<image>" in str(runner_problem(runner))


def test_directories_may_begin_at_home(absent, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    flags = {"output.results_dir": "~/results", "output.model_cache_dir": "~/cache"}
    config = load_settings(absent, {}, flags).config

    assert config.results_path() == tmp_path / "results"
    assert config.model_cache_path() == tmp_path / "cache"


def test_the_file_lies_where_the_platform_keeps_settings(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "llenergymeasure").mkdir()
    (tmp_path / "llenergymeasure/config.yaml").write_text("ui: {verbosity: quiet}\n")

    assert default_path() == tmp_path / "llenergymeasure" / "config.yaml"
    assert load_settings(environ={}).config.ui.verbosity == "quiet"


def test_settings_are_frozen_and_strict():
    with pytest.raises(ValidationError):
        UserConfig(ui={"prompt": "yes"})
    with pytest.raises(ValidationError):
        UserConfig().ui = None  # type: ignore[assignment,misc]


def test_the_home_folder_of_an_interpreter_is_found_whoever_names_it(write, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    file = write("runners: {pytorch: 'python:~/a/python', scripted: 'docker:~/b'}\n")
    environ = {"LLEM_RUNNER_VLLM": "python:~/c/python"}
    config = load_settings(file, environ, {"runners.tensorrt": "python:~/d/python"}).config

    assert config.runner("pytorch") == "python:/home/ann/a/python"
    assert config.runner("vllm") == "python:/home/ann/c/python"
    assert config.runner("tensorrt") == "python:/home/ann/d/python"
    assert config.runner("scripted") == "docker:~/b"


@pytest.mark.parametrize(
    ("values", "runners"),
    [
        ([], {}),
        (["local"], {"pytorch": "local", "vllm": "local"}),
        (["python:/a=b/python"], {"pytorch": "python:/a=b/python", "vllm": "python:/a=b/python"}),
        (["vllm=python:/a=b/python"], {"vllm": "python:/a=b/python"}),
        (["vllm=docker:x", "local"], {"pytorch": "local", "vllm": "docker:x"}),
        (["vllm=docker:x", "pytorch=local"], {"pytorch": "local", "vllm": "docker:x"}),
    ],
)
def test_flags_give_one_runner_to_all_backends_or_each_its_own(values, runners):
    assert named_runners(values, ("pytorch", "vllm")) == runners


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["vlm=local"], "'vlm=local' is for no backend here, did you mean 'vllm'"),
        (["vllm=podman"], "'podman' is no runner"),
        (["vllm=local", "vllm=docker:x"], "'vllm=docker:x' comes after local"),
        (["local", "docker:x"], "'docker:x' comes after local"),
    ],
)
def test_a_runner_flag_that_says_nothing_certain_is_refused(values, said):
    with pytest.raises(ConfigError) as caught:
        named_runners(values, ("pytorch", "vllm"))
    assert f"--runner: {said}" in caught.value.message
    assert caught.value.where == "--runner"
