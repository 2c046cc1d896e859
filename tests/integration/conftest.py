"""What tests with real engines share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.models import load_engine
from tests.support.pytorch_engine import PyTorchEngines

if TYPE_CHECKING:
    from llenergymeasure.core.backends.pytorch.engine import PyTorchEngine


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> PyTorchEngines:
    """Keep PyTorch engines by their configuration, for tests that leave them as they are."""
    return PyTorchEngines(tmp_path_factory.mktemp("engines"))


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Callable[..., PyTorchEngine]]:
    """Load PyTorch engines of a test's own, which are closed after it."""
    loaded: list[PyTorchEngine] = []

    def make(model: Path | str, **fields: Any) -> PyTorchEngine:
        loaded.append(load_engine(tmp_path, model=str(model), **fields))
        return loaded[-1]

    yield make
    for engine in loaded:
        engine.close()
