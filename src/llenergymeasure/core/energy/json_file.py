"""Small files of JSON in the user's data directory: read what is sound, write all or nothing."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

LOG = logging.getLogger(__name__)


def read(path: Path) -> dict[str, Any]:
    """Read an object; a missing or damaged file is empty, and a damaged one is logged."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        LOG.warning("%s cannot be read and is passed over: %s", path, error)
        return {}
    return content if isinstance(content, dict) else {}


def write(path: Path, content: dict[str, Any]) -> None:
    """Write an object beside its place and rename it: a reader sees the old or the whole new file.

    Raises:
        OSError: It cannot be written; a file that was there before is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as sink:
            json.dump(content, sink, indent=2)
            sink.flush()
            os.fsync(sink.fileno())
        Path(name).replace(path)
    finally:
        with contextlib.suppress(OSError):  # gone once renamed; must not hide why a write failed
            Path(name).unlink(missing_ok=True)
