"""Statistics of the claims about data, operations and regularisers (see `times` for the form)."""

from __future__ import annotations

import numpy as np

from grokcore.analysis.curves import Outcome, run_summary
from grokcore.claims.statistics.grid import fraction
from grokcore.claims.statistics.times import (
    FITTED,
    VAL,
    Cells,
    Finding,
    Parts,
    Values,
    later,
    reached,
    sooner_with_alpha,
    time,
)


def no_grokking_in_any(cells: Cells) -> Finding:
    """Judge for each cell whether its run does not grok: it memorises only, or generalises without delay."""
    parts: Parts = {}
    values: Values = {}
    for name, curve in cells.items():
        run = run_summary(curve)
        fits = run["outcome"] not in (Outcome.NOT_FITTED, Outcome.NONFINITE)
        parts[f"no grokking, {name}"] = run["outcome"] != Outcome.GROKKED if fits else None
        values |= {f"{name}_train": time(run, FITTED), f"{name}_val": time(run, VAL)}
        values[f"{name}_best"] = run["best_val_accuracy"]
    return parts, values | {"n_grokked": list(parts.values()).count(False)}


def too_little_and_too_much(cells: Cells) -> Finding:
    """Judge whether the run in cell `little` never generalises, and both accuracies rise together in cell `much`."""
    little, much = run_summary(cells["little"]), run_summary(cells["much"])
    parts: Parts = {
        "never generalises": None if little["outcome"] == Outcome.NONFINITE else not reached(little, VAL),
        "rise together": None
        if much["outcome"] == Outcome.NONFINITE
        else much["outcome"] == Outcome.GENERALISED_AT_ONCE,
    }
    values: Values = {f"{name}_best": run["best_val_accuracy"] for name, run in (("little", little), ("much", much))}
    for name, run in (("little", little), ("much", much)):
        values |= {f"{name}_train": time(run, FITTED), f"{name}_val": time(run, VAL)}
    return parts, values | {"delay": much["grok_delay"]}


def sooner_in_every_table(cells: Cells, tables: dict[str, list[str]]) -> Finding:
    """Judge for each table, with its cells by growing fraction, whether validation accuracy comes sooner along them.

    `{table}_cost` is by what share the steps grow for each percent of the table less, from the slope of log steps.
    """
    parts: Parts = {}
    values: Values = {}
    for table, names in tables.items():
        found, shown = sooner_with_alpha(cells, {name: fraction(name) for name in names})
        parts |= {f"{title}, {table}": part for title, part in found.items()}
        values |= {f"{table}_least": shown[names[0]], f"{table}_most": shown[names[-1]]}
        slope = shown["slope"]
        values[f"{table}_cost"] = 10 ** (-0.01 * slope) - 1 if isinstance(slope, float) else np.nan
    return parts, values


def operations_differ(
    cells: Cells, symmetric: list[str], asymmetric: list[str], never: str, alike: list[str], factor: float
) -> Finding:
    """Judge how operations, each in a cell a fraction, differ in when validation accuracy is reached.

    `symmetric` and `asymmetric` are compared at the smallest fraction by their median step, not reached being last.
    `never` is reached at no fraction; those of `alike` have one outcome at each, within `factor`; some differ by more.
    """
    runs = {name: run_summary(curve) for name, curve in cells.items()}
    fractions = sorted({fraction(name) for name in cells})

    def steps(operation: str, alpha: float) -> float:
        found = runs[f"{operation}, {alpha:g}"][VAL]
        return np.inf if np.isnan(found) else float(found)

    operations = list(dict.fromkeys(name.rsplit(", ", 1)[0] for name in cells))
    table = {alpha: {name: steps(name, alpha) for name in operations} for alpha in fractions}
    smallest = table[fractions[0]]
    sides = [float(np.median([smallest[name] for name in names])) for names in (symmetric, asymmetric)]
    pairs = [tuple(times[name] for name in alike) for times in table.values()]
    parts: Parts = {
        "differ": any(max(times.values()) > factor * min(times.values()) for times in table.values()),
        "symmetric sooner": sides[0] < sides[1] if np.isfinite(min(sides)) else None,
        "never": all(np.isinf(times[never]) for times in table.values()),
        "alike": all(np.isinf(a) == np.isinf(b) and (np.isinf(a) or max(a, b) <= factor * min(a, b)) for a, b in pairs)
        if any(np.isfinite(pair).any() for pair in pairs)
        else None,
    }
    budget = float(next(iter(runs.values()))["steps"])
    values: Values = {
        f"{title}_median": (side if np.isfinite(side) else np.nan, budget)
        for title, side in zip(("symmetric", "asymmetric"), sides, strict=True)
    }
    values["never_best"] = max(runs[f"{never}, {alpha:g}"]["best_val_accuracy"] for alpha in fractions)
    for end, times in (("least", smallest), ("most", table[fractions[-1]])):
        for k, name in enumerate(alike, start=1):
            values[f"alike_{k}_{end}"] = (times[name] if np.isfinite(times[name]) else np.nan, budget)
    counts = [sum(np.isfinite(value) for value in times.values()) for times in table.values()]
    return parts, values | {"n_least": counts[0], "n_most": counts[-1]}


def weight_decay_saves_data(cells: Cells, decay: str, factor: float) -> Finding:
    """Judge whether configurations differ in the data they need, and whether `decay` needs least.

    Cells are named as in `grid`. The best is the smallest fraction at which validation accuracy is reached by
    any; there (`_there`) `decay` has to be reached and to be later than none.
    """
    runs = {name: run_summary(curve) for name, curve in cells.items()}
    configurations = list(dict.fromkeys(name.rsplit(", ", 1)[0] for name in cells))
    there = [name for name in cells if reached(runs[name], VAL)]
    alphas = sorted({fraction(name) for name in cells})
    least = min((fraction(name) for name in there), default=np.nan)
    apart = []
    for alpha in alphas:
        steps = [runs[f"{name}, {alpha:g}"][VAL] for name in configurations]
        known = [step for step in steps if np.isfinite(step)]
        apart.append(bool(known) and (len(known) < len(steps) or max(known) > factor * min(known)))
    parts: Parts = {"matters": any(apart) if there else None, "least data": None, "soonest there": None}
    if there:
        best = runs[f"{decay}, {least:g}"]
        others = [runs[f"{name}, {least:g}"] for name in configurations if name != decay]
        parts["least data"] = reached(best, VAL)
        parts["soonest there"] = reached(best, VAL) and not any(later(best, run, VAL) for run in others)
    values: Values = {"least": least}
    for name in configurations:
        own = [fraction(cell) for cell in there if cell.rsplit(", ", 1)[0] == name]
        values[f"{name}_least"] = min(own, default=np.nan)
        values[f"{name}_val"] = time(runs[f"{name}, {alphas[-1]:g}"], VAL)
        values[f"{name}_there"] = time(runs[f"{name}, {least if there else alphas[0]:g}"], VAL)
    values["n_least"] = sum(fraction(cell) == least for cell in there)
    return parts, values
