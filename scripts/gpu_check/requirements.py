"""Print what the check needs besides an engine, a requirement a line, out of pyproject.toml."""

from __future__ import annotations

import argparse
import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
LARGE = {"numpy", "pyarrow", "scipy", "pandas"}
TEST_RUNNER = "pytest"


def requirements(*, small: bool) -> list[str]:
    """List requirements of the package, of its tests and of building it.

    Args:
        small: Leave out what takes tens of megabytes.
    """
    content = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))
    project = content["project"]
    runner = [one for one in project["optional-dependencies"]["dev"] if _name(one) == TEST_RUNNER]
    wanted = [*project["dependencies"], *runner, *content["build-system"]["requires"]]
    return [one for one in wanted if not (small and _name(one) in LARGE)]


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    print("\n".join(requirements(small=parser.parse_args().small)))
