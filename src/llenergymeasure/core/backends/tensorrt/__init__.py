"""The tensorrt backend, TensorRT-LLM's LLM API: what it is, without importing it."""

from __future__ import annotations

from collections.abc import Iterator

from llenergymeasure.config.backend_configs import REMOVED
from llenergymeasure.config.backend_facts import ANSWERS, LEFT_TO_ENGINES, SAMPLING, BackendFacts
from llenergymeasure.config.base import FieldProblem
from llenergymeasure.config.experiment_fields import ExperimentFields
from llenergymeasure.config.names import QUANTISED


def removed_settings(config: ExperimentFields) -> Iterator[FieldProblem]:
    """Refuse what went with the engine builder; results that were stored with it still load."""
    section = config.tensorrt
    for name, field in type(section).model_fields.items() if section else ():
        if field.json_schema_extra == REMOVED and getattr(section, name) is not None:
            what, _, remedy = str(field.description).partition("; ")
            yield FieldProblem(f"tensorrt.{name}", what, remedy)


FACTS = BackendFacts(
    name="tensorrt",
    implementation="llenergymeasure.core.backends.tensorrt.engine:TensorRTBackend",
    section="llenergymeasure.config.backend_configs:TensorRTConfig",
    package="tensorrt-llm",
    module="tensorrt_llm",
    minimum="1.3.0rc29",
    install="pip install 'llenergymeasure[tensorrt]'",
    batch_field="max_batch_size",
    # fp8 and int4 from checkpoints that are quantised: the recipes of its PyTorch executor name no
    # int8, and no fp32. https://nvidia.github.io/TensorRT-LLM/features/quantization.html
    precisions=("fp16", "bf16", "fp8", "int4"),
    # TensorRT-LLM has beam search and drafting models as well; they are not offered here.
    # https://nvidia.github.io/TensorRT-LLM/features/sampling.html
    decoding=("greedy", "sampling"),
    honours=SAMPLING | ANSWERS | {*LEFT_TO_ENGINES},
    quantisation={"fp8": ("fp8",), "int4_awq": ("int4",), "int4_gptq": ("int4",)},
    contradictions=removed_settings,
    neutral={"tp_size": 1, "pp_size": 1},
    # https://nvidia.github.io/TensorRT-LLM/llm-api/reference.html (TorchLlmArgs)
    default_batch=2048,
    pass_tokens=8192,
    shard_fields=("tp_size", "pp_size"),
    differs={
        "scheduling": "requests as they fit, up to {max_batch_size} side by side (in-flight "
        "batching), TTFT from the step in which a request was first scheduled",
        "kv_cache": "taken whole while loading; memory is what NVML shows over that before; "
        "prompts of a pass share beginnings they have in common where enable_block_reuse is true "
        "({enable_block_reuse})",
        "clocks": "first and last token, by TensorRT-LLM; ITL is not told",
        "kernels": "attention by {attn_backend}, batches that change from step to step",
        **dict.fromkeys(QUANTISED, "TensorRT-LLM's method {quantization}"),
        "random_weights": "drawn by TensorRT-LLM from a seed of its own",
        "sampling": "request i by TensorRT-LLM's sampler, from random_seed + i",
        "warm_up": "a warm-up batch is a whole pass; autotuning and graph capture are part of "
        "loading",
    },
    has_dockerfile=True,
)
