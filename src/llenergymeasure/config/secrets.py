"""Recognise values that look like credentials, so that none reaches a file or a log."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_SECRET_VALUE = re.compile(
    r"\b(hf_[A-Za-z0-9]{20,}|sk-(?=[A-Za-z0-9_-]*\d)[A-Za-z0-9_-]{32,}|ghp_[A-Za-z0-9]{30,})\b"
)
_SECRET_KEY = re.compile(r"(^|_)(token|password|passwd|secret|api_?key|auth_?token)$", re.I)
_URL_CREDENTIAL = re.compile(r"(?<=://)[^/@\s]+@")
_SECRET_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN")
_HIDDEN = "***"


def secret_paths(data: Any, path: str = "") -> Iterator[str]:
    """Yield the dotted path of every value that looks like a credential, never the value."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            inner = f"{path}.{key}" if path else str(key)
            if isinstance(value, str) and value and _SECRET_KEY.search(str(key)):
                yield inner
            else:
                yield from secret_paths(value, inner)
    elif isinstance(data, Sequence) and not isinstance(data, str | bytes):
        for position, value in enumerate(data):
            yield from secret_paths(value, f"{path}[{position}]")
    elif isinstance(data, str) and _SECRET_VALUE.search(data):
        yield path


def redact(text: str) -> str:
    """Replace everything that looks like a credential, and the Hub tokens of this environment."""
    for name in _SECRET_VARIABLES:
        value = os.environ.get(name)
        if value:
            text = text.replace(value, _HIDDEN)
    return _URL_CREDENTIAL.sub(f"{_HIDDEN}@", _SECRET_VALUE.sub(_HIDDEN, text))
