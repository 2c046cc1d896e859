"""Text that is no Unicode: what Python makes of a path in another encoding."""

from __future__ import annotations

import io
import json
import os

import pyarrow.parquet as pq
import pytest
from pydantic import Field, ValidationError

from llenergymeasure.cli.failure import take_any_text
from llenergymeasure.config.base import TextModel, as_unicode
from llenergymeasure.config.canonical import canonical_hash
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.domain import Record
from tests.support.make_result import make_resolved, make_result

LATIN = os.fsdecode(b"/caf\xe9/model")


class Place(Record):
    """A record with a path in it."""

    path: str = Field(description="Path.")
    lengths: tuple[int, ...] = Field((), description="Numbers.")


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("path", [LATIN, "plain", "\u00e9\U0001f600", 'quo"te\n'])
def test_any_path_survives_json(path: str, indent: int | None) -> None:
    place = Place(path=path, lengths=(1, 2))
    text = place.model_dump_json(indent=indent)
    assert text.encode(), "it can be written to a file"
    assert Place.model_validate_json(text) == Place.model_validate_json(text.encode()) == place
    assert json.loads(text)["path"] == path


def test_plain_text_is_written_as_pydantic_writes_it_and_other_text_alike() -> None:
    plain = Place(path="x", lengths=(1, 2))
    for indent in (None, 2):
        odd = plain.model_copy(update={"path": LATIN}).model_dump_json(indent=indent)
        assert odd.replace("/caf\\udce9/model", "x") == plain.model_dump_json(indent=indent)


@pytest.mark.parametrize("text", ["{", '{"path": 3, "x": "\\udce9"}', '{"path": "\\udce9', ""])
def test_what_is_no_json_or_no_record_is_still_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        Place.model_validate_json(text)


def test_a_whole_result_with_such_a_path_survives_json_and_parquet(tmp_path) -> None:
    config = ExperimentConfig(model=LATIN, n=20)
    result = make_result(config=config, resolved=make_resolved(config))
    assert type(result).from_json(_written(tmp_path / "result.json", result.to_json())) == result
    result.to_parquet(tmp_path / "row.parquet")
    (model,) = pq.read_table(tmp_path / "row.parquet")["config.model"].to_pylist()
    assert model == as_unicode(LATIN) == "/caf\\udce9/model"


def _written(path, text: str):
    path.write_text(text, encoding="utf-8")
    return path


def test_such_a_path_has_a_fingerprint_of_its_own() -> None:
    prints = {ExperimentConfig(model=model).fingerprint() for model in (LATIN, "/cafe/model")}
    assert len(prints) == 2
    assert canonical_hash({"a": "\u00e9"}) == canonical_hash({"a": "\u00e9"})


def test_both_families_of_models_share_it() -> None:
    assert issubclass(ExperimentConfig, TextModel)
    assert issubclass(Record, TextModel)


@pytest.mark.parametrize(
    ("encoding", "printed"),
    [("utf-8", "café ".encode() + b"\xe9"), ("ascii", b"caf\\xe9 \xe9")],
)
def test_a_stream_prints_the_bytes_of_a_path_and_spells_what_it_lacks(
    encoding: str, printed: bytes
) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    take_any_text(stream)
    stream.write("café " + os.fsdecode(b"\xe9"))
    stream.flush()
    assert raw.getvalue() == printed


def test_a_stream_that_was_closed_before_is_none() -> None:
    take_any_text(None)
