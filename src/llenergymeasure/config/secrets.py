"""Recognise values that look like credentials, so that none reaches a file or a log."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# A key is random, so somewhere in it 20 letters and digits stand together; a model that happens to
# be called sk-something is made of words.
_SECRET_VALUE = re.compile(
    r"\b(hf_[A-Za-z0-9]{20,}"
    r"|sk-(?=[\w-]{0,60}?(?=[A-Za-z]{0,19}\d)[A-Za-z0-9]{20})[\w-]{32,}"
    r"|ghp_[A-Za-z0-9]{30,})\b"
)
# pad_token, eos_token and their kind are words of a tokenizer, max_new_tokens is a count.
_SECRET_KEY = re.compile(
    r"(^|[_-])(password|passwd|secret|(api|secret|private|access)[_-]?key)$"
    r"|^((hf|hub|hugging_?face(_hub)?|auth|use_auth|access|api|bearer)[_-]?)?token$",
    re.I,
)
_URL_CREDENTIAL = re.compile(r"(?<=://)[^/@\s]+@")
_SECRET_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN")
_HIDDEN = "***"

ADVICE = "looks like a credential; keep it in the environment (HF_TOKEN)"


def secret_paths(data: Any) -> Iterator[str]:
    """Yield the dotted path of every value that looks like a credential, never the value."""
    for parts in _secrets(data, ()):
        yield redact("".join(parts)).removeprefix(".")


def _secrets(data: Any, parts: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(data, str):
        if _SECRET_VALUE.search(data):
            yield parts
    elif data is None or isinstance(data, int | float | bytes):
        return
    elif isinstance(data, Mapping):
        for key, value in data.items():
            inner = (*parts, f".{key}")
            given = value is not None and not isinstance(value, bool)
            if isinstance(value, str | Mapping | Sequence):
                given = len(value) > 0
            if given and _SECRET_KEY.search(str(key)):
                yield inner
            else:
                yield from _secrets(value, inner)
    elif isinstance(data, Sequence):
        for position, value in enumerate(data):
            yield from _secrets(value, (*parts, f"[{position}]"))


def redact(text: str) -> str:
    """Replace everything that looks like a credential, and the Hub tokens of this environment."""
    for name in _SECRET_VARIABLES:
        value = os.environ.get(name)
        if value:
            text = text.replace(value, _HIDDEN)
    return _URL_CREDENTIAL.sub(f"{_HIDDEN}@", _SECRET_VALUE.sub(_HIDDEN, text))
