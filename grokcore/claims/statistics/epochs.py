"""Statistics of the claims of the source `pku`, which counts in epochs (see `times` for the form)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from grokcore.analysis.collapse import collapses, deepest_fall
from grokcore.analysis.crossings import column
from grokcore.analysis.curves import Outcome, run_summary
from grokcore.claims.statistics.times import FITTED, VAL, Cells, Finding, Parts, Values, later, reached, time

SEEN = "val_99_first"


def events_at_epochs(
    cells: Cells, said: dict[str, dict[str, float]], factor: float, rise: float, groks: dict[str, bool]
) -> Finding:
    """Judge whether `train`, `rise` (of validation, by that much) and `val` come within `factor` of the epochs said.

    `groks` says of which cells it is claimed that they grok, or that they do not.
    """
    parts: Parts = {}
    values: Values = {}
    for name, events in said.items():
        curve, run = cells[name], run_summary(cells[name])
        times = {"train": float(run[FITTED]), "rise": onset(curve, run, rise), "val": float(run[SEEN])}
        for event, epoch in events.items():
            found = times[event] / steps_per_epoch(curve)
            parts[f"{event}, {name}"] = bool(max(found / epoch, epoch / found) <= factor) if found > 0 else False
            values[f"{name}_{event}"] = (found, float(run["steps"]) / steps_per_epoch(curve))
    for name, claimed in groks.items():
        run = run_summary(cells[name])
        title = "groks" if claimed else "no clear grokking"
        parts[f"{title}, {name}"] = (run["outcome"] == Outcome.GROKKED) == claimed
        values[f"{name}_delay"] = run["grok_delay"]
    return parts, values


def brief_dips(cells: Cells, low: float, at_least: int, epochs: float, unsteady: str, fall: float) -> Finding:
    """Judge whether training dips under `low` again and again, briefly, and validation in one cell is unsteady."""
    parts: Parts = {}
    values: Values = {}
    for name, curve in cells.items():
        dips = collapses(curve, low=low)
        lengths = (column(dips, "end") - column(dips, "start")) / steps_per_epoch(curve)
        parts[f"dips recur, {name}"] = len(dips) >= at_least
        parts[f"brief, {name}"] = bool((lengths <= epochs).all()) if len(dips) else None
        values |= {f"{name}_dips": len(dips), f"{name}_longest": float(lengths.max()) if len(dips) else np.nan}
    curve, run = cells[unsteady], run_summary(cells[unsteady])
    after = column(curve, "val_accuracy")[column(curve, "step") >= run[SEEN]]
    values["fall"] = deepest_fall(after) if len(after) else np.nan
    parts["validation unsteady"] = bool(values["fall"] >= fall) if len(after) else None
    return parts, values


def smoother(cells: Cells, rough: list[str], smooth: dict[str, list[str]]) -> Finding:
    """Judge whether accuracies fall less in all, after the fit, in the cells of each network than in those of `rough`.

    The cells of a network stand in the order of those in `rough` that they are compared with.
    """
    parts: Parts = {}
    values: Values = {f"{name}_falls": falls(curve) for name, curve in cells.items()}
    for network, names in smooth.items():
        for name, other in zip(names, rough, strict=True):
            less, more = falls_over_same_steps(cells[name], cells[other])
            known = bool(np.isfinite([less, more]).all())
            parts[f"{network} smoother, {name}"] = bool(less < more) if known else None
    return parts, values


def quieter(cells: Cells) -> Finding:
    """Judge whether accuracies fall less and batch losses scatter less in cell `two` than in `four`.

    Both are of the same steps: from the later fit to the last step that both runs have. `_train_falls` and `_val_falls`
    are of one accuracy alone, `_outside` of both outside the collapses.
    """
    last = min(curve["step"].iloc[-1] for curve in cells.values())
    same = {name: curve.loc[curve["step"] <= last] for name, curve in cells.items()}
    since = float(np.max([run_summary(curve)[FITTED] for curve in same.values()]))  # NaN if one does not fit
    fell = {name: falls(curve, since) for name, curve in same.items()}
    spread = {name: scatter(curve, since) for name, curve in same.items()}
    parts: Parts = {
        "accuracies fall less": None if np.isnan(since) else fell["two"] < fell["four"],
        "losses scatter less": spread["two"] < spread["four"] if np.isfinite(list(spread.values())).all() else None,
    }
    values: Values = {f"{name}_falls": value for name, value in fell.items()}
    values |= {f"{name}_scatter": value for name, value in spread.items()}
    for name, curve in same.items():
        values |= {f"{name}_{side}_falls": falls(curve, since, (side,)) for side in ("train", "val")}
        dips = collapses(curve)
        dips = dips.loc[column(dips, "end") > since]
        values |= {f"{name}_outside": falls(curve, since, apart_from=dips), f"{name}_collapses": len(dips)}
    return parts, values | {f"{name}_val": time(run_summary(curve), VAL) for name, curve in cells.items()}


def unstable_at_small_alpha(cells: Cells) -> Finding:
    """Judge whether `small` is less stable than `larger` while it trains, and does not generalise within the budget."""
    small, larger = run_summary(cells["small"]), run_summary(cells["larger"])
    rough, steady = falls_over_same_steps(cells["small"], cells["larger"])
    known = bool(np.isfinite([rough, steady]).all())
    parts: Parts = {
        "less stable": bool(rough > steady) if known else None,
        "does not converge": not reached(small, VAL),
    }
    values: Values = {"small_falls": rough, "larger_falls": steady}
    values |= {"small_val": time(small, VAL), "larger_val": time(larger, VAL)}
    return parts, values | {"small_best": small["best_val_accuracy"]}


def grokking_with_operands(cells: Cells, sums: list[str], above: str) -> Finding:
    """Judge for cells by growing K whether they grok, less than `above` does, and each later than the one before."""
    runs = {name: run_summary(cells[name]) for name in (*sums, above)}
    parts: Parts = {f"groks, {name}": runs[name]["outcome"] == Outcome.GROKKED for name in sums}
    delays = [runs[name]["grok_delay"] for name in sums]
    known = bool(np.isfinite([*delays, runs[above]["grok_delay"]]).all())
    parts["weaker"] = max(delays) < runs[above]["grok_delay"] if known else None
    pairs = list(zip(sums, sums[1:], strict=False))
    parts["later in steps"] = all(later(runs[b], runs[a], of) for a, b in pairs for of in (FITTED, VAL))
    parts["later in epochs"] = all(later_in_epochs(cells, runs, a, b, of) for a, b in pairs for of in (FITTED, VAL))
    values: Values = {f"{name}_delay": runs[name]["grok_delay"] for name in runs}
    for name in sums:
        for title, of in (("train", FITTED), ("val", VAL)):
            values[f"{name}_{title}"] = time(runs[name], of)
            values[f"{name}_{title}_epoch"] = _epoch(cells[name], runs[name], of)
        values |= {f"{name}_best": runs[name]["best_val_accuracy"], f"{name}_gain": last_gain(cells[name])}
    return parts, values


def validation_falls_while_training_rises(cells: Cells, rising: float, about_zero: float) -> Finding:
    """Judge for each cell whether validation falls to `about_zero` while training rises from `rising` to 0.99."""
    parts: Parts = {}
    values: Values = {}
    for name, curve in cells.items():
        train, val = column(curve, "train_accuracy"), column(curve, "val_accuracy")
        run, steps = run_summary(curve), column(curve, "step")
        begun = np.maximum.accumulate(train >= rising)
        rise = begun & (steps <= (run[FITTED] if reached(run, FITTED) else np.inf))
        least = float(val[rise].min()) if rise.any() else np.nan
        earlier = float(val[: int(np.argmax(rise)) + 1].max()) if rise.any() else np.nan
        parts[f"falls, {name}"] = bool(least <= about_zero and least < earlier) if rise.any() else None
        values |= {f"{name}_least": least, f"{name}_earlier": earlier}
    return parts, values


def harder_with_p(cells: Cells) -> Finding:
    """Judge for cells by growing modulus whether validation is reached later in each, in steps and in epochs."""
    runs = {name: run_summary(curve) for name, curve in cells.items()}
    pairs = list(zip(cells, list(cells)[1:], strict=False))
    parts: Parts = {
        "later in steps": all(later(runs[b], runs[a], VAL) for a, b in pairs),
        "later in epochs": all(later_in_epochs(cells, runs, a, b, VAL) for a, b in pairs),
    }
    values: Values = {}
    for name, run in runs.items():
        values |= {f"{name}_val": time(run, VAL), f"{name}_val_epoch": _epoch(cells[name], run, VAL)}
        values[f"{name}_best"] = run["best_val_accuracy"]
    return parts, values


def steps_per_epoch(curve: pd.DataFrame) -> float:
    """Return the number of steps that make an epoch of a run, its last batch smaller if need be."""
    return float(np.ceil(curve["n_train"].iloc[0] / curve["batch_size"].iloc[0]))


def onset(curve: pd.DataFrame, run: dict[str, Any], rise: float) -> float:
    """Return the first step after the fit at which validation accuracy has risen that much, or NaN."""
    after = column(curve, "step") >= run[FITTED]
    steps, val = column(curve, "step")[after], column(curve, "val_accuracy")[after]
    risen = np.flatnonzero(val >= val[0] + rise) if len(val) else []
    return float(steps[risen[0]]) if len(risen) else np.nan


def falls(
    curve: pd.DataFrame,
    since: float | None = None,
    sides: tuple[str, ...] = ("train", "val"),
    apart_from: pd.DataFrame | None = None,
) -> float:
    """Return how far accuracies (default: both) fall in all from one evaluation to the next, from a step on.

    The step is that of the fit by default; from the start to the end of the collapses in `apart_from` nothing counts.
    NaN if the run does not fit, or the step is NaN.
    """
    after = column(curve, "step") >= (run_summary(curve)[FITTED] if since is None else since)
    if not after.any():
        return np.nan
    steps, counts = column(curve, "step")[after], np.ones(after.sum() - 1, dtype=bool)
    for start, end in [] if apart_from is None else apart_from[["start", "end"]].to_numpy():
        counts &= (steps[1:] <= start) | (steps[:-1] >= end)
    changes = [np.diff(column(curve, f"{side}_accuracy")[after])[counts] for side in sides]
    return float(sum((-change[change < 0]).sum() for change in changes))


def last_gain(curve: pd.DataFrame) -> float:
    """Return by how much mean validation accuracy of the last tenth of the steps exceeds that of the tenth before."""
    steps, val = column(curve, "step"), column(curve, "val_accuracy")
    tenth = steps[-1] / 10
    last, before = steps > steps[-1] - tenth, (steps > steps[-1] - 2 * tenth) & (steps <= steps[-1] - tenth)
    return float(val[last].mean() - val[before].mean()) if before.any() else np.nan


def falls_over_same_steps(a: pd.DataFrame, b: pd.DataFrame) -> tuple[float, float]:
    """Return the falls of two runs up to the last step that both have: one that overflowed has fewer."""
    last = min(a["step"].iloc[-1], b["step"].iloc[-1])
    return falls(a.loc[a["step"] <= last]), falls(b.loc[b["step"] <= last])


def _epoch(curve: pd.DataFrame, run: dict[str, Any], of: str) -> tuple[float, float]:
    return float(run[of]) / steps_per_epoch(curve), float(run["steps"]) / steps_per_epoch(curve)


def later_in_epochs(cells: Cells, runs: dict[str, dict[str, Any]], a: str, b: str, of: str) -> bool:
    """Return whether cell b crosses in a later epoch than cell a: in a later bracket, or not within a longer budget."""
    if not reached(runs[a], of):
        return False
    before = runs[b][f"{of}_after" if reached(runs[b], of) else "steps"]
    return bool(before / steps_per_epoch(cells[b]) >= runs[a][of] / steps_per_epoch(cells[a]))


def scatter(curve: pd.DataFrame, since: float) -> float:
    """Return the median, after a step, of how many powers of ten apart the batch losses of an interval lie, or NaN."""
    after = column(curve, "step") > since
    with np.errstate(divide="ignore", invalid="ignore"):  # a loss of 0 is no power of ten
        apart = np.log10(column(curve, "batch_loss_max")[after] / column(curve, "batch_loss_min")[after])
    apart = apart[np.isfinite(apart)]
    return float(np.median(apart)) if len(apart) else np.nan
