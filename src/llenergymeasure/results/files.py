"""Write files, all or nothing where that matters; seal what must not change unnoticed.

A sealed file of JSON carries a checksum over what it holds, not over its bytes: keys in order, no
white space. Who indents it anew has changed no figure. It is no signature: who changes a figure on
purpose can seal the file anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import json
import math
import os
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from pydantic import BaseModel

from llenergymeasure import plain_files
from llenergymeasure.config.base import as_unicode
from llenergymeasure.config.plain_words import shown
from llenergymeasure.config.secrets import redacted
from llenergymeasure.exceptions import (
    PUT_ELSEWHERE,
    ExperimentError,
    LLEMError,
    cause_and_remedy,
)

SEAL = "sha256"
"""Key of the checksum, the last one of a sealed file."""

_UNFINISHED = re.compile(r"\..+\.(?P<pid>\d+)-[0-9a-f]{8}\.tmp")

_NOT_BEGUN_S = 3600.0  # it takes microseconds to lock a file, unless one is killed meanwhile

MOST_BYTES = 256 * plain_files.MIB
"""Largest result, failure, order, and share of one of several processes."""


# Sealing ------------------------------------------------------------------------------------------


def checksum(data: Mapping[str, Any]) -> str:
    """Hash what a file holds, its seal left out: SHA-256 over JSON with sorted keys."""
    content = {key: value for key, value in data.items() if key != SEAL}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def file_checksum(path: Path) -> str:
    """Hash a file as it is: SHA-256.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def json_text(record: BaseModel, exclude: set[str] | None = None) -> str:
    """Write a record as JSON that people can read, without credentials.

    What was asked for (``config``) stays as it is: it was searched for them when it was taken in,
    and a result that named something else would be of another experiment.
    """
    text = record.model_dump_json(indent=2, exclude=exclude)
    data = json.loads(text)
    clean = {**redacted(data), **{name: data[name] for name in ("config",) if name in data}}
    if clean == data:
        return text
    return as_unicode(json.dumps(clean, indent=2, ensure_ascii=False))


def sealed_text(record: BaseModel) -> str:
    """Write a record as :func:`json_text` does, with its seal as the last key."""
    text = json_text(record)
    return f'{text.removesuffix("}").rstrip()},\n  "{SEAL}": "{checksum(json.loads(text))}"\n}}\n'


def check_seal(data: Mapping[str, Any]) -> None:
    """Hold what a file has against its seal.

    Raises:
        ValueError: It was changed after it was written; the message has both checksums.
    """
    written, found = str(data[SEAL]), checksum(data)
    if written != found:
        raise ValueError(f"what it holds has the checksum {found[:12]}, not {written[:12]}")


def parse(content: bytes | str) -> Any:
    """Read JSON that says each thing once.

    Raises:
        ValueError: It is not valid JSON, an object has a key twice, or a number is none.
    """
    return json.loads(
        content, object_pairs_hook=_object, parse_constant=_no_number, parse_float=_float
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        key, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key '{shown(key)}' stands there twice")
    return data


def _float(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{shown(text)} is no number")


# Writing ------------------------------------------------------------------------------------------


def write(path: Path, content: bytes) -> None:
    """Write a file, replacing what was there.

    Raises:
        LLEMError: The file cannot be written.
    """
    try:
        path.write_bytes(content)
    except OSError as error:
        said = f"{path} cannot be written: {error.strerror or error}"
        raise LLEMError(said, where=str(path)) from None


def write_json_atomically(path: Path, text: str) -> None:
    """Put text in place in one step; see :func:`write_atomically`."""
    write_atomically(path, lambda sink: sink.write(text.encode()))


def write_record(path: Path, record: BaseModel) -> None:
    """Put a record in place as JSON that people can read; see :func:`write_atomically`."""
    write_json_atomically(path, record.model_dump_json(indent=2) + "\n")


def write_atomically(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Fill a file beside its place, bring it to the disk, and rename it.

    A reader sees the old file or the whole new one.

    Args:
        path: Where it belongs; what is there is replaced.
        fill: Writes the content.

    Raises:
        ExperimentError: The system refused (disk full, quota, read-only, a folder that is gone);
            the message names path, reason and remedy. What was there is untouched, and nothing is
            left behind.
    """
    try:
        replace(path, fill)
    except OSError as error:
        raise ExperimentError(
            f"cannot write {path}: {cause_and_remedy(error, path)}, or {PUT_ELSEWHERE}",
            where=str(path),
            cause=str(error),
        ) from None


def replace(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Do what :func:`write_atomically` does, for files that are no results.

    Raises:
        OSError: The system refused; what was there is untouched, and nothing is left behind.
    """
    # Not tempfile: its files are private to the user, and results are often shared.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("xb") as sink:
            with contextlib.suppress(OSError):  # there may be no locks; then nobody else removes it
                fcntl.lockf(sink, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fill(sink)
            sink.flush()
            os.fsync(sink.fileno())
            temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):  # must not hide why the write failed
            temporary.unlink(missing_ok=True)
    # Brings the rename itself to the disk; some network file systems refuse it, and the content
    # is safe already.
    with contextlib.suppress(OSError):
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_unfinished(folder: Path) -> None:
    """Remove what processes of this user that were killed left half written in a folder.

    Whoever still writes a file has it locked, but for this process, which has no locks to itself,
    and for one that has just made it: an empty file is left behind once it is old.
    """
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            found = _UNFINISHED.fullmatch(path.name)
            if found is None or found["pid"] == str(os.getpid()):
                continue
            with contextlib.suppress(OSError), path.open("rb+") as left:
                fcntl.lockf(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
                status = os.fstat(left.fileno())
                begun = status.st_size or time.time() - status.st_mtime > _NOT_BEGUN_S
                if begun and status.st_uid == os.getuid():
                    path.unlink()


def set_aside(paths: Iterable[Path], mark: str = "") -> int | None:
    """Keep files of a directory under the first number that is free for all of them.

    Args:
        paths: The files; those that are not there are passed over.
        mark: A word that says why, as in ``result.malformed.1.json``; without it ``error.1.json``.

    Returns:
        The number; ``None`` where none of the files is there.

    Raises:
        OSError: The system refused.
    """
    every = tuple(paths)
    there = [path for path in every if os.path.lexists(path)]
    if not there:
        return None
    number = next(
        n
        for n in itertools.count(1)
        if not any(os.path.lexists(numbered(path, n, mark)) for path in every)
    )
    for path in there:
        path.rename(numbered(path, number, mark))
    return number


def numbered(path: Path, number: int, mark: str = "") -> Path:
    """Name the place of a file that was set aside."""
    return path.with_name(f"{path.stem}.{mark}{'.' if mark else ''}{number}{path.suffix}")
