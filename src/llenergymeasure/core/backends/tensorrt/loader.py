"""How a model is loaded into TensorRT-LLM, and on which GPUs."""

from __future__ import annotations

from pathlib import Path

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.shared.answering import LOADING
from llenergymeasure.core.backends.shared.nvml_devices import (
    NvmlMemory,
    gpu_target,
    memory_use,
)
from llenergymeasure.core.backends.shared.problems import adapter_name
from llenergymeasure.core.backends.shared.processes import EngineProcesses, ended_on_failure
from llenergymeasure.core.backends.tensorrt import problems
from llenergymeasure.core.backends.tensorrt.arguments import WORDS, engine_arguments
from llenergymeasure.core.backends.tensorrt.engine import TensorRTEngine
from llenergymeasure.core.backends.tensorrt.library import (
    ENVIRONMENT,
    TensorRTLibrary,
)
from llenergymeasure.core.models import sources, tokenizers
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.exceptions import ConfigError, Problem


class TensorRTBackend:
    """Loads a checkpoint into ``tensorrt_llm.LLM``."""

    def problems(self, config: ExperimentConfig) -> list[Problem]:
        """List what stops this configuration here; imports neither TensorRT-LLM nor torch."""
        return problems.found(config)

    def target(self, config: ExperimentConfig) -> DeviceTarget:
        """Name the GPUs that will do the work."""
        return gpu_target(config)

    def load(self, config: ExperimentConfig, cache_dir: Path) -> TensorRTEngine:
        """Load model, adapter and tokenizer; autotuning and graph capture are part of it.

        Raises:
            BackendError: Out of memory, or TensorRT-LLM cannot load it; the message names the field
                to change.
            ConfigError: The checkpoint, all of it here by now, is not of this precision.
        """
        source = sources.resolve(config.model, config.revision)
        processes = EngineProcesses("TensorRT-LLM", ENVIRONMENT)
        gpu_uuids = self.target(config).gpu_uuids
        before = memory_use(gpu_uuids)
        with (
            ended_on_failure(processes),
            WORDS.translated("load", config),
            processes.answering("load", LOADING),
        ):
            model = sources.reference(source, cache_dir)
            tokenizer = tokenizers.load_tokenizer(
                model, config.revision, config.trust_remote_code, config.apply_chat_template
            )
            with processes.starting():
                library = TensorRTLibrary(engine_arguments(config, model), adapter_name(config))
            for problem in problems.checkpoint_problems(config, is_here=True):
                raise ConfigError(f"{problem.what}\n    {problem.remedy}", where=problem.where)
            memory = NvmlMemory(gpu_uuids, before)
            return TensorRTEngine(config, library, tokenizer, processes, memory)
