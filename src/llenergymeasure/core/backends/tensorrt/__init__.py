"""The tensorrt backend, TensorRT-LLM's LLM API: what it is, without importing it."""

from llenergymeasure.config.backend_facts import LEFT_TO_ENGINES, SAMPLING, BackendFacts

FACTS = BackendFacts(
    name="tensorrt",
    implementation="llenergymeasure.core.backends.tensorrt.loader:TensorRTBackend",
    section="llenergymeasure.config.backend_configs:TensorRTConfig",
    package="tensorrt-llm",
    module="tensorrt_llm",
    minimum="1.0",
    install="pip install 'llenergymeasure[tensorrt]'",
    batch_field="max_batch_size",
    # https://nvidia.github.io/TensorRT-LLM/reference/precision.html
    precisions=("fp16", "bf16", "int8", "fp8", "int4"),
    decoding=("greedy", "sampling"),
    honours=SAMPLING
    | {
        "decoder.repetition_penalty",
        "decoder.min_new_tokens",
        "decoder.ignore_eos",
        *LEFT_TO_ENGINES,
    },
    # https://nvidia.github.io/TensorRT-LLM/reference/precision.html
    quantisation={
        "fp8": ("fp8",),
        "int8_sq": ("int8",),
        "int8_wo": ("int8",),
        "int4_awq": ("int4",),
        "int4_gptq": ("int4",),
        "int4_wo": ("int4",),
    },
    neutral={"tp_size": 1, "pp_size": 1},
    # https://nvidia.github.io/TensorRT-LLM/llm-api/reference.html (max_batch_size, max_num_tokens)
    default_batch=2048,
    pass_tokens=8192,
    shard_fields=("tp_size", "pp_size"),
    differs={
        "scheduling": "requests as they fit, up to {max_batch_size} side by side (in-flight "
        "batching), TTFT from the step in which a request was first scheduled",
        "kv_cache": "taken whole while loading; memory is what NVML shows over that before",
        "clocks": "first and last token, by TensorRT-LLM; ITL is not told",
        "kernels": "chosen when the engine was built, batches that change from step to step",
        "int8": "TensorRT-LLM's method {quantization}",
        "int4": "TensorRT-LLM's method {quantization}",
        "fp8": "TensorRT-LLM's method {quantization}",
        "random_weights": "drawn by TensorRT-LLM from a seed of its own",
        "sampling": "request i by TensorRT-LLM's sampler, from random_seed + i",
        "warm_up": "a warm-up batch is a whole pass; the engine is built before it is loaded",
    },
    has_dockerfile=True,
)
