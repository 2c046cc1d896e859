"""Figures over cycles and comparisons of configurations, against other ways to the same number."""

from __future__ import annotations

from itertools import combinations
from math import exp, log, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from llenergymeasure.study.blocks import Noise, Observation, fit
from llenergymeasure.study.quantiles import critical_value
from llenergymeasure.study.statistics import (
    ALL_PAIRS,
    Compared,
    compare,
    figure,
    minimum_detectable_ratio,
)
from study_simulation import LOADS, SPREADS, analyse, drawn_orders, package_agrees, simulate
from study_statistics import FAMILIES, PARTS, rows_of

# Three configurations, four cycles: log values with residuals that are easy to check by hand.
TABLE = np.array([[1.0, 1.2, 1.1], [1.3, 1.5, 1.7], [0.9, 1.0, 1.4], [1.2, 1.6, 1.5]])


def observations(table: np.ndarray) -> list[Observation]:
    """Make one observation a cell of (cycles, configurations); NaN is a cell without one."""
    return [
        Observation(config + 1, cycle, exp(value))
        for (cycle, config), value in np.ndenumerate(table)
        if not np.isnan(value)
    ]


def compared(table: np.ndarray) -> Compared:
    return compare("x", observations(table), best_is_low=True)


def dummy_regression(
    table: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, float, int, np.ndarray]:
    """Fit the same model with a column for each configuration and block, by plain lstsq."""
    cells = [(c, k, v) for (c, k), v in np.ndenumerate(table) if not np.isnan(v)]
    cycles, family = table.shape
    design = np.zeros((len(cells), family + cycles))
    for row, (cycle, config, _) in enumerate(cells):
        design[row, config] = design[row, family + cycle] = 1
    y = np.array([value for *_, value in cells])
    solution, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    left = y - design @ solution
    freedom = len(y) - int(rank)
    return solution[:family], np.linalg.pinv(design.T @ design), float(left @ left), freedom, design


def test_a_figure_is_the_mean_with_students_interval():
    values = [10.1, 9.7, 10.4, 9.9]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    found = figure(values)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.interval95 == pytest.approx((low, high))
    assert found.cv == pytest.approx(np.std(values, ddof=1) / np.mean(values))


@pytest.mark.parametrize("values", [[5.0], [5.0, 6.0]])
def test_fewer_than_three_cycles_have_no_interval(values):
    found = figure(values)
    assert found.interval95 is None
    assert found.n == len(values)
    assert (found.standard_deviation is None) == (len(values) == 1)


def test_what_is_common_to_all_windows_does_not_shrink_with_repeats():
    few, many = ([10.0, 10.1, 9.9] * times for times in (1, 100))
    for values in (few, many):
        low, high = figure(values, [0.5] * len(values)).interval95
        assert (high - low) / 2 >= 1.95 * 0.5


def test_the_interval_with_a_common_part_follows_welch_and_satterthwaite():
    values = [10.0, 10.6, 9.4, 10.2]
    random, common = stats.sem(values), 0.3
    u = sqrt(random**2 + common**2)
    half = stats.t.ppf(0.975, 3 * (u / random) ** 4) * u
    low, high = figure(values, [common] * 4).interval95
    assert (high - low) / 2 == pytest.approx(half)


def test_equal_values_have_an_interval_of_no_width():
    low, high = figure([48.2] * 3).interval95
    assert low == high == pytest.approx(48.2)


def test_two_configurations_are_compared_by_the_paired_t_test():
    pair = TABLE[:, :2]
    (found,) = compared(pair).comparisons
    reference = stats.ttest_rel(pair[:, 0], pair[:, 1]).confidence_interval(0.95)
    assert found.interval95 == pytest.approx((exp(reference.low), exp(reference.high)))
    assert found.ratio == pytest.approx(exp(np.mean(pair[:, 0] - pair[:, 1])))
    assert found.verdict == "lower"


