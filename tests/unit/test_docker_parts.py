"""The parts of the docker runner that need no engine."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.orchestration.device_lock import lock_directory
from llenergymeasure.study.runners import container
from llenergymeasure.study.runners.container import Mount, Place
from llenergymeasure.study.runners.docker_cli import DockerError, Engine, Image, translated
from tests.support.scripted_run import make_order, scripted_config

IMAGE = Image("mine", "sha256:0123456789abcdef", "mine@sha256:ab")
HERE = Place(IMAGE, Engine(), gpus=False)


def arguments(environ: dict[str, str], place: Place = HERE) -> list[str]:
    return container.run_arguments("llem-1", place, Path("/cache/home"), (), environ)


def pairs(words: list[str], option: str) -> list[str]:
    return [after for before, after in itertools.pairwise(words) if before == option]


def test_a_secret_goes_by_its_name_and_paths_of_the_host_do_not_go_at_all() -> None:
    environ = {
        "HF_TOKEN": "hf_secret",
        "VLLM_LOGGING_LEVEL": "INFO",
        "VLLM_CACHE_ROOT": "/home/ann/vllm",
        "PYTHONPATH": "/src",
        "TRANSFORMERS_OFFLINE": "1",
    }
    words = arguments(environ)
    passed = pairs(words, "--env")
    assert {"HF_TOKEN", "VLLM_LOGGING_LEVEL", "TRANSFORMERS_OFFLINE"} <= set(passed)
    assert not {"VLLM_CACHE_ROOT", "PYTHONPATH"} & {each.partition("=")[0] for each in passed}
    assert "hf_secret" not in " ".join(words)


@pytest.mark.parametrize(
    ("given", "cache"),
    [
        ({}, "/home/ann/hf/hub"),
        ({"HF_HUB_CACHE": "~/hub"}, "/home/ann/hub"),
        ({"HF_HUB_CACHE": "$HOME/hub"}, "/home/ann/hub"),
        ({"HUGGINGFACE_HUB_CACHE": "/models/hub"}, "/models/hub"),
        ({"HF_HUB_CACHE": "/a", "HUGGINGFACE_HUB_CACHE": "/b"}, "/a"),
    ],
)
def test_the_cache_of_the_hub_is_the_one_that_is_used_outside(
    given: dict[str, str], cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    passed = pairs(arguments({"HF_HOME": "~/hf", **given}), "--env")
    assert [each for each in passed if "HUB_CACHE" in each] == [f"HF_HUB_CACHE={cache}"]
    assert "HF_HOME=/home/ann/hf" in passed


def test_the_image_is_run_by_its_id_and_recorded_by_its_digest() -> None:
    words = arguments({})
    assert words[-1] == IMAGE.id
    assert "LLEM_CONTAINER_IMAGE=mine@sha256:ab" in pairs(words, "--env")


def test_results_are_the_users_with_an_engine_of_any_kind() -> None:
    me = f"{os.getuid()}:{os.getgid()}"
    assert pairs(arguments({}), "--user") == [me]
    remapped = arguments({}, HERE._replace(engine=Engine(remapped=True)))
    assert (pairs(remapped, "--user"), pairs(remapped, "--userns")) == ([me], ["host"])
    assert pairs(arguments({}, HERE._replace(engine=Engine(rootless=True))), "--user") == []


def test_gpus_are_asked_for_only_where_there_are_some() -> None:
    assert pairs(arguments({}), "--gpus") == []
    words = arguments({"CUDA_VISIBLE_DEVICES": "1"}, HERE._replace(gpus=True))
    assert pairs(words, "--gpus") == ["all"]
    assert "CUDA_VISIBLE_DEVICES" in pairs(words, "--env")


def test_a_rootless_engine_is_asked_for_no_limit_that_only_root_can_raise() -> None:
    assert pairs(arguments({}, HERE._replace(gpus=True)), "--ulimit") == [
        "memlock=-1",
        "stack=67108864",
    ]
    rootless = arguments({}, HERE._replace(gpus=True, engine=Engine(rootless=True)))
    assert (pairs(rootless, "--gpus"), pairs(rootless, "--ulimit")) == (["all"], [])


def test_the_users_options_come_last_so_that_they_win() -> None:
    words = arguments({"LLEM_DOCKER_OPTIONS": "--shm-size 1g --env 'A=b c'"})
    assert pairs(words, "--shm-size")[-1] == "1g"
    assert words[-3:] == ["--env", "A=b c", IMAGE.id]


def test_a_container_that_only_answers_gets_nothing_of_the_machine() -> None:
    environ = {"HF_TOKEN": "hf_secret", "HTTP_PROXY": "proxy", "LLEM_DOCKER_OPTIONS": "--env A=b"}
    words = container.bare_arguments("llem-1", HERE._replace(gpus=True), environ)
    assert pairs(words, "--network") == ["none"]
    assert not {"--gpus", "--mount"} & set(words)
    assert not {"HF_TOKEN", "HTTP_PROXY"} & set(pairs(words, "--env"))
    assert words[0] == "run"
    assert words[-3:] == ["--env", "A=b", IMAGE.id]


@pytest.mark.parametrize("option", ["--network host", "--net=host"])
def test_the_users_network_is_the_only_one(option: str) -> None:
    words = container.bare_arguments("llem-1", HERE, {"LLEM_DOCKER_OPTIONS": option})
    assert [word for word in words if word.startswith("--net")] == [option.split(maxsplit=1)[0]]


def test_options_with_an_open_quote_are_refused_by_name() -> None:
    with pytest.raises(DockerError, match="LLEM_DOCKER_OPTIONS"):
        arguments({"LLEM_DOCKER_OPTIONS": "--env 'A"})


def test_a_path_with_a_comma_is_quoted() -> None:
    option = Mount(Path("/a, b"), Path("/c")).option()
    assert option == 'type=bind,"source=/a, b",target=/c,readonly'


@pytest.mark.parametrize("in_section", [False, True])
def test_everything_that_a_configuration_names_by_path_is_mounted(
    tmp_path: Path, in_section: bool
) -> None:
    model, prompts, adapter, extra = (tmp_path / name for name in ("m", "p.CSV", "a", "t"))
    for folder in (model, adapter, extra):
        folder.mkdir()
    prompts.touch()
    config = ExperimentConfig.model_validate(
        {
            "model": f"random:{model}",
            "dataset": {"path": str(prompts)} if in_section else str(prompts),
            "lora": {"adapter_path": str(adapter)},
            "passthrough_kwargs": {"tokenizer": {"path": str(extra)}},
        }
    )
    found = _mounts(tmp_path, config)
    for path in (model, prompts, adapter, extra):
        assert found[path] == Mount(path, path)


def test_a_model_in_the_home_folder_is_found_below_the_other_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    found = _mounts(tmp_path, scripted_config(model="~/models"))
    inside = tmp_path / "cache" / "containers" / "0123456789ab" / "models"
    assert found[inside] == Mount(tmp_path / "models", inside)
    assert inside.is_dir()


def test_what_is_written_to_is_mounted_for_writing_and_made_by_the_user(tmp_path: Path) -> None:
    found = _mounts(tmp_path, scripted_config())
    for path in (tmp_path / "one", tmp_path / "cache", tmp_path / "hf", tmp_path / "hub"):
        assert found[path].writable
        assert path.is_dir()
    assert found[Path(container.LOCKS)] == Mount(tmp_path, Path(container.LOCKS), writable=True)


def test_of_the_folder_for_temporary_files_a_container_gets_the_locks_alone(
    tmp_path: Path,
) -> None:
    orders = [make_order(scripted_config(), tmp_path)]
    environ = {"HF_HOME": str(tmp_path / "hf")}
    listed = container.mounts(orders, tmp_path / "one", IMAGE, environ)
    assert Mount(lock_directory({}), Path(container.LOCKS), writable=True) in listed
    assert {mount.source for mount in listed if mount.source.name == "tmp"} <= {lock_directory({})}


def _mounts(folder: Path, config: ExperimentConfig) -> dict[Path, Mount]:
    environ = {
        "HF_HOME": str(folder / "hf"),
        "HUGGINGFACE_HUB_CACHE": str(folder / "hub"),
        "LLEM_LOCK_DIR": str(folder),
    }
    listed = container.mounts([make_order(config, folder)], folder / "one", IMAGE, environ)
    assert len({mount.target for mount in listed}) == len(listed)
    return {mount.target: mount for mount in listed}


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ("permission denied while trying to connect to the Docker daemon socket", "may not talk"),
        ("Cannot connect to the Docker daemon at unix:///x. Is it running?", "does not answer"),
        ("failed to connect to the docker API at unix:///x", "does not answer"),
        ('docker: could not select device driver "" with capabilities: [[gpu]]', "GPUs"),
        ('invalid mount config for type "bind": bind source path does not exist: /x', "the files"),
        ("runc: error setting rlimit type 8: operation not permitted: unknown", "raise the limits"),
        ('exec: "python3": executable file not found in $PATH: unknown', "no python3"),
        ("docker: something else", "docker refuses: something else"),
        ("", "it says nothing"),
    ],
)
def test_what_docker_says_is_put_into_plain_words(said: str, what: str) -> None:
    assert what in translated(said).what
