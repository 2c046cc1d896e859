"""Where a model comes from: the Hub, a directory, or an architecture with random weights."""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import json
import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from llenergymeasure import plain_files, temporary
from llenergymeasure.config.base import as_unicode
from llenergymeasure.config.canonical import canonical_hash
from llenergymeasure.config.names import PATH_PREFIXES, RANDOM_PREFIX, without_tilde
from llenergymeasure.config.secrets import redact
from llenergymeasure.core.models import catalogue, tokenizer_files
from llenergymeasure.core.models.architecture import ModelArchitecture
from llenergymeasure.core.models.config_json import (
    MOST_BYTES,
    ConfigReader,
    read_object,
    stated_in,
)
from llenergymeasure.core.models.hub import ADAPTER_FILE, CONFIG_FILE, Hub
from llenergymeasure.exceptions import ConfigError, Problem
from llenergymeasure.results import files

# https://huggingface.co/docs/transformers/main_classes/model#transformers.PreTrainedModel
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
_SETTINGS = (
    CONFIG_FILE,
    ADAPTER_FILE,
    "generation_config.json",
    "model.safetensors.index.json",
    *tokenizer_files.NAMES,
)
_HUB = Hub()


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model as a configuration names it.

    Attributes:
        kind: ``hub``, ``directory`` with weights, or ``random`` weights.
        name: Hub id, directory, or architecture, without the ``random:``.
        path: The directory, or ``None`` for the Hub and for the catalogue.
        revision: Branch, tag or commit on the Hub, or ``None``.
    """

    kind: Literal["hub", "directory", "random"]
    name: str
    path: Path | None = None
    revision: str | None = None


def resolve(model: str, revision: str | None = None) -> ModelSource:
    """Say what the name of a model stands for; nothing is opened.

    ``random:`` before a catalogue name or a directory means random weights. A directory that
    exists, or a name that begins like a path, is a directory; all else is an id on the Hub.
    """
    if model.startswith(RANDOM_PREFIX):
        name = model.removeprefix(RANDOM_PREFIX)
        in_catalogue = name in catalogue.names() and not name.startswith(PATH_PREFIXES)
        known = in_catalogue or not name
        return ModelSource("random", name, None if known else _as_directory(name))
    path = _as_directory(model)
    if path is not None:
        return ModelSource("directory", model, path)
    return ModelSource("hub", model, revision=revision)


def model_problems(
    model: str, revision: str | None = None, *, hub: Hub = _HUB, tokenizer: Path | None = None
) -> list[Problem]:
    """List what stops a model from being loaded here.

    For a model on the Hub this fetches its ``config.json``, unless it is cached.

    Args:
        model: As the configuration names it.
        revision: Branch, tag or commit on the Hub.
        hub: The Hub to ask.
        tokenizer: Directory of the tokenizer for random models; by default the packaged one.
    """
    source = resolve(model, revision)
    if source.kind == "hub" and (problem := hub.problem(source.name, revision)):
        return [problem]
    problem = _missing(source)
    if problem is None and source.path is not None:
        problem = unreadable(source.path)
    if problem is not None:
        return [problem]
    if source.kind == "directory" and revision is not None:
        what = f"has no effect on the local directory '{model}'"
        return [Problem(what, "revision", "remove it")]
    try:
        config = read_config(source, hub)
        if source.kind == "random":
            vocabulary = ModelArchitecture.from_config(config or {}).vocabulary
            if source.path is None or not tokenizer_files.own_files(source.path):
                entries = (tokenizer or tokenizer_files.packaged()) / "tokenizer.json"
                tokenizer_files.check_fits(read_object(entries), vocabulary)
    except ConfigError as error:
        place = f"{source.path}/{CONFIG_FILE}" if source.path else f"{CONFIG_FILE} of {source.name}"
        remedy = f"mend {place}, or name another model"
        if source.kind == "random" and source.path is None:
            known = ", ".join(catalogue.names())
            remedy = f"use one of {known}, or a directory with a {CONFIG_FILE}"
        return [Problem(error.message, "model", remedy)]
    return []


def unreadable(folder: Path) -> Problem | None:
    """Find what an engine would read without end: a pipe, a device, settings of gigabytes.

    Args:
        folder: The directory of a model or an adapter.
    """
    path = folder
    try:
        for path in sorted(folder.iterdir()):
            if plain_files.kind_of(path) or (path.name in _SETTINGS and path.is_file()):
                plain_files.opened(path, MOST_BYTES).close()
    except (OSError, ValueError) as error:  # the latter of a name with a NUL
        said = getattr(error, "strerror", error)
        return Problem(f"cannot read {path}: {said}", "model", f"mend {path}")
    return None


def adapter_problems(adapter_id: str, *, hub: Hub = _HUB) -> list[Problem]:
    """List what stops an adapter on the Hub from being loaded here.

    Its ``adapter_config.json`` is fetched, unless it is cached: engines make room by what it says.
    """
    problem = hub.problem(adapter_id, None, ADAPTER_FILE)
    return [replace(problem, where="lora.adapter_id")] if problem else []


def weight_problems(model: str) -> list[Problem]:
    """Find a directory that describes a model and holds none of its weights."""
    source = resolve(model)
    if source.kind != "directory" or source.path is None or _missing(source):
        return []
    if any(path.suffix in WEIGHTS for path in source.path.rglob("*")):
        return []
    own = model if model.startswith(PATH_PREFIXES) else f"./{model}"
    return [
        Problem(
            f"the directory '{model}' has a {CONFIG_FILE} and no weights",
            "model",
            f"put them there, or use model: {RANDOM_PREFIX}{own} to measure its shape with random "
            "weights",
        )
    ]


def vocabulary_problems(model: str, revision: str | None = None) -> list[Problem]:
    """Find that a tokenizer, where it is on this machine, has tokens that the model has not."""
    source = resolve(model, revision)
    if source.kind != "hub" and (source.path is None or _missing(source)):
        return []  # of the catalogue: its tokenizer is made to fit
    data, settings = (
        stated_in(file_of(source, name)) for name in ("tokenizer.json", "tokenizer_config.json")
    )
    try:
        rows = ConfigReader.of(read_config(source) or {}).find("vocabulary")
        largest = tokenizer_files.outside(data, settings, rows) if data and rows else None
    except (ConfigError, LookupError, TypeError, AttributeError):  # of a kind not known here
        largest = None
    if largest is None:
        return []
    return [
        Problem(
            f"the tokenizer of '{model}' has tokens up to number {largest}, and the model's table "
            f"of {rows} embeddings (vocab_size) does not",
            "model",
            f"put the tokenizer files that belong to its {CONFIG_FILE} beside it, or name another "
            "model",
        )
    ]


def template_problems(model: str, *, for_chats: bool = False) -> list[Problem]:
    """Find that a model whose tokenizer is on this machine has no chat template.

    Args:
        model: Its name.
        for_chats: Whether it is chats of the dataset that need one.
    """
    source = resolve(model)
    if source.kind == "hub" or _missing(source):
        return []
    folder = source.path
    if folder is None or (source.kind == "random" and not tokenizer_files.own_files(folder)):
        folder = tokenizer_files.packaged()
    if tokenizer_files.has_chat_template(folder):
        return []
    what = f"the tokenizer of '{model}' has no chat template"
    if for_chats:
        remedy = (
            "choose an instruction-tuned model, or name a column of plain text: dataset: {path: "
            "..., column: ...}"
        )
        return [Problem(f"it holds chats, and {what}", "dataset", remedy)]
    remedy = "remove it, or choose an instruction-tuned model"
    return [Problem(what, "apply_chat_template", remedy)]


def read_config(source: ModelSource, hub: Hub = _HUB) -> dict[str, Any] | None:
    """Read the ``config.json`` of a model without the network; ``None`` when it is not here.

    Raises:
        ConfigError: The file cannot be read, or the architecture is not in the catalogue.
    """
    if source.kind == "random" and source.path is None:
        return catalogue.config(source.name)
    path = file_of(source, CONFIG_FILE, hub)
    return None if path is None else read_object(path)


def file_of(source: ModelSource, name: str, hub: Hub = _HUB) -> Path | None:
    """Locate a file of a model without the network: in its directory, or in the Hub's cache."""
    if source.path is not None:
        return source.path / name
    return hub.cached(source.name, name, source.revision)


