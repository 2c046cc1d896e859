"""Randomised blocks by least squares: logarithm = configuration + block + noise.

A block is what results of one cycle on one board share, e.g. a warm afternoon. Blocks that lack a
configuration, because an experiment failed, stay in: the fit takes what each block tells about
the configurations it has, and the variance of a difference says what was lost (Searle, Linear
Models, 1971, chapter 7; with all cells present it is the analysis of a complete block design).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats: TypeAlias = npt.NDArray[np.float64]
    Whole: TypeAlias = npt.NDArray[np.intp]


class Observation(NamedTuple):
    """One metric of one result.

    Attributes:
        configuration: id of its configuration.
        block: What it shares with others, e.g. (board, cycle).
        value: In the unit of the metric.
        common: Its standard uncertainty that is common to all windows, in the same unit.
    """

    configuration: int
    block: Hashable
    value: float
    common: float | None = None


@dataclass(frozen=True, slots=True)
class BlockFit:
    """Effects of configurations on the log scale.

    Attributes:
        configurations: Their ids, sorted; the other attributes are in this order.
        effect: Effect of each; only differences within one ``group`` mean anything.
        counts: Observations of each.
        group: Which configurations are linked by blocks, as a number each.
        residual_sd: Standard deviation of the noise; 0 without degrees of freedom.
        freedom: Degrees of freedom of the residual.
    """

    configurations: tuple[int, ...]
    effect: Floats
    counts: Whole
    group: Whole
    residual_sd: float
    freedom: int
    _own: Floats  # (configurations,)
    _loading: Floats  # (configurations, reduced)
    _core: Floats  # (reduced, reduced)

    def standard_error(self, first: int, second: int) -> float:
        """Standard error of a difference of two effects, by their positions."""
        return self.residual_sd * sqrt(self.variance_factor(first, second))

    def variance_factor(self, first: int, second: int) -> float:
        """Variance of that difference / variance of the noise; 2 / cycles with all cells there."""
        apart = self._loading[first] - self._loading[second]
        factor = self._own[first] + self._own[second] + apart @ self._core @ apart
        return max(float(factor), 0.0)


def fit(observations: Sequence[Observation]) -> BlockFit:
    """Fit configuration and block effects to the logarithms of the values, which are above 0."""
    import numpy as np

    names, config = np.unique([o.configuration for o in observations], return_inverse=True)
    blocks: dict[Hashable, int] = {}
    block = np.array([blocks.setdefault(o.block, len(blocks)) for o in observations], np.intp)
    log = np.log([o.value for o in observations])
    centre = log.mean()
    table = np.zeros((len(names), len(blocks)))
    np.add.at(table, (config, block), 1.0)
    solved = _solve(table, _sums(config, log - centre), _sums(block, log - centre))
    residual = log - centre - solved.effect[config] - solved.shared[block]
    groups, group = _groups(table)
    freedom = len(log) - len(names) - len(blocks) + groups
    return BlockFit(
        configurations=tuple(int(name) for name in names),
        effect=solved.effect,
        counts=np.bincount(config, minlength=len(names)),
        group=group,
        residual_sd=sqrt(float(residual @ residual) / freedom) if freedom > 0 else 0.0,
        freedom=freedom,
        _own=solved.own,
        _loading=solved.loading,
        _core=solved.core,
    )


class _Solved(NamedTuple):
    effect: Floats
    shared: Floats
    own: Floats
    loading: Floats
    core: Floats


def _solve(table: Floats, config_sum: Floats, block_sum: Floats) -> _Solved:
    """Solve the normal equations through the smaller of the two sides."""
    import numpy as np

    counts, sizes = table.sum(axis=1), table.sum(axis=0)
    if len(sizes) <= len(counts):
        share = table / counts[:, None]  # (configurations, blocks)
        core = _inverse(np.diag(sizes) - table.T @ share)
        shared = core @ (block_sum - share.T @ config_sum)
        return _Solved(config_sum / counts - share @ shared, shared, 1 / counts, share, core)
    share = table / sizes  # (configurations, blocks)
    core = _inverse(np.diag(counts) - share @ table.T)
    effect = core @ (config_sum - share @ block_sum)
    shared = (block_sum - table.T @ effect) / sizes
    return _Solved(effect, shared, np.zeros(len(counts)), np.eye(len(counts)), core)


def _sums(of: Whole, values: Floats) -> Floats:
    import numpy as np

    return np.bincount(of, values).astype(np.float64)


def _inverse(matrix: Floats) -> Floats:
    import numpy as np

    # Singular by one for each group of linked configurations: a level that no block tells.
    return np.asarray(np.linalg.pinv(matrix, rcond=1e-10, hermitian=True), np.float64)


def _groups(table: Floats) -> tuple[int, Whole]:
    """Number the configurations by what blocks link them."""
    from scipy.sparse import bmat, csr_matrix
    from scipy.sparse.csgraph import connected_components

    cells = csr_matrix(table)
    count, labels = connected_components(bmat([[None, cells], [cells.T, None]]), directed=False)
    return int(count), labels[: table.shape[0]]
