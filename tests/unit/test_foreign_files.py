"""What is said of a file that somebody else wrote, or that is no configuration."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from llenergymeasure import run_experiment, run_study
from llenergymeasure.config.loader import load_study_config
from llenergymeasure.config.models import STORED as STORED_DATA
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.plain_words import shown
from llenergymeasure.core.models.architecture import ModelArchitecture
from llenergymeasure.core.models.catalogue import config as catalogued
from llenergymeasure.exceptions import ConfigError, LLEMError
from llenergymeasure.results.files import parse
from llenergymeasure.results.recognise import explained
from llenergymeasure.study.prepare import find_study
from tests.support.study_on_disk import make_plan, make_study, scripted

STORED = Path(__file__).parents[1] / "data" / "stored_2.0"
SHADOW = "".join(
    f"user{n}:$6$Salt{n}$Hash{n}of-a-password-that-is-long/{'x' * 60}:19000:0:99999:7:::\n"
    for n in range(30)
)
SECRET = "Hash3of-a-password"


def refused(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_study_config(path)
    return caught.value.message


# What of a foreign file is shown ------------------------------------------------------------------


@pytest.fixture
def build_on(tmp_path: Path) -> Callable[[str], str]:
    def refusal(text: str) -> str:
        (tmp_path / "foreign").write_text(text)
        upper = tmp_path / "upper.yaml"
        upper.write_text("model: m\nbase: foreign\n")
        return refused(upper)

    return refusal


def test_a_base_that_is_no_configuration_is_refused_without_a_word_of_it(build_on, tmp_path):
    message = build_on(SHADOW)
    assert message == (
        f"{tmp_path / 'foreign'} has no field of an experiment or a study, so nothing can build "
        "on it"
    )


@pytest.mark.parametrize(
    "text",
    [
        f"[default]\nkey = {SECRET}\n",
        f"export KEY={SECRET}\n",
        f"machine host login me password {SECRET}\n",
        f"- {SECRET}\n",
        f"!!{SECRET}/{SECRET}/{SECRET}/{SECRET}/{SECRET} x\n",
        f"key: {{{SECRET}: *{SECRET}}}\n",
        f"-----BEGIN KEY-----\n{SECRET}\n-----END KEY-----\n",
    ],
)
def test_no_other_kind_of_file_is_shown_by_naming_it_as_a_base(build_on, text):
    assert build_on(text).count(SECRET) <= 2, "two begin within forty characters"
    assert len(build_on(text)) < 400


def test_keys_of_a_base_that_are_no_fields_are_shown_by_five_beginnings(build_on, tmp_path):
    keys = "".join(f"{name}{'x' * 100}: 1\n" for name in "abcdefgh")
    message = build_on(f"model: m\nmodle: n\n{keys}")

    assert (
        f"{tmp_path / 'foreign'}, line 2: unknown field 'modle', did you mean 'model'?" in message
    )
    assert "3 problems" not in message
    assert message.count("unknown field '") == 5
    assert "4 more unknown fields" in message
    assert "x" * 41 not in message


def test_a_quotation_has_a_bound_and_stays_on_its_line():
    assert shown("abc") == "abc"
    assert shown("x" * 41) == "x" * 39 + "…"
    assert shown("a\nb\x1b[31m\udcff") == r"a\nb\x1b[31m\udcff"
    assert len(shown({"key": ["x" * 10**6] * 10**4})) <= 40
    assert shown(7) == "7"


def test_entries_of_a_model_are_shown_by_their_beginning():
    config = {**catalogued("tiny-llama"), "hidden_size": "x" * 1000}
    with pytest.raises(ConfigError) as caught:
        ModelArchitecture.from_config(config)
    assert "x" * 41 not in caught.value.message

    strange = ModelArchitecture.from_config({**catalogued("tiny-llama"), "model_type": "y" * 1000})
    assert "y" * 41 not in str(strange.doubt)


def test_a_key_of_a_result_that_stands_there_twice_is_shown_by_its_beginning():
    key = "z" * 1000
    with pytest.raises(ValueError, match="stands there twice") as caught:
        parse(f'{{"{key}": 1, "{key}": 2}}')
    assert "z" * 41 not in str(caught.value)


# Results given in place of a configuration --------------------------------------------------------


@pytest.fixture
def study(tmp_path: Path) -> Path:
    copy = shutil.copytree(STORED / "study", tmp_path / "my study")
    (copy / "summary.parquet").write_bytes(b"PAR1")
    return copy


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    return shutil.copytree(STORED / "experiment", tmp_path / "one")


def told(path: Path) -> str:
    """Give what the command, and both functions of the library, say alike."""
    found = set()
    for call in (run_study, run_experiment):
        with pytest.raises(LLEMError) as caught:
            call(path, output_dir=None)
        found.add(caught.value.message)
        assert type(caught.value) is ConfigError
        assert caught.value.where == str(path)
    (message,) = found
    assert message.startswith(f"{path} is ")
    assert "\n" not in message
    assert len(message) < 600
    return message


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("", "the directory of a study"),
        ("experiments", "the directory of a study"),
        ("study_manifest.json", "the plan of a study"),
        ("study_summary.json", "the summary of a study"),
        ("study_progress.jsonl", "a file of a study"),
        ("summary.parquet", "a file of a study"),
        ("experiments/*", "the directory of a result"),
        ("experiments/*/result.json", "the result of an experiment"),
        ("experiments/*/requests.parquet", "a file of an experiment"),
    ],
)
def test_a_part_of_a_study_says_what_it_is_and_how_the_study_goes_on(study, name, what):
    (path, *_) = sorted(study.glob(name)) if name else [study]
    message = told(path)
    assert f" is {what}; " in message
    assert f"llem run --resume '{study}'" in message


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("", "the directory of a result"),
        ("result.json", "the result of an experiment"),
        ("timeseries.parquet", "a file of an experiment"),
    ],
)
def test_a_result_by_itself_says_what_it_is_and_how_to_see_it(experiment, name, what):
    message = told(experiment / name)
    assert f" is {what}; " in message
    assert f'ExperimentResult.from_json("{experiment}")' in message
    assert "--resume" not in message


def test_what_a_worker_was_told_beside_a_result_can_be_run_again(study, experiment):
    for folder in (next(study.glob("experiments/*")), experiment):
        config = folder / "config.json"
        asked = json.loads((folder / "result.json").read_text())["config"]
        (again,) = load_study_config(config).experiments
        assert again == ExperimentConfig.model_validate(asked, context=STORED_DATA)
        assert f"; measure it again: llem run {shlex.quote(str(config))}; " in told(folder)


def test_a_mistake_in_what_a_worker_was_told_is_named_with_its_line(experiment):
    config = experiment / "config.json"
    text = config.read_text()
    config.write_text(text.replace('"n": ', '"n": -', 1))
    line = next(i for i, one in enumerate(text.splitlines(), 1) if '"n": ' in one)
    with pytest.raises(ConfigError, match=rf"config\.json, line {line}: n: "):
        load_study_config(config)


def test_what_is_no_study_says_what_it_is_to_who_would_resume_it(study, experiment):
    slot = next(study.glob("experiments/*"))
    for path in (slot, slot / "result.json", study / "study_summary.json"):
        with pytest.raises(LLEMError, match="no study in") as caught:
            find_study(path)
        assert f"llem run --resume '{study}'" in caught.value.message
    with pytest.raises(LLEMError, match=r"is the directory of a result; .*; in Python"):
        find_study(experiment)


def test_the_directory_that_holds_studies_says_so(study):
    folder = study.parent
    (folder / "notes.txt").write_text("")
    found = f"llem run --resume {folder} finds them"
    assert told(folder) == f"{folder} is a directory with studies in it; {found}, to go on with one"


def test_a_result_under_another_name_and_an_error_are_known_by_what_they_hold(experiment, tmp_path):
    renamed = (experiment / "result.json").rename(tmp_path / "before.json")
    assert "is the result of an experiment; llem run takes a YAML file" in told(renamed)

    error = tmp_path / "error.json"
    error.write_text(json.dumps({"config": {}, "code": "timeout", "message": "late"}))
    assert "is what is known of an experiment that failed; " in told(error)


def test_a_plan_too_large_for_a_configuration_is_known_all_the_same(tmp_path):
    plan = make_plan([scripted(size, n=99) for size in range(1, 20)])
    study = make_study(tmp_path / "study", plan)
    text = study.manifest.read_text()
    study.manifest.write_text(text.replace('"slots"', f'"filler": "{"x" * (1 << 20)}", "slots"'))
    assert "is the plan of a study; go on with it" in told(study.manifest)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("prompts.jsonl", b'{"prompt": "a"}\n'),
        ("prompts.jsonl", b'{"prompt": "a"}\n{"prompt": "b"}\n'),
        ("prompts.csv", b"prompt,max_tokens\nhello,3\n"),
        ("prompts.JSONL", b'{"prompt": "a"}\n'),
        ("prompts.jsonl.gz", b"\x1f\x8b\x08\x00"),
        ("prompts", b"PAR1\x15\x00"),
        ("prompts.json", b'[{"prompt": "a"}]'),
    ],
)
def test_a_data_set_says_how_it_is_given(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    assert f"is a data set; measure a model with it: llem run -d {path} --model" in told(path)


def test_a_model_says_how_it_is_given(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(catalogued("tiny-llama")))
    assert f"is of a model; measure it: llem run --model {tmp_path}" in told(tmp_path)
    assert f"measure it: llem run --model {tmp_path}" in told(tmp_path / "config.json")


@pytest.mark.parametrize("text", ["modle: m\n", '{"modle": "m"}\n', "{", "- 1", "", "just words"])
def test_a_configuration_with_a_mistake_is_told_its_mistake(tmp_path, text):
    path = tmp_path / "experiment.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_study_config(path)
    assert explained(path, caught.value) is caught.value
    assert explained(None, caught.value) is caught.value
