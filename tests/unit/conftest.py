"""What holds for unit tests: patience with a busy machine, no engine, and no worker of ours."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("patient", deadline=None, max_examples=25)
settings.register_profile("exhaustive", settings.get_profile("patient"), max_examples=200)
settings.load_profile("patient")

ENGINES = frozenset({"torch", "transformers", "vllm"})
_watching: list[str] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching:
        return
    if event == "import" and arguments[0] in ENGINES and arguments[0] not in sys.modules:
        pytest.fail(f"{_watching[-1]} imports {arguments[0]}: it belongs to tests/integration")
    if event == "subprocess.Popen" and _is_ours(arguments[1]):
        pytest.fail(f"{_watching[-1]} starts {arguments[1]}: it belongs to tests/integration")


def _is_ours(command: Sequence[Any]) -> bool:
    words = [str(word) for word in command]
    return any(
        flag == "-m" and module.startswith("llenergymeasure") for flag, module in pairwise(words)
    )


sys.addaudithook(_watch)


@contextmanager
def watching(name: str) -> Iterator[None]:
    """Fail what starts an engine or a worker in the block."""
    _watching.append(name)
    try:
        yield
    finally:
        _watching.pop()


@pytest.fixture(autouse=True)
def starts_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hold every unit test to what the folder promises."""
    with watching(request.node.name):
        yield
