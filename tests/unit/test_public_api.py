from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import llenergymeasure

ROOT = Path(__file__).parents[2]
SOURCE = Path(llenergymeasure.__file__).parent.parent


def test_the_public_names_are_these_and_no_others():
    assert set(llenergymeasure.__all__) == {
        "run_experiment",
        "run_study",
        "ExperimentConfig",
        "StudyConfig",
        "ExperimentResult",
        "StudyResult",
        "__version__",
    }
    assert dir(llenergymeasure) == sorted(llenergymeasure.__all__)


@pytest.mark.parametrize("name", llenergymeasure.__all__)
def test_every_public_name_resolves_and_says_what_it_is(name):
    value = getattr(llenergymeasure, name)

    assert value is not None
    if name != "__version__":
        assert value.__doc__
        assert value.__name__ == name


def test_an_unknown_name_is_an_attribute_error_that_names_it():
    with pytest.raises(AttributeError, match="'llenergymeasure' has no attribute 'run_everything'"):
        llenergymeasure.run_everything  # noqa: B018


def test_the_version_is_that_of_the_version_file():
    text = (SOURCE / "llenergymeasure/_version.py").read_text()

    assert re.findall(r'__version__.*= "(.+)"', text) == [llenergymeasure.__version__]


def test_the_package_ships_its_types():
    assert (SOURCE / "llenergymeasure/py.typed").is_file()


SNIPPET = """
from pathlib import Path
from llenergymeasure import (
    ExperimentConfig, ExperimentResult, StudyConfig, StudyResult, run_experiment, run_study
)

one: ExperimentResult = run_experiment("experiment.yaml")
two: ExperimentResult = run_experiment(Path("experiment.yaml"), output_dir="results")
three: ExperimentResult = run_experiment(ExperimentConfig(model="m"), output_dir=None)
four: ExperimentResult = run_experiment(model="m", n=3, output_dir=Path("results"))
five: StudyResult = run_study("study.yaml")
six: StudyResult = run_study(StudyConfig.from_yaml("study.yaml"), output_dir=None)
reveal_type(one.energy_total_j)
run_experiment("experiment.yaml", n=3)  # a file or fields, not both
run_experiment(7)
run_study()
run_study("study.yaml", output_dir=3)
"""


def test_the_overloads_tell_a_type_checker_what_may_be_given(tmp_path):
    api = pytest.importorskip("mypy.api", reason="mypy is not installed")
    (tmp_path / "snippet.py").write_text(SNIPPET)
    arguments = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(tmp_path / "c")]
    before = Path.cwd()
    if SOURCE.name != "site-packages":  # mypy finds what is installed by itself, and insists on it
        os.environ["MYPYPATH"] = str(SOURCE)
    os.chdir(tmp_path)
    try:
        report, _, _ = api.run([*arguments, str(tmp_path / "snippet.py")])
    finally:
        os.chdir(before)
        os.environ.pop("MYPYPATH", None)

    lines = [line for line in report.splitlines() if "snippet.py" in line]
    wrong = {int(line.split(":")[1]) for line in lines if " error: " in line}
    assert wrong == {14, 15, 16, 17}, report
    assert any('Revealed type is "float | None"' in line for line in lines), report
