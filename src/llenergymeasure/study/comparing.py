"""Two studies side by side: what was not the same, and how far each figure has changed.

The unit is the cycle, as within a study, but two studies share no blocks: their cycles are two
independent samples of the logarithm, which may vary differently. Sources:

* Welch's t with Satterthwaite's degrees of freedom (Welch, Biometrika 34, 1947), on coefficients
  of variation, which are standard deviations of the logarithm to first order. Of studies of
  unlike length the freedom is that of the shorter one alone, its lower bound: else one whose few
  cycles are alike by luck counts as quiet (simulated: ``benchmarks/gate.py``);
* several intervals that hold together: Bonferroni, which holds however configurations depend on
  each other: those of one study share its cycles.

What a sensor is wrong by on all its readings moves both studies the same way where it is the same
sensor, and enters only as far as its relative size differs. On two boards it is twice unknown.
What lies between two days and not between two cycles of one is in no interval.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import hypot, log, sqrt
from typing import Literal, NamedTuple

from llenergymeasure.config.base import flatten
from llenergymeasure.config.plain_words import as_yaml
from llenergymeasure.config.settings_words import ordered
from llenergymeasure.domain.results import ConfigurationResult, Figure, StudyResult, StudySubject
from llenergymeasure.domain.study_result import FIGURES, Metric
from llenergymeasure.study import likeness
from llenergymeasure.study.blocks import Noise
from llenergymeasure.study.describe import merged, subject_of
from llenergymeasure.study.quantiles import LEVEL, student
from llenergymeasure.study.statistics import COVERAGE, ROUNDING, ratio_of

DifferenceKind = Literal["machine", "definition", "work", "version"]

_WORK = {
    *("dataset", "n", "max_input_tokens", "max_new_tokens", "apply_chat_template"),
    *("system_prompt", "decoder"),
}
_INPUTS_OF_WORK = ("dataset", "tokenizer", "chat_template")
_OF_MACHINE = ("power limit", "usable CPUs")
_UNKNOWN = "not told by its summary"


class Difference(NamedTuple):
    """One thing that was not the same.

    Attributes:
        kind: machine: where it ran; definition: what a figure is; work: what there was to do;
            version: of what did it, or of the model.
        name: What it is.
        base: Its value in the one study.
        now: Its value in the other.
    """

    kind: DifferenceKind
    name: str
    base: str
    now: str


class Change(NamedTuple):
    """How one figure of one configuration has changed.

    Attributes:
        metric: Which figure.
        base: The figure of the one study.
        now: That of the other.
        noise: Standard error of the logarithm of now / base with its degrees of freedom; ``None``
            where one side has a single run.
        uncommon: Half-width, of the logarithm, of what no cycle makes smaller.
    """

    metric: Metric
    base: Figure
    now: Figure
    noise: Noise | None
    uncommon: float

    @property
    def logarithm(self) -> float:
        """Logarithm of now / base."""
        return log(self.now.mean / self.base.mean)

    @property
    def ratio(self) -> float:
        """Ratio now / base."""
        return ratio_of(self.logarithm)

    def half_width(self, family: int = 1) -> float | None:
        """Give the half-width of the interval of the logarithm; ``None`` where it is unknown.

        Args:
            family: How many intervals are to hold together.
        """
        if self.noise is None:
            return None
        critical = -student((1 - LEVEL) / (2 * family), self.noise.freedom)
        return max(hypot(critical * self.noise.sd, self.uncommon), ROUNDING)

    def interval95(self, family: int = 1) -> tuple[float, float] | None:
        """Give the 95 % interval of the ratio; ``None`` where a side has a single run.

        Args:
            family: How many intervals are to hold together.
        """
        half = self.half_width(family)
        if half is None:
            return None
        return ratio_of(self.logarithm - half), ratio_of(self.logarithm + half)


class Pair(NamedTuple):
    """One configuration in both studies.

    Attributes:
        base: As the one study has it.
        now: As the other has it.
        differences: What is not the same in its settings and in where it ran.
        changes: By the name of the figure; of what both have.
    """

    base: ConfigurationResult
    now: ConfigurationResult
    differences: tuple[Difference, ...]
    changes: Mapping[str, Change]


class StudyComparison(NamedTuple):
    """Two studies side by side.

    Attributes:
        differences: What is not the same; a thing that pairs differ in is here once.
        pairs: Configurations that both have.
        only_base: Configurations of the one that the other lacks.
        only_now: Those that only the other has.
    """

    differences: tuple[Difference, ...]
    pairs: tuple[Pair, ...]
    only_base: tuple[ConfigurationResult, ...]
    only_now: tuple[ConfigurationResult, ...]


def compare(base: StudyResult, now: StudyResult) -> StudyComparison:
    """Put two studies side by side.

    Configurations belong together by their fingerprint, and those that are left by the settings
    that vary within their study, where these name one of each. Results of one configuration that
    were kept apart, by board or version, are never pooled: each finds its like or none.

    Args:
        base: What is compared with.
        now: What is compared; ratios are now / base.
    """
    settings = _Settings(base), _Settings(now)
    matched = list(_matched(base.configurations, now.configurations))
    pairs = tuple(_pair(one, other, settings) for one, other in matched)
    found = [*_differing(base, now), *(one for pair in pairs for one in pair.differences)]
    kept = {id(one) for pair in matched for one in pair}
    return StudyComparison(
        differences=tuple(dict.fromkeys(found)),
        pairs=pairs,
        only_base=tuple(one for one in base.configurations if id(one) not in kept),
        only_now=tuple(one for one in now.configurations if id(one) not in kept),
    )


_Matched = tuple[ConfigurationResult, ConfigurationResult]


def _matched(
    base: Sequence[ConfigurationResult], now: Sequence[ConfigurationResult]
) -> Iterator[_Matched]:
    """Yield what belongs together, in the order of the one study."""
    found: dict[int, ConfigurationResult] = {}
    left, right = list(base), list(now)
    for exact in (True, False):
        for one, other in _alike(left, right, exact=exact):
            found[id(one)] = other
            left = [each for each in left if each is not one]
            right = [each for each in right if each is not other]
    yield from ((one, found[id(one)]) for one in base if id(one) in found)


def _alike(
    left: Sequence[ConfigurationResult], right: Sequence[ConfigurationResult], *, exact: bool
) -> list[_Matched]:
    def by_key(rows: Iterable[ConfigurationResult]) -> dict[str, list[ConfigurationResult]]:
        found: dict[str, list[ConfigurationResult]] = defaultdict(list)
        for one in rows:
            found[one.fingerprint if exact else one.label].append(one)
        return found

    ones, others = by_key(left), by_key(right)
    pairs: list[_Matched] = []
    for key in ones.keys() & others.keys():
        if len(ones[key]) == len(others[key]) == 1:
            pairs.append((ones[key][0], others[key][0]))
        elif exact:
            parts = {
                (other.devices, *sorted(other.conditions.items())): other for other in others[key]
            }
            for one in ones[key]:
                other = parts.pop((one.devices, *sorted(one.conditions.items())), None)
                if other is not None:
                    pairs.append((one, other))
    return pairs


class _Settings:
    """Whole settings of the configurations of a study, where its results are there."""

    def __init__(self, study: StudyResult) -> None:
        known = zip(study.placements, study.experiments, strict=False)
        self._configs = {place.configuration: result.config for place, result in known}

    def of(self, configuration: int) -> dict[str, str] | None:
        """Give the settings of a configuration, dotted; ``None`` where they are not known."""
        config = self._configs.get(configuration)
        if config is None:
            return None
        return {name: as_yaml(v) for name, v in flatten(config.model_dump(mode="json"))}


def _pair(
    base: ConfigurationResult, now: ConfigurationResult, settings: tuple[_Settings, _Settings]
) -> Pair:
    differences = list(_differing_settings(base, now, settings))
    across = bool(base.devices and now.devices and base.devices != now.devices)
    if across:
        boards = (", ".join(one.devices) for one in (base, now))
        differences.append(Difference("machine", "boards", *boards))
    return Pair(base, now, tuple(differences), dict(_changes(base, now, across=across)))


def _differing_settings(
    base: ConfigurationResult, now: ConfigurationResult, settings: tuple[_Settings, _Settings]
) -> Iterator[Difference]:
    if base.fingerprint == now.fingerprint:
        return
    one, other = settings[0].of(base.id), settings[1].of(now.id)
    if one is None or other is None:
        yield Difference("work", f"settings of {base.label}", _UNKNOWN, _UNKNOWN)
        return
    for name in ordered({**one, **other}):
        before, after = one.get(name, "not set"), other.get(name, "not set")
        if before != after:
            kind: DifferenceKind = "work" if name.split(".")[0] in _WORK else "version"
            yield Difference(kind, name, before, after)


def _changes(
    base: ConfigurationResult, now: ConfigurationResult, *, across: bool
) -> Iterator[tuple[str, Change]]:
    for name, metric in FIGURES.items():
        one, other = base.figures.get(name), now.figures.get(name)
        if one is not None and other is not None and one.mean > 0 and other.mean > 0:
            yield name, change_of(metric, one, other, across=across)


def change_of(metric: Metric, base: Figure, now: Figure, *, across: bool = False) -> Change:
    """Give how a figure has changed; both means are above 0.

    Args:
        metric: Which figure.
        base: The figure of the one study.
        now: That of the other.
        across: Whether they are of two boards, whose sensors share nothing.
    """
    return Change(metric, base, now, _noise(base, now), _uncommon(base, now, across=across))


def _noise(one: Figure, other: Figure) -> Noise | None:
    if one.cv is None or other.cv is None:
        return None
    first, second = one.cv**2 / one.n, other.cv**2 / other.n
    total = first + second
    if total == 0:
        return Noise(0.0, one.n + other.n - 2)
    freedom = total**2 / (first**2 / (one.n - 1) + second**2 / (other.n - 1))
    if one.n != other.n:
        freedom = min(one.n, other.n) - 1
    return Noise(sqrt(total), freedom)


def _uncommon(one: Figure, other: Figure, *, across: bool) -> float:
    first, second = ((each.common_standard or 0.0) / each.mean for each in (one, other))
    return COVERAGE * (hypot(first, second) if across else abs(first - second))


# What was not the same ----------------------------------------------------------------------------


def _differing(base: StudyResult, now: StudyResult) -> Iterator[Difference]:
    one, other = (study.subject or subject_of(study.experiments) for study in (base, now))
    if one is not None and other is not None:
        yield from _other_subject(one, other)
    conditions = [
        merged(likeness.conditions(each).items() for each in study.experiments)
        for study in (base, now)
    ]
    for name in _OF_MACHINE:
        yield from _told("machine", name, *(each.get(name, ()) for each in conditions))
    if base.experiments and now.experiments:
        rules = [sorted({r for e in s.experiments for r in e.earlier_rules}) for s in (base, now)]
        if rules[0] != rules[1]:
            texts = ("; ".join(each) or "today's" for each in rules)
            yield Difference("definition", "rules", *texts)


def _other_subject(one: StudySubject, other: StudySubject) -> Iterator[Difference]:
    yield from _told("machine", "machine", one.machines, other.machines)
    energy = [sorted(f"{e.source} ({e.kind})" for e in each.energy) for each in (one, other)]
    yield from _told("definition", "energy source", *energy)
    for name in sorted(one.inputs.keys() & other.inputs.keys()):
        kind: DifferenceKind = "work" if name in _INPUTS_OF_WORK else "version"
        yield from _told(kind, f"input {name}", one.inputs[name], other.inputs[name])
    prompts = ([f"{n}" for n in sorted(each.n)] for each in (one, other))
    yield from _told("work", "prompts", *prompts)
    for name in sorted(one.versions.keys() & other.versions.keys()):
        yield from _told("version", name, one.versions[name], other.versions[name])


def _told(
    kind: DifferenceKind, name: str, one: Iterable[str], other: Iterable[str]
) -> Iterator[Difference]:
    """Name what differs; what one side does not know is compared with nothing."""
    first, second = set(one), set(other)
    if first and second and first != second:
        yield Difference(kind, name, ", ".join(sorted(first)), ", ".join(sorted(second)))
