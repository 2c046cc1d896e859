"""What goes to other programs is what is stored, to the last bit, and does no harm there."""

from __future__ import annotations

import csv
import io
import json

import pytest

from llenergymeasure.domain.results import StudyResult
from llenergymeasure.domain.study_result import FIGURES
from llenergymeasure.report.exports import (
    SCHEMA_FILE,
    csv_text,
    json_data,
    json_schema,
    markdown_text,
    rows,
)
from tests.support.make_result import make_result, make_trust
from tests.support.make_study import make_configs, make_run, make_study


@pytest.fixture(scope="module")
def study() -> StudyResult:
    return make_study(lambda config, number, cycle: make_run(config, 800 / number + cycle / 3))


def _read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_csv_has_a_row_a_configuration_and_every_figure_to_the_last_bit(
    study: StudyResult,
) -> None:
    lines = _read(csv_text([study]))
    assert len(lines) == len(study.configurations)
    for line, one in zip(lines, study.configurations, strict=True):
        assert line["label"] == one.label
        for name, figure in one.figures.items():
            low, high = figure.interval95 or (None, None)
            cells = [line[f"{name}{end}"] for end in ("", "_low", "_high", "_n")]
            read = [float(cell) if cell else None for cell in cells]
            assert read == [figure.mean, low, high, figure.n], name


def test_csv_of_one_experiment_has_its_figures_and_the_interval_of_its_energy() -> None:
    result = make_result()
    (line,) = _read(csv_text([result]))
    for name, metric in FIGURES.items():
        value = metric.of(result)
        assert line.get(name, "") == ("" if value is None else repr(value))
    half, tokens = result.energy.interval95_j, result.throughput.output_tokens
    assert half is not None
    per_token = result.energy_per_output_token_j
    assert per_token is not None
    assert float(line["energy_per_output_token_j_low"]) == per_token - half / tokens


def test_an_experiment_names_where_it_ran_as_the_row_of_a_study_does() -> None:
    result = make_result()
    (alone,), (within,) = rows(result), rows(make_study(lambda *_: result, make_configs([1]), 1))
    assert alone.devices == within.devices != ()


def test_csv_of_figures_that_a_result_does_not_have_are_empty_cells() -> None:
    without = make_study(lambda config, number, cycle: make_run(config, None))
    both = make_study(lambda config, number, cycle: make_run(config, 900.0 + cycle))
    lines = _read(csv_text([without, both]))
    assert lines[0]["energy_total_j"] == lines[0]["energy_total_j_n"] == ""
    assert float(lines[-1]["energy_total_j"]) == 902.0


def test_no_cell_of_a_csv_is_a_formula(study: StudyResult) -> None:
    named = study.model_copy(update={"name": '=HYPERLINK("http://x")'})
    assert _read(csv_text([named]))[0]["study"] == '\'=HYPERLINK("http://x")'


def test_markdown_shows_names_as_they_are_and_stays_a_table(study: StudyResult) -> None:
    odd = study.model_copy(update={"name": "a|b <img> [x](y)\n# z"})
    lines = markdown_text([odd]).splitlines()
    assert lines[0] == r"### Study: a\|b \<img\> \[x\](y) \# z"
    table = [line for line in lines if line.startswith("| ")]
    assert len(table) == 2 + len(study.configurations)
    assert len({line.replace(r"\|", "").count("|") for line in table}) == 1
    assert "energy per output token, J" in table[0]


def test_json_is_what_is_stored_and_holds_to_its_schema(study: StudyResult) -> None:
    jsonschema = pytest.importorskip("jsonschema")  # of the extra dev
    result = make_result()
    data = json.loads(json.dumps(json_data([study, result])))
    jsonschema.Draft202012Validator.check_schema(json_schema())
    jsonschema.validate(data, json_schema(), cls=jsonschema.Draft202012Validator)
    assert data["studies"] == [json.loads(study.model_dump_json(exclude={"experiments"}))]
    assert data["experiments"] == [json.loads(result.model_dump_json())]


def test_the_schema_refuses_a_figure_that_is_text(study: StudyResult) -> None:
    jsonschema = pytest.importorskip("jsonschema")  # of the extra dev
    data = json_data([study])
    data["studies"][0]["configurations"][0]["figures"]["tokens_per_second"]["mean"] = "fast"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, json_schema(), cls=jsonschema.Draft202012Validator)


def test_settings_of_configurations_are_columns_of_their_own() -> None:
    study = make_study(lambda config, number, cycle: make_run(config), make_configs((1, 4)))
    lines = _read(csv_text([study]))
    assert [line["settings.pytorch.batch_size"] for line in lines] == ["1", "4"]


def test_the_schema_in_the_package_is_that_of_the_records() -> None:
    """``scripts/make_reference.py`` writes it; what breaks readers needs another version."""
    assert json.loads(SCHEMA_FILE.read_text(encoding="utf-8")) == json_schema()


def test_markdown_of_an_experiment_tells_its_energy_and_its_findings() -> None:
    result = make_result(trust=make_trust("cpu_shared"))
    text = markdown_text([result])
    assert result.energy.scope in text
    assert "caution: cpu\\_shared" in text
