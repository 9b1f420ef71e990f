"""Statistics of the claims about periodic training and scale invariance (see `times` for the form)."""

from __future__ import annotations

import re

import numpy as np
from scipy.stats import rankdata

from grokcore.analysis.collapse import collapses, deepest_fall
from grokcore.analysis.crossings import column, point_1, point_2
from grokcore.analysis.curves import run_summary
from grokcore.claims.statistics.times import FITTED, Cells, Finding, Parts, Values, reached, time

LEAST_POINTS = 5  # evaluations between point 1 and point 2, under which no tendency is claimed
NETWORKS = ("one_layer", "two_layers")
INVARIANCE = "invariance:"
TOGETHER, SUBSET = "all weights", "scale-invariant subset"


def drops_with_jumps(cells: Cells, at_least: int, room: float, gain: float) -> Finding:
    """Judge for each network whether training accuracy drops again and again and validation jumps each time."""
    parts: Parts = {}
    values: Values = {}
    for name, curve in cells.items():
        drops, budget = collapses(curve), float(curve["steps"].iloc[0])
        before, gains = column(drops, "val_before"), column(drops, "val_after") - column(drops, "val_before")
        jumps = (gains >= gain)[(before < room) & (column(drops, "recovered") > 0)]
        parts[f"drops recur, {name}"] = len(drops) >= at_least
        parts[f"validation jumps, {name}"] = bool(jumps.all()) if len(jumps) else None
        starts = column(drops, "start")
        gaps = np.diff(starts)
        values |= {f"{name}_drops": len(drops), f"{name}_open": len(jumps), f"{name}_jumps": int(jumps.sum())}
        values[f"{name}_first"] = (starts[0] if len(drops) else np.nan, budget)
        values[f"{name}_gap_min"] = float(gaps.min()) if len(gaps) else np.nan
        values[f"{name}_gap_max"] = float(gaps.max()) if len(gaps) else np.nan
    return parts, values


def saw_tooth(cells: Cells, tooth: float, teeth: int, asymmetry: float, jump: float, before: float) -> Finding:
    """Judge the shape of the effective learning rate, and how it and the effective gradient jump at the drops."""
    curve, run = cells["main"], run_summary(cells["main"])
    fitted, drops = column(curve, "step") >= np.maximum(run[FITTED], 1), collapses(curve)
    steps, gradient = (column(curve, name)[fitted] for name in ("step", "effective_grad_mean"))
    log_lr = np.log(column(curve, "effective_lr_mean")[fitted])
    shape = rise_to_fall(steps, log_lr, np.log1p(tooth))
    spans = list(zip(column(drops, "start"), np.searchsorted(steps, column(drops, "end")) + 1, strict=True))
    windows = [(steps > start) & (np.arange(len(steps)) <= last) for start, last in spans]
    change = np.abs(np.diff(log_lr, prepend=np.nan))  # [n], the first has none before it
    outside = change[1:][~np.any(windows, axis=0)[1:]] if windows else change[1:]
    usual = np.median(outside) if len(outside) else np.nan
    lr_jumps = [_over(change[window].max(), usual) for window in windows]
    levels = [np.median(gradient[(steps > start - before) & (steps <= start)]) for start, _ in spans]
    grad_jumps = [_over(gradient[at].max(), level) for at, level in zip(windows, levels, strict=True)]
    parts: Parts = {
        "saw-toothed": bool(len(shape) >= teeth and np.median(shape) >= asymmetry),
        "learning rate jumps": all(found >= jump for found in lr_jumps) if lr_jumps else None,
        "gradient jumps": all(found >= jump for found in grad_jumps) if grad_jumps else None,
    }
    values: Values = {"teeth": len(shape), "asymmetry": float(np.median(shape)) if len(shape) else np.nan}
    values |= {"drops": len(drops), "lr_jump": min(lr_jumps, default=np.nan)}
    values |= {"lr_jumps": sum(found >= jump for found in lr_jumps)}
    values |= {"grad_jumps": sum(found >= jump for found in grad_jumps)}
    return parts, values | {"grad_jump": min(grad_jumps, default=np.nan)}


