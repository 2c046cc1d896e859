"""A real quota on CPU time, where this machine lets a control group be made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from llenergymeasure.core.allowance import allowance

HOLD_BACK = """
import json, time
from llenergymeasure.core.allowance import allowance, read_throttling, throttling

before, end = read_throttling(), time.monotonic() + 1.5
while time.monotonic() < end:
    pass
held = throttling(before, read_throttling())
print(json.dumps([allowance().cpu_quota, held and held.model_dump()]))
"""


@pytest.fixture
def group() -> Iterator[Path]:
    """Make a group of its own that may take a fifth of a CPU."""
    roots = {"cpu.cfs_quota_us": "/sys/fs/cgroup/cpu", "cpu.max": "/sys/fs/cgroup"}
    made = None
    for file, root in roots.items():
        folder = Path(root, f"llem-test-{uuid.uuid4().hex[:8]}")
        with suppress(OSError):
            folder.mkdir()
            made = folder
            (folder / file).write_text("20000 100000" if file == "cpu.max" else "20000")
            break
        if made is not None:
            made.rmdir()
            made = None
    if made is None:
        pytest.skip("no control group with a quota can be made here")
    yield made
    made.rmdir()


def test_a_process_under_a_quota_knows_it_and_what_it_held_back(group: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOLD_BACK],
        preexec_fn=lambda: (group / "cgroup.procs").write_text(str(os.getpid())),
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    quota, held = json.loads(done.stdout)

    assert quota == pytest.approx(0.2)
    assert held["group"].endswith(group.name)
    assert held["periods"] >= held["throttled_periods"] >= 5
    assert held["throttled_s"] > 0


def test_this_process_is_allowed_something() -> None:
    allowed = allowance()
    assert allowed.memory_mb > 100
    assert 1 <= allowed.threads <= allowed.cpus