def test_several_are_compared_by_tukeys_intervals_about_complete_blocks():
    residual = TABLE - TABLE.mean(axis=0) - TABLE.mean(axis=1, keepdims=True) + TABLE.mean()
    fitted = fit(observations(TABLE))
    assert (fitted.freedom, fitted.drift) == (6, None)
    assert fitted.residual_sd == pytest.approx(sqrt((residual**2).sum() / 6))
    critical = stats.studentized_range.ppf(0.95, 3, 4)
    for pair in compared(TABLE).comparisons:
        apart = TABLE[:, pair.a - 1] - TABLE[:, pair.b - 1]
        own = np.var(apart, ddof=1) / 2
        noise_sd = sqrt((fitted.residual_sd**2 + own) / 2)
        half = critical * noise_sd / sqrt(4)
        expected = (exp(apart.mean() - half), exp(apart.mean() + half))
        assert pair.interval95 == pytest.approx(expected)


def shukla(table: np.ndarray) -> tuple[np.ndarray, float]:
    """Give each configuration's variance by Shukla's formula, and that of all."""
    cycles, family = table.shape
    residual = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    square = (residual**2).sum(axis=0)
    own = family * (family - 1) * square - square.sum()
    own /= (cycles - 1) * (family - 1) * (family - 2)
    return own, square.sum() / ((cycles - 1) * (family - 1))


def test_of_five_and_more_each_has_its_own_noise_drawn_towards_that_of_all():
    rng = np.random.default_rng(3)
    table = rng.normal(0, [0.05, *[0.001] * 5], (3, 6))
    own, of_all = shukla(table)
    drawn = (5 * of_all + 2 * 2 * np.maximum(own, 0.02 * of_all)) / 9
    fitted = fit(observations(table))
    for i, j in combinations(range(6), 2):
        noise = fitted.noise(i, j)
        assert noise.sd == pytest.approx(sqrt((drawn[i] + drawn[j]) / 2))
        freedom = (drawn[i] + drawn[j]) ** 2 / ((drawn[i] ** 2 + drawn[j] ** 2) / 4)
        assert noise.freedom == pytest.approx(min(freedom, 10))
    assert fitted.noise(0, 1).sd > 1.5 * fitted.noise(1, 2).sd


def test_an_interval_takes_the_critical_value_of_the_freedom_its_noise_has():
    table = np.random.default_rng(3).normal(0, [0.03, *[0.01] * 7], (3, 8))
    fitted = fit(observations(table))
    for pair in compared(table).comparisons:
        place = pair.a - 1, pair.b - 1
        half = critical_value(8, fitted.noise(*place).freedom) * fitted.error(*place).sd
        assert log(pair.interval95[1] / pair.ratio) == pytest.approx(half)


def test_a_configuration_with_a_single_result_has_the_noise_of_all():
    table = np.random.default_rng(9).normal(0, 0.01, (4, 6))
    table[1:, 0] = np.nan
    fitted = fit(observations(table))
    assert fitted.alone(0).sd == pytest.approx(fitted.residual_sd)
    assert fitted.alone(0).freedom == pytest.approx(2)


FALSE = {
    "alike": 0.065,
    "one 5 times as noisy as the rest": 0.10,
    "from 0.5 to 2 times, evenly": 0.08,
}
"""Share of studies of equal configurations that may show a difference, with three cycles."""


@pytest.mark.parametrize("family", [4, 8, 20])
@pytest.mark.parametrize("name", FALSE)
def test_no_kind_of_noise_poses_as_a_difference(family, name):
    rng = np.random.default_rng([8, family])
    orders = drawn_orders(2_000, family, 3)
    studies = simulate(rng, orders, LOADS[0], SPREADS[name](family))
    said = analyse(studies)
    assert said.shown.mean() < FALSE[name]
    assert package_agrees(studies, said, 10)


def test_one_noisy_configuration_does_not_widen_the_intervals_of_the_quiet_ones():
    orders = drawn_orders(500, 8, 10)
    quiet, noisy = (
        np.median(
            analyse(simulate(np.random.default_rng(4), orders, LOADS[0], spread)).margin[:, 6, 7]
        )
        for spread in (None, SPREADS["one 5 times as noisy as the rest"](8))
    )
    assert noisy < 1.6 * quiet  # by the noise of all 2.0


