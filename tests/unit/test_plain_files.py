"""Whatever lies in the place of a file: a message, and soon."""

from __future__ import annotations

import json
import os
import threading
import time
import tracemalloc
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from llenergymeasure import plain_files
from llenergymeasure.config.loader import load_study_config
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.user_config import load_settings
from llenergymeasure.core.energy.stored import CALIBRATIONS, known_sensors
from llenergymeasure.core.models import tokenizer_files
from llenergymeasure.core.models.catalogue import config as catalogued
from llenergymeasure.core.models.config_json import stated_in
from llenergymeasure.core.models.loadable import tensors
from llenergymeasure.core.models.sources import model_problems, resolve, unreadable
from llenergymeasure.datasets.loader import dataset_problems
from llenergymeasure.domain.results import ExperimentResult
from llenergymeasure.exceptions import LLEMError
from llenergymeasure.results import tables
from llenergymeasure.results.persistence import read_failure, read_process
from llenergymeasure.study.events import read_progress
from llenergymeasure.study.manifest import read_plan, write_plan
from llenergymeasure.study.resume import look
from tests.support.odd_files import ODD, ends, in_place_of
from tests.support.study_on_disk import make_plan, make_study, scripted

pytest.importorskip("pyarrow.parquet")  # whose first import alone may take a second
EACH = pytest.mark.parametrize("kind", ODD)

READERS: dict[str, Callable[[Path], object]] = {
    "a configuration": load_study_config,
    "the user's configuration": lambda path: load_settings(path, {}),
    "a result": ExperimentResult.from_json,
    "a failure": read_failure,
    "a share": read_process,
    "raw samples": tables.count_requests,
}


@EACH
@pytest.mark.parametrize("what", READERS)
def test_what_is_no_file_ends_in_a_message_that_names_it(
    tmp_path: Path, what: str, kind: str
) -> None:
    path = tmp_path / "given"
    if kind == "a directory" and what == "a result":
        path = tmp_path / "of_it" / "result.json"  # a directory is where a result is looked for
        path.parent.mkdir()
    with in_place_of(path, kind), pytest.raises(LLEMError) as caught:
        ends(lambda: READERS[what](path))
    assert str(path) in caught.value.message
    assert len(caught.value.message) < 500
    if kind in ("a pipe", "a device", "a socket"):
        assert kind in caught.value.message


@EACH
def test_a_base_that_is_no_file_is_told_with_the_line_that_names_it(
    tmp_path: Path, kind: str
) -> None:
    upper = tmp_path / "upper.yaml"
    upper.write_text("model: m\nbase: lower.yaml\n")
    with in_place_of(tmp_path / "lower.yaml", kind) as lower, pytest.raises(LLEMError) as caught:
        ends(lambda: load_study_config(upper))
    assert str(lower) in caught.value.message


@EACH
@pytest.mark.parametrize("both", [False, True])
def test_a_plan_that_is_no_file_is_told_or_read_from_the_other_one(
    tmp_path: Path, kind: str, both: bool
) -> None:
    plan = make_plan([scripted(1)])
    study = make_study(tmp_path / "study", plan)
    if both:
        write_plan(study, plan)
    with in_place_of(study.manifest, kind) as path, pytest.raises(LLEMError) as caught:
        ends(lambda: read_plan(study))
    assert str(path) in caught.value.message


@EACH
def test_a_result_that_is_no_file_does_not_count_and_is_named(tmp_path: Path, kind: str) -> None:
    plan = make_plan([scripted(1)])
    study = make_study(tmp_path / "study", plan, complete=[1])
    result = plan.directory(study, plan.slots[0]).result
    with in_place_of(result, kind):
        if kind == "a directory":  # which can be kept under a number
            left, *_ = ends(lambda: look(plan, study)).left
            assert str(result) in str(left.fault)
            return
        with pytest.raises(LLEMError) as caught:
            ends(lambda: look(plan, study))
    assert str(result) in caught.value.message


@EACH
def test_what_is_kept_for_later_and_is_no_file_is_passed_over(tmp_path: Path, kind: str) -> None:
    with in_place_of(tmp_path / CALIBRATIONS, kind) as path:
        assert ends(lambda: known_sensors(tmp_path, "1")).knowledge == {}
        assert ends(lambda: read_progress(path)) == ()


