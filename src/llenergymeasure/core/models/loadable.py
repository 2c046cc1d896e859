"""What a model's files tell before anything loads: whether a loader takes it, and its tensors.

The types that a causal loader takes are read from the source of transformers, since importing it
takes a second and brings torch. Names and shapes of a checkpoint's tensors stand at the head of its
safetensors files (https://huggingface.co/docs/safetensors, "Format").
"""

from __future__ import annotations

import functools
import importlib.util
import json
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from llenergymeasure import plain_files
from llenergymeasure.config.plain_words import shown
from llenergymeasure.core.models import sources
from llenergymeasure.core.models.config_json import stated_in
from llenergymeasure.core.models.sources import ModelSource, Stamped, stamped
from llenergymeasure.exceptions import ConfigError, Problem

_OWN = {"AutoConfig", "AutoModelForCausalLM"}
_SOURCES = ("auto_mappings.py", "configuration_auto.py", "modeling_auto.py")
_TABLES = (
    "CONFIG_MAPPING_NAMES",
    "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
)
_INDEX, _WHOLE = "model.safetensors.index.json", "model.safetensors"
_LONGEST_HEADER = 100_000_000  # bytes, as safetensors itself has it
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


class Types(NamedTuple):
    """Model types that transformers knows.

    Attributes:
        known: All of them.
        causal: Those that ``AutoModelForCausalLM`` takes, encoders and halves of models included.
        seq2seq: Encoder-decoder models, and what else answers in text to other input.
        masked: Those that fill in masked words: encoders, unless they are told to decode.
    """

    known: frozenset[str]
    causal: frozenset[str]
    seq2seq: frozenset[str]
    masked: frozenset[str]


@functools.cache
def known_types() -> Types | None:
    """Read the tables of the transformers that is installed; ``None`` where there is none."""
    spec = importlib.util.find_spec("transformers")
    for folder in (spec and spec.submodule_search_locations) or ():
        paths = (Path(folder, "models", "auto", name) for name in _SOURCES)
        text = "\n".join(path.read_text("utf-8") for path in paths if path.is_file())
        tables = (_table(name, text) for name in _TABLES)
        return Types(*tables)
    return None


def _table(name: str, text: str) -> frozenset[str]:
    start = rf"^{name}(?: = OrderedDict[^\n]*|\.update)\(\n"
    bodies = re.findall(rf"{start}(.*?)^\)", text, re.M | re.S)
    kinds = (re.findall(r'\(\s*"([^"]+)",|^\s+"([^"]+)":', body, re.M) for body in bodies)
    return frozenset(one or other for found in kinds for one, other in found)


def kind_problem(
    config: Mapping[str, Any],
    types: Types,
    *,
    trusted: bool,
    others: Collection[str] | None = (),
) -> Problem | None:
    """Say why a causal loader takes no such model, or takes half of one.

    Args:
        config: Its ``config.json``.
        types: What transformers knows.
        trusted: Whether code that comes with it may run.
        others: Types that the engine takes beside the causal ones of transformers; ``None`` where
            nobody knows, which leaves all of them to it.
    """
    kind, own = shown(str(config.get("model_type") or "")), config.get("auto_map")
    brings_code = isinstance(own, Mapping) and not _OWN.isdisjoint(own)
    if brings_code and trusted:
        return None  # what it is only its code knows
    if (what := _no_decoder(kind, config, types)) is not None:
        return _of_another_kind(what)
    # Of engines with types of their own, plugins may bring more.
    left_to_it = others is None or kind in others or (others and not brings_code)
    if not kind or kind in types.causal or left_to_it:
        return None
    if brings_code:
        return Problem(
            f"the model type '{kind}' comes with code of its own (auto_map in its config.json), "
            "which may not run",
            "trust_remote_code",
            "read that code, and set trust_remote_code: true if you trust it",
        )
    if kind in types.known:
        return _of_another_kind(f"transformers has no causal language model of the type '{kind}'")
    return Problem(
        f"the transformers that is installed does not know the model type '{kind}'",
        "model",
        "pip install --upgrade transformers, or name another model",
    )


