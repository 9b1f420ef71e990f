"""A recorded curve compared with that of the same run trained again: what may differ, and by how much it does.

Two trainings of one run differ by rounding, which a hundred steps make larger by orders of magnitude. So few steps are
compared, with tolerances above the effect of rounding and far below that of another setting.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from grokcore.records.record import Record
from grokcore.spec.names import operation_name, optimizer_name
from grokcore.spec.run import RunSpec

Floats = NDArray[np.float64]

STEPS = 64  # up to which a run is trained again: a step that is evaluated (`schedule.evaluation_steps`)
# Where a run learns its rows, rounding grows a thousandfold within twenty steps (p = 23, all rows in a batch: 1e-5 at
# step 45, 0.04 of the loss at 64). So nothing is compared from the evaluation on at which the training accuracy of the
# run trained again reaches this; the first steps are compared in any case.
COMPARED_BELOW_ACCURACY = 0.5
FIRST_STEPS = 16
# How far two values of one measure may differ, as a share of the larger of them. Behind each: the largest difference
# on 103 recorded runs of all kinds, between recorded and plain training, with the last bits of every logit and gradient
# changed or not, as another device would. At step 128 such differences are some three times as large.
TOLERANCES = {
    "whole": 2e-4,  # 0.9e-4: sums over all weights, in which rounding cancels out
    "others": 5e-3,  # 1.2e-3: losses, norms of single matrices
    "gradients": 0.05,  # 0.013: a ReLU that opens for one more example changes a gradient at once
    # 0.07: the gradient of a key's bias is rounding alone, from which Adam makes steps as long as any; it is a third of
    # its vector (query, key, value), whose norm is off by 1 - √(2/3) = 0.18 at most
    "biases": 0.2,
}
WHOLE_PREFIXES = ("epoch", "weight_", "step_weight_", "effective_lr")  # of the measures of all weights
# A value counts as at least this share of the largest value of its measure in these steps: near 0 rounding is large.
SMALLEST_SHARE = 0.01
# As a share of the rows: logits are nearly tied at first, and whether an answer was kept depends on two evaluations.
ANSWER_TOLERANCES = {"accuracy": 0.02, "answers_kept": 0.05}  # 0.008 and 0.015
MIN_ROWS = 3  # that may be answered otherwise, where there are few


@dataclass(frozen=True)
class Comparison:
    """One run trained again, compared with its record.

    Attributes:
        run: The id of the run.
        what: What it is, in a few words.
        steps: The step up to which it was trained again.
        n_values: How many values were compared.
        share: The largest difference, as a share of the tolerance.
        measure: The measure with the largest difference.
        at: The step of the evaluation with the largest difference.
        problem: What is wrong that is not a difference of values; "" if nothing.
    """

    run: str
    what: str
    steps: int
    n_values: int
    share: float
    measure: str
    at: int
    problem: str = ""

    @property
    def agreed(self) -> bool:
        """Whether no value differs by more than its tolerance."""
        return self.share <= 1 and not self.problem

    @property
    def largest(self) -> str:
        """The largest difference, in words."""
        if not self.n_values:
            return "nothing to compare"
        if not np.isfinite(self.share):
            return "a number in one, none in the other"
        return (
            f"{100 * self.share:.0f} % of the tolerance" if self.share <= 1 else f"{self.share:.3g} times the tolerance"
        )

    def __str__(self) -> str:
        verdict = "agrees" if self.agreed else f"DIFFERS{f' ({self.problem})' if self.problem else ''}"
        where = f" ({self.measure} at step {self.at})" if self.n_values else ""
        return f"run {self.run}, trained again, {verdict}; largest difference: {self.largest}{where}"


def compare(record: Record, again: pd.DataFrame, status: str | None) -> Comparison:
    """Compare a recorded curve with that of the same run trained again, every measure at every evaluation.

    Args:
        record: The recorded run.
        again: The curve of the run trained again, one row per evaluation.
        status: How the run ended within `again`; None if it goes on.

    Returns:
        The largest difference and where it is, or what else does not fit.
    """
    spec, recorded = record.spec, record.curve
    recorded = recorded if status is not None else recorded.loc[recorded["step"] <= STEPS]
    steps, trained = recorded["step"].tolist(), again["step"].tolist()
    names = [name for name in recorded.columns if name in again.columns and name != "step"]
    n_compared = _n_compared(again)  # not by the record, which could claim that it learns at once
    problem = "" if names else "no measure in common"
    if steps != trained:
        problem = f"recorded at {_listed(steps)}, trained again at {_listed(trained)}"
    elif status not in (None, record.status):
        problem = f"recorded as {record.status}, trained again it is {status}"
    if steps != trained or not names:
        n_compared, share, measure, at = 0, 0.0, "", 0
    else:
        first, second = (frame[names].to_numpy(dtype=float)[:n_compared] for frame in (recorded, again))
        shares = {name: _differences(spec, name, first[:, i], second[:, i]) for i, name in enumerate(names)}
        measure = max(shares, key=lambda name: shares[name].max())
        place = int(shares[measure].argmax())
        share, at = float(shares[measure][place]), steps[place]
    return Comparison(
        run=spec.id,
        what=description(spec),
        steps=trained[-1],
        n_values=len(names) * n_compared,
        share=share,
        measure=measure,
        at=at,
        problem=problem,
    )


def _n_compared(curve: pd.DataFrame) -> int:
    """Return how many evaluations of a curve come before the run learns so fast that rounding shows."""
    if "train_accuracy" not in curve:
        return len(curve)
    learning = curve["train_accuracy"].to_numpy(dtype=float) >= COMPARED_BELOW_ACCURACY
    learning &= curve["step"].to_numpy() > FIRST_STEPS
    return int(np.argmax(learning)) if learning.any() else len(curve)


def _listed(steps: list[int]) -> str:
    return f"{len(steps)} steps to {steps[-1]}" if steps else "no step"


def _differences(spec: RunSpec, name: str, one: Floats, other: Floats) -> Floats:
    """Return the differences of a measure as shares of their tolerance; infinite if only one of two is finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        same = (one == other) | (np.isnan(one) & np.isnan(other))
        share = np.abs(one - other) / _tolerances(spec, name, one, other)
    return np.where(same, 0.0, np.where(np.isfinite(share), share, np.inf))


