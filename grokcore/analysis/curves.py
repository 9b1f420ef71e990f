"""From curves to one row a run: how it ended, when thresholds were crossed, what its curve shows otherwise.

The frames are those of `grokcore.sweep`: one row for each run and evaluation, sorted by step. Steps are optimizer
steps, accuracies lie between 0 and 1, norms are L2 norms. What was not reached within the budget is NaN (censored at
the column `steps`). No run is ever left out.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd

from grokcore.analysis.collapse import collapses
from grokcore.analysis.crossings import HOLD, THRESHOLDS, column, crossing, point_1, point_2, require

LAG = 2.0  # how many times later than training accuracy validation accuracy must rise to be called delayed
TASK = ("run", "operation", "p", "y_min", "n_operands", "alpha", "n_train", "n_val", "seed")
MODEL = ("model", "n_layers", "d_model", "d_mlp", "layernorm", "affine")
TRAINING = ("optimizer", "lr", "weight_decay", "momentum", "warmup", "batch_size", "steps", "status")
SPEC_COLUMNS = TASK + MODEL + TRAINING
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
    require(curves, ("run", *NEEDED))
    if curves.empty:
        raise ValueError("summary got no runs: the frame has no rows")
    return pd.DataFrame([run_summary(curve) for _, curve in curves.groupby("run", sort=False)])


def run_summary(curve: pd.DataFrame) -> dict[str, Any]:
    """Return the row that `summary` has for one run, as a dictionary; raises ValueError if columns are missing."""
    require(curve, NEEDED)
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


def _outcome(curve: pd.DataFrame, times: dict[str, float]) -> Outcome:
    if "status" in curve and curve["status"].iloc[-1] == "nonfinite":
        return Outcome.NONFINITE
    if np.isnan(times["train_99_sustained"]):
        return Outcome.NOT_FITTED
    if np.isnan(times["val_99_sustained"]):
        return Outcome.MEMORISED_ONLY
    late = times["val_99_sustained"] >= LAG * times["train_99_first"]
    return Outcome.GROKKED if late else Outcome.GENERALISED_AT_ONCE