def _no_decoder(kind: str, config: Mapping[str, Any], types: Types) -> str | None:
    """Say that a model does more, or other, than to continue text."""
    stated = config.get("is_encoder_decoder")
    half = kind in types.causal and (stated if isinstance(stated, bool) else kind in types.seq2seq)
    if half:
        return f"'{kind}' is an encoder-decoder model, of which a causal loader takes the decoder"
    if stated is True:
        return f"'{kind}' is an encoder-decoder model"
    decodes = config.get("is_decoder") or config.get("causal")  # the latter is XLM's
    if kind in types.masked - types.seq2seq and not decodes:
        return f"'{kind}' is an encoder: it fills in words, and generates no text"
    return None


def _of_another_kind(what: str) -> Problem:
    return Problem(
        what, "model", "name a decoder-only language model: one that continues its prompt"
    )


class Tensor(NamedTuple):
    """What a checkpoint says of one of its tensors.

    Attributes:
        dtype: Type of its elements, as safetensors names it, such as ``BF16``.
        shape: Its shape.
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)


def tensors(source: ModelSource) -> dict[str, Tensor] | None:
    """Read which tensors a checkpoint has, from the heads of its files on this machine.

    Returns:
        Them by name; ``None`` where it has no safetensors files, or not all of them are here.
    """
    checkpoint = _checkpoint(source)
    return None if checkpoint is None else checkpoint[0]


def elements(source: ModelSource, dtypes: Collection[str]) -> int | None:
    """Count the elements of a checkpoint's tensors of some types; ``None`` as :func:`tensors`."""
    checkpoint = _checkpoint(source)
    return None if checkpoint is None else sum(checkpoint[1][dtype] for dtype in dtypes)


def _checkpoint(source: ModelSource) -> tuple[dict[str, Tensor], Counter[str]] | None:
    if source.kind == "random":
        return None
    try:
        index = sources.file_of(source, _INDEX)
        names: tuple[str, ...] = (_WHOLE,)
        if index is not None and index.is_file():
            names = _names(stamped(index)) or names
        paths = [sources.file_of(source, name) for name in names]
        return _heads(tuple(stamped(path) for path in paths if path)) if all(paths) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


# A study asks for each of its configurations, and a mixture of experts has 100,000 tensors.
@functools.lru_cache(maxsize=8)
def _names(index: Stamped) -> tuple[str, ...]:
    weights = stated_in(index[0]).get("weight_map")
    return tuple(sorted({*map(str, weights.values())})) if isinstance(weights, dict) else ()


@functools.lru_cache(maxsize=8)
def _heads(files: tuple[Stamped, ...]) -> tuple[dict[str, Tensor], Counter[str]]:
    """Give the tensors of all files, and how many elements there are of each type."""
    found: dict[str, Tensor] = {}
    for path, _, _ in files:
        found |= _head(path)
    counts: Counter[str] = Counter()
    for one in found.values():
        counts[one.dtype] += one.elements
    return found, counts


def _head(path: Path) -> dict[str, Tensor]:
    with plain_files.opened(path) as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _LONGEST_HEADER:
            raise ValueError(path)
        entries = json.loads(file.read(length))
    return {
        name: Tensor(entry["dtype"], tuple(entry["shape"]))
        for name, entry in entries.items()
        if name != "__metadata__"
    }


class Compared(NamedTuple):
    """Parameters of a loaded model beside the tensors of its checkpoint.

    Attributes:
        missing: Those that the checkpoint lacks, though it has their like in other layers.
        elsewhere: Those it has under no such name: renamed by the engine, made by it, or lacking.
    """

    missing: tuple[str, ...]
    elsewhere: tuple[str, ...]


def compared(parameters: Iterable[str], names: Collection[str]) -> Compared:
    """Hold the parameters of a model against the tensors of its checkpoint.

    Args:
        parameters: Their names, as checkpoints of this family have them.
        names: Of the checkpoint's tensors.
    """
    alike = {_NUMBER.sub("#", name) for name in names}
    absent = sorted({*parameters} - {*names})
    missing = tuple(name for name in absent if _NUMBER.sub("#", name) in alike)
    return Compared(missing, tuple(name for name in absent if name not in missing))


def config_of(source: ModelSource) -> dict[str, Any]:
    """Read a model's ``config.json`` where it is on this machine and can be read; else nothing."""
    try:
        return sources.read_config(source) or {}
    except ConfigError:
        return {}
