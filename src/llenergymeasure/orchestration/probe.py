"""Pre-flight of many experiments in the place where they will run.

It is ``python -m llenergymeasure.orchestration.probe ORDERS PROBLEMS``: reads work orders as JSON
lines from a file, and writes their problems to another, as a JSON list.
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
from llenergymeasure.results.files import write_json_atomically

MODULE = "llenergymeasure.orchestration.probe"


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
    lines = [line for line in Path(source).read_text(encoding="utf-8").split("\n") if line]
    problems = preflight.problems(map(WorkOrder.model_validate_json, lines))
    write_json_atomically(Path(target), json.dumps([asdict(each) for each in problems]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
