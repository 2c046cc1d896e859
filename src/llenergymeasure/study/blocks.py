"""Randomised blocks by least squares: logarithm = configuration + block + drift + noise.

A block is what results of one cycle on one board share, e.g. a warm afternoon. Blocks that lack a
configuration, because an experiment failed, stay in: the fit takes what each block tells about
the configurations it has, and the variance of a difference says what was lost (Searle, Linear
Models, 1971, chapter 7; with all cells present it is the analysis of a complete block design).

Drift is a straight line along the order of running, the same in all blocks (analysis of
covariance). It costs one degree of freedom, so it is fitted only where there are enough of them,
and where the order tells it from the configurations: a fixed order does not.

Noise need not be the same for all: a small batch may vary more than a large one. One figure for
all would then be too small for the noisy ones, and show differences that are not there; one of
its own rests on few cycles and is hardly known. So a pair is judged by something in between, and
by the degrees of freedom that this has:

* two configurations: by what is left of all, which is their own;
* three and four: by their own differences from block to block and by the noise of all, half and
  half, with a degree of freedom a block;
* five and more: by the variance of each, told from the others' by what blocks leave of it
  (Shukla, Heredity 29, 1972) and drawn towards that of all; two make a pair as two means of
  unequal variance do (Satterthwaite, Biometrics Bulletin 2, 1946).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import hypot, sqrt
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from llenergymeasure.domain.results import ExperimentResult

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats: TypeAlias = npt.NDArray[np.float64]
    Whole: TypeAlias = npt.NDArray[np.intp]

DRIFT_FREEDOM = 6  # least degrees of freedom of which one is spent on drift
FEWEST_ALONE = 5  # configurations from which the noise of each can be told from the others'
_LEAST_VARIANCE = 0.02  # of that of all: below lies luck, and not a configuration without noise


class Observation(NamedTuple):
    """One metric of one result.

    Attributes:
        configuration: id of its configuration.
        block: What it shares with others, e.g. (board, cycle).
        value: In the unit of the metric.
        slot: Its place in the order of running, or ``None`` where that is not known.
        common: Its standard uncertainty that is common to all windows, in the unit of the metric.
    """

    configuration: int
    block: Hashable
    value: float
    slot: int | None = None
    common: float | None = None


class Noise(NamedTuple):
    """How far a logarithm varies from run to run.

    Attributes:
        sd: Its standard deviation.
        freedom: Degrees of freedom that this rests on.
    """

    sd: float
    freedom: float


@dataclass(frozen=True, slots=True)
class BlockFit:
    """Effects of configurations on the log scale.

    Attributes:
        configurations: Their ids, sorted; the next three attributes are in this order.
        effect: Effect of each; only differences within one ``group`` mean anything.
        counts: Observations of each.
        group: Which configurations are linked by blocks, as a number each.
        residual: What is left of each observation.
        free: Share of the variance of its noise that is left in each residual, from 0 to 1.
        residual_sd: Standard deviation of the noise of all; 0 without degrees of freedom.
        freedom: Degrees of freedom of the residual.
        drift: Change of the logarithm a slot, or ``None`` where it was not fitted.
    """

    configurations: tuple[int, ...]
    effect: Floats
    counts: Whole
    group: Whole
    residual: Floats
    free: Floats
    residual_sd: float
    freedom: int
    drift: float | None
    _design: _Design
    _lean: Floats  # by how much each ran late, over the root of what tells drift
    _left: Floats  # (configurations, blocks), mean residual; NaN where there is none
    _alone: _Alone

    def error(self, first: int, second: int) -> Noise:
        """Standard error of a difference of two effects, by their positions."""
        noise = self.noise(first, second)
        return noise._replace(sd=noise.sd * sqrt(self.variance_factor(first, second)))

    def noise(self, first: int, second: int) -> Noise:
        """Noise by which two configurations are judged."""
        import numpy as np

        of_all = Noise(self.residual_sd, self.freedom)
        if self.residual_sd == 0 or len(self.configurations) == 2:
            return of_all
        if self._alone.linked[first] >= FEWEST_ALONE:
            (one, known), (other, other_known) = self.alone(first), self.alone(second)
            freedom = (one**2 + other**2) ** 2 / (one**4 / known + other**4 / other_known)
            return Noise(hypot(one, other) / sqrt(2), min(freedom, self.freedom))
        apart = self._left[first] - self._left[second]
        apart = apart[np.isfinite(apart)]
        if len(apart) < 2:
            return of_all
        own_sd = float(np.std(apart, ddof=1)) / sqrt(2)
        return Noise(hypot(self.residual_sd, own_sd) / sqrt(2), min(len(apart), self.freedom))

    def alone(self, position: int) -> Noise:
        """Noise of one configuration; that of all where fewer than three are linked."""
        _, variance, freedom = self._alone
        return Noise(sqrt(variance[position]), float(freedom[position]))

    def variance_factor(self, first: int, second: int) -> float:
        """Variance of that difference / variance of the noise; 2 / cycles with all cells there."""
        design = self._design
        apart = design.loading[first] - design.loading[second]
        factor = design.own[first] + design.own[second] + apart @ design.core @ apart
        return max(float(factor), 0.0) + self._by_drift(first, second)

    def widening(self, first: int, second: int) -> float:
        """How many times as wide an interval is as it would be if drift were known."""
        return 1 / sqrt(1 - self._by_drift(first, second) / self.variance_factor(first, second))

    def _by_drift(self, first: int, second: int) -> float:
        return float((self._lean[first] - self._lean[second]) ** 2)


class _Alone(NamedTuple):
    """What is known of the noise of each configuration; all of them (configurations,)."""

    linked: Whole  # configurations that blocks link it with, and itself
    variance: Floats
    freedom: Floats


def usual_freedom(configurations: int, cycles: int) -> int:
    """Give the degrees of freedom of a pair's noise where it is alike and nothing is missing.

    Args:
        configurations: How many are compared.
        cycles: Cycles of each.
    """
    of_all = (configurations - 1) * (cycles - 1)
    of_all -= of_all >= DRIFT_FREEDOM
    if configurations == 2:
        return of_all
    # Of two with cycles + 1 each, a little less than the sum: no two seem equally noisy.
    own = cycles if configurations < FEWEST_ALONE else 2 * cycles + 1
    return min(own, of_all)


def fit(observations: Sequence[Observation]) -> BlockFit:
    """Fit configurations, blocks and drift to the logarithms of the values, which are above 0."""
    import numpy as np

    names, config = np.unique([o.configuration for o in observations], return_inverse=True)
    blocks: dict[Hashable, int] = {}
    block = np.array([blocks.setdefault(o.block, len(blocks)) for o in observations], np.intp)
    design = _design(config, block)
    log = np.log([o.value for o in observations])
    effect, residual = design.solve(log - log.mean())
    free = 1 - design.leverage()
    groups, group = _groups(design.table)
    freedom = len(log) - len(names) - len(blocks) + groups
    line = _drift(observations, design) if freedom >= DRIFT_FREEDOM else None
    lean, drift = np.zeros(len(names)), None
    if line is not None:
        told = sqrt(float(line.residual @ line.residual))
        drift = float(line.residual @ residual) / told**2
        effect, residual = effect - drift * line.effect, residual - drift * line.residual
        lean, freedom = line.effect / told, freedom - 1
        free -= (line.residual / told) ** 2
    free = np.clip(free, 0, 1)
    variance = float(residual @ residual) / freedom if freedom > 0 else 0.0
    return BlockFit(
        configurations=tuple(int(name) for name in names),
        effect=effect,
        counts=np.bincount(config, minlength=len(names)),
        group=group,
        residual=residual,
        free=free,
        residual_sd=sqrt(variance),
        freedom=freedom,
        drift=drift,
        _design=design,
        _lean=lean,
        _left=_by_cell(design, residual),
        _alone=_alone(config, group, residual, free, variance),
    )


def _alone(config: Whole, group: Whole, residual: Floats, free: Floats, of_all: float) -> _Alone:
    """Tell the noise of each configuration from that of the others, and draw it towards all's.

    Its residuals hold some of the others' noise. With all cells present that part is known, and
    this is Shukla's estimate; with some missing the others' noise is taken for that of all.
    """
    import numpy as np

    linked = np.bincount(group)[group]
    told = np.bincount(config, free, len(group))  # degrees of freedom in its residuals
    square = np.bincount(config, residual**2, len(group)) / np.where(told > 0, told, 1)
    known = linked >= 3
    own = ((linked - 1) * square - of_all) / np.where(known, linked - 2, 1)
    freedom = np.where(known, told * linked / np.maximum(linked - 1, 1), 0.0)
    # What is known of one counts by its freedom, all the others for a half of that and 1.5 more.
    weight = freedom / (1.5 + 1.5 * freedom)
    drawn = of_all + weight * (np.maximum(own, _LEAST_VARIANCE * of_all) - of_all)
    return _Alone(linked, drawn, freedom + 2)


class _Projection(NamedTuple):
    effect: Floats  # (configurations,)
    residual: Floats  # (observations,)


@dataclass(frozen=True, slots=True)
class _Design:
    """The normal equations of configurations and blocks, solved through the smaller side.

    The variance of effect i - effect j is own[i] + own[j] + d core d, d the difference of their
    rows of ``loading``, in units of the noise's variance.
    """

    config: Whole
    block: Whole
    table: Floats  # (configurations, blocks), observations in each cell
    own: Floats  # (configurations,)
    loading: Floats  # (configurations, reduced)
    core: Floats  # (reduced, reduced)
    by_block: bool

    def solve(self, values: Floats) -> _Projection:
        """Give the effect of each configuration on values, and what is left of them."""
        config_sum, block_sum = _sums(self.config, values), _sums(self.block, values)
        counts, sizes = self.table.sum(axis=1), self.table.sum(axis=0)
        if self.by_block:
            shared = self.core @ (block_sum - self.loading.T @ config_sum)
            effect = config_sum / counts - self.loading @ shared
        else:
            effect = self.core @ (config_sum - (self.table / sizes) @ block_sum)
            shared = (block_sum - self.table.T @ effect) / sizes
        return _Projection(effect, values - effect[self.config] - shared[self.block])

    def leverage(self) -> Floats:
        """Give the share of its own noise that the fit follows, of each observation."""
        import numpy as np

        effect = self.own + ((self.loading @ self.core) * self.loading).sum(axis=1)
        if self.by_block:
            both = self.loading @ self.core  # (configurations, blocks)
            shared = np.diag(self.core)
        else:
            share = self.table / self.table.sum(axis=0)
            both = self.core @ share
            shared = 1 / self.table.sum(axis=0) + (share * both).sum(axis=0)
        at = self.config, self.block
        return np.asarray(effect[self.config] + shared[self.block] - 2 * both[at])


def _design(config: Whole, block: Whole) -> _Design:
    import numpy as np

    table = np.zeros((config.max() + 1, block.max() + 1))
    np.add.at(table, (config, block), 1.0)
    counts, sizes = table.sum(axis=1), table.sum(axis=0)
    by_block = len(sizes) <= len(counts)
    if by_block:
        loading = table / counts[:, None]
        own, core = 1 / counts, _inverse(np.diag(sizes) - table.T @ loading)
    else:
        loading, own = np.eye(len(counts)), np.zeros(len(counts))
        core = _inverse(np.diag(counts) - (table / sizes) @ table.T)
    return _Design(config, block, table, own, loading, core, by_block)


def _by_cell(design: _Design, values: Floats) -> Floats:
    """Give the mean of values in each cell, (configurations, blocks); NaN in an empty one."""
    import numpy as np

    sums = np.zeros_like(design.table)
    np.add.at(sums, (design.config, design.block), values)
    return np.where(design.table > 0, sums / np.maximum(design.table, 1), np.nan)


def _drift(observations: Sequence[Observation], design: _Design) -> _Projection | None:
    """Give what of the order of running is neither configuration nor block, if anything is."""
    import numpy as np

    slots = [o.slot for o in observations if o.slot is not None]
    if len(slots) < len(observations):
        return None
    order = np.array(slots, np.float64)
    order -= order.mean()
    line = design.solve(order)
    told = float(line.residual @ line.residual)
    return line if told > 1e-6 * float(order @ order) else None


def _sums(of: Whole, values: Floats) -> Floats:
    import numpy as np

    return np.bincount(of, values).astype(np.float64)


def _inverse(matrix: Floats) -> Floats:
    import numpy as np

    # Singular by one for each group of linked configurations: a level that no block tells.
    return np.asarray(np.linalg.pinv(matrix, rcond=1e-10, hermitian=True), np.float64)


def _groups(table: Floats) -> tuple[int, Whole]:
    """Number the configurations by what blocks link them."""
    import numpy as np

    group = np.arange(len(table))
    for linked in table.T > 0:
        joined = np.unique(group[linked])
        group[np.isin(group, joined)] = joined[0]
    numbers, group = np.unique(group, return_inverse=True)
    return len(numbers), group


Devices = tuple[str, ...]


def devices_of(result: ExperimentResult) -> Devices:
    """Name what did the work: GPUs by UUID, or the CPU; empty where that is not known."""
    if result.multi_gpu is not None:
        return tuple(sorted(result.multi_gpu.devices))
    gpus = {gpu.uuid for gpu in result.environment.gpus}
    used = {part.name for part in result.energy.components if part.in_scope} & gpus
    used = used or {state.device for state in result.device_state}
    if not used and result.memory.kind == "device":
        used = gpus if len(gpus) == 1 else set()
    if used or result.memory.kind == "device":
        return tuple(sorted(used))
    return (result.environment.cpu_model,) if result.environment.cpu_model else ()


def stations(used: Iterable[tuple[int, Devices]]) -> Mapping[Devices, Hashable]:
    """Tell which sets of devices are one place to compare configurations in.

    A configuration on one GPU and one on that GPU and its neighbour are compared: each is what the
    machine costs when so used. Sets that have no device in common are different boards. So are all
    sets as soon as one configuration moved from one to another, since boards would then pass for
    noise.

    Args:
        used: Configuration and devices of each result.

    Returns:
        For each set of devices, the place it belongs to.
    """
    seen = set(used)
    sets = list(dict.fromkeys(devices for _, devices in sorted(seen)))
    if len({one for one, _ in seen}) < len(seen):
        return {devices: devices for devices in sets}
    places: list[set[str]] = []
    for devices in sets:
        joined = [place for place in places if place & set(devices)]
        places = [place for place in places if place not in joined]
        places.append(set(devices).union(*joined))
    return {
        devices: next((tuple(sorted(p)) for p in places if p >= set(devices)), devices)
        for devices in sets
    }
