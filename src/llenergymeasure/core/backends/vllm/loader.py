"""vLLM's offline engine: which devices, and how a model is loaded."""

from __future__ import annotations

from pathlib import Path

from llenergymeasure.config.backend_configs import VLLMConfig
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.shared.answering import LOADING
from llenergymeasure.core.backends.shared.nvml_devices import gpu_target
from llenergymeasure.core.backends.shared.problems import adapter_name, adapter_rank
from llenergymeasure.core.backends.shared.processes import EngineProcesses, ended_on_failure
from llenergymeasure.core.backends.vllm import problems
from llenergymeasure.core.backends.vllm.arguments import ModelFiles, engine_arguments
from llenergymeasure.core.backends.vllm.engine import VLLMEngine
from llenergymeasure.core.backends.vllm.errors import Witness, translated
from llenergymeasure.core.backends.vllm.library import ENVIRONMENT, VLLMLibrary
from llenergymeasure.core.backends.vllm.worker import check_workers
from llenergymeasure.core.models import quantised, sources, tokenizers
from llenergymeasure.core.models.tokenizers import end_tokens
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.exceptions import ConfigError, Problem


class VLLMBackend:
    """Loads a model into ``vllm.LLM``, with its engine core in a process of its own."""

    def problems(self, config: ExperimentConfig) -> list[Problem]:
        """List what stops this configuration here; imports neither vLLM nor torch."""
        on_cpu = problems.is_cpu_build()
        return problems.found(config, _section(config), on_cpu=on_cpu)

    def target(self, config: ExperimentConfig) -> DeviceTarget:
        """Name the GPUs that will do the work, or the CPU."""
        if problems.is_cpu_build():
            return DeviceTarget("cpu")
        return gpu_target(config)

    def load(self, config: ExperimentConfig, cache_dir: Path) -> VLLMEngine:
        """Load model, adapter and tokenizer; compilation and graph capture are part of it.

        Raises:
            BackendError: Out of memory, or vLLM cannot load it; the message names the field to
                change.
            ConfigError: The checkpoint is of another precision.
            ExperimentError: It works on other GPUs than those whose energy is read.
        """
        source, draft = sources.resolve(config.model, config.revision), config.decoder.draft_model
        stated = quantised.of_model(config.model, config.revision)
        files = ModelFiles(
            model=sources.reference(source, cache_dir),
            is_random=source.kind == "random",
            quantised_as=stated and stated.method,
            draft=draft and sources.reference(sources.resolve(draft, None), cache_dir),
            lora_rank=adapter_rank(config),
        )
        processes = EngineProcesses("vLLM", ENVIRONMENT)
        witness = Witness(processes.printed, processes.exit_codes)
        with (
            ended_on_failure(processes),
            translated("load", config, witness),
            processes.answering("load", LOADING),
        ):
            tokenizer = tokenizers.load_tokenizer(
                files.model, config.revision, config.trust_remote_code, config.apply_chat_template
            )
            with processes.starting():
                library = VLLMLibrary(engine_arguments(config, files), adapter_name(config))
            # Looked at again, where all files of a model on the Hub are here.
            stated = quantised.of_model(config.model, config.revision)
            if problem := quantised.disagreement(stated, config.precision):
                raise ConfigError(f"{problem.what}\n    {problem.remedy}", where=problem.where)
            if (target := self.target(config)).kind == "gpu":
                check_workers(library.worker_facts(), target.gpu_uuids)
            ends = end_tokens(source, tokenizer)
            return VLLMEngine(config, library, tokenizer, processes, ends)


def _section(config: ExperimentConfig) -> VLLMConfig:
    return config.vllm or VLLMConfig()
