"""Simulated studies whose truth is known, and their analysis, thousands at once.

Each run's logarithm is its configuration's level, plus noise between processes, plus a drift that
goes on from slot to slot, plus what the run before left behind (a warm board, say), which depends
on the configuration that ran there. Configurations that are equal may still leave different things
behind: that is what makes a fixed order lie.

The order of running is the package's own, ``study/cycles.py``. The analysis is written anew for
complete blocks, and held against the package's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from math import log
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from llenergymeasure.config.models import CycleOrder, ExecutionConfig
from llenergymeasure.config.user_config import UserConfig
from llenergymeasure.study.blocks import DRIFT_FREEDOM, FEWEST_ALONE, Observation
from llenergymeasure.study.cycles import slots
from llenergymeasure.study.prepare import resolved
from llenergymeasure.study.quantiles import critical_value, detectable
from llenergymeasure.study.statistics import ALL_PAIRS, compare

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.intp]

NOISE = 0.01  # between fresh processes, of the logarithm
DRAWN = 300  # orders drawn of each size of study, which the studies take in turn


class Load(NamedTuple):
    """What disturbs a study.

    Attributes:
        name: In words.
        drift: Change of the logarithm from slot to slot.
        carry_over: Standard deviation, over configurations, of what a run leaves to the next.
    """

    name: str
    drift: float
    carry_over: float


LOADS = (
    Load("noise only", 0.0, 0.0),
    Load("drift 0.2 % a slot", 0.002, 0.0),
    Load("carry-over 0.5 %", 0.0, 0.005),
    Load("drift 0.2 % a slot and carry-over 0.5 %", 0.002, 0.005),
    Load("drift 1 % a slot and carry-over 0.5 %", 0.01, 0.005),
)

SPREADS: dict[str, Callable[[int], list[float]]] = {
    "alike": lambda family: [1.0] * family,
    "one 5 times as noisy as the rest": lambda family: [5.0, *[1.0] * (family - 1)],
    "half of them 3 times as noisy": lambda family: [3.0 if i % 2 else 1.0 for i in range(family)],
    "from 0.5 to 2 times, evenly": lambda family: np.linspace(0.5, 2, family).tolist(),
    "one 10 times as noisy as the rest": lambda family: [10.0, *[1.0] * (family - 1)],
}


class Studies(NamedTuple):
    """Many simulated studies of the same size.

    Attributes:
        log_value: Logarithms, (repeats, cycles, configurations).
        slot: When each ran, of the same shape.
    """

    log_value: Floats
    slot: Floats


class Analysis(NamedTuple):
    """What each study says.

    Attributes:
        effect: Of each configuration, (repeats, configurations).
        error: Standard error of each difference, (repeats, configurations, configurations).
        freedom: Degrees of freedom of each, of the same shape.
        of_all: Degrees of freedom of the noise of all.
    """

    effect: Floats
    error: Floats
    freedom: Floats
    of_all: int

    @property
    def family(self) -> int:
        """How many configurations are compared."""
        return int(self.effect.shape[1])

    @property
    def margin(self) -> Floats:
        """By how much two configurations must differ to be shown, of the shape of ``error``."""
        most = int(np.ceil(self.freedom.max()))
        freedoms = np.arange(most, 0, -1)
        values = np.log([critical_value(self.family, int(one)) for one in freedoms])
        return np.asarray(np.exp(np.interp(1 / self.freedom, 1 / freedoms, values)) * self.error)

    @property
    def told(self) -> npt.NDArray[np.bool_]:
        """Which pairs are told: all, or of many each with the best; of the shape of ``error``."""
        pairs = np.zeros(self.error.shape, bool)
        pairs |= np.triu(np.ones((self.family, self.family), bool), 1)
        if self.family > ALL_PAIRS:
            best = self.effect.argmin(axis=1)
            numbers = np.arange(self.family)
            pairs = (numbers[:, None] != numbers) & (numbers == best[:, None, None])
        return pairs

    @property
    def shown(self) -> npt.NDArray[np.bool_]:
        """Whether any difference is shown, (repeats,)."""
        apart = np.abs(self.effect[:, :, None] - self.effect[:, None, :])
        return np.asarray(((apart > self.margin) & self.told).any(axis=(1, 2)))

    @property
    def detectable(self) -> Floats:
        """The effect that each study prints for the next, on the log scale, (repeats,)."""
        told = self.told
        errors = np.median(self.error[told].reshape(len(told), -1), axis=1)
        freedoms = np.median(self.freedom[told].reshape(len(told), -1), axis=1)
        coming = freedoms.astype(int)
        times = {one: detectable(self.family, self.of_all, one) for one in set(coming.tolist())}
        return np.asarray(errors * [times[one] for one in coming.tolist()], np.float64)

    def shows(self, difference: Floats) -> float:
        """Share of studies that show a true difference of two, over all pairs and directions.

        Args:
            difference: In each study, (repeats,).
        """
        there = difference[:, None, None]
        apart = self.effect[:, :, None] - self.effect[:, None, :]
        pairs = ~np.eye(self.family, dtype=bool)
        return float((apart + there > self.margin)[:, pairs].mean())


def analyse(studies: Studies) -> Analysis:
    """Analyse complete blocks, with drift where there are degrees of freedom for it."""
    y, x = studies
    _, cycles, family = y.shape
    freedom = (cycles - 1) * (family - 1)
    effect, late = y.mean(axis=1), x.mean(axis=1)
    residual, line = _within(y), _within(x)
    told = (line**2).sum(axis=(1, 2))
    factor = np.broadcast_to(2 / cycles, (len(y), family, family))
    free = np.full((len(y), family), (cycles - 1) * (family - 1) / family)
    if freedom >= DRIFT_FREEDOM and told.min() > 1e-6:
        slope = (line * residual).sum(axis=(1, 2)) / told
        effect = effect - slope[:, None] * late
        residual = residual - slope[:, None, None] * line
        factor = factor + (late[:, :, None] - late[:, None, :]) ** 2 / told[:, None, None]
        free = free - (line**2).sum(axis=1) / told[:, None]
        freedom -= 1
    variance = (residual**2).sum(axis=(1, 2)) / freedom
    of_pair, known = _noise(residual, free, variance)
    return Analysis(effect, np.sqrt(of_pair * factor), np.minimum(known, freedom), freedom)


def _noise(residual: Floats, free: Floats, of_all: Floats) -> tuple[Floats, Floats]:
    """Variance by which each pair is judged, and its degrees of freedom."""
    repeats, cycles, family = residual.shape
    shape = (repeats, family, family)
    if family == 2:
        return np.broadcast_to(of_all[:, None, None], shape), np.full(shape, np.inf)
    if family < FEWEST_ALONE:
        return (of_all[:, None, None] + _own_variance(residual)) / 2, np.full(shape, float(cycles))
    square = (residual**2).sum(axis=1) / free
    alone = ((family - 1) * square - of_all[:, None]) / (family - 2)
    alone = np.maximum(alone, 0.02 * of_all[:, None])
    known = free * family / (family - 1)
    drawn = (3 + known) * of_all[:, None] + 2 * known * alone
    drawn /= 3 + 3 * known
    pair = drawn[:, :, None] + drawn[:, None, :]
    doubt = drawn**2 / (2 + known)
    return pair / 2, pair**2 / (doubt[:, :, None] + doubt[:, None, :])


def _own_variance(residual: Floats) -> Floats:
    """Noise of each pair from its own differences, (repeats, configurations, configurations)."""
    cycles = residual.shape[1]
    centred = residual - residual.mean(axis=1, keepdims=True)
    products = np.einsum("rci,rcj->rij", centred, centred) / (cycles - 1)
    own = np.einsum("rii->ri", products)
    return np.asarray((own[:, :, None] + own[:, None, :]) / 2 - products)


def _within(values: Floats) -> Floats:
    centred = values - values.mean(axis=1, keepdims=True) - values.mean(axis=2, keepdims=True)
    return np.asarray(centred + values.mean(axis=(1, 2), keepdims=True))


def product_orders(
    seeds: Sequence[int], family: int, cycles: int, order: CycleOrder = "balanced"
) -> Whole:
    """Give the orders that studies of these seeds run in, (seeds, cycles, configurations)."""
    asked = (ExecutionConfig(n_cycles=cycles, seed=seed, cycle_order=order) for seed in seeds)
    laid_out = [slots(family, resolved(one, UserConfig(), heats=False)) for one in asked]
    orders = [[slot.configuration for slot in study] for study in laid_out]
    return np.array(orders, np.intp).reshape(len(seeds), cycles, family)


def widening(order: Whole) -> Floats:
    """Tell how much wider the interval of each pair gets where drift has to be told too.

    By the normal equations with a column for each configuration, each cycle and drift, against
    those without the last, whatever the degrees of freedom.

    Args:
        order: Which configuration runs when, (cycles, configurations).

    Returns:
        A ratio for each pair; infinite where the order does not tell drift at all.
    """
    cycles, family = order.shape
    runs = np.arange(order.size)
    columns = np.zeros((order.size, family + cycles + 1))
    columns[runs, order.ravel()] = columns[runs, family + runs // family] = 1
    columns[:, -1] = (runs - runs.mean()) / order.size
    first, second = np.triu_indices(family, 1)
    normal = columns.T @ columns
    without, both = (_variance(some)[first, second] for some in (normal[:-1, :-1], normal))
    ranks = [np.linalg.matrix_rank(some, hermitian=True) for some in (normal[:-1, :-1], normal)]
    return np.sqrt(both / without) if ranks[0] < ranks[1] else np.full(len(first), np.inf)


def _variance(normal: Floats) -> Floats:
    """Variance of each difference of two columns, in units of that of the noise."""
    inverse = np.linalg.pinv(normal, rcond=1e-10, hermitian=True)
    return np.asarray(np.diag(inverse)[:, None] + np.diag(inverse) - 2 * inverse)


@lru_cache(maxsize=8)
def _drawn(family: int, cycles: int) -> Whole:
    return product_orders(range(1000, 1000 + DRAWN), family, cycles)


def drawn_orders(repeats: int, family: int, cycles: int) -> Whole:
    """Give the orders of studies that each have a seed of their own, over and over again."""
    return _drawn(family, cycles)[np.arange(repeats) % DRAWN]


def default_orders(repeats: int, family: int, cycles: int) -> Whole:
    """Give the order of studies that name no seed, which is the same for all."""
    (order,) = product_orders([ExecutionConfig().seed], family, cycles)
    return np.broadcast_to(order, (repeats, cycles, family))


def fixed_orders(repeats: int, family: int, cycles: int) -> Whole:
    """Give one order in every cycle: A B, A B, A B."""
    return np.broadcast_to(np.arange(family), (repeats, cycles, family))


def simulate(
    rng: np.random.Generator, orders: Whole, load: Load, spread: Sequence[float] | None = None
) -> Studies:
    """Run studies of equal configurations in these orders.

    Args:
        rng: Source of noise.
        orders: Which configuration runs when, (repeats, cycles, configurations).
        load: What disturbs them.
        spread: Noise of each configuration, in units of that of all; the same by default.
    """
    repeats, cycles, family = orders.shape
    noise = NOISE * np.array([1.0] * family if spread is None else spread)
    flat = orders.reshape(repeats, -1)
    left = rng.normal(0, load.carry_over, (repeats, family))
    before = np.take_along_axis(left, flat, axis=1)
    carried = np.hstack([np.zeros((repeats, 1)), before[:, :-1]])
    slot = np.arange(cycles * family)
    by_slot = load.drift * slot + carried + rng.normal(0, noise[flat])
    by_slot = by_slot.reshape(orders.shape)
    when = np.broadcast_to(slot.reshape(1, cycles, family).astype(np.float64), orders.shape)
    return Studies(_by_configuration(by_slot, orders), _by_configuration(when, orders))


def _by_configuration(by_slot: Floats, orders: Whole) -> Floats:
    ordered = np.empty_like(by_slot)
    np.put_along_axis(ordered, orders, by_slot, axis=2)
    return ordered


def observations(studies: Studies, index: int) -> Iterator[Observation]:
    """Give one study as the package takes it."""
    values, places = studies.log_value[index], studies.slot[index]
    for (cycle, configuration), value in np.ndenumerate(values):
        slot = int(places[cycle, configuration])
        yield Observation(configuration, cycle, float(np.exp(value)), slot)


def package_agrees(studies: Studies, analysis: Analysis, checked: int) -> bool:
    """Hold the first repeats against what the package itself says."""
    shown, printed = analysis.shown, analysis.detectable
    for index in range(checked):
        said = compare("x", list(observations(studies, index)), best_is_low=True)
        any_shown = any(pair.verdict != "no_difference_shown" for pair in said.comparisons)
        effect = 1.0 if said.sensitivity is None else said.sensitivity.minimum_detectable_ratio
        if any_shown != shown[index] or not np.isclose(log(effect), printed[index], rtol=1e-6):
            return False
    return True
