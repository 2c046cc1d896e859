"""Read prompts from JSONL: one object a line, in file order.

``prompt`` is required, ``max_new_tokens`` optional, other keys are ignored. A first line with
``_provenance`` and no ``prompt`` is a header. Blank lines are skipped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from llenergymeasure.config.experiment_fields import MOST_PROMPTS
from llenergymeasure.domain.prompts import Dataset, Prompt
from llenergymeasure.exceptions import PreFlightError, Problem

MAX_BAD_LINES = 10

_LINE_REMEDY = 'write each line as {"prompt": "..."}, with "max_new_tokens": N where it has its own'


class Header(NamedTuple):
    """The provenance header of a dataset."""

    content: dict[str, Any]


class BadLine(NamedTuple):
    """A line that is no prompt, numbered from 1, and why."""

    number: int
    reason: str


Line = Prompt | Header | BadLine


def read_lines(path: Path) -> Iterator[Line]:
    """Yield what each line of a file holds, without keeping any of it.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if raw.strip():
                yield _line(number, raw)


def written(prompt: Prompt) -> bytes:
    r"""Give a prompt as one line of JSONL, the line that hashes are taken over.

    Keys in the order ``prompt`` or ``token_ids``, then ``max_new_tokens`` where it has a value of
    its own; no white space between them, UTF-8 without escapes, ``\n`` at the end.
    """
    ids = prompt.token_ids
    content: dict[str, Any] = {"prompt": prompt.text} if ids is None else {"token_ids": ids}
    if prompt.max_new_tokens is not None:
        content["max_new_tokens"] = prompt.max_new_tokens
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def read_dataset(path: Path, name: str, n: int | None) -> Dataset:
    """Read the first ``n`` prompts of a file; size and hash are of all of them.

    Without ``n`` it takes all, :data:`MOST_PROMPTS` at most.

    Raises:
        PreFlightError: The file cannot be read, has bad lines, or fewer than ``n`` prompts.
    """
    prompts, bad, size = list[Prompt](), list[Problem](), 0
    digest, provenance = hashlib.sha256(), dict[str, Any]()
    try:
        for line in read_lines(path):
            if isinstance(line, Prompt):
                digest.update(written(line))
                size += 1
                if size <= (n or MOST_PROMPTS):
                    prompts.append(line)
            elif isinstance(line, Header):
                provenance = line.content
            else:
                bad.append(Problem(line.reason, f"{name}, line {line.number}", _LINE_REMEDY))
                if len(bad) == MAX_BAD_LINES:
                    break
    except OSError as error:
        raise PreFlightError([_unreadable(name, error)]) from None
    if not (size or bad):
        bad = [Problem("it holds no prompts", name, _LINE_REMEDY)]
    if problems := bad or too_few(name, size, n):
        raise PreFlightError(problems)
    return Dataset(name, tuple(prompts), size, digest.hexdigest(), provenance)


def too_few(name: str, size: int, n: int | None) -> list[Problem]:
    """Say that a dataset has fewer prompts than asked for, where that is so."""
    if n is None or n <= size:
        return []
    return [Problem(f"{n:,} prompts asked for, {name} has {size:,}", "n", f"set n: {size} or less")]


def _line(number: int, raw: bytes) -> Line:
    try:
        # Some editors put a byte-order mark at the start of a file.
        data = json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError:
        return BadLine(number, "not UTF-8 text")
    except json.JSONDecodeError as error:
        return BadLine(number, f"not JSON: {error.msg} at column {error.colno}")
    except (RecursionError, ValueError):  # nested too deeply, or a number of thousands of digits
        return BadLine(number, "not a prompt, by far")
    if number == 1 and isinstance(data, dict) and "_provenance" in data and "prompt" not in data:
        return Header(data)
    reason = _problem(data)
    if reason is None:
        return Prompt(text=data["prompt"], max_new_tokens=data.get("max_new_tokens"))
    return BadLine(number, reason)


def _problem(data: Any) -> str | None:
    if not isinstance(data, dict):
        return "not an object"
    if "_provenance" in data and "prompt" not in data:
        return "a header must be the first line"
    limit = data.get("max_new_tokens")
    if reason := _prompt_problem(data.get("prompt")):
        return reason
    if limit is not None and (type(limit) is not int or limit <= 0):
        return "'max_new_tokens' is not a positive integer"
    return None


def _prompt_problem(text: Any) -> str | None:
    if text is None:
        return "'prompt' is missing"
    if not isinstance(text, str):
        return "'prompt' is not a string"
    if not text:
        return "'prompt' is empty"
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can spell half of a surrogate pair; no tokenizer takes it
        return "'prompt' is not valid Unicode: it has half of a surrogate pair"
    return None


def _unreadable(name: str, error: OSError) -> Problem:
    return Problem(
        f"cannot read {name}: {error.strerror}",
        "dataset",
        "give the path of a .jsonl file that exists; a path in YAML is taken from its folder",
    )
