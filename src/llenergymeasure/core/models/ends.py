"""Which tokens end a sequence: one answer for every engine, from the model's own files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llenergymeasure.core.models import sources
from llenergymeasure.core.models.hub import Hub
from llenergymeasure.core.models.sources import ModelSource
from llenergymeasure.core.models.tokenizers import HFTokenizer
from llenergymeasure.exceptions import ConfigError

GENERATION_CONFIG = "generation_config.json"


def end_tokens(source: ModelSource, tokenizer: HFTokenizer) -> tuple[int, ...]:
    """Collect the ids that end a sequence, ascending.

    Every ``eos_token_id`` of ``generation_config.json``, of ``config.json`` (and of the text model
    in it) and of the tokenizer: a chat model often states its end of turn in only one of them
    (huggingface.co/docs/transformers/main_classes/text_generation).

    Args:
        source: The model. On the Hub, a ``generation_config.json`` that is not cached is fetched.
        tokenizer: Its tokenizer.
    """
    try:
        config = sources.read_config(source) or {}
    except ConfigError:
        config = {}
    text = config.get("text_config")
    stated = (_generation_config(source), config, text if isinstance(text, Mapping) else {})
    found = {index for part in stated for index in _ids(part.get("eos_token_id"))}
    return tuple(sorted(found.union(_ids(tokenizer.inner.eos_token_id))))


def _generation_config(source: ModelSource) -> Mapping[str, Any]:
    if source.path is not None:
        path: Path | None = source.path / GENERATION_CONFIG
    elif source.kind == "hub":
        path = Hub().fetched(source.name, GENERATION_CONFIG, source.revision)
    else:
        path = None
    try:
        data = json.loads(path.read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _ids(stated: object) -> Iterator[int]:
    for each in stated if isinstance(stated, list | tuple) else (stated,):
        if isinstance(each, int) and not isinstance(each, bool):
            yield each
