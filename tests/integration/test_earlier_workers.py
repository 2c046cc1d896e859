"""A worker of an earlier run that still has its directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from llenergymeasure.domain.results import ExperimentResult, FailedExperiment
from llenergymeasure.exceptions import StudyError
from llenergymeasure.orchestration import worker
from llenergymeasure.results.layout import ExperimentDirectory
from llenergymeasure.study.resume import make_ready
from tests.support.lock_holder import holder
from tests.support.scripted_run import make_order, scripted_config
from tests.support.study_on_disk import names, scripted

ONE = scripted(1)


@pytest.fixture
def directory(tmp_path: Path) -> ExperimentDirectory:
    return ExperimentDirectory(tmp_path / "experiment")


def test_a_worker_of_an_earlier_run_is_waited_for(directory: ExperimentDirectory) -> None:
    directory.root.mkdir()
    with (
        holder(directory.worker_lock) as orphan,
        pytest.raises(StudyError, match=f"still being measured by pid {orphan.pid} "),
    ):
        make_ready(directory, ONE)
    assert make_ready(directory, ONE), "it has been killed, and its lock is free"


def test_a_second_worker_does_not_touch_the_directory_of_the_first(
    directory: ExperimentDirectory, tmp_path: Path
) -> None:
    directory.root.mkdir()
    order = make_order(scripted_config(), tmp_path)
    directory.config.write_text(order.model_dump_json())
    with holder(directory.worker_lock) as first:
        failure = worker.run(directory)
        assert isinstance(failure, FailedExperiment)
        assert f"is being measured by pid {first.pid} " in failure.message
        assert names(directory) == {"config.json", ".worker.lock"}
    assert isinstance(worker.run(directory), ExperimentResult)
    assert ".worker.lock" not in names(directory)
