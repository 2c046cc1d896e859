"""Engines that were built, kept under a key of everything that shapes one.

An engine is built beside its place, under a lock, and put there by a rename; its record is written
last, so a directory without one, or with files of other sizes than it states, is damaged.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from llenergymeasure.config.hashing import canonical_hash
from llenergymeasure.core.backends.tensorrt.arguments import ModelFiles
from llenergymeasure.core.backends.tensorrt.facts import ENGINE_CONFIG

RECORD = "llenergymeasure.json"
Build = Callable[[Path], None]


class Toolchain(NamedTuple):
    """What an engine is bound to besides its model.

    Attributes:
        version: Of TensorRT-LLM.
        gpu: Names and compute capabilities of the GPUs.
    """

    version: str
    gpu: tuple[str, ...]


class CachedEngine(NamedTuple):
    """An engine that is ready to be served.

    Attributes:
        directory: Where it lies.
        build_s: Time its build took, whenever that was; ``None`` for one built by somebody else.
        built_now: Whether it was built just now.
    """

    directory: Path
    build_s: float | None
    built_now: bool


def engine_design(
    arguments: Mapping[str, Any], files: ModelFiles, toolchain: Toolchain
) -> dict[str, Any]:
    """Collect everything that shapes an engine.

    These are the arguments of its build (precision, quantisation, parallel sizes, most requests and
    tokens, KV cache, adapter, passthrough_kwargs), what the model's files hold, TensorRT-LLM's
    version, and the GPUs. ``random_seed`` is not among them: it shapes no engine, and made-up
    weights come from a seed of TensorRT-LLM's own.
    """
    placeless = {name: value for name, value in arguments.items() if name not in _PLACES}
    shape = {**arguments["build_config"]}
    if files.adapter is not None:
        shape["lora_config"] = {**shape["lora_config"], "lora_dir": [files.adapter_identity]}
    return {
        **placeless,
        "build_config": shape,
        "model": files.identity,
        "tensorrt_llm": toolchain.version,
        "gpu": list(toolchain.gpu),
    }


# Where files lie says nothing about what they hold; ModelFiles.identity does.
_PLACES = ("model", "tokenizer", "build_config", "revision", "tokenizer_revision")


class EngineCache:
    """The engines below a directory.

    Args:
        root: Made when needed.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def obtain(self, design: Mapping[str, Any], build: Build) -> CachedEngine:
        """Give the engine of a design; build it where there is none, or a damaged one.

        One process at a time builds a design; others wait for it.

        Args:
            design: What :func:`engine_design` gave.
            build: Writes the engine to the directory it is given, which does not exist yet.

        Raises:
            OSError: The cache cannot be written.
        """
        key = canonical_hash(design)
        place = self._root / key
        self._root.mkdir(parents=True, exist_ok=True)
        with _locked(self._root / f"{key}.lock"):
            if (found := _intact(place, design)) is not None:
                return found
            self._sweep(key)
            return self._built(place, design, build)

    def _built(self, place: Path, design: Mapping[str, Any], build: Build) -> CachedEngine:
        scratch = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=self._root))
        try:
            start_s = time.monotonic()
            build(scratch / "engine")
            build_s = time.monotonic() - start_s
            _seal(scratch / "engine", design, build_s)
            (scratch / "engine").rename(place)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return CachedEngine(place, build_s, built_now=True)

    def _sweep(self, key: str) -> None:
        """Remove a damaged engine and what builds that were killed left; the lock is held."""
        for left in (self._root / key, *self._root.glob(f".{key}.*")):
            shutil.rmtree(left, ignore_errors=True)


def _seal(engine: Path, design: Mapping[str, Any], build_s: float) -> None:
    record = {"design": design, "build_s": build_s, "files": _sizes(engine)}
    (engine / RECORD).write_text(json.dumps(record, indent=2), encoding="utf-8")


def _intact(place: Path, design: Mapping[str, Any]) -> CachedEngine | None:
    try:
        record = json.loads((place / RECORD).read_text(encoding="utf-8"))
        same = record["design"] == json.loads(json.dumps(design))
        whole = record["files"] == _sizes(place) and ENGINE_CONFIG in record["files"]
        build_s = float(record["build_s"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return CachedEngine(place, build_s, built_now=False) if same and whole else None


def _sizes(engine: Path) -> dict[str, int]:
    """Size of every file, by its path; hashing gigabytes at every load would take too long."""
    files = sorted(path for path in engine.rglob("*") if path.is_file() and path.name != RECORD)
    return {str(path.relative_to(engine)): path.stat().st_size for path in files}


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that the system gives back when this process ends, however it does."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that builds this engine ({path})")  # noqa: T201
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
