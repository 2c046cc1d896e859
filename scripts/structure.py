"""Measure how the source is cut: lines, files, functions, import circles, and what a run touches.

``python scripts/structure.py`` reads the source and runs nothing; ``--run`` also measures the
simplest experiment there is, and counts which functions of ours that took. More places to look are
a cost, as are long ones; CONTRIBUTING.md says what is aimed at, ``tests/unit/test_structure.py``
holds it.
"""

from __future__ import annotations

import argparse
import ast
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).resolve().parents[1] / "src"

_RUN = """
import inspect, json, sys, threading

(package,) = sys.argv[1:]
seen = set()


def profile(frame, event, _):
    if event == "call" and frame.f_code.co_filename.startswith(package):
        code = frame.f_code
        is_function = code.co_flags & inspect.CO_OPTIMIZED  # no module, no body of a class
        if is_function and not code.co_name.startswith("<"):
            seen.add((code.co_filename, code.co_qualname))


import llenergymeasure
from llenergymeasure import ExperimentConfig, run_experiment
config = ExperimentConfig(
    model="m", backend="scripted", n=2, max_new_tokens=2, energy_backend="none"
)
threading.setprofile(profile)
sys.setprofile(profile)
run_experiment(config)
sys.setprofile(None)
print(json.dumps(sorted(seen)))
"""


class Body(NamedTuple):
    """A function: where it stands, and the lines of its body, docstring left out."""

    where: str
    name: str
    lines: int


@dataclass(frozen=True, slots=True)
class Structure:
    """How a source tree is cut.

    Attributes:
        lines: Of every module.
        bodies: Every function and method, nested ones included.
        single: Private, undecorated functions that are named once in all of the source.
        circles: Groups of modules that import one another, by imports that are deferred or for
            types alone as well.
    """

    lines: Mapping[str, int]
    bodies: tuple[Body, ...]
    single: tuple[Body, ...]
    circles: tuple[tuple[str, ...], ...]

    @property
    def single_share(self) -> float:
        """Share of all functions that are private with one use, of 1."""
        return len(self.single) / len(self.bodies)

    def body_lines(self, share: float) -> int:
        """Give a quantile of the lengths of bodies."""
        ordered = sorted(body.lines for body in self.bodies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def measure(source: Path = SOURCE) -> Structure:
    """Read every module below a folder; nothing is imported."""
    texts = {_module(path, source): path.read_text("utf-8") for path in source.rglob("*.py")}
    trees = {module: ast.parse(texts[module]) for module in sorted(texts)}
    uses = Counter(name for tree in trees.values() for name in _names(tree))
    functions = [(module, node) for module, tree in trees.items() for node in _functions(tree)]
    return Structure(
        lines={module: text.count("\n") for module, text in texts.items()},
        bodies=tuple(_body(module, node) for module, node in functions),
        single=tuple(
            _body(module, node)
            for module, node in functions
            if node.name.startswith("_")
            and not node.name.startswith("__")
            and not node.decorator_list
            and uses[node.name] == 1
        ),
        circles=circles({module: _imports(tree) for module, tree in trees.items()}),
    )


def circles(imports: Mapping[str, set[str]]) -> tuple[tuple[str, ...], ...]:
    """Find the groups of modules that reach each other.

    Args:
        imports: What each module names in its imports; ``package.module.name`` counts as the
            module where it is none itself.
    """
    known = imports.keys()
    edges = {
        module: {name if name in known else name.rpartition(".")[0] for name in names}
        & known - {module}
        for module, names in imports.items()
    }
    reach: dict[str, set[str]] = {}
    for start in edges:
        seen: set[str] = set()
        todo = [start]
        while todo:
            following = edges[todo.pop()] - seen
            seen |= following
            todo += following
        reach[start] = seen
    groups = {
        tuple(sorted(other for other in reach[module] if module in reach[other]))
        for module in edges
        if module in reach[module]
    }
    return tuple(sorted(groups))


def executed(python: str = sys.executable) -> list[tuple[str, str]]:
    """Measure the simplest experiment inline; give file and name of the functions it called."""
    command = [python, "-c", _RUN, str(SOURCE / "llenergymeasure")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [(file, name) for file, name in json.loads(done.stdout.splitlines()[-1])]


def _module(path: Path, source: Path) -> str:
    return ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__")


def _names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _body(module: str, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Body:
    first, start = node.body[0], node.body[0].lineno
    if ast.get_docstring(node, clean=False) is not None:
        start = (first.end_lineno or start) + 1
    return Body(f"{module}:{node.lineno}", node.name, (node.end_lineno or start) - start + 1)


def _imports(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how the source is cut.")
    parser.add_argument("--run", action="store_true", help="also run the simplest experiment")
    parser.add_argument("--list", action="store_true", help="name private functions of one use")
    asked = parser.parse_args()
    found = measure()
    over = sorted((body for body in found.bodies if body.lines > 40), key=lambda one: -one.lines)
    print(f"lines                            {sum(found.lines.values()):,}")
    print(f"files                            {len(found.lines):,}")
    print(f"functions                        {len(found.bodies):,}")
    print(f"lines of a body, median / p90    {found.body_lines(0.5)} / {found.body_lines(0.9)}")
    print(f"bodies of more than 40 lines     {len(over)}")
    print(f"private functions with one use   {100 * found.single_share:.1f} %")
    print(f"import circles                   {len(found.circles)}")
    for body in over:
        print(f"  {body.lines} lines: {body.where} {body.name}")
    for circle in found.circles:
        print(f"  circle: {', '.join(circle)}")
    if asked.list:
        for body in found.single:
            print(f"  one use: {body.where} {body.name}")
    if asked.run:
        called = executed()
        print(f"the simplest experiment calls    {len(called)} functions", end="")
        print(f" in {len({file for file, _ in called})} files")


if __name__ == "__main__":
    main()
