"""How near the estimate of ``--dry-run`` comes to the memory that a model then takes, on a CPU.

Every run is a fresh process that loads a model with random weights and generates one batch. What
its resident set grew by since the model was loaded is held against the estimate of KV cache,
activations, heap and first use. How many holes the heap of the C library gets is luck, so that a
cell is run several times and its median counts: the estimate may be a tenth below it; how often it
is within a quarter is told. Once more each cell is run with a heap that keeps no hole, where growth
is the same every time: what is counted to be alive is held against that.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import machine

PACKAGES = ("llenergymeasure", "torch", "transformers")
LOWEST, HIGHEST = 0.9, 1.25
REPEATS = 3  # of a cell of the tiny model; the large one is run once
# Every block from this size on is mapped by itself and given back at once (mallopt(3)).
NO_HOLES = {"MALLOC_MMAP_THRESHOLD_": "131072"}
TITLE = "Estimated and measured growth of memory on a CPU"
NOTE = (
    "`alive` are the tensors that are alive at the worst moment, counted from the source of "
    "transformers, with what PyTorch takes for itself; `without holes` is what the process grew by "
    "where the heap keeps none. The estimate has the holes of the heap too; how many there are "
    "differs from run to run of one cell, as addresses and hashes are drawn anew (with both held, "
    "six runs were alike to 0.05 MiB), and what loading left free in the heap is used first."
)
TINY, ONE_BILLION = "random:tiny-llama", "random:llama-3.2-1b"


class Cell(NamedTuple):
    """What is generated.

    Attributes:
        model: With random weights.
        precision: Of weights and arithmetic.
        attention: As transformers calls it.
        rows: Prompts, all in one batch.
        inputs: Tokens of a prompt.
        outputs: Tokens of its answer.
        padded: Whether prompts differ in length, the longest of which has ``inputs``.
    """

    model: str
    precision: str
    attention: str
    rows: int
    inputs: int
    outputs: int
    padded: bool = False


def cells(*, quick: bool = False) -> list[Cell]:
    """List what is measured; the quick ones are of the tiny model alone."""
    precisions, kinds = ("fp32", "bf16"), ("sdpa", "eager")
    pairs = [(precision, kind) for precision in precisions for kind in kinds]
    tiny = [
        Cell(TINY, *pair, rows, inputs, 16, padded=rows > 1)
        for pair in pairs
        for rows, inputs in ((1, 128), (1, 1500), (8, 512), (32, 128))
    ]
    if quick:
        return tiny
    shapes = ((1, 256), (8, 32), (32, 16))
    large = [
        Cell(ONE_BILLION, *pair, *shape, 4, padded=shape[0] > 1)
        for pair in pairs
        for shape in shapes
    ]
    long = [Cell(TINY, precision, "sdpa", 32, 64, 192) for precision in precisions]
    return [*tiny, *long, *large]


def experiment(cell: Cell) -> Any:
    """Make the configuration of a cell, as a user would write it."""
    from llenergymeasure.config.models import ExperimentConfig

    alike = {"synthetic": {"input_len": cell.inputs, "output_len": cell.outputs}}
    return ExperimentConfig.model_validate(
        {
            "model": cell.model,
            "precision": cell.precision,
            "n": cell.rows,
            "max_input_tokens": cell.inputs,
            "max_new_tokens": cell.outputs,
            "dataset": "mixed-1k" if cell.padded else alike,
            "pytorch": {
                "device": "cpu",
                "batch_size": cell.rows,
                "attn_implementation": cell.attention,
            },
        }
    )


def take(cell: Cell, cache: Path) -> dict[str, Any]:
    """Generate a batch in this process; give what was estimated and what it took, MiB."""
    from llenergymeasure.core.backends.protocol import Request
    from llenergymeasure.core.backends.pytorch.loader import PyTorchBackend
    from llenergymeasure.core.backends.shared.memory import ResidentSet
    from llenergymeasure.core.memory_estimate import estimate_memory
    from llenergymeasure.core.models.sources import architecture_of, resolve

    config = experiment(cell)
    shape = architecture_of(resolve(config.model, None))
    assert shape is not None
    estimate = estimate_memory(config, shape, on_cpu=True)
    alive_mb = estimate_memory(config, shape).growth_mb + estimate.first_use_mb
    before_mb = ResidentSet().start_mb
    engine = PyTorchBackend().load(config, cache)
    lengths = [cell.inputs - (row % 4 if cell.padded else 0) for row in range(cell.rows)]
    batch = tuple(Request(row, (7,) * length, cell.outputs) for row, length in enumerate(lengths))
    engine.run((batch,), 0, lambda _: None)
    seen = engine.inspect().memory
    assert seen.peak_mb is not None
    assert seen.model_mb is not None
    return {
        **cell._asdict(),
        "before_mb": before_mb,
        "loaded_mb": seen.model_mb,
        "growth_mb": seen.peak_mb - seen.model_mb,
        "estimate_mb": estimate.growth_mb,
        "alive_mb": alive_mb,
        "weights_mb": estimate.weights_mb,
        "kv_cache_mb": estimate.kv_cache_mb,
        "activations_mb": estimate.activations_mb,
        "whole_mb": seen.peak_mb,
        "whole_estimate_mb": estimate.total_mb,
    }


def run(cell: Cell, cache: Path, **extra: str) -> dict[str, Any]:
    """Take a cell in a fresh process."""
    command = [
        sys.executable,
        __file__,
        "--cell",
        json.dumps(cell._asdict()),
        "--cache",
        str(cache),
    ]
    printed = subprocess.run(
        command, check=True, capture_output=True, text=True, env=machine.environment(**extra)
    ).stdout
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


def without_holes(cell: Cell, cache: Path) -> dict[str, float]:
    """Measure a cell where the heap keeps no hole: growth, and what was counted beside it."""
    found = run(cell, cache, **NO_HOLES)
    grown_mb = found["growth_mb"]
    return {"without_holes_mb": grown_mb, "alive_ratio": found["alive_mb"] / grown_mb}


def measure(cell: Cell, cache: Path) -> dict[str, Any]:
    """Measure a cell as often as it takes; its median growth counts."""
    runs = [run(cell, cache) for _ in range(REPEATS if cell.model == TINY else 1)]
    runs.sort(key=lambda one: float(one["growth_mb"]))
    middle = runs[len(runs) // 2]
    return {
        **middle,
        **without_holes(cell, cache),
        "ratio": middle["estimate_mb"] / middle["growth_mb"],
        "runs_mb": [one["growth_mb"] for one in runs],
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Lay the figures out as Markdown."""
    lines = [
        "| model | precision | attention | rows | input | output | padded | alive, MiB "
        "| without holes | ratio | grew by | estimate | ratio |",
        "|---|---|---|--:|--:|--:|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        name = row["model"].removeprefix("random:")
        padded = "yes" if row["padded"] else "no"
        grown = "; ".join(f"{one:,.0f}" for one in row["runs_mb"])
        lines.append(
            f"| {name} | {row['precision']} | {row['attention']} | {row['rows']} | {row['inputs']} "
            f"| {row['outputs']} | {padded} | {row['alive_mb']:,.0f} "
            f"| {row['without_holes_mb']:,.0f} | {row['alive_ratio']:.2f} | {grown} "
            f"| {row['estimate_mb']:,.0f} | {row['ratio']:.2f} |"
        )
    return "\n".join(lines)


def spread(ratios: Sequence[float]) -> str:
    """Say how ratios of estimates lie."""
    low, high = min(ratios), max(ratios)
    near = sum(LOWEST <= ratio <= HIGHEST for ratio in ratios)
    below = sum(ratio < LOWEST for ratio in ratios)
    return (
        f"from {low:.2f} to {high:.2f}, in the median {statistics.median(ratios):.2f}; {near} of "
        f"{len(ratios)} within {LOWEST} to {HIGHEST}, {below} below"
    )


def report(rows: Sequence[dict[str, Any]], output: Path) -> int:
    """Save figures and table; 1 when an estimate is too low."""
    single = [row["estimate_mb"] / one for row in rows for one in row["runs_mb"]]
    whole = [row["whole_estimate_mb"] / row["whole_mb"] for row in rows]
    summary = (
        f"{len(rows)} cells. Estimate / median growth {spread([row['ratio'] for row in rows])}; "
        f"/ growth of single runs {spread(single)}. Alive / growth without holes "
        f"{spread([row['alive_ratio'] for row in rows])}. Estimate / peak of the whole process "
        f"{spread(whole)}."
    )
    facts = {
        "machine": machine.describe(),
        "versions": machine.versions(Path(sys.executable), PACKAGES),
    }
    machine.save(output, {**facts, "summary": summary, "cells": list(rows)})
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    place = f"{facts['machine']['cpu']}, {facts['machine']['cores']} cores; {versions}."
    parts = (f"# {TITLE}", summary, place, NOTE, table(rows))
    output.with_suffix(".md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    print(summary)
    return int(any(row["ratio"] < LOWEST for row in rows))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, save and print; 1 when an estimate is too low."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the tiny model alone")
    parser.add_argument("--output", type=Path, default=machine.RESULTS / "memory_estimates.json")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.cell:
        print(json.dumps(take(Cell(**json.loads(asked.cell)), asked.cache)))
        return 0
    with tempfile.TemporaryDirectory(prefix="llem-memory-") as folder:
        rows = []
        for cell in cells(quick=asked.quick):
            rows.append(measure(cell, Path(folder)))
            print(table(rows[-1:]).splitlines()[-1], flush=True)
    return report(rows, asked.output)


if __name__ == "__main__":
    sys.exit(main())
