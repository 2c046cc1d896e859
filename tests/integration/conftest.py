"""What tests with real engines share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.isolation import Workers, workers
from tests.support.models import load_engine
from tests.support.pytorch_engine import PyTorchEngines
from tests.support.samples import EXHAUSTIVE

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


@pytest.fixture(params=["forkserver", pytest.param("spawn", marks=EXHAUSTIVE)])
def each(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Workers]:
    """Start workers of a test each way there is, the slow one where all is tested."""
    with workers(tmp_path, request.param, monkeypatch) as made:
        yield made
