"""Quantiles against SciPy's own, and against what they are for."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from scipy import stats

from llenergymeasure.study.quantiles import critical_value, detectable, student


def test_the_critical_value_is_published_tukey_over_root_two():
    # Tables of the studentised range, 5 %: q(3, 10) = 3.877, q(8, 20) = 4.768.
    assert critical_value(3, 10) * sqrt(2) == pytest.approx(3.877, abs=0.001)
    assert critical_value(8, 20) * sqrt(2) == pytest.approx(4.768, abs=0.001)
    assert critical_value(2, 4) == pytest.approx(2.776, abs=0.001)


def test_the_bound_for_large_families_is_wider_than_tukey_but_by_little():
    tukey = stats.studentized_range.ppf(0.95, 201, 400) / sqrt(2)
    assert tukey < critical_value(201, 400) < 1.05 * tukey


@pytest.mark.parametrize("family", [2, 3, 5, 20, 120, 200, 201, 1000])
@pytest.mark.parametrize("freedom", [1, 2, 3, 7, 24, 150])
def test_critical_values_are_those_of_scipy(family: int, freedom: int):
    pairs = family * (family - 1) / 2
    if family == 2:
        expected = stats.t.ppf(0.975, freedom)
    elif family > 200:
        expected = stats.t.isf((1 - 0.95 ** (1 / pairs)) / 2, freedom)
    else:
        expected = stats.studentized_range.ppf(0.95, family, freedom) / sqrt(2)
    assert critical_value(family, freedom) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("family", [3, 8, 40])
@pytest.mark.parametrize("freedom", [3.5, 4.2, 7.6, 21.9])
def test_between_whole_degrees_of_freedom_it_is_right_to_half_a_per_cent(family, freedom):
    expected = stats.studentized_range.ppf(0.95, family, freedom) / sqrt(2)
    assert critical_value(family, freedom) == pytest.approx(expected, rel=5e-3)


def test_a_quantile_of_students_t_is_scipys():
    assert student(0.8, 4.5) == pytest.approx(stats.t.ppf(0.8, 4.5), rel=1e-12)
    assert student(0.975, float("inf")) == pytest.approx(stats.norm.ppf(0.975))


@pytest.mark.parametrize(("cycles", "times"), [(2, 2.8), (3, 1.63), (5, 1.26), (10, 1.12)], ids=str)
def test_a_study_that_does_not_know_its_noise_needs_a_larger_effect_in_the_next(cycles, times):
    freedom = cycles - 1 - (cycles > 6)  # with drift where there is enough to fit it
    known = critical_value(2, freedom) + student(0.8, freedom)
    assert detectable(2, freedom, freedom) / known == pytest.approx(times, rel=0.01)


@pytest.mark.parametrize(
    ("family", "now", "then"), [(2, 1, 1), (2, 2, 4), (3, 4, 3), (8, 14, 8), (20, 38, 8)]
)
def test_the_next_study_shows_the_detectable_effect_in_four_of_five_cases(family, now, then):
    rng = np.random.default_rng(5)
    draws = 400_000
    known = np.sqrt(rng.chisquare(now, draws) / now)
    coming = np.sqrt(rng.chisquare(then, draws) / then)
    apart = detectable(family, now, then) * known + rng.normal(size=draws)
    shown = (apart > critical_value(family, then) * coming).mean()
    assert shown == pytest.approx(0.8, abs=0.004)


@pytest.mark.parametrize(
    ("family", "now", "then"), [(201, 10, 1), (500, 20_000, 1), (50_000, 2, 2), (100_000, 6, 2)]
)
def test_however_many_are_compared_by_however_little_there_is_a_detectable_effect(
    family, now, then
):
    assert critical_value(family, then) < detectable(family, now, then) < float("inf")
