"""What an engine's ``config.json`` says about it; needs no library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from llenergymeasure.exceptions import ConfigError

ENGINE_CONFIG = "config.json"


class EngineFacts(NamedTuple):
    """An engine that was built (``EngineConfig`` of ``tensorrt_llm/builder.py``).

    Attributes:
        directory: Where it lies.
        version: TensorRT-LLM that built it.
        dtype: Type it computes in.
        quant_algo: How its weights are quantised, or ``None``.
        tp_size: GPUs a layer is split over.
        pp_size: GPUs the stack of layers is split over.
        max_batch_size: Most requests at once.
        max_seq_len: Longest context, input and output.
        max_input_len: Longest prompt.
        max_num_tokens: Most tokens of one step.
        kv_cache_type: Layout of its KV cache, in lower case.
    """

    directory: Path
    version: str | None
    dtype: str | None
    quant_algo: str | None
    tp_size: int
    pp_size: int
    max_batch_size: int | None = None
    max_seq_len: int | None = None
    max_input_len: int | None = None
    max_num_tokens: int | None = None
    kv_cache_type: str | None = None

    @property
    def world_size(self) -> int:
        """How many GPUs it runs on."""
        return self.tp_size * self.pp_size


def read_engine(directory: Path) -> EngineFacts:
    """Read what an engine is.

    Raises:
        ConfigError: There is no engine, or its configuration cannot be read.
    """
    path = directory / ENGINE_CONFIG
    try:
        return _facts(directory, json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", where=str(path)) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(
            f"{path} describes no TensorRT-LLM engine (pretrained_config, build_config)",
            where=str(path),
        ) from None


def _facts(directory: Path, config: Mapping[str, Any]) -> EngineFacts:
    model, build = config["pretrained_config"], config["build_config"]
    mapping = model.get("mapping") or {}
    layout = build.get("kv_cache_type")
    return EngineFacts(
        directory=directory,
        version=config.get("version"),
        dtype=model.get("dtype"),
        quant_algo=(model.get("quantization") or {}).get("quant_algo"),
        tp_size=int(mapping.get("tp_size", 1)),
        pp_size=int(mapping.get("pp_size", 1)),
        max_batch_size=build.get("max_batch_size"),
        max_seq_len=build.get("max_seq_len"),
        max_input_len=build.get("max_input_len"),
        max_num_tokens=build.get("max_num_tokens"),
        kv_cache_type=str(layout).lower() if layout else None,
    )
