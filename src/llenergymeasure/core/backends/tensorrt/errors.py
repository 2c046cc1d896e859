"""What TensorRT-LLM raises, in this package's words."""

from __future__ import annotations

from llenergymeasure.config.backend_configs import TensorRTConfig
from llenergymeasure.core.backends.shared.errors import Words
from llenergymeasure.core.backends.tensorrt.arguments import DECIDED_ELSEWHERE

WORDS = Words(
    "TensorRT-LLM",
    less={
        "load": "lower tensorrt.max_batch_size, max_num_tokens or max_seq_len, raise "
        "tensorrt.tp_size, or choose a smaller model or precision",
        "generate": "lower tensorrt.max_batch_size or tensorrt.max_num_tokens, or leave more "
        "memory free with tensorrt.free_gpu_memory_fraction, e.g. 0.7",
    },
    remedies=(
        ("got invalid argument", "check passthrough_kwargs: TensorRT-LLM does not take it"),
        (
            "extra inputs are not permitted",
            "check passthrough_kwargs: TensorRT-LLM does not take it",
        ),
        ("should not exceed max_seq_len", "raise tensorrt.max_seq_len, or lower max_input_tokens"),
        (
            "should not exceed max_num_tokens",
            "raise tensorrt.max_num_tokens, set tensorrt.enable_chunked_prefill: true, or lower "
            "max_input_tokens",
        ),
        ("unsupported quantization_config", "name a checkpoint of NVIDIA's Model Optimizer"),
        ("trust_remote_code", "set trust_remote_code: true if you trust the model's own code"),
        ("lora", "check that lora names an adapter of this model"),
        ("only supported on sm", "choose another precision; this GPU lacks it"),
        ("unknown architecture", "choose a model that TensorRT-LLM has, or backend: pytorch"),
    ),
    fields={
        **DECIDED_ELSEWHERE,
        "cuda_graph_config": "tensorrt.cuda_graphs",
        "kv_cache_quant_algo": "tensorrt.kv_cache_dtype",
        "quant_algo": "tensorrt.quantization",
        **{name: f"tensorrt.{name}" for name in TensorRTConfig.model_fields},
    },
)
