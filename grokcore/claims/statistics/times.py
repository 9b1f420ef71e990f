"""Statistics of the claims about when runs generalise: one seed's curves in, its parts and values out.

Every statistic of these modules takes `cells`, the curve of one seed for each cell of the claim (cut at
the cell's budget), and the claim's parameters. It returns the parts of the claim, each True, False or None
(undecided), and the values behind them: numbers, and times as (step or NaN, budget). Accuracies lie between 0
and 1, steps are optimizer steps. What the parts and parameters mean is said in data/claims.yaml.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from grokcore.analysis.collapse import deepest_fall
from grokcore.analysis.crossings import column
from grokcore.analysis.curves import Outcome, run_summary
from grokcore.analysis.stats import bootstrap_slope

Cells = dict[str, pd.DataFrame]
Parts = dict[str, bool | None]
Values = dict[str, float | tuple[float, float]]
Finding = tuple[Parts, Values]

VAL = "val_99_sustained"
TRAIN = "train_99_sustained"
FITTED = "train_99_first"


def delayed_generalisation(cells: Cells, chance: float) -> Finding:
    """Judge whether the run in cell `main` groks, from chance, and to exactly 100 %."""
    run = run_summary(cells["main"])
    at_train = column(cells["main"], "val_accuracy")[column(cells["main"], "step") == run[FITTED]]
    val_at_train = float(at_train[0]) if len(at_train) else np.nan
    parts = {
        "groks": run["outcome"] == Outcome.GROKKED,
        "from chance": val_at_train <= chance,
        "to 100 %": reached(run, "val_100_first"),
    }
    values: Values = {name: time(run, of) for name, of in (("train", FITTED), ("val", VAL))}
    values |= {"delay": run["grok_delay"], "val_at_train": val_at_train, "val_100": time(run, "val_100_first")}
    return parts, values


def groks_in_every_cell(cells: Cells) -> Finding:
    """Judge for each cell whether its run groks."""
    parts: Parts = {}
    values: Values = {}
    for name, curve in cells.items():
        run = run_summary(curve)
        parts[name] = run["outcome"] == Outcome.GROKKED
        values |= {f"{name}_train": time(run, FITTED), f"{name}_val": time(run, VAL)}
        values[f"{name}_best"] = run["best_val_accuracy"]
    return parts, values


def sudden_generalisation(cells: Cells, low: float, high: float) -> Finding:
    """Judge whether `main` groks, and validation rises from `low` to `high` in fewer steps than it waited for `low`."""
    curve, run = cells["main"], run_summary(cells["main"])
    steps, val = column(curve, "step"), column(curve, "val_accuracy")
    after = steps >= run[FITTED]
    begins, ends = (np.flatnonzero(after & (val >= level)) for level in (low, high))
    start = float(steps[begins[0]]) if len(begins) else np.nan
    wait, rise = start - float(run[FITTED]), (float(steps[ends[0]]) - start if len(ends) else np.nan)
    parts: Parts = {
        "long after overfitting": run["outcome"] == Outcome.GROKKED,
        "suddenly": bool(rise < wait) if np.isfinite([wait, rise]).all() else None,
    }
    values: Values = {"train": time(run, FITTED), "val": time(run, VAL), "delay": run["grok_delay"]}
    return parts, values | {"wait": wait, "rise": rise, "best": run["best_val_accuracy"]}


def fills_in(cells: Cells) -> Finding:
    """Judge whether the run in cell `main` comes to answer every hidden row right at once."""
    run = run_summary(cells["main"])
    values: Values = {"train": time(run, FITTED), "all": time(run, "val_100_first"), "best": run["best_val_accuracy"]}
    return {"every hidden entry": reached(run, "val_100_first")}, values


def symmetric_before_asymmetric(cells: Cells) -> Finding:
    """Judge whether the cell `symmetric` is reached first and `asymmetric` not at all."""
    symmetric, asymmetric = run_summary(cells["symmetric"]), run_summary(cells["asymmetric"])
    parts: Parts = {
        "symmetric first": later(asymmetric, symmetric, VAL),
        "asymmetric not reached": not reached(asymmetric, VAL),
    }
    values: Values = {"symmetric": time(symmetric, VAL), "asymmetric": time(asymmetric, VAL)}
    return parts, values | {"asymmetric_best": asymmetric["best_val_accuracy"]}


def sooner_with_alpha(cells: Cells, alphas: dict[str, float]) -> Finding:
    """Judge whether validation accuracy comes sooner along the cells named in `alphas`, given by growing alpha."""
    runs = {name: run_summary(cells[name]) for name in alphas}
    order = list(runs.values())
    out_of_order = any(later(b, a, VAL) for a, b in zip(order, order[1:], strict=False))
    enough = sum(reached(run, VAL) for run in order) >= 2
    parts: Parts = {
        "ends sooner": later(order[0], order[-1], VAL),
        "never later": not out_of_order if enough else None,
    }
    shown = [run[VAL] if reached(run, VAL) else run["steps"] for run in order]
    slope = bootstrap_slope(list(alphas.values()), np.log10(shown))
    values: Values = {name: time(run, VAL) for name, run in runs.items()}
    return parts, values | {"slope": slope.value, "slope_low": slope.low, "slope_high": slope.high}


def worse_than_neighbour(cells: Cells, last_steps: int, lower: float, deeper: float) -> Finding:
    """Judge whether validation accuracy in cell `largest` ends lower or falls deeper than in `neighbour`."""
    ends, falls = {}, {}
    for name, curve in cells.items():
        steps, val = column(curve, "step"), column(curve, "val_accuracy")
        ends[name], falls[name] = float(val[steps > steps[-1] - last_steps].mean()), deepest_fall(val)
    parts: Parts = {
        "ends lower": ends["largest"] <= ends["neighbour"] - lower,
        "falls deeper": falls["largest"] >= falls["neighbour"] + deeper,
    }
    values: Values = {f"{name}_end": value for name, value in ends.items()}
    return parts, values | {f"{name}_fall": value for name, value in falls.items()}


def same_result(cells: Cells, pairs: list[list[str]], factor: float) -> Finding:
    """Judge whether the two cells of each pair are reached alike, and their steps lie within `factor`."""
    runs = {name: run_summary(cells[name]) for pair in pairs for name in pair}
    both = [(runs[a], runs[b]) for a, b in pairs if reached(runs[a], VAL) and reached(runs[b], VAL)]
    ratios = [max(a[VAL], b[VAL]) / min(a[VAL], b[VAL]) for a, b in both]
    parts: Parts = {
        "same outcome": all(reached(runs[a], VAL) == reached(runs[b], VAL) for a, b in pairs),
        "same time": all(ratio <= factor for ratio in ratios) if ratios else None,
    }
    return parts, {name: time(run, VAL) for name, run in runs.items()}


def beginnings_only(cells: Cells, smaller: str, larger: list[str], rise: float) -> Finding:
    """Judge whether validation accuracy rises late in a cell of `larger`, more than in `smaller`, and stays short."""
    runs = {name: run_summary(cells[name]) for name in (smaller, *larger)}
    rises = {name: run["late_rise"] for name, run in runs.items()}
    most = np.nanmax([rises[name] for name in larger] + [-np.inf])
    parts: Parts = {
        "beginnings": bool(most >= rise and most > np.nan_to_num(rises[smaller])),
        "not reached": not any(reached(runs[name], VAL) for name in larger),
    }
    values: Values = {f"{name}_rise": value for name, value in rises.items()}
    for name in larger:
        values |= {name: time(runs[name], VAL), f"{name}_best": runs[name]["best_val_accuracy"]}
    return parts, values


def worsens_with_alpha(cells: Cells, budgets: dict[str, list[str]]) -> Finding:
    """Judge, for each budget and its cells by growing alpha, whether the second is worse and the rest not reached."""
    parts: Parts = {}
    values: Values = {}
    for budget, names in budgets.items():
        runs = [run_summary(cells[name]) for name in names]
        first, second, *beyond = runs
        if reached(first, VAL) and reached(second, VAL):
            parts[f"less distinct, {budget}"] = second["grok_delay"] < first["grok_delay"]
        else:
            parts[f"less distinct, {budget}"] = second["best_val_accuracy"] < first["best_val_accuracy"]
        parts[f"training struggles, {budget}"] = later(second, first, TRAIN)
        parts[f"not reached beyond, {budget}"] = not any(reached(run, VAL) for run in beyond)
        for name, run in zip(names, runs, strict=True):
            values |= {f"{name}_train": time(run, TRAIN), f"{name}_val": time(run, VAL)}
            values |= {f"{name}_best": run["best_val_accuracy"], f"{name}_ratio": run["grok_delay"]}
    return parts, values


def time(run: dict[str, Any], name: str) -> tuple[float, float]:
    """Return a time of a run's summary as (step or NaN, budget)."""
    return float(run[name]), float(run["steps"])


def reached(run: dict[str, Any], name: str) -> bool:
    """Return whether a time of a run's summary lies within the budget."""
    return not np.isnan(run[name])


def later(a: dict[str, Any], b: dict[str, Any], name: str) -> bool:
    """Return whether run `a` crosses later than run `b`: not within its budget, or in a later bracket."""
    return reached(b, name) and (not reached(a, name) or a[f"{name}_after"] >= b[name])