@pytest.mark.parametrize("shape", [(4, 3), (3, 5), (7, 3)])
def test_missing_cells_are_fitted_as_a_regression_on_all_dummies_would(shape):
    rng = np.random.default_rng(5)
    table = rng.normal(size=shape)
    table[0, 0] = table[1, 2] = table[2, 2] = np.nan
    effects, inverse, square, freedom, design = dummy_regression(table)
    fitted = fit(observations(table))
    assert fitted.freedom == freedom
    assert fitted.residual_sd == pytest.approx(sqrt(square / freedom))
    assert fitted.free == pytest.approx(1 - np.diag(design @ inverse @ design.T))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        expected = inverse[i, i] + inverse[j, j] - 2 * inverse[i, j]
        assert fitted.effect[i] - fitted.effect[j] == pytest.approx(effects[i] - effects[j])
        assert fitted.variance_factor(i, j) == pytest.approx(expected)


def test_a_straight_drift_is_taken_out_where_the_order_tells_it():
    rng = np.random.default_rng(2)
    orders = [[0, 1, 3, 2], [1, 2, 0, 3], [2, 3, 1, 0], [3, 0, 2, 1]]
    noise = rng.normal(0, 0.01, (4, 4))
    runs = [
        Observation(config, cycle, exp(noise[cycle, place] + 0.05 * slot), slot)
        for cycle, order in enumerate(orders)
        for place, config in enumerate(order)
        for slot in [4 * cycle + place]
    ]
    fitted = fit(runs)
    assert fitted.drift == pytest.approx(0.05, abs=0.01)
    assert fitted.residual_sd < 0.02
    assert fitted.freedom == 8
    without = fit([run._replace(slot=None) for run in runs])
    assert without.residual_sd > 2 * fitted.residual_sd


def test_an_order_that_hardly_tells_drift_has_it_taken_out_all_the_same_and_says_what_that_costs():
    rng = np.random.default_rng(6)
    first = list(range(16))
    second = [one ^ 1 for one in first]  # neighbours change places, all others stay about theirs
    runs = [
        Observation(config, cycle, exp(rng.normal(0, 0.01) + 0.02 * slot), slot)
        for slot, (cycle, config) in enumerate(
            [(0, one) for one in first] + [(1, one) for one in second]
        )
    ]
    assert fit(runs).drift is not None
    found = compare("x", runs, best_is_low=True)
    assert {pair.verdict for pair in found.comparisons} == {"no_difference_shown"}
    assert "hardly tells drift" in found.notes[0]
    left_out = compare("x", [run._replace(slot=None) for run in runs], best_is_low=True)
    assert "lower" in {pair.verdict for pair in left_out.comparisons}


def test_a_fixed_order_cannot_tell_drift_so_none_is_taken_out():
    runs = [
        Observation(config, cycle, exp(0.01 * (cycle * config % 5)), 4 * cycle + config)
        for cycle in range(5)
        for config in range(4)
    ]
    assert fit(runs).drift is None