def architecture_of(source: ModelSource, hub: Hub = _HUB) -> ModelArchitecture | None:
    """Give the shape of a model without the network.

    Returns:
        The shape, or ``None`` when its configuration is not on this machine, cannot be read, or
        does not describe a decoder-only transformer.
    """
    try:
        config = read_config(source, hub)
        return None if config is None else ModelArchitecture.from_config(config)
    except ConfigError:
        return None


def commit_of(source: ModelSource, hub: Hub = _HUB) -> str | None:
    """Give the commit of a model on the Hub, where its ``config.json`` is in the cache."""
    if source.kind != "hub":
        return None
    return hub.commit(source.name, source.revision)


def reference(source: ModelSource, cache_dir: Path) -> str:
    """Give what an engine is told to load: a Hub id, or a directory.

    Raises:
        ConfigError: A random model cannot be written.
    """
    return source.name if source.kind == "hub" else plain_path(materialise(source, cache_dir))


Stamped = tuple[Path, int, int]
"""A file, when it was written (ns), and its size: what is read of it is known by them."""


def stamped(path: Path) -> Stamped:
    """Tell a file from what it was before it was changed.

    Raises:
        OSError: It is not there.
    """
    stat = path.stat()
    return path, stat.st_mtime_ns, stat.st_size


