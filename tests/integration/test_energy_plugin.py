"""The energy source of the guide, installed as another package would be."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from llenergymeasure.domain.results import ExperimentResult
from tests.support.cli import Llem

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/how-to/write-an-energy-source.md").read_text(encoding="utf-8")
POWER_W = 212.0
EXPERIMENT = """
model: none
backend: scripted
n: 4
max_new_tokens: 40
scripted: {ttft_ms: 20, itl_ms: 10}
warmup: {n_warmup: 1, thermal_floor_seconds: 0}
baseline: {enabled: false}
"""


def fenced(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


def install(site: Path) -> Path:
    """Lay out what pip would make of the guide's package."""
    (project,) = fenced("toml")
    described = tomllib.loads(project)["project"]
    metadata = site / "llem_ipmi-0.1.dist-info"
    (site / "llem_ipmi").mkdir(parents=True)
    metadata.mkdir()
    for name, text in zip(("__init__", "reader", "source"), fenced("python"), strict=True):
        (site / "llem_ipmi" / f"{name}.py").write_text(text)
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {described['name']}\nVersion: {described['version']}\n"
    )
    groups = (
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
        for group, points in described["entry-points"].items()
    )
    (metadata / "entry_points.txt").write_text("".join(groups))
    return site


@pytest.fixture
def llem(tmp_path: Path) -> Llem:
    machine = Llem(tmp_path)
    machine.write("power_w", f"{POWER_W}\n")
    machine.write("experiment.yaml", EXPERIMENT)
    machine.environment["IPMI_POWER_FILE"] = str(tmp_path / "power_w")
    machine.source_path.append(str(install(tmp_path / "site")))
    return machine


def measured(llem: Llem, *flags: str) -> dict[str, object]:
    done = llem("run", "experiment.yaml", *flags, timeout_s=120)
    assert done.code == 0, done.err
    assert "measured by IPMI: the whole server, at its power supply" in done.out
    (path,) = llem.folder.rglob("result.json")
    return dict(json.loads(path.read_text())["energy"])


def test_it_is_listed_and_taken_by_auto(llem: Llem) -> None:
    said = llem("config").out
    assert "ipmi        yes  cpu: measured, the whole server, at its power supply" in said
    assert "auto         ->  cpu: ipmi" in said
    energy = measured(llem)
    assert energy["source"] == "ipmi"
    assert str(energy["selection_reason"]).startswith("auto: ipmi is used: measured")


def test_asked_for_by_name_it_measures_with_an_interval(llem: Llem) -> None:
    energy = measured(llem, "--energy-backend", "ipmi")
    assert (energy["source"], energy["kind"]) == ("ipmi", "measured")
    assert energy["selection_reason"] == (
        "ipmi was asked for: measured, the whole server, at its power supply"
    )
    assert energy["mean_power_w"] == pytest.approx(POWER_W, rel=0.01)
    assert isinstance(energy["interval95_j"], float)
    (result,) = llem.folder.rglob("result.json")
    loaded = ExperimentResult.from_json(result.parent)  # here the package is not installed
    assert loaded.config.energy_backend == "ipmi"


def test_the_user_configuration_may_name_it(llem: Llem) -> None:
    llem.user_config("measurement: {energy_backend: ipmi}\n")
    energy = measured(llem)
    assert "measurement.energy_backend: ipmi of the user configuration decides" in str(
        energy["selection_reason"]
    )


def test_what_it_cannot_read_is_told_with_its_remedy_and_auto_goes_on(llem: Llem) -> None:
    (llem.folder / "power_w").unlink()
    said = llem.fails("run", "experiment.yaml", "--energy-backend", "ipmi")
    assert "power_w cannot be read" in said
    assert "start what keeps it up to date" in said
    assert "cpu: ipmi" not in llem("config").out


def test_without_its_package_its_name_is_refused_with_the_names_there_are(llem: Llem) -> None:
    llem.source_path.pop()
    said = llem.fails("run", "experiment.yaml", "--energy-backend", "ipmi", code=2)
    assert (
        "--energy-backend: must be 'auto', 'nvml', 'zeus', 'rapl', 'codecarbon' or 'none'" in said
    )
    assert "a source that another package adds needs that package installed here" in said


def test_a_package_that_offers_something_else_is_named(llem: Llem) -> None:
    points = llem.folder / "site/llem_ipmi-0.1.dist-info/entry_points.txt"
    points.write_text("[llenergymeasure.energy_sources]\nipmi = llem_ipmi:__doc__\n")
    said = llem.fails("run", "experiment.yaml", "--energy-backend", "ipmi")
    assert "the energy source 'ipmi'" in said
    assert "it is a str, not EnergySourceFacts" in said
    assert "pip uninstall llem-ipmi" in said


def test_one_that_cannot_be_imported_is_passed_over_and_told(llem: Llem) -> None:
    (llem.folder / "site/llem_ipmi/source.py").write_text("import no_such_library\n")
    shown = llem("config").out
    assert "'ipmi' cannot be imported: No module named 'no_such_library'" in " ".join(shown.split())
    assert "auto         ->  cpu: ipmi" not in shown
    said = llem.fails("run", "experiment.yaml", "--energy-backend", "ipmi")
    assert "energy_backend: 'ipmi' cannot be imported" in said
    assert "mend or remove the package that adds it" in said


def test_one_without_a_place_in_the_order_of_auto_says_itself_what_it_reads(llem: Llem) -> None:
    module = llem.folder / "site/llem_ipmi/__init__.py"
    module.write_text(module.read_text().replace('auto={"cpu": 5}', "auto={}"))
    shown = llem("config").out
    assert "ipmi        yes  cpu: measured, the whole server" in shown
    assert "auto         ->  cpu: ipmi" not in shown


def test_a_source_of_another_package_takes_no_name_of_a_built_in_one(llem: Llem) -> None:
    points = llem.folder / "site/llem_ipmi-0.1.dist-info/entry_points.txt"
    points.write_text("[llenergymeasure.energy_sources]\nrapl = llem_ipmi:FACTS\n")
    said = llem("config").out
    assert "the whole server" not in said
    assert said.count("\n  rapl ") == 1


def test_it_passes_the_conformance_of_sources(llem: Llem) -> None:
    (command,) = fenced("sh")
    arguments = command.split()[1:]
    paths = [str(llem.folder / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        env={**os.environ, **llem.environment, "PYTHONPATH": os.pathsep.join(paths)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout, done.stdout
