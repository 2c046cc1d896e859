"""What of a study is there, told by the directories of its experiments, and running the rest.

Complete is what has a whole ``result.json``, failed what has an ``error.json`` instead; an
experiment that was interrupted, or cut off by a crash, is missing. Looking changes nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple

from llenergymeasure import locks
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.domain.results import ExperimentResult, FailedExperiment, Outcome
from llenergymeasure.exceptions import ExperimentError, LLEMError, StudyError
from llenergymeasure.results.layout import ExperimentDirectory, StudyDirectory
from llenergymeasure.results.persistence import read_failure
from llenergymeasure.study.manifest import ProgressView, Slot, StudyPlan

SlotStatus = Literal["complete", "failed", "missing"]
INTERRUPTED = "interrupted"
MALFORMED = "malformed"
_AGAIN = "; it counts as failed, and --resume runs it again"
_TAIL_BYTES = 64


class SlotState(NamedTuple):
    """Where one experiment of a study stands.

    Attributes:
        slot: Its place in the plan.
        directory: Its directory, which need not exist.
        status: ``complete``, ``failed`` or ``missing``.
    """

    slot: Slot
    directory: ExperimentDirectory
    status: SlotStatus


class StudyState(NamedTuple):
    """How a study stands before it goes on.

    Attributes:
        complete: Slots with a result that could be read, in the order of the plan.
        left: Slots that are to be run, in that order; one whose result is damaged inside, or of
            another configuration, is among them as failed, and one that is to be run again as
            complete.
    """

    complete: tuple[tuple[SlotState, ExperimentResult], ...]
    left: tuple[SlotState, ...]

    def again(self, numbers: Collection[int]) -> StudyState:
        """Put slots that are complete among those to run, by their numbers.

        Raises:
            StudyError: There is no such slot.
        """
        known = [*(state.slot.number for state, _ in self.complete)]
        known += [state.slot.number for state in self.left]
        if absent := sorted(set(numbers) - set(known)):
            raise StudyError(
                f"--again {absent[0]}: the plan has no such slot, only 1 to {max(known)}",
                where="--again",
            )
        asked = [state for state, _ in self.complete if state.slot.number in numbers]
        kept = (one for one in self.complete if one[0].slot.number not in numbers)
        left = sorted((*self.left, *asked), key=lambda state: state.slot.number)
        return StudyState(tuple(kept), tuple(left))

    def progress(self, now: datetime) -> ProgressView:
        """Count the slots by status."""
        return count((*(state for state, _ in self.complete), *self.left), now)


class ResultReader:
    """Reads what the experiments of a study left.

    Lists of packages that are equal are kept once: they are half of a result, and alike in all.

    Args:
        plan: The plan of the study.
    """

    def __init__(self, plan: StudyPlan) -> None:
        self._plan = plan
        self._packages: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}

    def read(self, state: SlotState) -> Outcome | None:
        """Read what an experiment left, as :func:`outcome` does."""
        found = outcome(state, self._plan.config(state.slot))
        if not isinstance(found, ExperimentResult):
            return found
        own = found.environment.packages
        shared = self._packages.setdefault(tuple(own.items()), own)
        environment = found.environment.model_copy(update={"packages": shared})
        return found.model_copy(update={"environment": environment})


def look(plan: StudyPlan, study: StudyDirectory) -> StudyState:
    """Read every result that is there, and tell what is left to run.

    Raises:
        StudyError: The study's directory cannot be read.
    """
    reader, complete = ResultReader(plan), list[tuple[SlotState, ExperimentResult]]()
    left: list[SlotState] = []
    for state in scan(plan, study):
        found = reader.read(state) if state.status == "complete" else None
        if isinstance(found, ExperimentResult):
            complete.append((state, found))
        else:
            left.append(state if found is None else state._replace(status="failed"))
    return StudyState(tuple(complete), tuple(left))


def scan(plan: StudyPlan, study: StudyDirectory) -> tuple[SlotState, ...]:
    """Tell for every slot of a plan where it stands; reads a few bytes of each result.

    Raises:
        StudyError: The study's directory cannot be read.
    """
    if not study.root.is_dir():
        raise _gone(study.root)
    return tuple(_state(slot, plan.directory(study, slot)) for slot in plan.slots)


def count(states: Iterable[SlotState], now: datetime) -> ProgressView:
    """Count the slots by status."""
    found = [state.status for state in states]
    return ProgressView(
        complete=found.count("complete"),
        failed=found.count("failed"),
        missing=found.count("missing"),
        updated_at=now,
    )


def is_whole(path: Path) -> bool:
    """Tell whether a file of JSON was not cut short, at whatever byte.

    Results are written with indentation, so only the brace that ends them stands at the beginning
    of a line: the last bytes decide. A file written otherwise is parsed.
    """
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            whole = file.read().rstrip().endswith(b"\n}")
        return whole or isinstance(json.loads(path.read_bytes()), dict)
    except (OSError, ValueError):
        return False


def make_ready(
    directory: ExperimentDirectory, config: ExperimentConfig, *, again: bool = False
) -> bool:
    """Prepare the directory of a slot for an attempt: nothing of an earlier one is in the way.

    An old error is kept with its log (``error.1.json``, ``log.1.txt``, then 2, 3, ...), a result
    that is damaged or of another configuration as ``result.malformed.json``. What an interrupted
    attempt left is removed.

    Args:
        directory: The directory.
        config: What is to be measured.
        again: Whether to keep even a good result aside, as ``result.1.json``, and run it again.

    Returns:
        Whether to run it: ``False`` where a result of this configuration is in place.

    Raises:
        StudyError: A worker of an earlier run is still at it, the directory of the study is gone,
            or the disk refuses.
    """
    try:
        try:
            directory.root.parent.mkdir(exist_ok=True)
        except FileNotFoundError:  # never made anew: what is finished may come back
            raise _gone(directory.root.parent.parent) from None
        directory.root.mkdir(exist_ok=True)
        with _alone(directory):
            whole = is_whole(directory.result)
            if again:
                set_aside(directory)
            elif whole and isinstance(_result(directory, config), ExperimentResult):
                return False
            _clear(directory)
    except OSError as error:
        raise StudyError(
            f"cannot prepare {directory.root}: {error.strerror or error}; make room or mend the "
            "permissions, then --resume goes on where it stopped",
            where=str(directory.root),
        ) from None
    return True


def set_aside(directory: ExperimentDirectory) -> None:
    """Keep a result under the next number, with its readings and its log."""
    # The result comes last: broken off before, it is still in its place and complete.
    files = (directory.requests, directory.timeseries, directory.log, directory.result)
    number = _next_number(*files)
    for path in files:
        if path.is_file():
            path.replace(_numbered(path, number))


def replaced(directory: ExperimentDirectory) -> tuple[str, ...]:
    """Name the files of results that were set aside to measure anew."""
    return tuple(sorted(path.name for path in directory.root.glob("result.[0-9]*.json")))


def outcome(state: SlotState, config: ExperimentConfig) -> Outcome | None:
    """Read what an experiment left; ``None`` while it is missing.

    A result that is damaged inside, or of another configuration, is given as a failure.
    """
    if state.status == "complete":
        return _result(state.directory, config)
    if state.status == "missing":
        return None
    try:
        return read_failure(state.directory.error)
    except ExperimentError:
        where = f"{state.directory.error} cannot be read; what the engine printed: "
        return _malformed(config, f"{where}{state.directory.log}")


def _state(slot: Slot, directory: ExperimentDirectory) -> SlotState:
    if is_whole(directory.result):
        return SlotState(slot, directory, "complete")
    failed = directory.error.is_file() and _error_code(directory) != INTERRUPTED
    return SlotState(slot, directory, "failed" if failed else "missing")


def _error_code(directory: ExperimentDirectory) -> str | None:
    try:
        data = json.loads(directory.error.read_bytes())
    except (OSError, ValueError):
        return None
    code = data.get("code") if isinstance(data, dict) else None
    return code if isinstance(code, str) else None


def _result(directory: ExperimentDirectory, config: ExperimentConfig) -> Outcome:
    try:
        result = ExperimentResult.from_json(directory.result)
    except LLEMError as error:
        return _malformed(config, error.message + _AGAIN)
    # Not the hash that the result holds: a version with other rules may have written it.
    if result.config != config and result.config.fingerprint() != config.fingerprint():
        other = f"{directory.result} is the result of another configuration"
        return _malformed(config, other + _AGAIN)
    return result


@contextlib.contextmanager
def _alone(directory: ExperimentDirectory) -> Iterator[None]:
    lock = locks.take(directory.worker_lock)
    if lock is None:
        owner = locks.owner_of(directory.worker_lock) or "another process"
        raise StudyError(
            f"{directory.root} is still being measured by {owner}, which an earlier run of this "
            "study started; wait until it has ended, or end it, then resume",
            where=str(directory.root),
        )
    try:
        yield
    finally:
        lock.release(remove=True)


def _malformed(config: ExperimentConfig, message: str) -> FailedExperiment:
    return FailedExperiment(config=config, phase=None, code=MALFORMED, message=message)


def _clear(directory: ExperimentDirectory) -> None:
    """Set aside what an earlier attempt came to, and remove what is left of it."""
    if directory.result.is_file():
        directory.result.replace(directory.root / "result.malformed.json")
    if _error_code(directory) == INTERRUPTED:
        directory.error.unlink()
    elif directory.error.is_file():
        number = _next_number(directory.error, directory.log)
        if directory.log.is_file():
            directory.log.replace(_numbered(directory.log, number))
        directory.error.replace(_numbered(directory.error, number))
    written = (directory.events, directory.log, directory.requests, directory.timeseries)
    shares = (*directory.root.glob("process_*.json"), *directory.root.glob("process_*.log"))
    for path in (*written, *shares, *directory.root.glob(".*.tmp")):
        path.unlink(missing_ok=True)


def _next_number(*paths: Path) -> int:
    """Give the first number under which none of some files is kept."""
    numbers = itertools.count(1)
    return next(n for n in numbers if not any(_numbered(path, n).exists() for path in paths))


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}.{number}{path.suffix}")


def _gone(root: Path) -> StudyError:
    return StudyError(
        f"the study's directory {root} is gone; put it back to resume the study", where=str(root)
    )
