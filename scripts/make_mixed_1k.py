"""Write the packaged prompt dataset `mixed-1k` from the material in `scripts/mixed_1k/material`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from mixed_1k.compose import compose_prompts

REPOSITORY = Path(__file__).resolve().parents[1]
OUTPUT = REPOSITORY / "src/llenergymeasure/datasets/builtin/mixed-1k.jsonl"
HEADER = {
    "_provenance": "written for llenergymeasure, composed by the script named in _script",
    "_license": "MIT",
    "_description": (
        "1000 English prompts: encyclopaedic passages, web texts, and questions or requests, "
        "in equal parts and interleaved; 2 to 603 words each"
    ),
    "_script": "scripts/make_mixed_1k.py",
}


def dataset_text() -> str:
    """Return the complete content of the dataset file."""
    rows = [HEADER, *({"prompt": prompt} for prompt in compose_prompts())]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the dataset to the path given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    output: Path = parser.parse_args(arguments).output
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(dataset_text().encode("utf-8"))


if __name__ == "__main__":
    main()
