"""What a configuration means by its model, adapter and engine, told from files on this machine."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from llenergymeasure.config.hashing import canonical_hash
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.tensorrt.arguments import ModelFiles
from llenergymeasure.core.models import sources
from llenergymeasure.core.models.hub import ADAPTER_FILE, CONFIG_FILE, Hub
from llenergymeasure.core.models.sources import ModelSource

QUANTISED_CONFIG = "hf_quant_config.json"  # written by NVIDIA's Model Optimizer


def model_files(config: ExperimentConfig, cache_dir: Path) -> ModelFiles:
    """Say what is to be loaded; makes the directory of a random model.

    Raises:
        ConfigError: A random model cannot be written.
    """
    source = sources.resolve(config.model, config.revision)
    reference = sources.reference(source, cache_dir)
    adapter = adapter_directory(config)
    return ModelFiles(
        model=reference,
        identity=_identity(source, reference),
        is_random=source.kind == "random",
        quantised_as=checkpoint_algorithm(config),
        adapter=str(adapter) if adapter else None,
        adapter_rank=adapter_rank(adapter) if adapter else None,
        adapter_identity=_hash(adapter / ADAPTER_FILE) if adapter else None,
    )


def commit(source: ModelSource) -> str | None:
    """Give the commit of a model on the Hub, where its ``config.json`` is in the cache."""
    if source.kind != "hub":
        return None
    found = Hub().cached(source.name, CONFIG_FILE, source.revision)
    return found.parent.name if found and found.parent.parent.name == "snapshots" else None


def checkpoint_algorithm(config: ExperimentConfig) -> str | None:
    """Name the algorithm that a checkpoint was quantised with, where it says so on this machine."""
    source = sources.resolve(config.model, config.revision)
    if source.path is not None:
        path: Path | None = source.path / QUANTISED_CONFIG
    elif source.kind == "hub":
        path = Hub().cached(source.name, QUANTISED_CONFIG, source.revision)
    else:
        path = None
    stated = (_json(path) if path else {}).get("quantization")
    algorithm = stated.get("quant_algo") if isinstance(stated, dict) else None
    return str(algorithm) if algorithm else None


def adapter_directory(config: ExperimentConfig) -> Path | None:
    """Give the directory of the LoRA adapter, or ``None`` without one."""
    path = config.lora.adapter_path if config.lora else None
    return Path(path).expanduser() if path is not None else None


def adapter_rank(adapter: Path) -> int | None:
    """Read the rank of a LoRA adapter; ``None`` where its configuration states none."""
    rank = _json(adapter / ADAPTER_FILE).get("r")
    return rank if isinstance(rank, int) else None


def _identity(source: ModelSource, reference: str) -> str:
    if source.kind == "hub":
        return f"{source.name}@{commit(source) or source.revision or 'main'}"
    folder = Path(reference)
    if source.kind == "random":  # its name is a hash of what it holds
        return f"random:{folder.name}"
    files = sorted(path for path in folder.iterdir() if path.is_file())
    # Weights by size and time: hashing gigabytes at every load would take too long.
    listed = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    return f"directory:{_hash(folder / CONFIG_FILE)}:{canonical_hash(listed)}"


def _hash(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError:
        return None


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