def effective_gradient_falls(cells: Cells, part: float, ratio: float, correlation: float) -> Finding:
    """Judge whether the effective gradient norm falls between point 1 and point 2."""
    curve = cells["main"]
    first, second, budget = point_1(curve), point_2(curve), float(curve["steps"].iloc[0])
    values: Values = {"point_1": (np.nan, budget), "point_2": (np.nan, budget)}
    values |= {} if first is None else {"point_1": (first, budget)}
    values |= {} if second is None else {"point_2": (second, budget)}
    names = ("early", "late", "ratio", "correlation")
    undecided: Parts = {"lower at the end": None, "tendency": None}
    if first is None or second is None:
        return undecided, values | dict.fromkeys(names, np.nan)
    steps = column(curve, "step")
    way = (steps > first) & (steps <= second)
    step, gradient = steps[way], column(curve, "effective_grad_mean")[way]
    if len(step) < LEAST_POINTS or np.ptp(gradient) == 0:
        return undecided, values | dict.fromkeys(names, np.nan)
    length = part * (second - first)
    early, late = np.median(gradient[step <= first + length]), np.median(gradient[step > second - length])
    rank = float(np.corrcoef(np.arange(len(step)), rankdata(gradient))[0, 1])
    parts: Parts = {"lower at the end": bool(late <= ratio * early), "tendency": rank <= correlation}
    return parts, values | dict(zip(names, (float(early), float(late), float(late / early), rank), strict=True))


def needs_weight_decay(cells: Cells, at_least: int, visible: float) -> Finding:
    """Judge whether drops stop without weight decay, and whether decay shrinks the norm and drops grow it."""
    parts: Parts = {}
    values: Values = {}
    for name in NETWORKS:
        control, drops = cells[f"{name}_control"], collapses(cells[name])
        run, periodic = run_summary(control), len(drops) >= at_least
        without, gone = _gone(cells, name, at_least)
        steps, norm = column(cells[name], "step"), column(cells[name], "weight_norm")
        at_start, at_end = (norm[np.searchsorted(steps, column(drops, at))] for at in ("start", "end"))
        falls = float((at_start[1:] < at_end[:-1]).mean()) if len(drops) > 1 else np.nan
        rises = float((at_end > at_start).mean()) if len(drops) else np.nan
        kept = column(control, "weight_norm")[column(control, "step") >= run[FITTED]]
        fallen = deepest_fall(kept, relative=True) if len(kept) else np.nan
        parts[f"gone without decay, {name}"] = gone
        parts[f"shrinks and grows, {name}"] = falls > 0.5 and rises > 0.5 if periodic else None
        parts[f"only grows without decay, {name}"] = fallen < visible if len(kept) else None
        values |= {f"{name}_drops": len(drops), f"{name}_control_drops": without}
        values |= {f"{name}_falls": falls, f"{name}_rises": rises, f"{name}_control_fall": fallen}
    return parts, values


def needs_normalisation(cells: Cells, at_least: int) -> Finding:
    """Judge whether drops stop without LayerNorm.

    Undecided where the control, before it could tell, overflowed or did not come back from a drop.
    """
    parts: Parts = {}
    values: Values = {}
    for name in NETWORKS:
        control = cells[f"{name}_control"]
        without, gone = _gone(cells, name, at_least)
        if gone and not column(collapses(control), "recovered").all():
            gone = None  # it may have died, which is not to stop dropping
        parts[f"gone without LayerNorm, {name}"] = gone
        values |= {f"{name}_drops": len(collapses(cells[name])), f"{name}_control_drops": without}
        values[f"{name}_control_train"] = time(run_summary(control), FITTED)
        last = float(control["step"].iloc[-1]) if control["status"].iloc[-1] == "nonfinite" else np.nan
        values[f"{name}_control_overflow"] = (last, float(control["steps"].iloc[0]))
    return parts, values