@EACH
@pytest.mark.parametrize("ending", ["jsonl", "JSONL", "jsonl.gz", "json", "csv", "parquet"])
def test_a_data_set_that_is_no_file_is_told(tmp_path: Path, ending: str, kind: str) -> None:
    with in_place_of(tmp_path / f"prompts.{ending}", kind) as path:
        (problem, *_) = ends(lambda: dataset_problems(str(path), 1, tmp_path))
    assert str(path) in str(problem)
    assert len(str(problem)) < 500
    if kind in ("a pipe", "a device", "a socket"):
        assert kind in problem.what


# Models -------------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(catalogued("tiny-llama")))
    for path in tokenizer_files.own_files(tokenizer_files.packaged()):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@EACH
@pytest.mark.parametrize(
    "name",
    ["config.json", "tokenizer_config.json", "generation_config.json", "tokenizer.json"],
)
def test_a_file_of_a_model_that_is_none_stops_it_before_an_engine_reads_it(
    model: Path, name: str, kind: str
) -> None:
    assert not model_problems(str(model))
    with in_place_of(model / name, kind) as path:
        problems = ends(lambda: model_problems(str(model)))
        stated = ends(lambda: stated_in(path))
    assert stated == {}
    if kind != "a directory" or name == "config.json":
        (problem,) = problems
        assert name in str(problem)


@EACH
def test_weights_that_are_no_file_are_not_waited_for(model: Path, kind: str) -> None:
    with in_place_of(model / "model.safetensors", kind):
        assert ends(lambda: tensors(resolve(str(model)))) is None
        found = ends(lambda: unreadable(model))
    assert (found is None) == (kind in ("a directory", "3 GB on one line"))


# The helper itself --------------------------------------------------------------------------------


def test_a_file_of_just_the_largest_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    assert plain_files.read(path, 100) == b"x" * 100
    with pytest.raises(OSError, match="too large") as caught:
        plain_files.read(path, 99)
    assert caught.value.strerror == "it is too large: more than that, of at most 99 bytes"


def test_a_file_of_the_kernel_without_a_size_is_read_up_to_the_limit() -> None:
    assert plain_files.read(Path("/proc/self/stat"), 1 << 20)
    with pytest.raises(OSError, match="too large"):
        plain_files.read(Path("/proc/self/stat"), 10)


def test_an_empty_file_takes_no_memory_however_large_it_may_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    tracemalloc.start()
    try:
        assert plain_files.read(tmp_path / "file", 1 << 30) == b""
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
    finally:
        tracemalloc.stop()


def test_the_empty_device_is_an_empty_file() -> None:
    assert plain_files.read(Path(os.devnull), 10) == b""


def test_a_name_with_a_null_byte_is_told_as_the_system_tells_names() -> None:
    with pytest.raises(OSError, match="null byte"):
        plain_files.read(Path("a\0b"), 10)
    assert plain_files.kind_of(Path("a\0b")) is None


def test_a_line_that_is_too_long_is_told_by_its_number() -> None:
    lines = plain_files.lines(BytesIO(b"ab\ncd\nefg\n"), 3)
    assert next(lines) == b"ab\n"
    assert next(lines) == b"cd\n"
    with pytest.raises(OSError, match="line 3 is longer than 3 bytes"):
        next(lines)


def test_a_pipe_is_read_once_somebody_has_written_it_in_parts(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def write() -> None:
        with pipe.open("w") as sink:
            for part in ("model: ", "m\n"):
                sink.write(part)
                sink.flush()
                time.sleep(0.1)

    writer = threading.Thread(target=write)
    writer.start()
    assert plain_files.read_or_pipe(pipe, 100) == b"model: m\n"
    writer.join()


def test_a_pipe_without_an_end_is_read_up_to_the_limit(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"x" * 200)
    with pytest.raises(OSError, match="too large"):
        plain_files.read_or_pipe(Path(f"/dev/fd/{reader}"), 100)
    os.close(reader)
    os.close(writer)


def test_a_configuration_names_its_largest_size(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_bytes(b"#" * ((1 << 20) + 7))
    with pytest.raises(LLEMError, match=r"1,048,583 bytes, of at most 1 MiB"):
        ExperimentConfig.from_yaml(path)