def test_configurations_that_share_no_block_are_not_compared():
    apart = [Observation(one, (one, cycle), 1.0 + cycle) for one in (1, 2) for cycle in range(3)]
    assert compare("x", apart, best_is_low=True).comparisons == ()
    linked = [
        Observation(one, (one // 3, cycle), 1.0 + cycle * one)
        for one in (1, 2, 3, 4)
        for cycle in range(3)
    ]
    found = compare("x", linked, best_is_low=True)
    assert {(pair.a, pair.b) for pair in found.comparisons} == {(1, 2), (3, 4)}
    assert "never share a cycle" in found.notes[0]


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_configuration_with_a_value_not_above_nought_is_not_compared_and_named(value):
    runs = [*observations(TABLE), Observation(9, 0, value)]
    found = compare("x", runs, best_is_low=True)
    assert all(9 not in (pair.a, pair.b) for pair in found.comparisons)
    assert len(found.comparisons) == 3
    assert "configuration 9" in found.notes[0]


def test_a_single_cycle_is_not_compared_and_says_why():
    found = compared(TABLE[:1])
    assert (found.comparisons, found.sensitivity) == ((), None)
    assert "at least two cycles" in found.notes[0]


def test_figures_that_differ_by_rounding_alone_are_not_shown_to_differ():
    runs = [
        Observation(one, cycle, 100.0 * (1 + 1e-12 * one)) for one in (1, 2) for cycle in range(3)
    ]
    (pair,) = compare("x", runs, best_is_low=True).comparisons
    assert pair.verdict == "no_difference_shown"


def test_figures_that_never_vary_and_differ_are_shown_to_differ():
    runs = [Observation(one, cycle, 100.0 + one) for one in (1, 2) for cycle in range(3)]
    (pair,) = compare("x", runs, best_is_low=True).comparisons
    assert pair.verdict == "lower"


@pytest.mark.parametrize("best_is_low", [True, False])
def test_of_many_each_is_compared_with_the_best_alone(best_is_low):
    rng = np.random.default_rng(3)
    table = rng.normal(0, 0.01, (3, ALL_PAIRS + 5)) + np.linspace(0, 1, ALL_PAIRS + 5)
    found = compare("x", observations(table), best_is_low=best_is_low)
    assert len(found.comparisons) == ALL_PAIRS + 4
    assert {pair.b for pair in found.comparisons} == {1 if best_is_low else ALL_PAIRS + 5}


def test_figures_that_vary_beyond_all_bounds_still_have_finite_intervals():
    table = np.array([[-300.0, 300.0], [300.0, -300.0], [0.0, 200.0]])
    (pair,) = compared(table).comparisons
    assert 0 < pair.interval95[0] < 1 < pair.interval95[1] < float("inf")


def test_what_is_common_cancels_between_configurations_that_share_it_alike():
    alike = [run._replace(common=0.5 * run.value) for run in observations(TABLE)]
    assert compare("x", alike, best_is_low=True) == compared(TABLE)
    uneven = [run._replace(common=0.5) if run.configuration == 1 else run for run in alike]
    wider = compare("x", uneven, best_is_low=True).comparisons[0].interval95
    narrow = compared(TABLE).comparisons[0].interval95
    assert wider[0] < narrow[0] < narrow[1] < wider[1]


@pytest.mark.parametrize(("family", "cycles"), [(2, 2), (2, 3), (2, 5), (4, 3), (8, 3), (8, 5)])
def test_what_a_study_prints_the_next_one_shows_in_four_of_five_cases(family, cycles):
    rng = np.random.default_rng([12, family, cycles])
    said = analyse(simulate(rng, drawn_orders(6_000, family, cycles), LOADS[0]))
    another = np.roll(said.detectable, 1)
    assert 0.76 < said.shows(another) < 0.87


def test_the_effect_of_more_cycles_is_reckoned_from_the_freedom_that_a_study_has():
    unsure, sure = (minimum_detectable_ratio(Noise(0.01, freedom), 2, 10) for freedom in (1, 9))
    assert log(unsure) > 1.5 * log(sure)
    assert minimum_detectable_ratio(Noise(0.01, 3), 2, 1) is None


def test_a_study_prints_for_itself_what_it_prints_for_another_of_its_size():
    table = np.random.default_rng(1).normal(0, 0.01, (5, 2))
    said = compared(table).sensitivity
    same = next(plan for plan in said.planned if plan.n_cycles == 5)
    assert same.minimum_detectable_ratio == pytest.approx(said.minimum_detectable_ratio)


def test_more_cycles_show_smaller_differences():
    noise = Noise(0.01, 8)
    effects = [minimum_detectable_ratio(noise, 4, cycles) or 0 for cycles in (2, 3, 5, 10, 20)]
    assert effects == sorted(effects, reverse=True)


tables = st.integers(2, 5).flatmap(
    lambda cycles: st.integers(2, 4).flatmap(
        lambda family: st.lists(
            st.lists(st.floats(-1, 1, width=32), min_size=family, max_size=family),
            min_size=cycles,
            max_size=cycles,
        )
    )
)


@given(tables, st.floats(1e-3, 1e3))
def test_another_unit_changes_no_comparison(rows, factor):
    table = np.array(rows)
    for one, other in zip(
        compared(table).comparisons, compared(table + log(factor)).comparisons, strict=True
    ):
        assert other.ratio == pytest.approx(one.ratio, rel=1e-6)
        assert other.interval95 == pytest.approx(one.interval95, rel=1e-5)


@given(tables, st.randoms(use_true_random=False))
def test_the_order_of_cycles_and_of_results_changes_nothing(rows, random):
    table = np.array(rows)
    runs = observations(table[random.sample(range(len(table)), len(table))])
    random.shuffle(runs)
    pairs = compare("x", runs, best_is_low=True).comparisons
    for one, other in zip(compared(table).comparisons, pairs, strict=True):
        assert other.interval95 == pytest.approx(one.interval95, rel=1e-5)


@given(tables)
def test_a_level_of_a_whole_cycle_changes_nothing(rows):
    table = np.array(rows)
    shifted = table + np.arange(len(table))[:, None]
    for one, other in zip(compared(table).comparisons, compared(shifted).comparisons, strict=True):
        assert other.ratio == pytest.approx(one.ratio, rel=1e-6)


@given(tables)
def test_naming_configurations_the_other_way_round_inverts_every_ratio(rows):
    table = np.array(rows)
    family = table.shape[1]
    turned = {(c.a, c.b): c for c in compared(table[:, ::-1]).comparisons}
    for one in compared(table).comparisons:
        other = turned[family + 1 - one.b, family + 1 - one.a]
        low, high = other.interval95
        assert one.ratio == pytest.approx(1 / other.ratio, rel=1e-6)
        assert one.interval95 == pytest.approx((1 / high, 1 / low), rel=1e-5)


@given(tables)
def test_a_verdict_never_contradicts_its_interval(rows):
    for pair in compared(np.array(rows)).comparisons:
        low, high = pair.interval95
        told = {"lower": high < 1, "higher": low > 1, "no_difference_shown": low <= 1 <= high}
        assert told[pair.verdict]


@pytest.mark.parametrize("freedom", [2.0, 2.5, 7.3, 1e4, 1e9])
def test_an_interval_takes_the_quantile_of_scipys_t_at_any_freedom(freedom: float):
    # One common part and one random part, sized so that Welch and Satterthwaite give the freedom.
    values = [9.0, 10.0, 11.0]
    random = 1 / sqrt(3)
    common = random * sqrt(max(sqrt(freedom / 2) - 1, 0.0))
    low, high = figure(values, [common] * 3).interval95
    half = stats.t.ppf(0.975, freedom) * sqrt(random**2 + common**2)
    assert (high - low) / 2 == pytest.approx(half, rel=1e-12)


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=6))
def test_configurations_are_linked_as_a_graph_of_their_blocks_is(cells: list[list[bool]]):
    from scipy.sparse import bmat, csr_matrix
    from scipy.sparse.csgraph import connected_components

    table = np.array([row for row in cells if any(row)], np.float64)
    if not table.size:
        return
    table = table[:, table.any(axis=0)]
    graph = bmat([[None, csr_matrix(table)], [csr_matrix(table).T, None]])
    _, labels = connected_components(graph, directed=False)
    made = [
        Observation(config, block, 1.0) for (config, block), there in np.ndenumerate(table) if there
    ]
    assert fit(made).group.tolist() == labels[: len(table)].tolist()


@pytest.mark.exhaustive
@pytest.mark.parametrize("part", PARTS)
def test_studies_of_every_size_are_as_the_documentation_claims(part):
    rows = list(rows_of(part, seed=2, repeats=8_000, families=FAMILIES))
    assert len(rows) >= 20
    assert [row for row in rows if not row["as_claimed"]] == []
