"""What a user reads is complete, up to date, and true where that can be checked."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import typer
from pydantic import BaseModel

import llenergymeasure
from llenergymeasure import ExperimentConfig, StudyConfig
from llenergymeasure.cli.commands import config as config_command
from llenergymeasure.cli.commands import report as report_command
from llenergymeasure.cli.commands import run as run_command
from llenergymeasure.config.energy_sources import ENERGY_SOURCES
from llenergymeasure.config.introspection import fields
from llenergymeasure.config.loader import load_study_config
from llenergymeasure.config.plugins import load_object
from llenergymeasure.config.registry import BACKENDS
from llenergymeasure.config.user_config import UserConfig, load_settings
from llenergymeasure.core.energy.estimation import budget
from llenergymeasure.domain.results import ExperimentResult
from llenergymeasure.domain.warnings import FINDINGS
from llenergymeasure.results.layout import ExperimentDirectory, StudyDirectory
from llenergymeasure.study.grid import expand
from tests.support.study_files import is_study

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(DOCS.rglob("*.md")),
]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
USER_CONFIG = "# user configuration"


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(language: str) -> list[Block]:
    return [block for page in PAGES for block in fenced(page) if block.language == language]


def fenced(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        yield Block(page, text.count("\n", 0, found.start()) + 1, found[1], found[2])


def read(name: str) -> str:
    return (DOCS / "reference" / name).read_text(encoding="utf-8")


def section(page: str, heading: str) -> str:
    """Give the part of a page between a heading and the next of its level or above."""
    level = heading.partition(" ")[0]
    rest = page.split(f"\n{heading}\n", maxsplit=1)[1]
    return re.split(rf"^#{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def slug(heading: str) -> str:
    """Make the anchor of a heading as GitHub does."""
    bare = LINK.sub(lambda link: link[0].split("]")[0][1:], heading).replace("`", "")
    return re.sub(r"[^\w\- ]", "", bare.lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return {slug(found) for found in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


@pytest.mark.parametrize(
    ("command", "heading"),
    [
        (run_command.app, "## `llem run [CONFIG]`"),
        (report_command.app, "## `llem report`"),
        (config_command.app, "## `llem config`"),
    ],
    ids=["run", "report", "config"],
)
def test_every_flag_is_documented_and_no_other(command: typer.Typer, heading: str) -> None:
    built = typer.main.get_command(command)
    flags = {flag for parameter in built.params for flag in parameter.opts if flag[0] == "-"}
    table = [row for row in section(read("cli.md"), heading).splitlines() if row.startswith("| `")]
    documented = {flag for row in table for flag in re.findall(r"`(-[^`]+)`", row.split("|")[1])}
    assert documented - {"--help", "-h"} == flags - {"--help"}


@pytest.mark.parametrize("model", [ExperimentConfig, StudyConfig, UserConfig])
def test_every_field_of_the_configuration_is_documented(
    model: type[BaseModel],
) -> None:
    page = read("configuration.md")
    missing = [field.name for field in fields(model) if f"| `{field.name}` |" not in page]
    assert not missing


def test_every_field_has_a_description() -> None:
    models = (ExperimentConfig, StudyConfig, UserConfig, ExperimentResult)
    silent = [field.name for model in models for field in fields(model) if not field.description]
    assert not silent


def test_every_headline_field_of_the_result_is_documented() -> None:
    page = read("results.md")
    assert not [name for name in ExperimentResult.model_fields if f"| `{name}` |" not in page]


def test_every_warning_is_documented_with_its_remedy() -> None:
    page = read("warnings.md")
    for code, finding in FINDINGS.items():
        text = section(page, f"### `{code}`")
        assert finding.level in text
        assert finding.meaning in text
        assert finding.remedy in text


def test_every_plugin_is_documented() -> None:
    page = read("backends.md")
    assert not [name for name in (*BACKENDS, *ENERGY_SOURCES) if f"| `{name}` |" not in page]


@pytest.mark.parametrize("name", [name for name, one in BACKENDS.items() if one.package])
def test_every_engine_has_a_page_that_says_what_it_needs_and_what_is_not_equal(name: str) -> None:
    entry, link = BACKENDS[name], f"engines/{name}.md"
    page = (DOCS / link).read_text(encoding="utf-8")
    here = entry.install.replace("llenergymeasure[", ".[")  # this version is on no index
    assert here in section(page, "## Install")
    assert f"{entry.minimum} " in section(page, "## Install").replace(",", " ")
    assert f"{name}." in page
    assert "not equal" in page.lower()
    assert "has been run" in page.lower()
    assert link in read("backends.md")
    assert f"docs/{link}" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["pytorch", "tensorrt"])
def test_a_page_that_lists_settings_lists_them_all(name: str) -> None:
    page = (DOCS / "engines" / f"{name}.md").read_text(encoding="utf-8")
    rows = " ".join(row.split("|")[1] for row in page.splitlines() if row.startswith("| `"))
    named = set(re.findall(r"`(?:\w+\.)?(\w+)[`:]", rows))
    section_model = load_object(BACKENDS[name].section)
    assert set(section_model.model_fields) <= named


def test_every_file_of_an_experiment_is_documented() -> None:
    page = read("results.md")
    names = {path.name for path in vars(ExperimentDirectory(Path())).values()} - {""}
    assert len(names) > 5
    assert not [name for name in names if f"| `{name}` |" not in page]


def test_every_file_of_a_study_is_documented() -> None:
    page = read("results.md")
    names = {path.name for path in vars(StudyDirectory(Path())).values()} - {""}
    assert len(names) > 5
    assert not [name for name in names if f"| `{name}" not in page]


def test_every_environment_variable_is_documented() -> None:
    source = "\n".join(path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py"))
    variables = set(re.findall(r"\bLLEM_[A-Z_]+", source))
    assert len(variables) > 4
    page = section(read("cli.md"), "## Environment variables")
    assert not [name for name in variables if f"`{name}" not in page]


def test_every_exit_code_and_error_code_is_documented() -> None:
    page = section(read("cli.md"), "## Exit codes")
    assert set(re.findall(r"^\| (\d+) \|", page, re.MULTILINE)) == {
        "0",
        "1",
        "2",
        "129",
        "130",
        "143",
    }
    source = "\n".join(path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py"))
    codes = set(re.findall(r'^    code = "(\w+)"$|_say\(\w+, "(\w+)"', source, re.MULTILINE))
    codes = {code for pair in codes for code in pair if code}
    assert codes >= {"config", "preflight", "usage", "internal"}
    assert not [code for code in codes if f"`{code}`" not in page]


def test_the_public_names_are_those_of_the_documentation() -> None:
    table = re.findall(r"^\| `(\w+)` \|", read("library.md"), re.MULTILINE)
    assert sorted(table) == sorted(llenergymeasure.__all__)


def test_generated_pages_are_up_to_date(tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import make_reference
    finally:
        sys.path.pop(0)
    make_reference.main(["--output", str(tmp_path)])
    written = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.md"))
    assert len(written) > 3
    stale = [page for page in written if (tmp_path / page).read_text() != (DOCS / page).read_text()]
    assert not stale, "run: make docs"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_a_design_that_can_run(path: Path) -> None:
    check_design(path)


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_every_yaml_block_is_valid(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "block.yaml"
    file.write_text(block.text, encoding="utf-8")
    if block.text.startswith(USER_CONFIG):
        assert load_settings(file, environ={}).origins
    else:
        check_design(file)


def check_design(path: Path) -> None:
    """Hold an experiment or a study to every rule there is before anything runs."""
    if not is_study(path):
        ExperimentConfig.from_yaml(path)
    assert expand(load_study_config(path)).experiments


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_every_python_block_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_resolves(page: Path) -> None:
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page not in reached:
            reached.add(page)
            links = LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
            local = (link.partition("#")[0] for link in links if "://" not in link)
            todo += [(page.parent / name).resolve() for name in local if name.endswith(".md")]
    assert not set(PAGES) - reached


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"\b((?:examples|scripts|benchmarks|tests|docs)/[\w/.-]+\.\w+)", text))
    package = set(
        re.findall(r"`((?:core|config|domain|results|orchestration|state|study)/[\w/]+\.py)`", text)
    )
    assert not [name for name in named if not (ROOT / name).exists()]
    assert not [name for name in package if not (ROOT / "src/llenergymeasure" / name).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_verb_that_a_page_names_is_one_of_the_makefile(page: Path) -> None:
    verbs = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"unit", "integration", "test", "test-exhaustive", "coverage"} <= verbs
    assert set(re.findall(r"`make ([a-z-]+)", page.read_text(encoding="utf-8"))) <= verbs


def test_contributing_lists_every_verb_that_tests() -> None:
    text = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"`make ([a-z-]+)", (ROOT / "CONTRIBUTING.md").read_text()))
    assert set(re.findall(r"^(test[a-z-]*):.*##", text, re.MULTILINE)) <= named


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", DOCS / "methodology.md"], ids=lambda p: p.name
)
def test_figures_of_real_boards_are_those_of_the_benchmark(page: Path) -> None:
    rows = re.findall(
        r"^\| (?:windows of 1 s|\S+, [^|]+: [^|]+) \|.*$", page.read_text(), re.MULTILINE
    )
    results = (ROOT / "benchmarks" / "results" / "energy_recorded.md").read_text().splitlines()
    assert len(rows) > 4
    assert [row for row in rows if row not in results] == []


def test_every_line_of_the_budget_is_explained() -> None:
    names = [
        word for name, word in vars(budget).items() if name.isupper() and isinstance(word, str)
    ]
    text = (DOCS / "methodology.md").read_text()
    assert len(names) > 10
    assert [name for name in names if f"| `{name}` |" not in text] == []
