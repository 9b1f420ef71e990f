"""Estimates with intervals; nothing here knows of runs or curves.

scipy.stats is imported where it is used: it would make `import grokcore.analysis.stats` take half a second longer.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

ROUNDING = 1e-12  # by which a product of fractions may miss one half


class Estimate(NamedTuple):
    """A value with the ends of its interval; NaN where the data do not bound it."""

    value: float
    low: float
    high: float


def median_time(times: Sequence[float], reached: Sequence[bool], confidence: float = 0.95) -> Estimate:
    """Return the Kaplan-Meier median of right-censored times, with its interval.

    The median is the first time by which at least half are estimated to have had the event. The interval holds the
    times that the log-log (Greenwood) band of the survival function does not exclude as the median. Source: Brookmeyer
    and Crowley 1982, Biometrics 38, 29-41.

    Args:
        times: `[n]`, the time of the event, or how long it was waited for without it.
        reached: `[n]`, whether the event was seen.
        confidence: the coverage of the interval, between 0 and 1.

    Returns:
        Median and interval in the unit of `times`. The median is NaN if fewer than half are estimated to have had the
        event; an end is NaN if the data do not bound it.

    Raises:
        ValueError: no times, unequal lengths, or a time that is not finite.

    Example:
        >>> median_time([100, 200, 900, 900, 900], [True, True, True, False, False])
        Estimate(value=900.0, low=100.0, high=nan)
    """
    time, event = np.asarray(times, dtype=float), np.asarray(reached, dtype=bool)
    if time.ndim != 1 or time.size == 0 or time.shape != event.shape or not np.isfinite(time).all():
        raise ValueError(
            "median_time needs one finite time and one reached-or-not per run, at least one run; got "
            f"times {list(times)} and reached {list(reached)}. The time of a run that did not get there is "
            "its budget."
        )
    from scipy.stats import CensoredData, ecdf

    survival = ecdf(CensoredData.right_censored(time, ~event)).sf
    with warnings.catch_warnings():  # of a band that is undefined where survival is 0 or 1: it bounds nothing there
        warnings.simplefilter("ignore", RuntimeWarning)
        band = survival.confidence_interval(confidence, method="log-log")
    curves = (survival, band.low, band.high)
    return Estimate(*(_first(curve.quantiles, curve.probabilities <= 0.5 + ROUNDING) for curve in curves))


def wilson(successes: int, n: int, confidence: float = 0.95) -> Estimate:
    """Return a fraction with its Wilson score interval. Source: Wilson 1927, JASA 22, 209-212.

    Args:
        successes: how many of `n` count.
        n: how many there are.
        confidence: the coverage of the interval, between 0 and 1.

    Returns:
        `successes / n` and its interval, all between 0 and 1.

    Raises:
        ValueError: unless 0 <= successes <= n and n >= 1.

    Example:
        >>> value, low, high = wilson(8, 10)
        >>> print(f"{value:.2f} ({low:.2f} to {high:.2f})")
        0.80 (0.49 to 0.94)
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"wilson needs n >= 1 and 0 <= successes <= n; got {successes} of {n}")
    # Not scipy's binomtest(…).proportion_ci(method="wilson"): it rounds otherwise in the last bit, and claims.json
    # holds every digit. A test compares the two.
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / n
    centre = share + z * z / (2 * n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low, high = float((centre - half) / scale), float((centre + half) / scale)
    return Estimate(share, low if successes else 0.0, high if successes < n else 1.0)  # exact where rounding misses


def bootstrap_slope(
    x: ArrayLike, y: ArrayLike, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Estimate:
    """Return a least-squares slope with its bootstrap interval: the percentiles of the slopes of resampled pairs.

    A resample whose x are all equal has no slope and is left out. Source: Efron 1979, Annals of Statistics 7, 1-26.

    Args:
        x: `[n]`, at least two different values.
        y: `[n]`.
        confidence: the coverage of the interval, between 0 and 1.
        resamples: how often the pairs are drawn.
        seed: decides the draws.

    Returns:
        The slope of `y` on `x` and its interval, in units of y per unit of x.

    Raises:
        ValueError: x and y are not finite and equally long, or all x are equal.

    Example:
        >>> bootstrap_slope([0, 1, 2, 4], [1, 3, 5, 9]).value
        2.0
    """
    xs, ys = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    finite = xs.shape == ys.shape and np.isfinite(xs).all() and np.isfinite(ys).all()
    if not finite or np.unique(xs).size < 2:
        raise ValueError(
            "bootstrap_slope needs equally many finite x and y and at least two different x; got "
            f"x {xs.tolist()}, y {ys.tolist()}"
        )
    # Not scipy.stats.bootstrap: it gives no interval (NaN) as soon as one resample has no slope, which happens with the
    # few values of alpha that a claim compares.
    drawn = np.random.default_rng(seed).integers(0, xs.size, (resamples, xs.size))
    slopes = _slopes(xs[drawn], ys[drawn])
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(slopes, [tail, 1 - tail])
    return Estimate(float(_slopes(xs[None], ys[None])[0]), float(low), float(high))


def _slopes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the slope of each row: x, y `[k, n]` -> `[k]`, NaN where a row of x is constant."""
    dx = x - x.mean(1, keepdims=True)
    spread = (dx**2).sum(1)
    constant = np.ptp(x, axis=1) == 0
    return np.where(constant, np.nan, (dx * y).sum(1) / np.where(constant, 1.0, spread))


def _first(times: np.ndarray, mask: np.ndarray) -> float:
    return float(times[np.argmax(mask)]) if mask.any() else float("nan")
