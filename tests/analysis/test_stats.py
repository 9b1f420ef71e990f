import math
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import binomtest

from grokcore.analysis.stats import Estimate, bootstrap_slope, median_time, wilson


def test_median_of_times_that_were_all_reached():
    value, low, high = median_time([5, 3, 1, 2, 4], [True] * 5)
    assert (value, low) == (3, 1)
    assert np.isnan(high)  # five runs do not bound the median from above at 95 %


def test_a_censored_run_is_not_dropped_from_the_median():
    # Of 1, 2, 9, 9+, 9+ the median is 9; without the censored two it would be 2.
    assert median_time([1, 2, 9, 9, 9], [True, True, True, False, False]).value == 9
    assert median_time([1, 2, 9], [True] * 3).value == 2


def test_a_run_censored_early_counts_only_until_then():
    # At risk: 4 at step 2 (1/4 fall), 2 at step 4 (half of 3/4 falls): 3/8 <= 1/2, so the median is 4.
    assert median_time([2, 3, 4, 6], [True, False, True, True]).value == 4


def test_median_that_is_not_reached_by_half_is_not_a_number():
    value, low, high = median_time([1, 9, 9], [True, False, False])
    assert np.isnan(value) and np.isnan(high) and low == 1
    assert all(np.isnan(median_time([9, 9], [False, False])))


def test_half_is_half_whatever_rounding_leaves_of_it():
    # At step 5 exactly 5 of 10 are left; the product of fractions may be a last digit above one half.
    times = [1, 1, 2, 5, 5, 6, 8, 10, 10, 11]
    assert median_time(times, [True] * 7 + [False, True, False]).value == 5


def kaplan_meier(times, reached, confidence):
    """Median and interval by the textbook, one time after the other, with exact products and Greenwood's exact sum."""
    survival, greenwood, z = Fraction(1), Fraction(0), NormalDist().inv_cdf((1 + confidence) / 2)
    crossed = [math.nan] * 3
    for time in sorted({t for t, seen in zip(times, reached, strict=True) if seen}):
        at_risk = sum(t >= time for t in times)
        events = sum(t == time and seen for t, seen in zip(times, reached, strict=True))
        survival *= 1 - Fraction(events, at_risk)
        curves = [survival]
        if survival > 0:
            greenwood += Fraction(events, at_risk * (at_risk - events))
            half = z * math.sqrt(greenwood) / abs(math.log(survival))
            curves += [float(survival) ** math.exp(half), float(survival) ** math.exp(-half)]
        for i, curve in enumerate(curves):
            if math.isnan(crossed[i]) and curve <= 0.5:
                crossed[i] = time
    return crossed


@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_median_and_interval_are_those_of_the_textbook_on_censored_samples(confidence):
    rng = np.random.default_rng(3)
    for n in (1, 2, 5, 12, 25, 40) * 10:
        times = rng.integers(1, 30, n).tolist()
        reached = (rng.random(n) < rng.choice([0.3, 0.8, 1.0])).tolist()
        expected = kaplan_meier(times, reached, confidence)
        np.testing.assert_array_equal(median_time(times, reached, confidence), expected)


@pytest.mark.parametrize("times, reached", [([], []), ([1.0], [True, False]), ([float("nan")], [False])])
def test_median_time_says_what_it_needs(times, reached):
    with pytest.raises(ValueError, match="one finite time and one reached-or-not per run"):
        median_time(times, reached)


@pytest.mark.parametrize("successes, n", [(0, 3), (3, 3), (8, 10), (57, 100)])
def test_wilson_agrees_with_scipy(successes, n):
    expected = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    value, low, high = wilson(successes, n)
    assert value == successes / n
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)  # rounding of two formulas


@pytest.mark.parametrize("n", range(1, 30))
def test_wilson_ends_at_none_and_at_all(n):
    assert wilson(0, n).low == 0.0 and wilson(n, n).high == 1.0


@pytest.mark.parametrize("successes, n", [(1, 0), (-1, 3), (4, 3)])
def test_wilson_refuses_impossible_counts(successes, n):
    with pytest.raises(ValueError, match=f"got {successes} of {n}"):
        wilson(successes, n)


def test_slope_of_a_line_is_exact_with_no_width():
    assert bootstrap_slope([1, 2, 3, 5], [2, 0, -2, -6]) == pytest.approx(Estimate(-2, -2, -2))


def test_slope_and_interval_of_noisy_points():
    rng = np.random.default_rng(0)
    x = np.linspace(0, 1, 200)
    y = 3 * x + rng.normal(0, 0.5, 200)
    found = bootstrap_slope(x, y)
    assert found.value == pytest.approx(np.polyfit(x, y, 1)[0])
    error = 0.5 / np.sqrt(((x - x.mean()) ** 2).sum())  # standard error of the slope under this noise
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.15)  # sampling of noise and resamples
    assert found.low < 3 < found.high


def test_slope_interval_is_that_of_polyfit_on_the_same_resamples():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=12), rng.normal(size=12)
    chosen = np.random.default_rng(7).integers(0, 12, (300, 12))
    slopes = [np.polyfit(x[rows], y[rows], 1)[0] for rows in chosen]
    found = bootstrap_slope(x, y, confidence=0.9, resamples=300, seed=7)
    assert found[1:] == pytest.approx(tuple(np.quantile(slopes, [0.05, 0.95])))


def test_slope_depends_on_its_seed_alone():
    x = np.linspace(0, 1, 30)
    y = np.random.default_rng(5).normal(size=30)
    assert bootstrap_slope(x, y, seed=1) == bootstrap_slope(x, y, seed=1)
    assert bootstrap_slope(x, y, seed=1) != bootstrap_slope(x, y, seed=2)


@pytest.mark.parametrize("x, y", [([1, 1], [0, 1]), ([1, 2], [0]), ([1, 2], [0, float("nan")])])
def test_slope_says_what_it_needs(x, y):
    with pytest.raises(ValueError, match="at least two different x"):
        bootstrap_slope(x, y)
