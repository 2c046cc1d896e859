"""Small files of JSON in the user's data directory: read what is sound, write all or nothing."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from llenergymeasure.results.files import write_atomically

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
    text = json.dumps(content, indent=2)
    write_atomically(path, lambda sink: sink.write(text.encode()))
