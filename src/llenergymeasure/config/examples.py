"""The examples that come with the package: the files that a checkout has in ``examples/``."""

from __future__ import annotations

from pathlib import Path

from llenergymeasure.exceptions import FlagError

FOLDER = Path(__file__).parents[1] / "examples"  # in a checkout a link to the one beside src


def names() -> list[str]:
    """Give the names of all examples, in order."""
    files = (path.relative_to(FOLDER) for path in FOLDER.rglob("*.yaml"))
    return sorted(str(path.with_suffix("")) for path in files)


def find(name: str) -> Path:
    """Give the file of an example.

    Args:
        name: Its name, without the ending.

    Raises:
        FlagError: There is none of that name.
    """
    if name not in names():
        said = f"--example: there is no '{name[:80]}'; there are {', '.join(names())}"
        raise FlagError(said, where="--example")
    return FOLDER / f"{name}.yaml"
