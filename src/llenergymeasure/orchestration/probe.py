"""Pre-flight of many experiments in the place where they will run.

It is ``python -m llenergymeasure.orchestration.probe ORDERS PROBLEMS``: reads work orders as JSON
lines from a file (``-`` is standard input), and writes their problems as a JSON list (``-`` is
standard output).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from llenergymeasure.exceptions import Problem
from llenergymeasure.orchestration import preflight
from llenergymeasure.orchestration.order import WorkOrder
from llenergymeasure.results.persistence import write_json_atomically

_STANDARD = "-"


def write_orders(orders: Iterable[WorkOrder], path: Path) -> None:
    """Write distinct orders, one a line; repeats of an experiment need no second look."""
    lines = dict.fromkeys(order.model_dump_json() for order in orders)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read_problems(path: Path) -> list[Problem]:
    """Read what :func:`main` wrote."""
    return [Problem(**fields) for fields in json.loads(path.read_bytes())]


def main(arguments: Sequence[str]) -> int:
    """Run as a process of its own; 0 whether or not there are problems."""
    source, target, *_ = arguments
    problems = preflight.problems(map(WorkOrder.model_validate_json, _lines(source)))
    text = json.dumps([_fields(problem) for problem in problems]) + "\n"
    if target == _STANDARD:
        sys.stdout.write(text)
    else:
        write_json_atomically(Path(target), text)
    return 0


def _lines(source: str) -> list[str]:
    text = sys.stdin.read() if source == _STANDARD else Path(source).read_text(encoding="utf-8")
    return [line for line in text.split("\n") if line]


def _fields(problem: Problem) -> dict[str, str]:
    return asdict(problem)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
