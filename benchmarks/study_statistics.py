"""How often a study shows a difference that is not there, and how often one that is.

Simulated studies: the true figures are known. Each run's logarithm is its configuration's level,
plus noise between processes, plus a drift that goes on from slot to slot, plus what the run before
left behind (a warm board, say), which depends on the configuration that ran there. Configurations
that are equal may still leave different things behind: that is what makes a fixed order lie.

The order of running is the package's own, ``study/cycles.py``: once with a seed drawn for each
study, and once with the seed of studies that name none.

Beside these, studies whose configurations are equal but for their noise: no drift, nothing left
behind.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import log
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

import machine
from llenergymeasure.config.models import ExecutionConfig
from llenergymeasure.config.user_config import UserConfig
from llenergymeasure.study.blocks import DRIFT_FREEDOM, Observation
from llenergymeasure.study.cycles import slots
from llenergymeasure.study.prepare import resolved
from llenergymeasure.study.statistics import compare, critical_value
from study_statistics_report import report

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.intp]

NOISE = 0.01  # between fresh processes, of the logarithm
CYCLES = (3, 5, 10)
FAMILIES = (2, 8)  # configurations that the claim is about
MOST_FALSE = 0.06
POWER = (0.75, 0.85)
CHECKED = 100  # repeats of each cell that the package's own comparison is held against


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
    "one 5 times as noisy as the rest": lambda family: [5.0, *[1.0] * (family - 1)],
    "half of them 3 times as noisy": lambda family: [3.0 if i % 2 else 1.0 for i in range(family)],
    "from 0.5 to 2 times, evenly": lambda family: np.linspace(0.5, 2, family).tolist(),
}
UNEQUAL_FAMILIES = (4, 8)


class Studies(NamedTuple):
    """Many simulated studies of the same size, analysed as complete blocks all at once.

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
        pooled_error: The same if one noise were taken for all.
        freedom: Degrees of freedom.
    """

    effect: Floats
    error: Floats
    pooled_error: Floats
    freedom: int

    @property
    def margin(self) -> Floats:
        """By how much two configurations must differ to be shown, of the shape of ``error``."""
        return critical_value(self.effect.shape[1], self.freedom) * self.error

    @property
    def detectable(self) -> Floats:
        """Minimum detectable effect that is printed with each comparison, on the log scale."""
        return self.margin + float(student.ppf(0.8, self.freedom)) * self.error

    @property
    def shown(self) -> npt.NDArray[np.bool_]:
        """Whether any difference is shown, (repeats,)."""
        apart = np.abs(self.effect[:, :, None] - self.effect[:, None, :])
        return np.asarray((apart > self.margin).any(axis=(1, 2)))

    def shows(self, difference: Floats | float) -> float:
        """Share of studies that show a true difference of the first two, in either direction."""
        apart, margin = self.effect[:, 0] - self.effect[:, 1], self.margin[:, 0, 1]
        upwards, downwards = apart + difference > margin, apart - difference < -margin
        return float((upwards.mean() + downwards.mean()) / 2)


def analyse(studies: Studies) -> Analysis:
    """Analyse complete blocks, with drift where there are degrees of freedom for it."""
    y, x = studies
    _, cycles, family = y.shape
    freedom = (cycles - 1) * (family - 1)
    effect, late = y.mean(axis=1), x.mean(axis=1)
    residual, line = _within(y), _within(x)
    told = (line**2).sum(axis=(1, 2))
    factor = np.broadcast_to(2 / cycles, (len(y), family, family))
    if freedom >= DRIFT_FREEDOM and told.min() > 1e-6:
        slope = (line * residual).sum(axis=(1, 2)) / told
        effect = effect - slope[:, None] * late
        residual = residual - slope[:, None, None] * line
        factor = factor + (late[:, :, None] - late[:, None, :]) ** 2 / told[:, None, None]
        freedom -= 1
    variance = ((residual**2).sum(axis=(1, 2)) / freedom)[:, None, None]
    own = np.maximum(variance, _own_variance(residual))
    return Analysis(effect, np.sqrt(own * factor), np.sqrt(variance * factor), freedom)


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


def product_orders(seeds: Sequence[int], family: int, cycles: int) -> Whole:
    """Give the orders that studies of these seeds run in, (seeds, cycles, configurations)."""
    asked = (ExecutionConfig(n_cycles=cycles, seed=seed) for seed in seeds)
    laid_out = [slots(family, resolved(one, UserConfig())) for one in asked]
    orders = [[slot.configuration for slot in study] for study in laid_out]
    return np.array(orders, np.intp).reshape(len(seeds), cycles, family)


def drawn_orders(rng: np.random.Generator, repeats: int, family: int, cycles: int) -> Whole:
    """Give the orders of studies that each have a seed of their own."""
    return product_orders(rng.integers(0, 2**32, repeats).tolist(), family, cycles)


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


def cell(seed: int, load: Load, family: int, cycles: int, repeats: int) -> dict[str, Any]:
    """Run one size of study under one load, and its alternatives beside it."""
    rng = np.random.default_rng([seed, family, cycles, LOADS.index(load)])
    balanced = simulate(rng, drawn_orders(rng, repeats, family, cycles), load)
    default = simulate(rng, default_orders(repeats, family, cycles), load)
    fixed = simulate(rng, fixed_orders(repeats, family, cycles), load)
    said, said_default = analyse(balanced), analyse(default)
    detectable = said.detectable[:, 0, 1]
    typical = float(np.sqrt((detectable**2).mean()))
    return {
        "load": load.name,
        "configurations": family,
        "cycles": cycles,
        "repeats": repeats,
        "false": _share(said.shown),
        "shown_own_mde": said.shows(detectable),
        "shown_rms_mde": said.shows(typical),
        "shown_pilot_mde": said.shows(np.roll(detectable, 1)),
        "default_seed_false": _share(said_default.shown),
        "default_seed_shown": said_default.shows(said_default.detectable[:, 0, 1]),
        "median_mde_percent": float(100 * np.expm1(np.median(detectable))),
        "mde_over_noise": float(np.median(detectable) / NOISE),
        "fixed_false": _share(analyse(fixed).shown),
        "unpaired_false": _share(_unpaired(balanced, 0.0)),
        "unpaired_shown": _share(_unpaired(balanced, typical)),
        "package_agrees": _package_agrees(balanced, said)
        and _package_agrees(default, said_default),
    }


def unequal_cell(seed: int, name: str, family: int, cycles: int, repeats: int) -> dict[str, Any]:
    """Run studies of configurations that are equal but for their noise."""
    rng = np.random.default_rng([seed, family, cycles, len(LOADS) + [*SPREADS].index(name)])
    orders = drawn_orders(rng, repeats, family, cycles)
    said = analyse(simulate(rng, orders, LOADS[0], SPREADS[name](family)))
    pooled = said._replace(error=said.pooled_error)
    return {
        "spread": name,
        "configurations": family,
        "cycles": cycles,
        "false": _share(said.shown),
        "false_by_one_noise_for_all": _share(pooled.shown),
    }


def _share(happened: npt.NDArray[np.bool_]) -> float:
    return float(happened.mean())


def _unpaired(studies: Studies, difference: float) -> npt.NDArray[np.bool_]:
    """Tell where a t-test that ignores cycles finds the first two to differ."""
    cycles = studies.log_value.shape[1]
    spread = studies.log_value[:, :, :2].var(axis=1, ddof=1).sum(axis=1)
    means = studies.log_value.mean(axis=1)
    apart = means[:, 0] - means[:, 1] + difference
    critical = student.ppf(0.975, 2 * (cycles - 1))
    return np.asarray(np.abs(apart) > critical * np.sqrt(spread / cycles))


def _package_agrees(studies: Studies, analysis: Analysis) -> bool:
    """Hold the first repeats against what the package itself says."""
    for index in range(CHECKED):
        observations = list(_observations(studies, index))
        pairs = compare("x", observations, best_is_low=True).comparisons
        shown = any(pair.verdict != "no_difference_shown" for pair in pairs)
        printed = [log(pair.minimum_detectable_ratio) for pair in pairs]
        expected = [analysis.detectable[index, pair.a, pair.b] for pair in pairs]
        if shown != analysis.shown[index] or not np.allclose(printed, expected, rtol=1e-6):
            return False
    return True


def _observations(studies: Studies, index: int) -> Iterator[Observation]:
    values, slots = studies.log_value[index], studies.slot[index]
    for (cycle, configuration), value in np.ndenumerate(values):
        slot = int(slots[cycle, configuration])
        yield Observation(configuration, cycle, float(np.exp(value)), slot)


def met(row: dict[str, Any]) -> bool:
    """Tell whether a cell is as the documentation claims."""
    low, high = POWER
    false = max(row["false"], row["default_seed_false"])
    shown = row["shown_own_mde"], row["default_seed_shown"]
    return bool(false <= MOST_FALSE and low <= min(shown) <= max(shown) <= high) and bool(
        row["package_agrees"]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all cells; 1 when one is not as claimed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=machine.RESULTS)
    parser.add_argument("--families", type=int, nargs="+", default=FAMILIES)
    given = parser.parse_args(arguments)
    rows = [
        cell(given.seed, load, family, cycles, given.repeats)
        for load, family, cycles in product(LOADS, given.families, CYCLES)
    ]
    told = [{**row, "as_claimed": met(row)} for row in rows]
    unequal = [
        unequal_cell(given.seed, name, family, cycles, given.repeats)
        for name, family, cycles in product(SPREADS, UNEQUAL_FAMILIES, CYCLES)
    ]
    data = {
        "machine": machine.describe(),
        "seed": given.seed,
        "noise": NOISE,
        "claims_hold": all(row["as_claimed"] for row in told),
        "rows": told,
        "unequal_noise": unequal,
    }
    machine.save(given.output / "study_statistics.json", data)
    (given.output / "study_statistics.md").write_text(report(data), encoding="utf-8")
    return 0 if data["claims_hold"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
