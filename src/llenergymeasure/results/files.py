"""Read a result and write files, all or nothing where that matters.

Reading tells every failure as an ``LLEMError``.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pydantic import BaseModel, ValidationError

from llenergymeasure.config.models import STORED
from llenergymeasure.domain.earlier_rules import EARLIER_SCHEMAS, OF_EXPERIMENTS, earlier
from llenergymeasure.exceptions import ExperimentError, LLEMError
from llenergymeasure.results.layout import ExperimentDirectory

Model = TypeVar("Model", bound=BaseModel)

_MOST_PROBLEMS = 3


def load(model: type[Model], path: Path, current_schema: str) -> Model:
    """Read the result of an experiment and build its model.

    Args:
        model: The model.
        path: A ``result.json``, or the directory that holds it.
        current_schema: The newest schema version that is understood, e.g. ``"2.1"``.

    Raises:
        LLEMError: The file is missing, cannot be read, is damaged, is no experiment result, or is
            of another schema; the message names the file, and the fields that are wrong.
    """
    file = ExperimentDirectory(path).result if path.is_dir() else path
    data = _parse(file)
    if not isinstance(data, dict) or "measurement_config_hash" not in data:
        study = isinstance(data, dict) and "study_design_hash" in data
        which = "; it is that of a study" if study else ""
        raise _error(file, f"is not the result of an experiment{which}")
    _check_schema(data.get("schema_version"), file, current_schema)
    data = {**data, "earlier_rules": earlier(OF_EXPERIMENTS, data)}
    try:
        return model.model_validate(data, context=STORED)
    except ValidationError as error:
        lines = error.errors(include_url=False, include_input=False)
        places = [".".join(map(str, line["loc"])) or "the whole" for line in lines]
        told = [f"{place}: {line['msg']}" for place, line in zip(places, lines, strict=True)]
        if len(told) > _MOST_PROBLEMS:
            told[_MOST_PROBLEMS:] = [f"and {len(told) - _MOST_PROBLEMS} more"]
        listed = "\n".join(f"  {line}" for line in told)
        raise LLEMError(
            f"{file} does not hold a valid result:\n{listed}", where=f"{file}, {places[0]}"
        ) from None


def write(path: Path, content: bytes) -> None:
    """Write a file, replacing what was there.

    Raises:
        LLEMError: The file cannot be written.
    """
    try:
        path.write_bytes(content)
    except OSError as error:
        raise _error(path, f"cannot be written: {error.strerror or error}") from None


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
        ExperimentError: The system refused (disk full, quota, read-only, file too large); the
            message names path, reason and remedy. What was there is untouched, and nothing is left
            behind.
    """
    try:
        replace(path, fill)
    except OSError as error:
        raise ExperimentError(
            f"cannot write {path}: {error.strerror or error}; make room, or put results on another "
            "disk with --output (output_dir in Python)",
            where=str(path),
            cause=str(error),
        ) from None


def replace(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Do what :func:`write_atomically` does, for files that are no results.

    Raises:
        OSError: The system refused; what was there is untouched, and nothing is left behind.
    """
    # Not tempfile: its files are private to the user, and results are often shared.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with temporary.open("xb") as sink:
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


def _parse(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        failed = ExperimentDirectory(file.parent).error
        hint = f"; the experiment failed, see {failed}" if failed.exists() else ""
        raise LLEMError(f"there is no result at {file}{hint}", where=str(file)) from None
    except OSError as error:
        raise _error(file, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise _error(file, "is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise _error(
            file, f"is damaged or cut short: line {error.lineno} is not valid JSON ({error.msg})"
        ) from None
    except (ValueError, RecursionError):  # digits without end, nesting without end
        raise _error(file, "is not valid JSON") from None


def _check_schema(schema: Any, file: Path, current: str) -> None:
    version, known = _version(schema), _version(current)
    if version is None or known is None:
        raise _error(file, "has no valid schema_version; it is damaged")
    if version > known:
        raise _error(
            file,
            f"has schema {schema}; this version of llenergymeasure reads up to "
            f"{current}. Upgrade it: pip install --upgrade llenergymeasure",
        )
    if version != known and schema not in EARLIER_SCHEMAS:
        raise _error(file, f"has schema {schema}, which never existed")


def _version(text: Any) -> tuple[int, ...] | None:
    parts = text.split(".") if isinstance(text, str) else []
    valid = parts and all(part.isascii() and part.isdigit() and len(part) < 6 for part in parts)
    return tuple(int(part) for part in parts) if valid else None


def _error(file: Path, problem: str) -> LLEMError:
    return LLEMError(f"{file} {problem}", where=str(file))
