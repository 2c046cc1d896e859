"""Files that the system refuses to grow."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest


def _names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


@pytest.mark.parametrize("what", ["json", "parquet", "requests"])
def test_a_file_the_system_refuses_to_grow_is_an_experiment_error(
    tmp_path: Path, what: str
) -> None:
    script = f"""
import resource, sys
from pathlib import Path
from llenergymeasure.exceptions import ExperimentError
from llenergymeasure.results import persistence, tables
from tests.support.make_result import make_process, make_result
root = Path(sys.argv[1])
result = make_result()
share = make_process(prompts=range(5000))
import pyarrow.parquet
resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))
try:
    match {what!r}:
        case "json": persistence.to_json(result, root)
        case "parquet": persistence.to_parquet(result, root / "row.parquet")
        case "requests": tables.write_requests([share], root / "requests.parquet")
except ExperimentError as error:
    print(error.message)
"""
    done = subprocess.run(
        [sys.executable, "-B", "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=True,
    )
    assert "File too large" in done.stdout
    assert "--output" in done.stdout
    assert _names(tmp_path) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 512
