"""What engines raise, in this package's words: one table an engine, and how all are read."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.exceptions import BackendError, LLEMError

NAMED = 3  # tensors that a message names
# Signs of a slip in somebody's code: theirs is translated, ours is left as it is.
_SLIPS = (LookupError, AttributeError, TypeError, AssertionError)

OUT_OF_MEMORY = ("out of memory", "outofmemory", "can't allocate", "cannot allocate", "bad_alloc")
KILLED = re.compile(r"sigkill|failed core proc.*: -9\b")
_PACKAGE = __name__.partition(".")[0]

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Words:
    """How the errors of one engine are read; every piece of a message is in lower case.

    Attributes:
        engine: Its name, for people.
        remedies: Pieces of a message and the option that mends it, most telling first.
        less: By phase, what needs less memory.
        memory: Pieces of messages about memory that have a remedy of their own.
        fields: What the engine calls a field of the configuration, and what it is called here.
    """

    engine: str
    remedies: Pairs = ()
    less: Mapping[str, str] = field(default_factory=dict)
    memory: Pairs = ()
    fields: Mapping[str, str] = field(default_factory=dict)

    def error(
        self, phase: str, config: ExperimentConfig, said: str, head: str | None = None
    ) -> BackendError:
        """Say what went wrong, where, and which field mends it.

        Args:
            phase: What was going on: ``load``, or ``generate``.
            config: The experiment, for the values that the message names.
            said: What the engine says.
            head: What happened, where that is more than a failure.
        """
        message = f"{head or f'{self.engine} failed to {phase}'}: {said}"
        remedy = self._remedy(phase, config, said.lower())
        return BackendError(f"{message}\n    {remedy}" if remedy else message, where=phase)

    def translated(self, phase: str, config: ExperimentConfig) -> AbstractContextManager[None]:
        """Turn foreign errors inside a block into :class:`BackendError`; see :meth:`error`."""
        return translated(lambda error: self.error(phase, config, first_lines(error)))

    def _remedy(self, phase: str, config: ExperimentConfig, text: str) -> str | None:
        less = next((remedy for mark, remedy in self.memory if mark in text), None)
        if less is None and any(mark in text for mark in OUT_OF_MEMORY):
            less = self.less.get(phase)
        if less is not None:
            given = config.section.model_dump(exclude_none=True).items()
            asked = ", ".join(f"{config.backend}.{name} {value}" for name, value in given)
            return f"{less}; asked for: {asked}" if asked else less
        if phase in self.less and KILLED.search(text):
            return f"the system kills where memory runs out (see dmesg): {self.less[phase]}"
        for mark, remedy in self.remedies:
            if mark in text:
                return remedy
        named = {ours for theirs, ours in self.fields.items() if re.search(rf"\b{theirs}\b", text)}
        return f"check {' and '.join(sorted(named))}" if named else None


@contextmanager
def translated(tell: Callable[[Exception], BackendError]) -> Iterator[None]:
    """Turn foreign errors inside the block into :class:`BackendError`.

    Args:
        tell: Puts one into words.
    """
    try:
        yield
    except LLEMError:
        raise
    except Exception as error:  # engines raise it bare
        if is_own_slip(error):
            raise
        raise tell(error) from error


def check_fit(what: str, apart: Mapping[str, Collection[str]], remedy: str) -> None:
    """Refuse weights that have no counterpart, naming a few.

    Args:
        what: What does not fit.
        apart: Names of tensors by what is wrong with them.
        remedy: What to do.

    Raises:
        BackendError: There are such.
    """
    told = [
        f"{len(names)} {'tensor is' if len(names) == 1 else 'tensors are'} {why}, such as "
        f"{', '.join(sorted(names)[:NAMED])}"
        for why, names in apart.items()
        if names
    ]
    if told:
        raise BackendError(f"{what}: {'; '.join(told)}\n    {remedy}", where="load")


def is_own_slip(error: BaseException) -> bool:
    """Tell whether an error is a slip in a line of this package."""
    innermost = list(traceback.walk_tb(error.__traceback__))[-1][0]
    raised_in = str(innermost.f_globals.get("__name__", ""))
    return isinstance(error, _SLIPS) and raised_in.partition(".")[0] == _PACKAGE


def first_lines(error: BaseException, lines: int = 3, characters: int = 1000) -> str:
    """Give the type of an error and the beginning of what it says, in one line.

    So long that a path of 200 characters, told three times, hides no word that has a remedy.
    """
    said = " ".join(str(error).strip().splitlines()[:lines])[:characters]
    return f"{type(error).__name__}: {said}"
