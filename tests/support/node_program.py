"""Run a few lines of Python in a process that sees a simulated node through the real bindings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.simulated_device.device import SimulatedNode

ROOT = Path(__file__).parents[2]


def ask_on(
    node: SimulatedNode,
    code: str,
    given: object = None,
    environ: Mapping[str, str] | None = None,
) -> Any:
    """Run code on a node's devices and give what it put into ``answer``.

    Args:
        node: The devices.
        code: Lines of Python; ``given`` is there for them, and they set ``answer``.
        given: Data that JSON can hold.
        environ: More environment variables.
    """
    program = (
        "import json, sys, time\ngiven = json.loads(sys.argv[1])\n"
        f"{textwrap.dedent(code)}\nprint(json.dumps(answer), flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(given)],
        env=environment(node, environ),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def environment(node: SimulatedNode, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Give the environment of a process that sees a node and no other device."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_")}
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    return {**kept, **node.environment, "PYTHONPATH": path, **(more or {})}
