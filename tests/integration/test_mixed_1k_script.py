"""The script that writes the packaged prompts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.samples import EXHAUSTIVE

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "src/llenergymeasure/datasets/builtin/mixed-1k.jsonl"


@pytest.mark.parametrize("hash_seed", ["12345", pytest.param("0", marks=EXHAUSTIVE)])
def test_it_writes_the_shipped_file_byte_for_byte(tmp_path: Path, hash_seed: str) -> None:
    output = tmp_path / "again.jsonl"
    subprocess.run(
        [sys.executable, str(ROOT / "scripts/make_mixed_1k.py"), "--output", str(output)],
        check=True,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        timeout=300,
    )
    assert output.read_bytes() == SHIPPED.read_bytes()
