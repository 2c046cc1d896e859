"""Scenes that nobody chose: loads and sensors drawn at random, or searched for the worst.

A scene is made of numbers from 0 to 1, its *genome*. :func:`drawn` draws them evenly;
``PYTHONPATH=. python benchmarks/energy_search.py`` looks for those at which intervals miss most
often without a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from energy_protocol import Body, Late, Scene, Tail
from tests.support.simulated_device import loads, profiles
from tests.support.simulated_device.loads import Load

GENES = 28
# What benchmarks/energy_search.py found worst, to be watched from then on.
# fmt: off
WORST_FOUND: tuple[tuple[float, ...], ...] = (
    (0.62, 0.1372, 0.0228, 0.6681, 0.7763, 0.5546, 0.4025, 0.3707, 0.6185, 0.444, 0.4988,
     0.4611, 0.958, 0.9229, 0.4365, 0.0209, 0.511, 0.8781, 0.5902, 0.462, 0.2059, 0.7126,
     0.5284, 0.7824, 0.931, 0.9513, 0.1202, 0.2942),
    (0.6779, 0.6536, 0.6241, 0.8631, 0.9447, 0.8585, 0.5643, 0.3499, 0.5672, 0.4695, 0.9951,
     0.7095, 0.9216, 0.9999, 0.7668, 0.4504, 0.1867, 0.9191, 0.6786, 0.0674, 0.5751, 0.2162,
     0.2668, 0.2213, 0.4413, 0.2267, 0.3481, 0.2327),
    (0.381, 0.2208, 0.6254, 0.6057, 0.6936, 0.5974, 0.4082, 0.353, 0.2005, 0.4747, 0.459,
     0.7871, 0.9467, 0.9288, 0.5424, 0.6063, 0.5642, 0.178, 0.8526, 0.1051, 0.1879, 0.6546,
     0.507, 0.8739, 0.411, 0.1701, 0.0172, 0.6337),
    (0.3718, 0.7139, 0.14, 0.7085, 0.571, 0.6868, 0.2445, 0.8546, 0.8316, 0.8612, 0.7018,
     0.2103, 0.8611, 0.73, 0.6944, 0.4909, 0.9454, 0.1925, 0.4772, 0.634, 0.8853, 0.8112,
     0.9041, 0.3202, 0.9791, 0.8213, 0.6597, 0.9589),
)
# fmt: on


class Drawn(NamedTuple):
    """A scene, and what its device did in calibration.

    Attributes:
        scene: The scene.
        met: What the device added in calibration: where it does not know the tail, none.
        words: The scene in words.
    """

    scene: Scene
    met: Body
    words: str


class _Genes:
    """Hands out genes one by one."""

    def __init__(self, genome: Sequence[float]) -> None:
        self._left = iter(genome)

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * float(next(self._left))

    def seldom(self, share: float, low: float, high: float) -> float:
        """Give 0, but in a share of all cases something between two numbers."""
        one = float(next(self._left))
        return 0.0 if one > share else low + (high - low) * one / share

    def one_of(self, choices: Sequence[str]) -> str:
        return choices[min(int(next(self._left) * len(choices)), len(choices) - 1)]


def drawn(count: int, seed: int) -> list[tuple[float, ...]]:
    """Draw genomes evenly."""
    rng = np.random.default_rng(seed)
    return [tuple(np.round(row, 4).tolist()) for row in rng.random((count, GENES))]


def scene_of(genome: Sequence[float], rng: np.random.Generator) -> Drawn:
    """Make the scene of a genome; phases and the last few milliseconds of it are drawn anew."""
    genes = _Genes(genome)
    name = genes.one_of(("a100", "h100", "v100", "rtx4090", "a100-part-time", "rtx3090", "p100"))
    profile = profiles.PROFILES[name]
    counted = profile.counter_supported and genes.between(0, 1) < 0.85
    profile = profiles.vary(
        profile,
        counter_supported=counted,
        lag_s=genes.seldom(0.5, 0.0, 0.06),
        rise_s=genes.seldom(0.5, 0.0, 0.06),
        tick_jitter_s=genes.between(0.0, min(0.005, 0.4 * profile.power_period_s)),
    )
    shape = genes.one_of(("exp", "line", "box"))
    tail = Tail(
        genes.seldom(0.5, 20.0, 200.0),
        genes.between(0.02, 0.25),
        shape,  # type: ignore[arg-type]
        genes.between(0.0, 0.04),
    )
    body = Body(
        genes.seldom(0.5, 0.0, 0.06),
        tail if tail.watts else None,
        genes.between(0, 0.1),
        smoothed=genome[-1] > 0.5,
    )
    met = body if genes.between(0, 1) < 0.5 else body._replace(tail=None)
    late = Late(genes.between(0.0, 0.1))
    length_s = float(np.exp(genes.between(np.log(0.4), np.log(5.0))))
    length_s += float(rng.uniform(-0.5, 0.5)) * profile.power_period_s
    outside_w = genes.between(60.0, 250.0)
    kind = genes.one_of(("steady", "periods", "boxes"))
    load, steps_s = _inside(kind, genes, length_s, outside_w, rng)
    warmup_w = genes.between(outside_w, 400.0)
    scene = Scene(profile, load, length_s, steps_s, body, warmup_w, late=late)
    words = (
        f"{name}{'' if counted else ' by power'}, lag {1e3 * profile.lag_s:.0f} ms, rise "
        f"{1e3 * profile.rise_s:.0f} ms, ramp {1e3 * body.ramp_s:.0f} ms"
        f"{' kept awake too' if body.smoothed and body.ramp_s else ''}, "
        + (f"{shape} {tail.watts:.0f} W {1e3 * tail.over_s:.0f} ms" if tail.watts else "no tail")
        + f"{'' if met is body else ' never met'}, {kind}, outside {outside_w:.0f} W, "
        f"{length_s:.2g} s"
    )
    return Drawn(scene, met, words)


def _inside(
    kind: str, genes: _Genes, length_s: float, outside_w: float, rng: np.random.Generator
) -> tuple[Load, np.ndarray]:
    """Give the window's load: a level, periods or boxes, a burst or a dip at either end."""
    high_w, low_w = genes.between(250.0, 400.0), genes.between(100.0, 400.0)
    period_s = float(np.exp(genes.between(np.log(0.008), np.log(0.4))))
    duty = genes.between(0.1, 0.9)
    first_w, first_s = genes.seldom(0.5, -150.0, 250.0), genes.between(0.01, 0.1)
    last_w, last_s = genes.seldom(0.5, -150.0, 250.0), genes.between(0.01, 0.1)
    steps_s = np.empty(0)
    if kind == "periods":
        steps_s = np.arange(-period_s * rng.random(), length_s, period_s)
    elif kind == "boxes":
        gaps_s = rng.exponential(period_s, int(3 * length_s / period_s) + 5)
        steps_s = np.cumsum(gaps_s) - gaps_s[0]
        steps_s = steps_s[steps_s < length_s]
    boxes = [
        (0.0, length_s, high_w - outside_w),
        (0.0, min(first_s, length_s / 3), first_w),
        (length_s - min(last_s, length_s / 3), length_s, last_w),
        *((at_s, at_s + (1 - duty) * period_s, min(low_w - high_w, 0.0)) for at_s in steps_s),
    ]
    from_s, to_s, watts = np.array(boxes).T
    at_s = np.clip(np.concatenate((from_s, to_s)), 0.0, length_s)
    order = np.argsort(at_s, kind="stable")
    level_w = outside_w + np.concatenate(([0.0], np.cumsum(np.concatenate((watts, -watts))[order])))
    return loads.steps(np.append(-10.0, at_s[order]), np.maximum(level_w, 40.0)), steps_s
