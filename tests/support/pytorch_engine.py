"""PyTorch engines for tests: one for each configuration, kept for the whole session."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llenergymeasure.core.backends.pytorch.engine import PyTorchEngine
from tests.support.models import OFTEN, load_engine, save_model


class PyTorchEngines:
    """Engines that are loaded when first asked for, and the models they run.

    A test may not change an engine that it gets here, nor close it: they end with the process.

    Args:
        folder: For models and caches; nothing else lies there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._engines: dict[str, PyTorchEngine] = {}
        self.model = save_model(folder / "model")
        """A small Llama that hardly ever ends a sequence."""
        self.stopping = save_model(folder / "stopping", eos_token_id=OFTEN)
        """One that ends about one sequence in twelve tokens."""

    def get(self, model: Path | str, **fields: Any) -> PyTorchEngine:
        """Give the engine of a configuration."""
        key = json.dumps({"model": str(model), **fields}, sort_keys=True)
        if key not in self._engines:
            self._engines[key] = load_engine(self._folder / "cache", model=str(model), **fields)
        return self._engines[key]
