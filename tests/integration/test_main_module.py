"""The package run as a module."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import llenergymeasure

SOURCE = Path(llenergymeasure.__file__).parent.parent


def test_python_m_with_the_name_of_the_package_is_the_command_of_that_interpreter():
    done = subprocess.run(
        [sys.executable, "-m", "llenergymeasure", "--version"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    assert done.returncode == 0, done.stderr
    assert re.search(rf"llenergymeasure +{llenergymeasure.__version__}", done.stdout)
