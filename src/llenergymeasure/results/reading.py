"""Read the result of an experiment, and believe it only as far as it can be checked.

A result says what it is, carries a checksum, and says many things twice. Whatever does not agree
is told as an ``LLEMError`` that names it. Raw samples that are gone or were changed make no figure
wrong: the result loads, and its verdict says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from llenergymeasure import plain_files
from llenergymeasure.config.models import STORED
from llenergymeasure.config.plain_words import shown
from llenergymeasure.domain.earlier_rules import OF_EXPERIMENTS, earlier, version_of
from llenergymeasure.domain.results import ExperimentResult, TrustReason, TrustVerdict
from llenergymeasure.exceptions import LLEMError, NotUnderstoodError
from llenergymeasure.results import tables
from llenergymeasure.results.contradictions import contradictions, doubts
from llenergymeasure.results.files import MOST_BYTES, SEAL, check_seal, file_checksum, parse
from llenergymeasure.results.layout import ExperimentDirectory

Result = TypeVar("Result", bound=ExperimentResult)

UNSEALED = ("2.0",)
"""Schemas whose results carry no checksum."""

_MOST_PROBLEMS = 3


def load(model: type[Result], path: Path, schemas: tuple[str, ...]) -> Result:
    """Read the result of an experiment and build its model.

    Args:
        model: The model.
        path: A ``result.json``, or the directory that holds it.
        schemas: The schema versions that are understood, oldest first.

    Raises:
        NotUnderstoodError: The file may not be read, or a later version wrote it.
        LLEMError: The file is missing, is damaged, is no experiment result, was changed since it
            was written, or contradicts itself; the message names the file, and what is wrong.
    """
    file = ExperimentDirectory(path).result if path.is_dir() else path
    data = _parsed(file)
    if not isinstance(data, dict) or "measurement_config_hash" not in data:
        study = isinstance(data, dict) and "study_design_hash" in data
        which = "; it is that of a study" if study else ""
        raise _error(file, f"is not the result of an experiment{which}")
    _check_schema(data.get("schema_version"), file, schemas)
    if SEAL in data:
        try:
            check_seal(data)
        except ValueError as error:
            raise _error(file, f"was changed since it was written: {error}. {PUT_BACK}") from None
    elif data["schema_version"] not in UNSEALED:
        raise _error(file, f"has lost its checksum ({SEAL}). {PUT_BACK}")
    result = _built(model, data, file)
    found = [] if SEAL in data else list(doubts(data, result))
    found = found or list(contradictions(result))  # which need numbers within reach
    if SEAL not in data and not found:
        found = list(_against_requests(result, ExperimentDirectory(file.parent).requests))
    if found:
        raise _invalid(file, "contradicts itself", found)
    return _with_samples(result, file.parent)


PUT_BACK = (
    "Put the file back as it was; where it is part of a study, --resume keeps it under another "
    "name and measures again"
)
"""What to do with a result that was changed, which a resume does by itself."""


def _parsed(file: Path) -> Any:
    try:
        return parse(plain_files.read(file, MOST_BYTES).decode())
    except FileNotFoundError:
        if file.parent.name == file.name:  # a directory of that name was looked into
            raise _error(file.parent, "is a directory, and a result is a file") from None
        failed = ExperimentDirectory(file.parent).error
        hint = f"; the experiment failed, see {failed}" if failed.exists() else ""
        raise LLEMError(f"there is no result at {file}{hint}", where=str(file)) from None
    except OSError as error:
        said = f"{file} cannot be read: {error.strerror or error}; mend that, or take it away"
        raise NotUnderstoodError(said, where=str(file)) from None
    except UnicodeDecodeError:
        raise _error(file, "is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise _error(
            file, f"is damaged or cut short: line {error.lineno} is not valid JSON ({error.msg})"
        ) from None
    except RecursionError:  # nesting without end
        raise _error(file, "is not valid JSON") from None
    except ValueError as error:  # digits without end, a key that stands there twice
        raise _error(file, f"is not valid JSON ({error})") from None


def _check_schema(schema: Any, file: Path, known: tuple[str, ...]) -> None:
    version = version_of(schema)
    if version is None:
        raise _error(file, "has no valid schema_version; it is damaged")
    if version > max(tuple(map(int, one.split("."))) for one in known):
        raise NotUnderstoodError(
            f"{file} has schema {shown(schema)}; this version of llenergymeasure reads up to "
            f"{known[-1]}. Upgrade it: pip install --upgrade llenergymeasure",
            where=str(file),
        )
    if schema not in known:
        raise _error(file, f"has schema {shown(schema)}, which never existed")


def _built(model: type[Result], data: dict[str, Any], file: Path) -> Result:
    stated = {key: value for key, value in data.items() if key != SEAL}
    stated["earlier_rules"] = earlier(OF_EXPERIMENTS, data)
    try:
        return model.model_validate(stated, context=STORED)
    except ValidationError as error:
        lines = error.errors(include_url=False, include_input=False)
        places = [".".join(map(str, line["loc"])) or "the whole" for line in lines]
        told = [f"{place}: {line['msg']}" for place, line in zip(places, lines, strict=True)]
        raise _invalid(file, "does not hold a valid result", told) from None


def _against_requests(result: ExperimentResult, path: Path) -> Iterator[str]:
    """Find counts that the raw samples beside an unsealed result contradict."""
    if not path.exists():
        return
    try:
        counted = tables.count_requests(path)
    except LLEMError:
        return  # which is told as a finding, and makes no figure wrong
    for name, number in counted._asdict().items():
        said = getattr(result.throughput, name)
        if said != number:
            yield f"throughput.{name}: {said} in the result, {number} in {path.name}"


def _with_samples(result: Result, directory: Path) -> Result:
    """Have the verdict say which raw samples are not those that the result was made from."""
    trust, code = result.trust, "samples_changed"
    told = "; ".join(_changed_samples(result, directory))
    if not told or code in result.measurement_warnings:
        return result
    reasons = (*trust.reasons, TrustReason.of(code, told))
    verdict = TrustVerdict.of(reasons, energy_asked=trust.energy != "off")
    warnings = (*result.measurement_warnings, code)
    return result.model_copy(update={"trust": verdict, "measurement_warnings": warnings})


def _changed_samples(result: ExperimentResult, directory: Path) -> Iterator[str]:
    """Find what is wrong with the raw samples; a copy of a result lies without them elsewhere."""
    beside = ExperimentDirectory(directory)
    if not beside.config.exists():
        return
    for name, written in result.files.items():
        try:
            found = file_checksum(directory / name)
        except FileNotFoundError:
            yield f"{name} is missing"
        except OSError as error:
            yield f"{name} cannot be read: {error.strerror or error}"
        else:
            if found != written:
                yield f"{name} was changed or cut short"
    if not result.files and beside.requests.exists():
        try:
            tables.count_requests(beside.requests)
        except LLEMError:
            yield f"{beside.requests.name} is damaged"


def _invalid(file: Path, what: str, told: list[str]) -> LLEMError:
    place = told[0].partition(": ")[0]
    if len(told) > _MOST_PROBLEMS:
        told = [*told[:_MOST_PROBLEMS], f"and {len(told) - _MOST_PROBLEMS} more"]
    listed = "\n".join(f"  {line}" for line in told)
    return LLEMError(f"{file} {what}:\n{listed}", where=f"{file}, {place}")


def _error(file: Path, problem: str) -> LLEMError:
    return LLEMError(f"{file} {problem}", where=str(file))
