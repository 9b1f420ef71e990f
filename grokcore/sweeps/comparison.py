"""A recorded curve held against that of the same run trained again: what may differ, and by how much it does.

Two trainings of one run differ by rounding, which a hundred steps make larger by orders of magnitude; hence few steps,
and tolerances that stand above that and far below what another setting does.
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

STEPS = 64  # a run is trained again up to here: one that is evaluated (`tasks.evaluation_steps`)
# Where a run learns its rows, rounding grows a thousandfold within twenty steps (p = 23, all rows in a batch: 1e-5 at
# step 45, 0.04 of the loss at 64). So nothing is compared from where the training accuracy of the run trained again
# is this, but at least these steps are.
LEARNING, ALWAYS = 0.5, 16
# What two values of one measure may differ by, as a share of the larger of them. Behind each: the largest difference on
# 103 recorded runs of all kinds, between recorded and plain training, with the last bits of every logit and gradient
# changed or not, as another device would. At step 128 such differences are some three times as large.
TOLERANCES = {
    "whole": 2e-4,  # 0.9e-4: sums over all weights, in which rounding cancels out
    "others": 5e-3,  # 1.2e-3: losses, norms of single matrices
    "gradients": 0.05,  # 0.013: a ReLU that opens for one more example changes a gradient at once
    # 0.07: a key's bias has no gradient but rounding, of which Adam makes steps as long as any; it is a third of its
    # vector (query, key, value), whose norm is off by 1 - √(2/3) = 0.18 at most
    "biases": 0.2,
}
WHOLE = ("epoch", "weight_", "step_weight_", "effective_lr")  # how such measures begin
FLOOR = 0.01  # a value counts as at least this share of the largest that its measure takes in these steps
# As a share of the rows: logits are nearly tied at first, and whether an answer was kept hangs on two evaluations.
FLIPPED = {"accuracy": 0.02, "answers_kept": 0.05}  # 0.008 and 0.015
FLIPPED_LEAST = 3  # rows, where there are few


@dataclass(frozen=True)
class Compared:
    """One run trained again: how far it is from its record, as a share of the tolerance, and where it is farthest."""

    run: str
    what: str
    steps: int
    n_values: int
    share: float
    measure: str
    at: int  # the step of that evaluation
    problem: str = ""  # what cannot be said as a difference

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
        said = "agrees" if self.agreed else f"DIFFERS{f' ({self.problem})' if self.problem else ''}"
        where = f" ({self.measure} at step {self.at})" if self.n_values else ""
        return f"run {self.run}, trained again, {said}; largest difference: {self.largest}{where}"


def compare(record: Record, again: pd.DataFrame, status: str | None) -> Compared:
    """Hold a recorded curve against that of the same run trained again, every measure at every evaluation.

    `status` is how the run has ended within `again`, None if it goes on.
    """
    spec, theirs = record.spec, record.curve
    theirs = theirs if status is not None else theirs.loc[theirs["step"] <= STEPS]
    steps, trained = theirs["step"].tolist(), again["step"].tolist()
    names = [name for name in theirs.columns if name in again.columns and name != "step"]
    compared = _before_learning(again)  # not by the record, which could claim that it learns at once
    problem = "" if names else "no measure in common"
    if steps != trained:
        problem = f"recorded at {_listed(steps)}, trained again at {_listed(trained)}"
    elif status not in (None, record.status):
        problem = f"recorded as {record.status}, trained again it is {status}"
    if steps != trained or not names:
        return Compared(spec.id, described(spec), trained[-1], 0, 0.0, "", 0, problem)
    mine, other = (frame[names].to_numpy(dtype=float)[:compared] for frame in (theirs, again))
    shares = {name: _difference(spec, name, mine[:, i], other[:, i]) for i, name in enumerate(names)}
    farthest = max(shares, key=lambda name: shares[name].max())
    place = int(shares[farthest].argmax())
    where = float(shares[farthest][place]), farthest, steps[place]
    return Compared(spec.id, described(spec), trained[-1], len(names) * compared, *where, problem)


def _before_learning(curve: pd.DataFrame) -> int:
    """Return how many evaluations of a curve come before it is so steep that rounding shows."""
    if "train_accuracy" not in curve:
        return len(curve)
    steep = (curve["train_accuracy"].to_numpy(dtype=float) >= LEARNING) & (curve["step"].to_numpy() > ALWAYS)
    return int(np.argmax(steep)) if steep.any() else len(curve)


def _listed(steps: list[int]) -> str:
    return f"{len(steps)} steps to {steps[-1]}" if steps else "no step"


def _difference(spec: RunSpec, name: str, one: Floats, other: Floats) -> Floats:
    """Return by how much of their tolerance the values of a measure differ; infinite if only one of two is finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        same = (one == other) | (np.isnan(one) & np.isnan(other))
        share = np.abs(one - other) / _tolerance(spec, name, one, other)
    return np.where(same, 0.0, np.where(np.isfinite(share), share, np.inf))


def _tolerance(spec: RunSpec, name: str, one: Floats, other: Floats) -> Floats:
    """Return by how much the values of a measure may differ."""
    for kind, share in FLIPPED.items():
        if kind in name and not name.startswith("norm:"):
            return np.full(len(one), max(share, FLIPPED_LEAST / _rows(spec, name)))
    larger = np.maximum(np.abs(one), np.abs(other))
    largest = np.max(larger, initial=0.0, where=np.isfinite(larger))
    return TOLERANCES[_kind(name)] * np.maximum(larger, FLOOR * largest)


def _kind(name: str) -> str:
    """Return which of `TOLERANCES` a measure has."""
    if name.startswith(WHOLE):
        return "whole"
    if name.startswith("norm:"):
        return "biases" if name.endswith("bias") else "others"
    return "gradients" if "grad" in name else "others"


def _rows(spec: RunSpec, name: str) -> int:
    """Return of how many rows a measure is a share; of a batch's measure, those of the smallest batch."""
    if name.startswith("batch_"):
        return spec.n_train - (spec.steps_per_epoch - 1) * min(spec.batch_size, spec.n_train)
    return spec.task.n_rows - spec.n_train if "val" in name else spec.n_train


def described(spec: RunSpec) -> str:
    """Return what a run is, in a few words: `x·y mod 97, grokformer, AdamW, weight decay 1, α = 0.4, seed 0`."""
    task = spec.task
    name = "sum of operands" if task.n_operands > 2 else operation_name(task.operation)
    kind = name if task.operation.startswith("s5:") else f"{name} mod {task.p}"
    optimizer = optimizer_name(spec.optimizer.name, spec.optimizer.weight_decay)
    return f"{kind}, {spec.model.name}, {optimizer}, α = {spec.alpha:g}, seed {spec.seed}"


def tolerance_words() -> str:
    """Return the tolerances in words."""
    whole, others, gradients, biases = (f"{100 * share:g} %" for share in TOLERANCES.values())
    right, kept = (f"{100 * share:g} %" for share in FLIPPED.values())
    return (
        f"Norms of all weights and effective learning rates may differ by {whole} of the larger value, losses and "
        f"norms of single matrices by {others}, gradients by {gradients}, norms of bias vectors by {biases}; "
        f"{right} of the rows behind an accuracy and {kept} of those that kept their answer, at least {FLIPPED_LEAST} "
        "rows, may be answered otherwise."
    )
