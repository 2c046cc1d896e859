"""TensorRT-LLM's engines: which devices, how one is built or found, and how it is loaded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from llenergymeasure.config.backend_configs import TensorRTConfig
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.plugins import installed_version
from llenergymeasure.config.registry import backend_entry
from llenergymeasure.core.backends.shared.nvml_devices import Device, memory_use, visible_devices
from llenergymeasure.core.backends.tensorrt import problems
from llenergymeasure.core.backends.tensorrt.arguments import (
    EngineTokens,
    ModelFiles,
    build_arguments,
    serving_arguments,
)
from llenergymeasure.core.backends.tensorrt.build import build_apart
from llenergymeasure.core.backends.tensorrt.cache import (
    CachedEngine,
    EngineCache,
    Toolchain,
    engine_design,
)
from llenergymeasure.core.backends.tensorrt.engine import (
    DeviceMemory,
    LoadedEngine,
    TensorRTEngine,
)
from llenergymeasure.core.backends.tensorrt.errors import translated
from llenergymeasure.core.backends.tensorrt.facts import read_engine
from llenergymeasure.core.backends.tensorrt.library import TensorRTLibrary
from llenergymeasure.core.backends.tensorrt.model import model_files
from llenergymeasure.core.backends.tensorrt.processes import MarkedProcesses
from llenergymeasure.core.models import sources, tokenizers
from llenergymeasure.core.models.ends import end_tokens
from llenergymeasure.core.models.tokenizers import HFTokenizer
from llenergymeasure.domain.target import DeviceTarget
from llenergymeasure.exceptions import ConfigError, Problem

CACHE_FOLDER = "tensorrt"


class TensorRTBackend:
    """Builds a TensorRT engine, or finds one, and loads it into ``LLM``."""

    def problems(self, config: ExperimentConfig) -> list[Problem]:
        """List what stops this configuration here; imports neither TensorRT-LLM nor torch."""
        return problems.found(config, _section(config))

    def target(self, config: ExperimentConfig) -> DeviceTarget:
        """Name the GPUs that will do the work."""
        return DeviceTarget("gpu", tuple(device.uuid for device in _devices(config)))

    def load(self, config: ExperimentConfig, cache_dir: Path) -> TensorRTEngine:
        """Load the engine of a model, built first where the cache has none.

        Raises:
            BackendError: Out of memory, or TensorRT-LLM cannot build or load it; the message names
                the field to change.
        """
        with translated("load", config):
            files = model_files(config, cache_dir)
            tokenizer = tokenizers.load_tokenizer(
                files.model, config.revision, config.trust_remote_code, config.apply_chat_template
            )
            cached = _engine(config, files, cache_dir)
        return _loaded(config, files, tokenizer, cached)


def _section(config: ExperimentConfig) -> TensorRTConfig:
    return config.tensorrt or TensorRTConfig()


def _devices(config: ExperimentConfig) -> tuple[Device, ...]:
    """List the GPUs that do the work: the first that CUDA sees; none where they cannot be told."""
    try:
        return visible_devices()[: problems.world_size(_section(config))]
    except (LookupError, ConfigError):
        return ()


def _engine(config: ExperimentConfig, files: ModelFiles, cache_dir: Path) -> CachedEngine:
    """Find the engine, or build it."""
    given = _section(config).engine_path
    if given is not None:
        return CachedEngine(Path(given).expanduser(), None, built_now=False)
    arguments = build_arguments(config, files)
    version = installed_version(backend_entry("tensorrt")) or "unknown"
    boards = tuple(device.architecture for device in _devices(config))
    design = engine_design(arguments, files, Toolchain(version, boards))
    cache = EngineCache(cache_dir / CACHE_FOLDER)
    return cache.obtain(design, lambda directory: build_apart(arguments, directory))


def _loaded(
    config: ExperimentConfig, files: ModelFiles, tokenizer: HFTokenizer, cached: CachedEngine
) -> TensorRTEngine:
    gpu_uuids = tuple(device.uuid for device in _devices(config))
    before, processes = memory_use(gpu_uuids), MarkedProcesses()
    with _ended_on_failure(processes), translated("load", config, str(cached.directory)):
        facts = read_engine(cached.directory)
        with processes.starting():
            library = TensorRTLibrary(serving_arguments(config, files, facts), files.adapter)
        tokens = _tokens(config, tokenizer)
        loaded = LoadedEngine(library, tokenizer, processes, facts, cached, tokens, gpu_uuids)
        return TensorRTEngine(config, loaded, DeviceMemory(gpu_uuids, before))


def _tokens(config: ExperimentConfig, tokenizer: HFTokenizer) -> EngineTokens:
    ends = end_tokens(sources.resolve(config.model, config.revision), tokenizer)
    pad = tokenizer.inner.pad_token_id
    return EngineTokens(ends, min(ends, default=0) if pad is None else pad)


@contextlib.contextmanager
def _ended_on_failure(processes: MarkedProcesses) -> Iterator[None]:
    """End the processes of an engine that could not be loaded, for whatever reason."""
    try:
        yield
    except BaseException:
        processes.end()
        raise
