"""Lay out the sources of the documentation's site, and build it: strictly, and without a network.

Files keep the places that they have in the repository, so that links work in both. What is added:
the front page with its tables of contents, and the reference of the public names, which is made of
their docstrings. A dead link, and a page that no table lists, end the build with an error.
"""

from __future__ import annotations

import argparse
import inspect
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import llenergymeasure

ROOT = Path(__file__).resolve().parents[1]
CONFIGURATION = ROOT / "scripts" / "site"
SHOWN = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "CITATION.cff",
    "docs/**/*.*",
    "examples/**/*.yaml",
    "benchmarks/README.md",
    "benchmarks/results/*.svg",
    "benchmarks/results/energy_accuracy.md",
    "benchmarks/results/energy_realtime.md",
    "benchmarks/results/energy_recorded.md",
    "benchmarks/results/study_statistics.md",
)


def lay_out(target: Path) -> None:
    """Copy what the site shows to a directory, which is made anew.

    Args:
        target: The directory.
    """
    shutil.rmtree(target, ignore_errors=True)
    for path in (found for pattern in SHOWN for found in ROOT.glob(pattern)):
        place = target / path.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    shutil.copyfile(CONFIGURATION / "contents.md", target / "contents.md")
    (target / "docs/reference/api.md").write_text(reference(), encoding="utf-8")


def reference() -> str:
    """Write the page of the public names; their docstrings are put in by the generator."""
    directives = [directive(name) for name in llenergymeasure.__all__ if name[0] != "_"]
    text = "\n".join([*directives, ".. automodule:: llenergymeasure.exceptions"])
    return f"# API\n\nThe public names, from their docstrings.\n\n```{{eval-rst}}\n{text}\n```\n"


def directive(name: str) -> str:
    """Give the line that shows a public name; of a model, its fields stand for its signature."""
    is_class = inspect.isclass(getattr(llenergymeasure, name))
    kind, signature = ("class", "()") if is_class else ("function", "")
    return f".. auto{kind}:: llenergymeasure.{name}{signature}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the site; give the exit code of the generator."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "build", help="where it is built")
    output: Path = parser.parse_args(arguments).output
    sources, site = output / "site-src", output / "site"
    lay_out(sources)
    strict = ("-q", "-W", "--keep-going", "-E", "-b", "html")
    command = [sys.executable, "-m", "sphinx", *strict, "-c", str(CONFIGURATION)]
    code = subprocess.run([*command, str(sources), str(site)], check=False).returncode
    print(f"{site / 'contents.html'}" if code == 0 else "the site is not complete")
    return code


if __name__ == "__main__":
    sys.exit(main())
