"""What a container of one experiment gets from its host: folders, user, devices, environment.

Functions from data to arguments of ``docker run``, but for the folders that are made.
"""

from __future__ import annotations

import csv
import io
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil
from pydantic import BaseModel

from llenergymeasure import locks
from llenergymeasure.config.names import RANDOM_PREFIX, without_tilde
from llenergymeasure.config.yaml_file import names_path
from llenergymeasure.core.environment import IMAGE_VARIABLE
from llenergymeasure.orchestration import device_lock
from llenergymeasure.orchestration.order import WorkOrder
from llenergymeasure.study.runners.docker_cli import DockerError, Engine, Image

OPTIONS_VARIABLE = "LLEM_DOCKER_OPTIONS"
"""Environment variable with further options of ``docker run``; they win over those given here."""

LOCKS = "/run/llem-locks"
"""Where a container finds the locks on devices that it shares with its host."""

ENTRY = "llenergymeasure.study.runners.container_entry"

_PASSED_ON = ("HF_", "HUGGING_FACE_", "LLEM_", "VLLM_", "NCCL_", "TLLM_", "TRTLLM_", "OMP_")
_PASSED_ON_WHOLE = (
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "TOKENIZERS_PARALLELISM",
    "TRANSFORMERS_OFFLINE",  # huggingface_hub heeds it
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)
_OURS = (OPTIONS_VARIABLE, device_lock.VARIABLE, IMAGE_VARIABLE)


class Mount(NamedTuple):
    """A folder or file of the host inside a container.

    Attributes:
        source: Where it is here.
        target: Where it is in the container.
        writable: Whether it can be written there.
    """

    source: Path
    target: Path
    writable: bool = False

    def option(self) -> str:
        """Give the value of ``--mount``: fields in CSV, which takes any path."""
        fields = ["type=bind", f"source={self.source}", f"target={self.target}"]
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(fields + ["readonly"] * (not self.writable))
        return line.getvalue()


class Place(NamedTuple):
    """Where containers run, as it was found.

    Attributes:
        image: What they are made of.
        engine: Who runs them.
        gpus: Whether they get the GPUs of this machine.
    """

    image: Image
    engine: Engine
    gpus: bool


def home(order: WorkOrder, image: Image) -> Path:
    """Name the home folder in containers of an image; engines keep what they compile there."""
    return Path(order.model_cache_dir).absolute() / "containers" / image.id.rpartition(":")[2][:12]


def mounts(
    orders: Iterable[WorkOrder], folder: Path, image: Image, environ: Mapping[str, str]
) -> tuple[Mount, ...]:
    """List what containers need of this machine; folders to be written to are made.

    Args:
        orders: The experiments.
        folder: The experiment's directory, or another that the container writes to.
        image: What the container is made of.
        environ: Environment of the host.

    Raises:
        OSError: A folder cannot be made.
        DockerError: The folder of locks on devices cannot be used.
    """
    written = {folder.absolute()}
    read: list[Mount] = []
    for order in orders:
        written |= {Path(order.model_cache_dir).absolute(), *_hub_folders(environ)}
        written |= {Path(order.data_dir).absolute()} if order.data_dir else set()
        home(order, image).mkdir(parents=True, exist_ok=True)
        read += _local_files(order, home(order, image))
    for path in written:
        path.mkdir(parents=True, exist_ok=True)
    writable = [Mount(path, path, writable=True) for path in sorted(written)]
    each = {mount.target: mount for mount in (*read, *writable)}
    try:
        shared = device_lock.lock_directory(environ).absolute()
    except OSError as error:
        what = f"locks on devices cannot be kept: {error.strerror}"
        raise DockerError(what, device_lock.REMEDY) from None
    return (*each.values(), Mount(shared, Path(LOCKS), writable=True))


def _hub_folders(environ: Mapping[str, str]) -> tuple[Path, Path]:
    """Give the Hub's home and its cache, as ``huggingface_hub.constants`` finds them."""
    cache = environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = _resolved(environ.get("HF_HOME") or f"{cache}/huggingface")
    given = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE")
    return home, _resolved(given) if given else home / "hub"


def _resolved(path: str) -> Path:
    return without_tilde(os.path.expandvars(path)).absolute()


def _local_files(order: WorkOrder, inside_home: Path) -> Iterator[Mount]:
    """Find the models, prompts, adapters and engines that a configuration names by path."""
    values = [*_path_values(order.config), *_absolute_paths(order.config.passthrough_kwargs)]
    for value in values:
        name = value.removeprefix(RANDOM_PREFIX)
        path = without_tilde(name).absolute()
        if not path.exists():
            continue
        target = path
        if name.startswith("~/"):  # '~' is another folder in there
            target = inside_home / name[2:]
            # Docker would make what the mount lies on as root.
            (target if path.is_dir() else target.parent).mkdir(parents=True, exist_ok=True)
            if not path.is_dir():
                target.touch()
        yield Mount(path, target)


