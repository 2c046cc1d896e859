"""The site lists every page, the citation is of this version, the examples are in the package."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from llenergymeasure import __version__
from llenergymeasure.config import examples
from llenergymeasure.exceptions import FlagError

ROOT = Path(__file__).parents[2]
LISTED = (ROOT / "scripts/site/contents.md").read_text(encoding="utf-8")
MADE = {"docs/reference/api"}  # by scripts/make_site.py, of docstrings


def test_the_site_lists_every_page_once_and_no_other() -> None:
    entries = re.findall(r"^((?:docs|benchmarks)/[\w/-]+|[A-Z]+)$", LISTED, re.MULTILINE)
    pages = {str(path.relative_to(ROOT).with_suffix("")) for path in ROOT.glob("docs/**/*.md")}
    assert len(entries) == len(set(entries))
    assert pages | MADE <= set(entries)
    assert not [entry for entry in set(entries) - MADE if not (ROOT / f"{entry}.md").exists()]


def test_the_citation_is_of_this_version_and_has_what_the_format_asks_for() -> None:
    """Required keys and types are those of the Citation File Format 1.2.0."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert cited["cff-version"] == "1.2.0"
    assert cited["type"] == "software"
    assert all(isinstance(cited[key], str) for key in ("message", "title", "abstract"))
    assert (cited["title"], cited["license"]) == (project["name"], project["license"])
    assert cited["version"] == __version__
    assert cited["authors"] == project["authors"]


def test_the_examples_of_the_package_are_those_of_the_checkout() -> None:
    files = {path.relative_to(ROOT / "examples") for path in ROOT.glob("examples/**/*.yaml")}
    assert set(examples.names()) == {str(path.with_suffix("")) for path in files}
    assert examples.find("quickstart").samefile(ROOT / "examples/quickstart.yaml")


@pytest.mark.parametrize("name", ["nosuch", "", "../examples/quickstart", "quickstart.yaml"])
def test_an_example_that_is_not_there_is_answered_by_those_that_are(name: str) -> None:
    with pytest.raises(FlagError, match=r"there are .*quickstart"):
        examples.find(name)
