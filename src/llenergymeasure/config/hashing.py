"""Fingerprints of configurations."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical_hash(data: Any) -> str:
    """Hash plain data: the first 16 hex digits of SHA-256 over canonical JSON.

    Canonical means sorted keys, no white space, UTF-8.
    """
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
