"""Result files: whole or not at all, and readable again."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.domain.results import SCHEMA_VERSION, ExperimentResult, StudyResult
from llenergymeasure.domain.samples import Window, WindowReadings
from llenergymeasure.exceptions import ExperimentError, LLEMError
from llenergymeasure.results import files, persistence, tables
from llenergymeasure.results.layout import ExperimentDirectory
from llenergymeasure.results.persistence import read_process, write_process
from tests.support.edits import rewrite
from tests.support.make_result import (
    T0_NS,
    make_energy,
    make_failed_sample,
    make_latency,
    make_process,
    make_readings,
    make_result,
    make_sample,
)

WINDOW = Window(T0_NS, T0_NS + 3_200_000_000)


def _names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def test_a_result_survives_the_round_trip(tmp_path: Path) -> None:
    result = make_result()
    assert persistence.to_json(result, tmp_path) == tmp_path / "result.json"
    assert persistence.from_json(tmp_path) == result
    assert ExperimentResult.from_json(tmp_path / "result.json") == result


def test_a_result_without_any_figure_survives_the_round_trip(tmp_path: Path) -> None:
    result = make_result(
        energy=make_energy(None),
        latency=make_latency(ttft_ms=None, tpot_ms=None, itl_ms=None, e2e_ms=None, queue_ms=None),
        flops=None,
    )
    persistence.to_json(result, tmp_path)
    assert persistence.from_json(tmp_path) == result


def _refused(path: Path, content: str | bytes) -> LLEMError:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(LLEMError) as caught:
        ExperimentResult.from_json(path)
    assert str(path) in caught.value.message
    return caught.value


def _changed(**changes: Any) -> str:
    """Change a result as a version wrote it that knew no checksums."""
    data = json.loads(make_result().to_json())
    del data["sha256"]
    return json.dumps({**data, "schema_version": "2.0", **changes})


def test_every_truncation_of_a_result_is_called_damaged(tmp_path: Path) -> None:
    text = make_result().to_json()
    for length in range(0, len(text) - 2, 97):
        error = _refused(tmp_path / "result.json", text[:length])
        assert "damaged or cut short: line" in error.message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe\x00", "not UTF-8"),
        ("[" * 100_000, "not valid JSON"),
        ("9" * 5000, "not valid JSON"),
        ("[]", "not the result of an experiment"),
        ("{}", "not the result of an experiment"),
        ('{"study_design_hash": "0"}', "it is that of a study"),
        (_changed(schema_version="2.2"), "schema 2.2; .* Upgrade"),
        (_changed(schema_version="10.0"), "schema 10.0; .* Upgrade"),
        (_changed(schema_version="1.0"), "never existed"),
        (_changed(schema_version=2.0), "no valid schema_version"),
        (_changed(schema_version="two"), "no valid schema_version"),
        (_changed(window=None), "window: "),
        (_changed(energy_total_j=float("nan")), "NaN is no number"),
        (_changed(config={"model": 3}), "config.model: "),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, content: str | bytes, said: str) -> None:
    error = _refused(tmp_path / "result.json", content)
    assert re.search(said, error.message), error.message


def test_a_wrong_field_is_named_without_its_value(tmp_path: Path) -> None:
    error = _refused(tmp_path / "result.json", _changed(tokens_per_second="hunter2"))
    assert error.where == f"{tmp_path / 'result.json'}, tokens_per_second"
    assert "hunter2" not in error.message


def test_a_missing_result_points_at_the_error_of_a_failed_experiment(tmp_path: Path) -> None:
    with pytest.raises(LLEMError, match="there is no result at") as caught:
        ExperimentResult.from_json(tmp_path / "nowhere" / "result.json")
    assert "failed" not in caught.value.message
    (tmp_path / "error.json").write_text("{}")
    with pytest.raises(LLEMError, match=r"the experiment failed, see .*error\.json"):
        ExperimentResult.from_json(tmp_path)


def test_the_library_reports_an_unwritable_place_as_its_own_error(tmp_path: Path) -> None:
    with pytest.raises(LLEMError, match="cannot be written: No such file"):
        make_result().to_json(tmp_path / "nowhere" / "result.json")
    with pytest.raises(LLEMError, match="cannot be written: No such file"):
        make_result().to_parquet(tmp_path / "nowhere" / "row.parquet")


def test_a_flat_row_has_dotted_columns_of_the_same_type_with_and_without_values(
    tmp_path: Path,
) -> None:
    full, empty = make_result(), make_result(energy=make_energy(None), flops=None)
    full.to_parquet(tmp_path / "full.parquet")
    persistence.to_parquet(empty, tmp_path / "empty.parquet")
    rows = [pq.read_table(tmp_path / f"{name}.parquet") for name in ("full", "empty")]
    assert rows[0].schema == rows[1].schema
    both = pa.concat_tables(rows).to_pydict()
    assert both["energy.total_j"] == [812.4, None]
    assert both["flops.mfu"] == [0.1234, None]
    assert both["config.pytorch.batch_size"] == [4, 4]
    assert both["resolved.backend.attn_implementation"] == ["sdpa", "sdpa"]
    assert both["throughput.requests_completed"] == [20, 20]
    assert json.loads(both["window.pass_seconds"][0]) == [3.2]
    assert not any(pa.types.is_null(field.type) for field in rows[0].schema)


def test_a_flat_row_of_a_synthetic_dataset_has_its_shape(tmp_path: Path) -> None:
    config = ExperimentConfig(
        model="random:tiny-llama",
        dataset={"synthetic": {"input_len": 16}},
        passthrough_kwargs={"nested": {"list": [1, {"a": None}]}, "nothing": None},
    )
    make_result(config=config).to_parquet(tmp_path / "row.parquet")
    row = pq.read_table(tmp_path / "row.parquet").to_pylist()[0]
    assert row["config.dataset.synthetic.input_len"] == 16
    assert row["config.passthrough_kwargs.nested.list"] == '[1, {"a": null}]'
    assert "config.passthrough_kwargs.nothing" not in row


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    files.write_json_atomically(path, "old")

    def fill(sink: BinaryIO) -> None:
        sink.write(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(ExperimentError, match=r"No space left on device; .*--output") as caught:
        files.write_atomically(path, fill)
    assert str(path) in caught.value.message
    assert path.read_text() == "old"
    assert _names(tmp_path) == ["result.json"]


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    def fill(sink: BinaryIO) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_atomically(tmp_path / "result.json", fill)
    assert _names(tmp_path) == []


def test_a_directory_in_the_way_or_a_missing_one_is_an_experiment_error(tmp_path: Path) -> None:
    (tmp_path / "result.json").mkdir()
    with pytest.raises(ExperimentError, match="is a directory; take it away"):
        persistence.to_json(make_result(), tmp_path)
    with pytest.raises(ExperimentError, match="nowhere is not there any more"):
        persistence.to_json(make_result(), tmp_path / "nowhere")
    assert _names(tmp_path) == ["result.json"]


def test_results_are_readable_for_whom_the_umask_allows(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        path = persistence.to_json(make_result(), tmp_path)
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o644


def test_requests_survive_the_round_trip(tmp_path: Path) -> None:
    samples = (
        make_sample(0),
        make_sample(1, gaps_ns=None),
        make_sample(2, gaps_ns=(), gap_tokens=()),
        make_sample(3, gaps_ns=(5, 6), gap_tokens=(1, 2), finish="stop"),
        make_failed_sample(4),
    )
    tables.write_requests([make_process(requests=samples)], tmp_path / "requests.parquet")
    assert tables.read_requests(tmp_path / "requests.parquet") == samples


def test_requests_of_several_processes_say_whose_they_are(tmp_path: Path) -> None:
    shares = [make_process(0, range(0, 5, 2)), make_process(1, range(1, 5, 2))]
    tables.write_requests(shares, tmp_path / "requests.parquet")
    table = pq.read_table(tmp_path / "requests.parquet")
    assert table["process"].to_pylist() == [0, 0, 0, 1, 1]
    assert table["request"].to_pylist() == [0, 2, 4, 1, 3]


def test_the_share_of_a_process_survives_the_round_trip(tmp_path: Path) -> None:
    share = make_process(1, requests=(make_sample(1, gap_tokens=(1, 2)), make_failed_sample(3)))
    write_process(share, tmp_path / "process_1.json")
    assert read_process(tmp_path / "process_1.json") == share


def test_a_share_that_cannot_be_read_is_an_error_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "process_1.json"
    with pytest.raises(ExperimentError, match=r"process_1\.json: No such file"):
        read_process(path)
    path.write_text('{"process_index": 1')
    with pytest.raises(ExperimentError, match=r"process_1\.json: it is damaged"):
        read_process(path)


def test_readings_survive_the_round_trip(tmp_path: Path) -> None:
    windows = (
        WindowReadings("loaded_idle", Window(5, 9), make_readings(4)),
        WindowReadings("measure", WINDOW, make_readings()),
        WindowReadings("prefill", Window(50, 90), ()),
    )
    tables.write_timeseries(windows, tmp_path / "timeseries.parquet")
    assert tables.read_timeseries(tmp_path / "timeseries.parquet") == windows
    schema = pq.read_schema(tmp_path / "timeseries.parquet")
    assert schema.metadata[b"t0_ns"] == str(T0_NS).encode(), "the measured window's"


def test_empty_tables_keep_their_columns(tmp_path: Path) -> None:
    nothing = (WindowReadings("measure", WINDOW, ()),)
    tables.write_requests([make_process(requests=())], tmp_path / "requests.parquet")
    tables.write_timeseries(nothing, tmp_path / "timeseries.parquet")
    assert tables.read_requests(tmp_path / "requests.parquet") == ()
    assert tables.read_timeseries(tmp_path / "timeseries.parquet") == nothing


def test_a_table_without_a_column_that_may_be_null_has_nulls_there(tmp_path: Path) -> None:
    path = tmp_path / "requests.parquet"
    tables.write_requests([make_process(requests=(make_sample(1),))], path)
    pq.write_table(pq.read_table(path).drop_columns("cached_input_tokens"), path)
    assert tables.read_requests(path) == (make_sample(1),)


def test_a_table_says_what_its_columns_and_its_clock_are(tmp_path: Path) -> None:
    tables.write_requests([make_process()], tmp_path / "requests.parquet")
    schema = pq.read_schema(tmp_path / "requests.parquet")
    assert schema.metadata[b"t0_ns"] == str(T0_NS).encode()
    assert schema.metadata[b"clock"] == b"CLOCK_MONOTONIC"
    assert schema.metadata[b"schema_version"] == SCHEMA_VERSION.encode()
    assert schema.field("gaps_ns").type == pa.list_(pa.int64())
    assert all(field.metadata[b"description"] for field in schema)


def test_a_table_that_cannot_be_read_is_an_error_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "requests.parquet"
    for content, said in ((None, "No such file"), (b"PAR1 nonsense", "damaged"), (b"", "damaged")):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(LLEMError, match=f"requests.parquet: .*{said}"):
            tables.read_requests(path)
    pq.write_table(pa.table({"request": [1]}), path)
    with pytest.raises(LLEMError, match="no column"):
        tables.read_requests(path)


def test_many_requests_are_written_whole(tmp_path: Path) -> None:
    one = make_sample(gaps_ns=(10, 20, 30))
    share = make_process(requests=tuple(replace(one, request=i) for i in range(100_000)))
    tables.write_requests([share], tmp_path / "requests.parquet")
    assert pq.read_metadata(tmp_path / "requests.parquet").num_rows == 100_000


def test_everything_of_an_experiment_lies_in_its_directory() -> None:
    directory = ExperimentDirectory(Path("/somewhere"))
    names = {
        path.name
        for name in dir(directory)
        if isinstance(path := getattr(directory, name), Path) and name != "root"
    }
    assert names == {
        "config.json",
        "result.json",
        "error.json",
        "timeseries.parquet",
        "requests.parquet",
        "log.txt",
        "events.jsonl",
        ".worker.lock",
    }


def test_a_study_becomes_a_table_with_a_row_each() -> None:
    one = make_result()
    study = StudyResult(study_design_hash="0" * 16, generated=2, ran=2, experiments=(one, one))
    table = study.to_arrow()
    assert table.num_rows == 2
    assert table["energy_total_j"].to_pylist() == [one.energy_total_j] * 2
    assert "throughput.output_tokens_per_second" in table.column_names


def test_a_study_without_experiments_is_an_empty_table() -> None:
    assert StudyResult(study_design_hash="0" * 16, generated=0, ran=0).to_arrow().num_rows == 0


def test_a_data_frame_is_had_with_pandas_and_explained_without() -> None:
    study = StudyResult(
        study_design_hash="0" * 16, generated=1, ran=1, experiments=(make_result(),)
    )
    if importlib.util.find_spec("pandas") is None:
        with pytest.raises(LLEMError, match="pip install pandas"):
            study.to_dataframe()
    else:
        assert len(study.to_dataframe()) == 1


def test_a_result_stays_readable_when_a_later_rule_would_refuse_its_configuration(
    tmp_path: Path,
) -> None:
    path = persistence.to_json(make_result(), tmp_path)
    # has no effect under greedy decoding
    rewrite(path, lambda data: data["config"]["decoder"].update(temperature=0.5))
    assert ExperimentResult.from_json(path).config.decoder.temperature == 0.5
