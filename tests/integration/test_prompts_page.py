"""The page on prompts: every file it shows is read, and every experiment on it runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llenergymeasure import ExperimentConfig, ExperimentResult, run_experiment
from tests.support.models import save_model

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "use-your-prompts.md"
TEXT = PAGE.read_text(encoding="utf-8")
FILES = re.findall(r"^<!-- file: (\S+) -->\n```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
EXPERIMENTS = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[answer]"
QUICK = """
max_new_tokens: 4
precision: fp32
energy_backend: none
warmup: {n_warmup: 0, thermal_floor_seconds: 0}
baseline: {enabled: false}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all files of the page, and a model with a chat template."""
    folder = tmp_path_factory.mktemp("prompts")
    for name, language, text in FILES:
        if language == "python":
            exec(compile(text.replace(f'"{name}"', repr(str(folder / name))), name, "exec"), {})
        else:
            (folder / name).write_text(text, encoding="utf-8")
    (save_model(folder / "model") / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def measured(folder: Path, experiment: str) -> ExperimentResult:
    path = folder / "experiment.yaml"
    path.write_text(re.sub(r"^model: .*$", "model: ./model", experiment, flags=re.M) + QUICK)
    return run_experiment(ExperimentConfig.from_yaml(path))


def test_the_page_has_a_file_of_each_form_and_an_experiment_with_each() -> None:
    names = [name for name, *_ in FILES]
    assert {Path(name).suffix for name in names} == {".jsonl", ".json", ".csv", ".parquet"}
    assert not [name for name in names if not any(name in one for one in EXPERIMENTS)]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_of_the_page_runs(folder: Path, experiment: str) -> None:
    result = measured(folder, experiment)
    assert result.throughput.requests_completed == result.config.n
    assert result.resolved.dataset.size == result.config.n


def test_columns_and_limits_of_the_page_are_those_in_force(folder: Path) -> None:
    (own,) = (one for one in EXPERIMENTS if "limit_column" in one)
    dataset = measured(folder, own).resolved.dataset
    assert (dataset.column, dataset.unused) == ("query", ("id",))
