"""When a curve first reaches a threshold, and whether it stays there.

The frames are those of `grokcore.sweep`, of one run, sorted by step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

HOLD = 500  # steps for which an accuracy has to stay above its threshold
THRESHOLDS = {99: 0.99, 100: 1 - 1e-6}  # an accuracy stored in single precision may miss 1 by rounding


class Crossing(NamedTuple):
    """Two evaluations that bracket a crossing: not yet at step `after`, seen at step `at`."""

    after: int
    at: int


def crossing(steps: ArrayLike, values: ArrayLike, threshold: float, hold: float = 0) -> Crossing | None:
    """Return where the values of one run first reach a threshold and stay there.

    Args:
        steps: `[n]`, increasing.
        values: `[n]`; one that is not a number is below any threshold.
        threshold: what has to be reached.
        hold: for how many steps the values have to be at least the threshold, at every evaluation. A curve that ends
            before that does not establish it.

    Returns:
        The evaluation that shows it and the one before, twice the same step if it is the first evaluation; None if it
        is never seen (censored).

    Raises:
        ValueError: steps that do not increase, or unequal lengths.

    Example:
        >>> crossing([0, 100, 200, 300], [0.1, 0.4, 0.99, 1.0], threshold=0.99)
        Crossing(after=100, at=200)
        >>> crossing([0, 100, 200, 300], [0.1, 0.4, 0.99, 1.0], threshold=0.99, hold=500) is None
        True
    """
    at, above = np.asarray(steps, dtype=float), np.asarray(values, dtype=float) >= threshold
    if at.ndim != 1 or at.shape != above.shape or (np.diff(at) <= 0).any():
        raise ValueError(
            f"crossing needs increasing steps and one value for each; got {at.size} steps and {above.size} "
            "values. Pass the curve of one run, sorted by step."
        )
    for i in np.flatnonzero(above):
        window = above[i : np.searchsorted(at, at[i] + hold, side="right")]
        if window.all() and at[-1] >= at[i] + hold:
            return Crossing(int(at[max(i - 1, 0)]), int(at[i]))
    return None


def point_1(curve: pd.DataFrame) -> float | None:
    """Return the step of the first evaluation with training accuracy 100 %, or None (source: periodic, 1)."""
    return _first_step(curve, ["train_accuracy"])


def point_2(curve: pd.DataFrame) -> float | None:
    """Return the step of the first evaluation with both accuracies 100 %, or None (source: periodic, 1)."""
    return _first_step(curve, ["train_accuracy", "val_accuracy"])


def _first_step(curve: pd.DataFrame, columns: list[str]) -> float | None:
    lowest = np.min([column(curve, name) for name in columns], axis=0)
    bracket = crossing(column(curve, "step"), lowest, THRESHOLDS[100])
    return None if bracket is None else float(bracket.at)


def column(frame: pd.DataFrame, name: str) -> np.ndarray:
    """Return a column of a frame as floats `[n]`."""
    return np.asarray(frame[name], dtype=float)


def require(frame: pd.DataFrame, names: Sequence[str]) -> None:
    """Raise ValueError if a frame lacks columns."""
    missing = [name for name in names if name not in frame]
    if missing:
        raise ValueError(
            f"the curves lack {', '.join(missing)}; expected a frame of grokcore.sweep, one row a run and "
            f"evaluation. It has {', '.join(map(str, list(frame.columns)[:8]))} ..."
        )
