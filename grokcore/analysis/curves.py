"""From curves to one row a run: when thresholds were crossed, how a run ended, where training collapsed.

The frames are those of `grokcore.sweep`: one row for each run and evaluation, sorted by step. Steps are optimizer
steps, accuracies lie between 0 and 1, norms are L2 norms. What was not reached within the budget is NaN (censored at
the column `steps`). No run is ever left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

HOLD = 500  # steps for which an accuracy has to stay above its threshold
LAG = 2.0  # how many times later than training accuracy validation accuracy must rise to be called delayed
THRESHOLDS = {99: 0.99, 100: 1 - 1e-6}  # an accuracy stored in single precision may miss 1 by rounding
SMALLEST_BATCH = 64
TASK = ("run", "operation", "p", "y_min", "n_operands", "alpha", "n_train", "n_val", "seed")
MODEL = ("model", "n_layers", "d_model", "d_mlp", "layernorm", "affine")
TRAINING = ("optimizer", "lr", "weight_decay", "momentum", "warmup", "batch_size", "steps", "status")
SPEC_COLUMNS = TASK + MODEL + TRAINING
COLLAPSE_COLUMNS = ("start", "bottom", "end", "depth", "val_before", "val_after", "recovered")
NEEDED = ("step", "train_accuracy", "val_accuracy", "weight_norm", "weight_norm_sum")


class Outcome(StrEnum):
    """How a run ended, with the rule in words and a message for the reader. To hold means to hold for `HOLD` steps.

    Example:
        >>> Outcome("MEMORISED_ONLY").message
        'fitted the training set and did not generalise within its budget'
    """

    rule: str
    message: str

    GROKKED = (
        "GROKKED",
        "both accuracies reach 0.99 and hold, validation not before LAG times the first training step",
        "generalised long after it had fitted the training set",
    )
    GENERALISED_AT_ONCE = (
        "GENERALISED_AT_ONCE",
        "both accuracies reach 0.99 and hold, validation before LAG times the first training step",
        "generalised as it fitted the training set, without the delay of grokking",
    )
    MEMORISED_ONLY = (
        "MEMORISED_ONLY",
        "training accuracy reaches 0.99 and holds, validation accuracy does not",
        "fitted the training set and did not generalise within its budget",
    )
    NOT_FITTED = (
        "NOT_FITTED",
        "training accuracy does not reach 0.99 and hold",
        "did not fit the training set within its budget",
    )
    NONFINITE = (
        "NONFINITE",
        "the run ended because a loss or a norm was not finite",
        "diverged: its numbers overflowed",
    )

    def __new__(cls, value: str, rule: str, message: str) -> Outcome:
        """Make a member whose value is its name."""
        member = str.__new__(cls, value)
        member._value_, member.rule, member.message = value, rule, message
        return member


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


def summary(curves: pd.DataFrame) -> pd.DataFrame:
    """Return one row a run, in order of appearance: its specification and what its curve shows.

    Args:
        curves: the curves of any number of runs.

    Returns:
        A frame with these columns:

        * those of the specification that `curves` has (`SPEC_COLUMNS`);
        * `outcome`, the name of an `Outcome`;
        * `{s}_{t}_{k}` for s in train, val, t in 99, 100 and k in first, sustained: the step at which accuracy is
          seen to have reached t %, and `{s}_{t}_{k}_after`, the evaluation before; both NaN if censored;
        * `grok_delay`: val_99_sustained divided by train_99_first;
        * `point_1` and `point_2`: as the functions of these names;
        * `late_rise`: how far validation accuracy rose after train_99_first;
        * `n_collapses`: how many rows `collapses` has;
        * `final_train_accuracy`, `final_val_accuracy` and `best_val_accuracy`;
        * for `weight_norm` and `weight_norm_sum` the value at the end, `_final`, and the largest, `_max`, with its
          step, `_max_step`.

    Raises:
        ValueError: no rows, or columns are missing.
    """
    _require(curves, ("run", *NEEDED))
    if curves.empty:
        raise ValueError("summary got no runs: the frame has no rows")
    return pd.DataFrame([run_summary(curve) for _, curve in curves.groupby("run", sort=False)])


def run_summary(curve: pd.DataFrame) -> dict[str, Any]:
    """Return the row that `summary` has for one run, as a dictionary; raises ValueError if columns are missing."""
    _require(curve, NEEDED)
    row: dict[str, Any] = {name: curve[name].iloc[0] for name in SPEC_COLUMNS if name in curve}
    steps = column(curve, "step")
    accuracy = {side: column(curve, f"{side}_accuracy") for side in ("train", "val")}
    times: dict[str, float] = {}
    for side, values in accuracy.items():
        for percent, threshold in THRESHOLDS.items():
            for kind, hold in (("first", 0), ("sustained", HOLD)):
                bracket = crossing(steps, values, threshold, hold)
                name = f"{side}_{percent}_{kind}"
                times[name] = np.nan if bracket is None else float(bracket.at)
                times[f"{name}_after"] = np.nan if bracket is None else float(bracket.after)
    row |= {"outcome": _outcome(curve, times).value, **times}
    row["grok_delay"] = times["val_99_sustained"] / (times["train_99_first"] or np.nan)
    first, second = point_1(curve), point_2(curve)
    row |= {"point_1": np.nan if first is None else first, "point_2": np.nan if second is None else second}
    later = accuracy["val"][steps >= times["train_99_first"]]
    row["late_rise"] = float(np.nanmax(later) - later[0]) if len(later) else np.nan
    row["n_collapses"] = len(collapses(curve))
    row |= {f"final_{side}_accuracy": float(values[-1]) for side, values in accuracy.items()}
    row["best_val_accuracy"] = float(np.nanmax(accuracy["val"]))
    for norm in ("weight_norm", "weight_norm_sum"):
        values = column(curve, norm)
        row[f"{norm}_final"] = float(values[-1])
        finite = np.isfinite(values).any()
        row[f"{norm}_max"] = float(np.nanmax(values)) if finite else np.nan
        row[f"{norm}_max_step"] = float(steps[np.nanargmax(values)]) if finite else np.nan
    return row


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
    _require(curve, ("step", "train_accuracy", "val_accuracy"))
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
    return pd.DataFrame(rows, columns=pd.Index(COLLAPSE_COLUMNS))


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


def _outcome(curve: pd.DataFrame, times: dict[str, float]) -> Outcome:
    if "status" in curve and curve["status"].iloc[-1] == "nonfinite":
        return Outcome.NONFINITE
    if np.isnan(times["train_99_sustained"]):
        return Outcome.NOT_FITTED
    if np.isnan(times["val_99_sustained"]):
        return Outcome.MEMORISED_ONLY
    late = times["val_99_sustained"] >= LAG * times["train_99_first"]
    return Outcome.GROKKED if late else Outcome.GENERALISED_AT_ONCE


def _lowest_columns(curve: pd.DataFrame) -> list[str]:
    """Return the columns whose minimum is how low training accuracy went since the evaluation before."""
    names = [name for name in ("train_accuracy", "batch_accuracy_mean") if name in curve]
    if "batch_accuracy_min" in curve and {"n_train", "batch_size"} <= set(curve):
        n_train, batch = int(curve["n_train"].iloc[0]), int(curve["batch_size"].iloc[0])
        if min(n_train % batch or batch, n_train) >= SMALLEST_BATCH:
            names.append("batch_accuracy_min")
    return names


def column(frame: pd.DataFrame, name: str) -> np.ndarray:
    """Return a column of a frame as floats `[n]`."""
    return np.asarray(frame[name], dtype=float)


def _require(frame: pd.DataFrame, names: Sequence[str]) -> None:
    missing = [name for name in names if name not in frame]
    if missing:
        raise ValueError(
            f"the curves lack {', '.join(missing)}; expected a frame of grokcore.sweep, one row a run and "
            f"evaluation. It has {', '.join(map(str, list(frame.columns)[:8]))} ..."
        )