def _tolerances(spec: RunSpec, name: str, one: Floats, other: Floats) -> Floats:
    """Return by how much the values of a measure may differ."""
    for kind, share in ANSWER_TOLERANCES.items():
        if kind in name and not name.startswith("norm:"):
            return np.full(len(one), max(share, MIN_ROWS / _rows(spec, name)))
    larger = np.maximum(np.abs(one), np.abs(other))
    largest = np.max(larger, initial=0.0, where=np.isfinite(larger))
    return TOLERANCES[_kind(name)] * np.maximum(larger, SMALLEST_SHARE * largest)


def _kind(name: str) -> str:
    """Return which of `TOLERANCES` a measure has."""
    if name.startswith(WHOLE_PREFIXES):
        return "whole"
    if name.startswith("norm:"):
        return "biases" if name.endswith("bias") else "others"
    return "gradients" if "grad" in name else "others"


def _rows(spec: RunSpec, name: str) -> int:
    """Return the number of rows of which a measure is a share; for a measure of batches, those of the smallest."""
    if name.startswith("batch_"):
        return spec.n_train - (spec.steps_per_epoch - 1) * min(spec.batch_size, spec.n_train)
    return spec.task.n_rows - spec.n_train if "val" in name else spec.n_train


def description(spec: RunSpec) -> str:
    """Return what a run is, in a few words.

    Example:
        >>> from grokcore import msu
        >>> description(msu())
        'x·y mod 97, grokformer, AdamW, weight decay 1, α = 0.4, seed 0'
    """
    task = spec.task
    name = "sum of operands" if task.n_operands > 2 else operation_name(task.operation)
    kind = name if task.operation.startswith("s5:") else f"{name} mod {task.p}"
    optimizer = optimizer_name(spec.optimizer.name, spec.optimizer.weight_decay)
    return f"{kind}, {spec.model.name}, {optimizer}, α = {spec.alpha:g}, seed {spec.seed}"


def tolerance_sentence() -> str:
    """Return a sentence that states the tolerances."""
    whole, others, gradients, biases = (f"{100 * share:g} %" for share in TOLERANCES.values())
    accuracy, kept = (f"{100 * share:g} %" for share in ANSWER_TOLERANCES.values())
    return (
        f"Norms of all weights and effective learning rates may differ by {whole} of the larger value, losses and "
        f"norms of single matrices by {others}, gradients by {gradients}, norms of bias vectors by {biases}; "
        f"{accuracy} of the rows behind an accuracy and {kept} of those that kept their answer, at least {MIN_ROWS} "
        "rows, may be answered otherwise."
    )
