"""One process's share of an experiment as a file: how several processes hand in their samples."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from llenergymeasure.domain.samples import RawProcessResult
from llenergymeasure.exceptions import ExperimentError
from llenergymeasure.results.persistence import write_atomically


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
        return _adapter().validate_json(path.read_bytes())
    except OSError as error:
        reason = error.strerror or str(error)
    except ValidationError:
        reason = "it is damaged"
    raise ExperimentError(f"cannot read the samples in {path}: {reason}", where=str(path))


@cache
def _adapter() -> TypeAdapter[RawProcessResult]:
    return TypeAdapter(RawProcessResult)
