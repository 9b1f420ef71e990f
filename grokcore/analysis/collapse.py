"""Where the training accuracy of a run collapses, and how deeply a curve falls.

The frames are those of `grokcore.sweep`, of one run, sorted by step.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from grokcore.analysis.crossings import HOLD, column, require

SMALLEST_BATCH = 64  # rows: of a smaller batch a few errors make a low accuracy
COLUMNS = ("start", "bottom", "end", "depth", "val_before", "val_after", "recovered")


def collapses(curve: pd.DataFrame, high: float = 0.99, low: float = 0.9) -> pd.DataFrame:
    """Return the collapses of training accuracy of one run, one row each, in order of time.

    After an evaluation with training accuracy of at least `high`, a fall is seen at an evaluation where training
    accuracy, or the mean or minimum of the mini-batch accuracies since the evaluation before, is under `low`. (The
    minimum counts only if the smallest batch of an epoch has at least `SMALLEST_BATCH` rows: in a smaller one a few
    errors are enough.) Training has recovered at the next evaluation with training accuracy of at least `high`. A fall
    that follows within `HOLD` steps of a recovery belongs to the same collapse.

    Args:
        curve: the curve of one run.
        high: training accuracy before and after a collapse, at least.
        low: the accuracy under which it has to fall.

    Returns:
        A frame with the columns `start` (last evaluation at `high` before it), `bottom` (evaluation with the lowest
        accuracy), `end` (training has recovered), `depth` (training accuracy at the start minus the lowest),
        `val_before` and `val_after` (validation accuracy at start and end) and `recovered`. A collapse that the end of
        the curve cuts short ends at the last step, with `recovered` False.

    Raises:
        ValueError: unless 0 <= low < high <= 1, or if columns are missing.
    """
    if not 0 <= low < high <= 1:
        raise ValueError(f"collapses needs 0 <= low < high <= 1; got low {low} and high {high}")
    require(curve, ("step", "train_accuracy", "val_accuracy"))
    steps, val, train = (column(curve, name) for name in ("step", "val_accuracy", "train_accuracy"))
    lowest = np.fmin.reduce([column(curve, name) for name in _lowest_columns(curve)])
    good = np.flatnonzero(train >= high)
    rows = []
    for falls in _groups_of_falls(steps, np.flatnonzero(lowest < low), good):
        start, back = good[good < falls[0]][-1], good[good >= falls[-1]]
        bottom, end = min(falls, key=lambda i: lowest[i]), back[0] if len(back) else len(steps) - 1
        rows.append(
            {
                "start": int(steps[start]),
                "bottom": int(steps[bottom]),
                "end": int(steps[end]),
                "depth": train[start] - lowest[bottom],
                "val_before": val[start],
                "val_after": val[end],
                "recovered": len(back) > 0,
            }
        )
    return pd.DataFrame(rows, columns=pd.Index(COLUMNS))


def _groups_of_falls(steps: np.ndarray, falls: np.ndarray, good: np.ndarray) -> list[list[int]]:
    """Return the positions of falls that belong to one collapse, for each collapse."""
    groups: list[list[int]] = []
    for i in falls:
        if not (good < i).any():
            continue
        back = good[(good >= groups[-1][-1]) & (good < i)] if groups else good[:0]
        if groups and (len(back) == 0 or steps[i] - steps[back[0]] <= HOLD):
            groups[-1].append(int(i))
        else:
            groups.append([int(i)])
    return groups


def deepest_fall(values: ArrayLike, relative: bool = False) -> float:
    """Return how far values fall at most below the largest value before.

    Args:
        values: `[n]`, in order of time.
        relative: measure each fall as a fraction of the largest value before.

    Returns:
        The deepest fall, in the unit of `values` unless `relative`; 0 for values that never fall.

    Example:
        >>> deepest_fall([1, 4, 3, 5, 2])
        3.0
        >>> deepest_fall([1, 4, 3, 5, 2], relative=True)
        0.6
    """
    series = np.asarray(values, dtype=float)
    highest = np.maximum.accumulate(series)
    return float(((highest - series) / (highest if relative else 1.0)).max())


def _lowest_columns(curve: pd.DataFrame) -> list[str]:
    """Return the columns whose minimum is how low training accuracy went since the evaluation before."""
    names = [name for name in ("train_accuracy", "batch_accuracy_mean") if name in curve]
    if "batch_accuracy_min" in curve and {"n_train", "batch_size"} <= set(curve):
        n_train, batch = int(curve["n_train"].iloc[0]), int(curve["batch_size"].iloc[0])
        if min(n_train % batch or batch, n_train) >= SMALLEST_BATCH:
            names.append("batch_accuracy_min")
    return names