def partial_invariance(cells: Cells, tolerance: float, attention: str, share: float) -> Finding:
    """Judge which weight tensors can be scaled without changing the answers, from `invariance:` columns in nats."""
    curve = cells["main"]
    together = f"{INVARIANCE}{TOGETHER}"
    titles = ("not fully", "mostly", "attention breaks it", "nothing else breaks it")
    names = ("all_change", "n_tensors", "n_invariant", "norm_share", "n_attention_broken", "n_attention")
    names += ("n_other_broken", "n_other", "subset_change", "subset_share")
    at = np.flatnonzero(~np.isnan(column(curve, together))) if together in curve else []
    if len(at) == 0:
        return dict.fromkeys(titles, None), dict.fromkeys(names, np.nan)
    row = curve.iloc[int(at[-1])].to_dict()
    tensors = [name[5:] for name in map(str, row) if name.startswith("norm:") and INVARIANCE + name[5:] in row]
    tensors = [name for name in tensors if np.isfinite(row[f"norm:{name}"])]
    held = np.array([row[INVARIANCE + name] <= tolerance for name in tensors], dtype=bool)
    square = np.array([row[f"norm:{name}"] ** 2 for name in tensors])
    inside = np.array([re.search(attention, name) is not None for name in tensors], dtype=bool)
    norm_share = float(square[held].sum() / square.sum())
    broken, other = int((~held & inside).sum()), int((~held & ~inside).sum())
    counts = (row[together], len(tensors), held.sum(), norm_share, broken, inside.sum(), other, (~inside).sum())
    norm_si = row.get("weight_norm_si", np.nan)
    counts += (row.get(f"{INVARIANCE}{SUBSET}", np.nan), _over(norm_si, row["weight_norm"]) ** 2)
    parts: Parts = {
        "not fully": bool(row[together] > tolerance),
        "mostly": norm_share > share,
        "attention breaks it": broken > 0,
        "nothing else breaks it": other == 0,
    }
    return parts, dict(zip(names, map(float, counts), strict=True))


def rise_to_fall(steps: np.ndarray, values: np.ndarray, least: float) -> np.ndarray:
    """Return, for each tooth of a curve `[n]`, how long its rise took over how long its fall took.

    A tooth is a rise and the following fall by at least `least` each; smaller turns on the way are passed over.
    """
    turns = turning_points(values, least)
    teeth = zip(turns, turns[1:], turns[2:], strict=False)
    return np.array([(steps[b] - steps[a]) / (steps[c] - steps[b]) for a, b, c in teeth if values[b] > values[a]])


def turning_points(values: np.ndarray, least: float) -> list[int]:
    """Return the positions of alternating extremes of a curve `[n]` that differ by at least `least`."""
    turns: list[int] = []
    low = high = 0
    rising: bool | None = None  # unknown until the curve has moved by `least`
    for i, value in enumerate(values):
        low = i if value < values[low] else low
        high = i if value > values[high] else high
        if rising is not True and value - values[low] >= least:
            turns.append(low)
            rising, high = True, i
        elif rising is not False and values[high] - value >= least:
            turns.append(high)
            rising, low = False, i
    return turns if rising is None else [*turns, high if rising else low]


def _over(value: float, usual: float) -> float:
    """Return how many times the usual a value is: infinitely many where that is 0, NaN where both are."""
    if usual == 0:
        return np.inf if value > 0 else np.nan
    return float(value / usual)


def _gone(cells: Cells, name: str, at_least: int) -> tuple[int, bool | None]:
    """Return the number of drops in the control, and whether it stopped dropping (None if that cannot be told).

    It cannot be told if the network itself does not drop, if the control does not fit, or if it overflowed too soon.
    """
    control = cells[f"{name}_control"]
    without, overflowed = len(collapses(control)), control["status"].iloc[-1] == "nonfinite"
    if len(collapses(cells[name])) < at_least or not reached(run_summary(control), FITTED):
        return without, None
    return without, None if overflowed and without < at_least else without < at_least
