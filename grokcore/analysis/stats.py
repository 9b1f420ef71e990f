"""Estimates with intervals: numpy only, nothing here knows of runs or curves."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Estimate(NamedTuple):
    """A value with the ends of its interval; NaN where the data do not bound it."""

    value: float
    low: float
    high: float


def median_time(times: Sequence[float], reached: Sequence[bool], confidence: float = 0.95) -> Estimate:
    """Return the Kaplan-Meier median of right-censored times, with its interval, all in the unit of `times`.

    `times` `[n]` holds the time of the event where `reached` `[n]`, else how long it was waited for. The
    median is the first time by which at least half are estimated to have had the event, NaN if that is not
    seen. The interval holds the times that the log-log (Greenwood) band of the survival function does not
    exclude as median; an end that the data do not bound is NaN. Raises ValueError without times, for unequal
    lengths, or NaN.
    Source: Brookmeyer and Crowley 1982, Biometrics 38, 29-41.
    """
    time, event = np.asarray(times, dtype=float), np.asarray(reached, dtype=bool)
    if time.ndim != 1 or time.size == 0 or time.shape != event.shape or not np.isfinite(time).all():
        raise ValueError(
            "median_time needs one finite time and one reached-or-not per run, at least one run; got "
            f"times {list(times)} and reached {list(reached)}. The time of a run that did not get there is "
            "its budget."
        )
    at = np.unique(time[event])
    survival, low, high = _survival(time, event, at, NormalDist().inv_cdf((1 + confidence) / 2))
    return Estimate(*(_first(at, values <= 0.5 + 1e-12) for values in (survival, low, high)))


def _survival(time: np.ndarray, event: np.ndarray, at: np.ndarray, z: float) -> tuple[np.ndarray, ...]:
    """Return the survival function and its log-log band at times `at`: three `[k]`, the band NaN at 0."""
    at_risk = (time[None] >= at[:, None]).sum(1)
    events = ((time[None] == at[:, None]) & event).sum(1)
    survival = np.cumprod(1 - events / at_risk)
    band = np.full((2, at.size), np.nan)
    inside = survival > 0
    greenwood = np.cumsum(events[inside] / (at_risk[inside] * (at_risk - events)[inside]))
    half = z * np.sqrt(greenwood) / np.abs(np.log(survival[inside]))
    band[:, inside] = survival[inside] ** np.exp([half, -half])
    return survival, band[0], band[1]


def wilson(successes: int, n: int, confidence: float = 0.95) -> Estimate:
    """Return the fraction `successes`/`n` with its Wilson score interval, all between 0 and 1.

    Raises ValueError unless 0 <= successes <= n and n >= 1. Source: Wilson 1927, JASA 22, 209-212.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"wilson needs n >= 1 and 0 <= successes <= n; got {successes} of {n}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / n
    centre = share + z * z / (2 * n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low, high = float((centre - half) / scale), float((centre + half) / scale)
    return Estimate(share, low if successes else 0.0, high if successes < n else 1.0)  # without what rounding leaves


def bootstrap_slope(
    x: ArrayLike, y: ArrayLike, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Estimate:
    """Return the least-squares slope of `y` on `x` (both `[n]`) with its bootstrap interval over the pairs.

    A resample whose x are all equal has no slope and is left out. Raises ValueError unless x has two
    different values and both are finite and equally long. Source: Efron 1979, Annals of Statistics 7, 1-26.
    """
    xs, ys = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    finite = xs.shape == ys.shape and np.isfinite(xs).all() and np.isfinite(ys).all()
    if not finite or np.unique(xs).size < 2:
        raise ValueError(
            "bootstrap_slope needs equally many finite x and y and at least two different x; got "
            f"x {xs.tolist()}, y {ys.tolist()}"
        )
    chosen = np.random.default_rng(seed).integers(0, xs.size, (resamples, xs.size))
    slopes = _slope(xs[chosen], ys[chosen])
    edge = (1 - confidence) / 2
    low, high = np.nanquantile(slopes, [edge, 1 - edge])
    return Estimate(float(_slope(xs[None], ys[None])[0]), float(low), float(high))


def _slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the slope of each row: x, y `[k, n]` -> `[k]`, NaN where a row of x is constant."""
    dx = x - x.mean(1, keepdims=True)
    spread = (dx**2).sum(1)
    constant = np.ptp(x, axis=1) == 0
    return np.where(constant, np.nan, (dx * y).sum(1) / np.where(constant, 1.0, spread))


def _first(at: np.ndarray, mask: np.ndarray) -> float:
    return float(at[np.argmax(mask)]) if mask.any() else float("nan")
