"""The files of one experiment, written so that a crash, or a full disk, never leaves half of one.

Everything is written beside its place and renamed. ``result.json`` comes last: whatever else is
there, nothing without it claims to be a result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from llenergymeasure import plain_files
from llenergymeasure.config.models import STORED
from llenergymeasure.domain.results import ExperimentResult, FailedExperiment
from llenergymeasure.domain.samples import RawProcessResult, WindowReadings
from llenergymeasure.exceptions import ExperimentError
from llenergymeasure.results import columns, tables
from llenergymeasure.results.files import (
    MOST_BYTES,
    SEAL,
    check_seal,
    file_checksum,
    parse,
    sealed_text,
    write_atomically,
    write_json_atomically,
)
from llenergymeasure.results.layout import ExperimentDirectory


def to_json(result: ExperimentResult, directory: Path) -> Path:
    """Write ``result.json`` into an experiment's directory; call it last.

    Returns:
        The path of the file.

    Raises:
        ExperimentError: It cannot be written; a file that was there before is untouched.
    """
    repository = DirectoryRepository(ExperimentDirectory(directory))
    repository.save_result(result)
    return repository.directory.result


def to_parquet(result: ExperimentResult, path: Path) -> None:
    """Write a result as one flat row; nested fields become dotted columns.

    Raises:
        ExperimentError: It cannot be written.
    """
    write_atomically(path, lambda sink: columns.fill_row(result, sink))


from_json = ExperimentResult.from_json


def read_failure(path: Path) -> FailedExperiment:
    """Read an ``error.json``.

    The experiment in it was valid when it ran; it is not held against the rules of this version.

    Raises:
        ExperimentError: It cannot be read, or is not of a failed experiment.
    """
    try:
        content = plain_files.read(path, MOST_BYTES)
        data = parse(content)
        if isinstance(data, dict) and SEAL in data:
            check_seal(data)
        return FailedExperiment.model_validate_json(content, context=STORED)
    except OSError as error:
        reason = error.strerror or str(error)
    except (ValueError, RecursionError):
        reason = "it is damaged, or not of a failed experiment"
    raise ExperimentError(f"{path} cannot be read: {reason}", where=str(path))


@dataclass(frozen=True, slots=True)
class DirectoryRepository:
    """Keeps an experiment in a directory; every method raises ``ExperimentError`` when it cannot.

    Attributes:
        directory: The paths of the directory.
    """

    directory: ExperimentDirectory

    def save_samples(
        self, processes: Sequence[RawProcessResult], windows: Sequence[WindowReadings]
    ) -> dict[str, str]:
        """Write ``requests.parquet`` and ``timeseries.parquet``; give the SHA-256 of each."""
        tables.write_requests(processes, self.directory.requests)
        tables.write_timeseries(windows, self.directory.timeseries)
        hashes = {}
        for path in (self.directory.requests, self.directory.timeseries):
            try:
                hashes[path.name] = file_checksum(path)
            except OSError as error:
                said = f"{path} cannot be read back: {error.strerror or error}"
                raise ExperimentError(said, where=str(path)) from None
        return hashes

    def save_result(self, result: ExperimentResult) -> None:
        """Write ``result.json``; once this returns, the experiment is complete."""
        write_json_atomically(self.directory.result, sealed_text(result))

    def save_failure(self, failure: FailedExperiment) -> None:
        """Write ``error.json``."""
        write_json_atomically(self.directory.error, sealed_text(failure))


def write_process(share: RawProcessResult, path: Path) -> None:
    """Write the raw samples of one process, whole or not at all.

    Raises:
        ExperimentError: It cannot be written.
    """
    write_atomically(path, lambda sink: sink.write(_adapter().dump_json(share)))


def read_process(path: Path) -> RawProcessResult:
    """Read them back, as they were written.

    Raises:
        ExperimentError: The file is missing or damaged.
    """
    try:
        return _adapter().validate_json(plain_files.read(path, MOST_BYTES))
    except OSError as error:
        reason = error.strerror or str(error)
    except ValidationError:
        reason = "it is damaged"
    raise ExperimentError(f"cannot read the samples in {path}: {reason}", where=str(path))


@cache
def _adapter() -> TypeAdapter[RawProcessResult]:
    return TypeAdapter(RawProcessResult)
