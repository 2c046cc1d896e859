"""What of a study is there, told by the directories of its experiments, and running the rest.

Complete is what has a whole ``result.json``, failed what has an ``error.json`` instead; an
experiment that was interrupted, or cut off by a crash, is missing. Looking changes nothing. What
is not understood is left where it is, and stands in the way; what is damaged, or of another
experiment, is kept under a number and measured again. No raw samples are deleted.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

from llenergymeasure import locks, plain_files
from llenergymeasure.config.base import unlike
from llenergymeasure.config.models import STORED, ExperimentConfig
from llenergymeasure.config.plain_words import shown
from llenergymeasure.domain.results import (
    ExperimentResult,
    FailedExperiment,
    Outcome,
    StudyPlace,
    WindowInfo,
)
from llenergymeasure.exceptions import (
    ExperimentError,
    FlagError,
    LLEMError,
    NotUnderstoodError,
    StudyError,
    cause_and_remedy,
)
from llenergymeasure.results import files
from llenergymeasure.results.layout import ExperimentDirectory, StudyDirectory
from llenergymeasure.results.persistence import read_failure
from llenergymeasure.results.reading import PUT_BACK
from llenergymeasure.study.manifest import ProgressView, Slot, StudyPlan

SlotStatus = Literal["complete", "failed", "missing"]
INTERRUPTED = "interrupted"
MALFORMED = "malformed"
NOT_UNDERSTOOD = NotUnderstoodError.code
_AGAIN = "; it counts as failed, and --resume runs it again"
_TAIL_BYTES = 64
_MOST_LISTED = 5


class SlotState(NamedTuple):
    """Where one experiment of a study stands.

    Attributes:
        slot: Its place in the plan.
        directory: Its directory, which need not exist.
        status: ``complete``, ``failed`` or ``missing``.
        fault: What is wrong with the result that is there, which is kept when it runs again.
    """

    slot: Slot
    directory: ExperimentDirectory
    status: SlotStatus
    fault: str | None = None


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
            FlagError: There is no such slot.
        """
        known = [*(state.slot.number for state, _ in self.complete)]
        known += [state.slot.number for state in self.left]
        if absent := sorted(set(numbers) - set(known)):
            raise FlagError(
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

    def notes(self) -> Iterator[str]:
        """Say which results are not counted and measured again, and why."""
        found = [state for state in self.left if state.fault is not None]
        for state in found[:_MOST_LISTED]:
            yield f"{state.fault}; it is kept under a number, and the experiment runs again"
        if len(found) > _MOST_LISTED:
            yield f"{len(found) - _MOST_LISTED} more results are not counted and measured again"


class ResultReader:
    """Reads what the experiments of a study left.

    Lists of packages that are equal are kept once: they are half of a result, and alike in all. A
    result that lies in the directories of two experiments counts once.

    Args:
        plan: The plan of the study.
    """

    def __init__(self, plan: StudyPlan) -> None:
        self._plan = plan
        self._packages: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
        self._windows: dict[WindowInfo, SlotState] = {}

    def read(self, state: SlotState) -> Outcome | None:
        """Read what an experiment left, as :func:`outcome` does."""
        slot = state.slot
        found = outcome(state, self._plan.config(slot), self._plan.place(slot))
        if not isinstance(found, ExperimentResult):
            return found
        first = self._windows.setdefault(found.window, state)
        if first.slot != slot:
            said = f"{state.directory.result} is a copy of {first.directory.result}"
            return _failed(found.config, MALFORMED, said + _AGAIN)
        own = found.environment.packages
        shared = self._packages.setdefault(tuple(own.items()), own)
        environment = found.environment.model_copy(update={"packages": shared})
        return found.model_copy(update={"environment": environment})


def look(plan: StudyPlan, study: StudyDirectory) -> StudyState:
    """Read every result that is there, and tell what is left to run.

    Raises:
        StudyError: The study's directory cannot be read, or a file in it is not understood.
    """
    reader, complete = ResultReader(plan), list[tuple[SlotState, ExperimentResult]]()
    left: list[SlotState] = []
    strange: list[str] = []
    for state in scan(plan, study):
        found = reader.read(state) if state.status == "complete" else None
        if isinstance(found, ExperimentResult):
            complete.append((state, found))
        elif found is not None and found.code == NOT_UNDERSTOOD:
            strange.append(found.message)
        elif found is not None:
            fault = found.message.removesuffix(_AGAIN)
            left.append(state._replace(status="failed", fault=fault))
        elif os.path.lexists(state.directory.result):
            what = "a directory" if state.directory.result.is_dir() else "cut short"
            left.append(state._replace(fault=f"{state.directory.result} is {what}"))
        else:
            left.append(state)
    if strange:
        raise _not_understood(study.root, strange)
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
    of a line: the last bytes decide. A file written otherwise is parsed. One that is there and
    cannot be read counts as whole: nobody can say that it is not.
    """
    try:
        with plain_files.opened(path) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            whole = file.read().rstrip().endswith(b"\n}")
        return whole or isinstance(json.loads(plain_files.read(path, files.MOST_BYTES)), dict)
    except (ValueError, RecursionError, IsADirectoryError):
        return False
    except OSError:
        return os.path.lexists(path)


def make_ready(
    directory: ExperimentDirectory,
    config: ExperimentConfig,
    place: StudyPlace | None = None,
    *,
    again: bool = False,
) -> bool:
    """Prepare the directory of a slot for an attempt: nothing of an earlier one is in the way.

    An old error is kept with its log (``error.1.json``, ``log.1.txt``, then 2, 3, ...), a result
    that is damaged or of another experiment as ``result.malformed.1.json``, and raw samples under
    the same number. All else that an attempt left is removed.

    Args:
        directory: The directory.
        config: What is to be measured.
        place: Where in which study.
        again: Whether to keep even a good result aside, as ``result.1.json``, and run it again.

    Returns:
        Whether to run it: ``False`` where a result of this experiment is in place.

    Raises:
        StudyError: A worker of an earlier run is still at it, the directory of the study is gone,
            a result is not understood, or the disk refuses.
    """
    try:
        try:
            directory.root.parent.mkdir(exist_ok=True)
        except FileNotFoundError:  # never made anew: what is finished may come back
            raise _gone(directory.root.parent.parent) from None
        directory.root.mkdir(exist_ok=True)
        with _alone(directory):
            if again:
                set_aside(directory)
            found = _result(directory, config, place) if is_whole(directory.result) else None
            if isinstance(found, ExperimentResult):
                return False
            if found is not None and found.code == NOT_UNDERSTOOD:
                raise _not_understood(directory.root, [found.message])
            _clear(directory)
    except OSError as error:
        why = cause_and_remedy(error, Path(error.filename or directory.root))
        raise StudyError(
            f"cannot prepare {directory.root}: {why}, then --resume goes on where it stopped",
            where=str(directory.root),
        ) from None
    return True


def replaced(directory: ExperimentDirectory) -> tuple[str, ...]:
    """Name the files of results that were set aside to measure anew."""
    return tuple(sorted(path.name for path in directory.root.glob("result.[0-9]*.json")))


def outcome(
    state: SlotState, config: ExperimentConfig, place: StudyPlace | None = None
) -> Outcome | None:
    """Read what an experiment left; ``None`` while it is missing.

    A result that is damaged inside, of another experiment or not understood is given as a failure.
    """
    if state.status == "complete":
        return _result(state.directory, config, place)
    if state.status == "missing":
        return None
    try:
        return read_failure(state.directory.error)
    except ExperimentError:
        where = f"{state.directory.error} cannot be read; what the engine printed: "
        return _failed(config, MALFORMED, f"{where}{state.directory.log}")


def set_aside(directory: ExperimentDirectory, mark: str = "") -> int | None:
    """Keep a result with its raw samples and its log under a number.

    Args:
        directory: Where they lie.
        mark: Why, as in ``result.malformed.1.json``; without it ``result.1.json``.

    Returns:
        The number; ``None`` where there was nothing.

    Raises:
        OSError: The system refused.
    """
    # The result comes last: broken off before, it is still in its place and complete.
    return files.set_aside((*_samples(directory), directory.log, directory.result), mark)


def kept_results(directory: ExperimentDirectory) -> tuple[str, ...]:
    """Name the results of a directory that were set aside as damaged or not its own."""
    found = directory.root.glob(f"{directory.result.stem}.{MALFORMED}*{directory.result.suffix}")
    return tuple(sorted(path.name for path in found))


def _samples(directory: ExperimentDirectory) -> tuple[Path, Path]:
    return directory.requests, directory.timeseries


def _state(slot: Slot, directory: ExperimentDirectory) -> SlotState:
    if is_whole(directory.result):
        return SlotState(slot, directory, "complete")
    failed = directory.error.is_file() and _error_code(directory) != INTERRUPTED
    return SlotState(slot, directory, "failed" if failed else "missing")


def _error_code(directory: ExperimentDirectory) -> str | None:
    try:
        data = json.loads(plain_files.read(directory.error, files.MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    code = data.get("code") if isinstance(data, dict) else None
    return code if isinstance(code, str) else None


def _result(
    directory: ExperimentDirectory, config: ExperimentConfig, place: StudyPlace | None
) -> Outcome:
    try:
        result = ExperimentResult.from_json(directory.result)
    except NotUnderstoodError as error:
        return _failed(config, NOT_UNDERSTOOD, error.message)
    except LLEMError as error:
        return _failed(config, MALFORMED, error.message.removesuffix(f". {PUT_BACK}") + _AGAIN)
    stranger = _stranger(directory, result, config, place)
    if stranger is None:
        return result
    code, whose = stranger
    return _failed(config, code, f"{directory.result} is the result of {whose}")


def _stranger(
    directory: ExperimentDirectory,
    result: ExperimentResult,
    config: ExperimentConfig,
    place: StudyPlace | None,
) -> tuple[str, str] | None:
    """Tell whose a result is that does not belong here: how that counts, and whose it is."""
    # Not the hash that the result holds: a version with other rules may have written it.
    if not _same(result.config, config):
        differ = unlike(config.model_dump(mode="json"), result.config.model_dump(mode="json"))
        pairs = (
            f"{name}: {shown(one)} in the plan, {shown(two)} in it"
            for name, (one, two) in differ.items()
        )
        other = f"another configuration ({'; '.join(islice(pairs, 3))})"
        if not _same(_asked(directory), result.config):
            return MALFORMED, other + _AGAIN
        # All of the directory agrees: the plan was changed, or directories changed places.
        remedy = f"put back the plan that was there, or take {directory.root} away"
        return NOT_UNDERSTOOD, f"{other}, and so is its {directory.config.name}; {remedy}"
    found = result.place
    if place is None or found is None or found == place:
        return None
    if found.study == place.study:
        own = f"slot {found.slot} in cycle {found.cycle}"
        return MALFORMED, f"{own}, and lies where that of another belongs{_AGAIN}"
    remedy = f"take {directory.root} away, or put back the plan that it belongs to"
    return NOT_UNDERSTOOD, f"another study; {remedy}"


def _same(one: ExperimentConfig | None, other: ExperimentConfig) -> bool:
    return one is not None and (one == other or one.fingerprint() == other.fingerprint())


def _asked(directory: ExperimentDirectory) -> ExperimentConfig | None:
    """Read what the worker of a directory was told to measure."""
    try:
        asked = files.parse(plain_files.read(directory.config, files.MOST_BYTES))["config"]
        return ExperimentConfig.model_validate(asked, context=STORED)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


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


def _failed(config: ExperimentConfig, code: str, message: str) -> FailedExperiment:
    return FailedExperiment(config=config, phase=None, code=code, message=message)


def _clear(directory: ExperimentDirectory) -> None:
    """Set aside what an earlier attempt came to, and remove what nobody needs."""
    if os.path.lexists(directory.result):
        set_aside(directory, MALFORMED)
    if _error_code(directory) == INTERRUPTED:
        directory.error.unlink()
        directory.log.unlink(missing_ok=True)
    found = [path for path in directory.root.glob("process_*") if _SHARE.fullmatch(path.name)]
    logs = (directory.log, *(path for path in found if path.suffix == ".log"))
    samples = (*(path for path in found if path.suffix == ".json"), *_samples(directory))
    broken = (directory.error, *logs) if os.path.lexists(directory.error) else ()
    files.set_aside((*broken, *samples))
    for path in (directory.events, *logs, *directory.root.glob(".*.tmp")):
        path.unlink(missing_ok=True)


_SHARE = re.compile(r"process_\d+\.(json|log)")
"""What one of several processes leaves; what was set aside has one more number in its name."""


def _not_understood(root: Path, found: list[str]) -> StudyError:
    listed = "\n".join(f"  - {one}" for one in found[:_MOST_LISTED])
    more = f"\n  and {len(found) - _MOST_LISTED} more" if len(found) > _MOST_LISTED else ""
    results = "1 result is" if len(found) == 1 else f"{len(found)} results are"
    return StudyError(
        f"{results} not understood, and nothing was touched:\n{listed}{more}", where=str(root)
    )


def _gone(root: Path) -> StudyError:
    return StudyError(
        f"the study's directory {root} is gone; put it back to resume the study", where=str(root)
    )