def _path_values(model: BaseModel) -> Iterator[str]:
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _path_values(value)
        elif isinstance(value, str) and names_path(field.json_schema_extra, value):
            yield value
    for section in (model.model_extra or {}).values():
        if isinstance(section, BaseModel):
            yield from _path_values(section)


def _absolute_paths(value: object) -> Iterator[str]:
    if isinstance(value, str) and Path(value).is_absolute():
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _absolute_paths(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _absolute_paths(inner)


def run_arguments(
    name: str,
    place: Place,
    inside_home: Path,
    folders: Sequence[Mount],
    environ: Mapping[str, str],
) -> list[str]:
    """Give the arguments of ``docker`` up to the interpreter's own.

    The container is gone when it ends; its process ids are the host's, without which nobody in it
    could tell on a GPU its own processes from others; its shared memory may take half of the
    machine's memory, as ``/dev/shm`` does on Linux (tmpfs(5)).

    Raises:
        DockerError: ``LLEM_DOCKER_OPTIONS`` cannot be read.
    """
    identity: list[str] = []
    if not place.engine.rootless:
        others = sorted({*os.getgroups()} - {os.getgid()})
        identity += ("--user", f"{os.getuid()}:{os.getgid()}")
        identity += (word for group in others for word in ("--group-add", str(group)))
        identity += ("--userns", "host") if place.engine.remapped else ()
    return [
        *("run", "--rm", "--interactive", "--name", name, "--pull", "never"),
        *("--log-driver", "none", "--pid", "host", "--workdir", str(Path.cwd())),
        *("--shm-size", str(psutil.virtual_memory().total // 2)),
        *identity,
        *(_GPUS if place.gpus else ()),
        # A rootless engine may raise no limit above the user's own (setrlimit(2)).
        *(_LIMITS if place.gpus and not place.engine.rootless else ()),
        *(word for folder in folders for word in ("--mount", folder.option())),
        *(word for each in _environment(environ, place, inside_home) for word in ("--env", each)),
        *("--entrypoint", "python3"),
        *_users_options(environ),
        place.image.id,
    ]


def bare_arguments(name: str, place: Place, environ: Mapping[str, str]) -> list[str]:
    """Give the arguments for a container that only answers a question about its image.

    It gets no folder, no GPU, no network and nothing of the environment but the user's options,
    which may name a network.

    Raises:
        DockerError: ``LLEM_DOCKER_OPTIONS`` cannot be read.
    """
    options = _users_options(environ)
    named = {word.partition("=")[0] for word in options} & {"--network", "--net"}
    own = {OPTIONS_VARIABLE: environ.get(OPTIONS_VARIABLE, "")}
    verb, *rest = run_arguments(name, place._replace(gpus=False), Path("/tmp"), (), own)  # noqa: S108
    return [verb, *(() if named else ("--network", "none")), *rest]


# Limits: docs.nvidia.com/deeplearning/frameworks/user-guide, "Running A Container"; the variable:
# docs.nvidia.com/datacenter/cloud-native/container-toolkit, "Driver Capabilities".
_LIMITS = ("--ulimit", "memlock=-1", "--ulimit", "stack=67108864")
_GPUS = ("--gpus", "all", "--env", "NVIDIA_DRIVER_CAPABILITIES=compute,utility")


def _environment(environ: Mapping[str, str], place: Place, inside_home: Path) -> Iterator[str]:
    """Yield names, whose values docker takes from its own environment, and settings.

    A value that could be a secret is never on a command line. One that is a path means another
    place in a container; the Hub's folders are mounted at the same one.
    """
    user, (hub_home, hub_cache) = locks.user_name(), _hub_folders(environ)
    given = {
        "HOME": str(inside_home),
        "USER": user,
        "LOGNAME": user,  # torch asks for a name, and most users have none in an image
        "HF_HOME": hub_home,
        "HF_HUB_CACHE": hub_cache,
        device_lock.VARIABLE: LOCKS,
        IMAGE_VARIABLE: place.image.digest,
    }
    for name in sorted(environ):
        wanted = name.startswith(_PASSED_ON) or name in _PASSED_ON_WHOLE
        local = environ[name].startswith(("/", "~"))
        if wanted and not local and name not in (*given, *_OURS):
            yield name
    for name, value in given.items():
        yield f"{name}={value}"


def _users_options(environ: Mapping[str, str]) -> list[str]:
    text = environ.get(OPTIONS_VARIABLE, "")
    try:
        return shlex.split(text)
    except ValueError as error:
        raise DockerError(
            f"${OPTIONS_VARIABLE} cannot be read: {error}", "mend its quotes, as in a shell"
        ) from None
