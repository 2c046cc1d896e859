"""What only several processes together can show: claims at once, and whose CPU time counts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from llenergymeasure.core.environment import read_cpu_times


def test_processes_that_claim_at_once_never_share_a_directory(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from llenergymeasure.results.filenames import claim_directory\n"
        "sys.stdin.read()\n"
        "for _ in range(50): print(claim_directory(Path(sys.argv[1]), 'run').name)\n"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.close()
        child.stdin = None
    names = [name for child in children for name in child.communicate()[0].split()]
    assert len(names) == 150
    assert len(set(names)) == 150


def test_children_count_as_ours_while_they_run_and_when_they_have_ended():
    def spend(seconds: float) -> subprocess.Popen[str]:
        code = (
            f"import time\nwhile time.process_time() < {seconds}: pass\n"
            "print('spent', flush=True)\ninput()"
        )
        pipe = subprocess.PIPE
        return subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True)

    before = read_cpu_times()
    with spend(0.5) as child:
        child.stdout.readline()
        running = read_cpu_times()
        child.stdin.write("\n")
    ended = read_cpu_times()

    assert running.own_s - before.own_s >= 0.4
    assert ended.own_s >= running.own_s - 0.01
    assert ended.busy_s - before.busy_s >= 0.4
    assert ended.total_s > before.total_s