def plain_path(path: Path) -> str:
    """Give a path that every engine takes: parts of them read UTF-8 only.

    A path in another encoding is given through a link, which is gone when this process ends.
    """
    text = str(path)
    if as_unicode(text) == text:
        return text
    place = tempfile.gettempdir()
    if as_unicode(place) != place:
        place = "/tmp"  # noqa: S108 - a folder of our own is made in it
    until_exit = contextlib.ExitStack()
    atexit.register(until_exit.close)
    link = until_exit.enter_context(temporary.folder("link", Path(place))) / "model"
    link.symlink_to(path.absolute())
    return str(link)


def materialise(source: ModelSource, cache_dir: Path, *, tokenizer: Path | None = None) -> Path:
    """Make the directory of a random model: its configuration and a tokenizer, no weights.

    Several processes may do so at once. A directory with weights is given as it is.

    Args:
        source: A random model or a directory.
        cache_dir: The directory is made in ``random/`` below it.
        tokenizer: Directory of the tokenizer to pad; by default the packaged one.

    Raises:
        ConfigError: The architecture cannot be read, has a smaller vocabulary than the packaged
            tokenizer and none of its own, or is on the Hub, where engines fetch models themselves.
    """
    if source.kind == "directory" and source.path is not None:
        return source.path
    config = read_config(source) if source.kind == "random" else None
    if config is None:
        raise ConfigError(f"'{source.name}' is on the Hub; load it by its id", where="model")
    folder = tokenizer or tokenizer_files.packaged()
    own = tokenizer_files.own_files(source.path) if source.path else []
    if not own:
        config = {**config, **tokenizer_files.special_ids(folder)}
    found = own or tokenizer_files.own_files(folder)
    inputs = {path.name: plain_files.read(path, MOST_BYTES) for path in found}
    contents = {name: content.hex() for name, content in inputs.items()}
    # Behind a link there may be any name.
    stem = redact(source.path.resolve().name).replace("*", "-") if source.path else source.name
    target = cache_dir / "random" / f"{stem}-{canonical_hash([config, contents])}"
    if (target / CONFIG_FILE).exists():  # it is written last
        return target
    if not own:
        vocabulary = ModelArchitecture.from_config(config).vocabulary
        entries = tokenizer_files.padded(inputs["tokenizer.json"].decode(), vocabulary)
        settings = tokenizer_files.padded_settings(inputs["tokenizer_config.json"].decode())
        inputs["tokenizer.json"] = entries.encode()
        inputs["tokenizer_config.json"] = settings.encode()
    target.mkdir(parents=True, exist_ok=True)
    files.remove_unfinished(target)
    inputs[CONFIG_FILE] = json.dumps(config, indent=2).encode()
    for name, content in inputs.items():
        files.replace(target / name, functools.partial(shutil.copyfileobj, io.BytesIO(content)))
    return target


def _as_directory(name: str) -> Path | None:
    path = without_tilde(name)
    # Of a name too long for a file Path raises.
    there = name.startswith(PATH_PREFIXES) or os.path.isdir(path)  # noqa: PTH112
    return path if there else None


def _missing(source: ModelSource) -> Problem | None:
    if not source.name:
        return Problem(
            f"model: {RANDOM_PREFIX} names no architecture",
            "model",
            f"write one behind it: {', '.join(catalogue.names())}, or a directory with a "
            f"{CONFIG_FILE}",
        )
    if source.path is None:
        return None
    prefix = RANDOM_PREFIX if source.kind == "random" else ""
    if not os.path.isdir(source.path):  # noqa: PTH112 - as above
        return Problem(
            f"the directory '{source.name}' does not exist",
            "model",
            f"correct the path in model: {prefix}{source.name} (seen from {Path.cwd()})",
        )
    place = source.path / CONFIG_FILE
    if not (place.is_file() or plain_files.kind_of(place)):
        return Problem(
            f"the directory '{source.name}' has no {CONFIG_FILE}",
            "model",
            f"name a directory that holds a transformers model, with its {CONFIG_FILE}",
        )
    return None
