"""How long it takes to write a large grid out, and how much memory.

Each size is a fresh process, so that its peak memory is its own. The grid has universal, nested
and scoped keys, skips and values that come to the same; every combination is validated, checked
for contradictions and fingerprinted.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import machine

SIZES = (1_000, 10_000, 100_000)
PACKAGES = ("pydantic", "pydantic-core")
LIMIT_S = 10.0
LIMIT_MB = 1024.0


def design(size: int) -> dict[str, Any]:
    """Describe a study of two backends with at least ``size`` combinations."""
    return {
        "model": "random:tiny-llama",
        "backend": ["pytorch", "scripted"],
        "sweep": {
            "precision": ["fp32", "bf16"],
            "decoder.decoding_strategy": ["greedy", "sampling"],
            "decoder.temperature": [None, 0.7, 1.0],
            "pytorch.batch_size": [None, 1, 2, 4, 8],
            "scripted.batch_size": [1, 2, 4, 8, 16],
            "n": list(range(1, size // 1200 + 2)),
            "max_new_tokens": list(range(1, 11)),
        },
    }


def expand_once(size: int) -> dict[str, Any]:
    """Write a grid out in this process; seconds are of the expansion and the design hash."""
    from llenergymeasure.config.canonical import design_hash
    from llenergymeasure.config.models import StudyConfig
    from llenergymeasure.study.grid import expand

    start_s = time.perf_counter()
    study = StudyConfig(**design(size))
    expansion = expand(study)
    hashed = design_hash(expansion.fingerprints)
    seconds = time.perf_counter() - start_s
    return {
        "generated": expansion.generated,
        "experiments": len(expansion.experiments),
        "skipped": len(expansion.skipped),
        "merged": expansion.merged,
        "study_design_hash": hashed,
        "seconds": seconds,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def measure(size: int) -> dict[str, Any]:
    """Write a grid out in a fresh process."""
    printed = subprocess.run(
        [sys.executable, __file__, "--once", str(size)],
        check=True,
        capture_output=True,
        text=True,
        env=machine.environment(),
    ).stdout
    row: dict[str, Any] = json.loads(printed)
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """Lay the figures out."""
    lines = [f"{'combinations':>12} {'experiments':>11} {'skipped':>8} {'time':>8} {'memory':>9}"]
    lines += [
        f"{row['generated']:>12,} {row['experiments']:>11,} {row['skipped']:>8,} "
        f"{row['seconds']:>6.2f} s {row['peak_memory_mb']:>5.0f} MiB"
        for row in rows
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, save and print; 1 when a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--once", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=machine.RESULTS / "grid_expansion.json")
    asked = parser.parse_args(arguments)
    if asked.once is not None:
        print(json.dumps(expand_once(asked.once)))
        return 0
    rows = [measure(size) for size in asked.sizes]
    facts = {
        "machine": machine.describe(),
        "versions": machine.versions(Path(sys.executable), PACKAGES),
        "limits": {"seconds": LIMIT_S, "peak_memory_mb": LIMIT_MB},
    }
    machine.save(asked.output, {**facts, "summary": rows})
    print(table(rows))
    missed = [r for r in rows if r["seconds"] > LIMIT_S or r["peak_memory_mb"] > LIMIT_MB]
    print("a limit is missed" if missed else "every limit is met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
