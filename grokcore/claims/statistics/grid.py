"""Statistics of the claims about optimizers and regularisers against training fractions (see `times`).

A cell is named by its configuration and its fraction, as in `adam, 0.5`; the cells of a configuration stand by growing
fraction. A run converges when its validation accuracy is first 99 %.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from grokcore.analysis.curves import run_summary
from grokcore.claims.statistics.epochs import SEEN, later_in_epochs, steps_per_epoch
from grokcore.claims.statistics.times import FITTED, Cells, Finding, Parts, Values, reached

ROUNDING = 1e-6  # of an accuracy stored in single precision
Runs = dict[str, dict[str, Any]]


def converges_nowhere(cells: Cells) -> Finding:
    """Judge for each configuration whether its run converges at no fraction."""
    runs = {name: run_summary(curve) for name, curve in cells.items()}
    parts: Parts = {}
    values: Values = {}
    for configuration, names in _rows(cells).items():
        parts[f"nowhere, {configuration}"] = not any(reached(runs[name], SEEN) for name in names)
        values |= {f"{configuration}_best": max(runs[name]["best_val_accuracy"] for name in names)}
        ended = [runs[name]["final_train_accuracy"] for name in names]
        values |= {f"{configuration}_train": max(ended), f"{configuration}_train_least": min(ended)}
        values[f"{configuration}_fitted"] = sum(reached(runs[name], FITTED) for name in names)
    return parts, values


def converges_only_from(cells: Cells, alpha: float, fewer: list[str], than: str) -> Finding:
    """Judge whether each configuration converges exactly from `alpha` on, and those of `fewer` in fewer epochs there
    than `than`.
    """
    runs, rows = {name: run_summary(curve) for name, curve in cells.items()}, _rows(cells)
    parts: Parts = {}
    for configuration, names in rows.items():
        parts[f"only from there, {configuration}"] = all(
            reached(runs[name], SEEN) == (fraction(name) >= alpha) for name in names
        )
    for configuration in fewer:
        pairs = [(a, b) for a, b in zip(rows[configuration], rows[than], strict=True) if fraction(a) >= alpha]
        known = all(reached(runs[a], SEEN) or reached(runs[b], SEEN) for a, b in pairs)
        sooner = all(later_in_epochs(cells, runs, a, b, SEEN) for a, b in pairs)
        parts[f"fewer epochs, {configuration}"] = sooner if known else None
    return parts, _least_and_epochs(cells, runs)


def converges_below(cells: Cells, alpha: float, down_to: dict[str, float]) -> Finding:
    """Judge whether each configuration converges at a fraction under `alpha`, and those of `down_to` even there."""
    runs = {name: run_summary(curve) for name, curve in cells.items()}
    parts: Parts = {}
    for configuration, names in _rows(cells).items():
        parts[f"below, {configuration}"] = any(reached(runs[name], SEEN) for name in names if fraction(name) < alpha)
    for configuration, least in down_to.items():
        parts[f"even there, {configuration}"] = reached(runs[f"{configuration}, {least:g}"], SEEN)
    return parts, _least_and_epochs(cells, runs)


def u_shaped(cells: Cells, exception: str) -> Finding:
    """Judge for each configuration whether its epochs fall and rise again with the fraction; `exception` does not.

    Not to converge counts as late. Undecided with fewer than two fractions at which the configuration converges.
    `{configuration}_bottom` is the fraction with the fewest epochs, `n_u` of `n_judged` the configurations but
    `exception` with a U.
    """
    runs = {name: run_summary(curve) for name, curve in cells.items()}
    parts: Parts = {}
    values = _least_and_epochs(cells, runs)
    bent: list[bool] = []
    for configuration, names in _rows(cells).items():
        there = [name for name in names if reached(runs[name], SEEN)]
        title = f"no U, {configuration}" if configuration == exception else f"U, {configuration}"
        values[f"{configuration}_bottom"] = np.nan
        if len(there) < 2:
            parts[title] = None
            continue
        least = min(there, key=lambda name: runs[name][SEEN] / steps_per_epoch(cells[name]))
        ends = [later_in_epochs(cells, runs, least, end, SEEN) for end in (names[0], names[-1])]
        parts[title] = all(ends) != (configuration == exception)
        values[f"{configuration}_bottom"] = fraction(least)
        bent += [all(ends)] if configuration != exception else []
    return parts, values | {"n_u": sum(bent), "n_judged": len(bent)}


def rises_exponentially(cells: Cells, enough: float, drop: float, r_squared: float) -> Finding:
    """Judge whether every configuration's best validation accuracy grows to `enough` with the fraction, and its errors
    shrink exponentially: the logarithm of their share falls linearly in it, with that R² at least.

    No error at all counts as half a row. A configuration whose errors do not change says nothing of the form; if they
    do not fall with the fraction, R² is given as 0.
    """
    best: dict[str, np.ndarray] = {}
    fits: dict[str, float] = {}
    for configuration, names in _rows(cells).items():
        best[configuration] = np.array([run_summary(cells[name])["best_val_accuracy"] for name in names])
        half_a_row = np.array([0.5 / cells[name]["n_val"].iloc[0] for name in names])
        errors = np.log(np.maximum(1 - best[configuration], half_a_row))
        fits[configuration] = np.nan
        if np.ptp(best[configuration]) > ROUNDING and np.ptp(errors) > 0:
            falling = min(np.corrcoef([fraction(name) for name in names], errors)[0, 1], 0.0)
            fits[configuration] = float(falling**2)
    known = [fit for fit in fits.values() if np.isfinite(fit)]
    parts: Parts = {
        "to 100 %": all(values[-1] >= enough for values in best.values()),
        "rises": all((np.diff(values) >= -drop - ROUNDING).all() for values in best.values()),
        "exponentially": min(known) >= r_squared if known else None,
    }
    values: Values = {f"{name}_fit": fit for name, fit in fits.items()}
    values |= {f"{name}_{end}": float(of[at]) for name, of in best.items() for end, at in (("first", 0), ("last", -1))}
    return parts, values | {"worst_fit": min(known, default=np.nan)}


def fraction(cell: str) -> float:
    """Return the training fraction that a cell's name ends with."""
    return float(cell.rsplit(", ", 1)[1])


def _rows(cells: Cells) -> dict[str, list[str]]:
    """Return the names of the cells of each configuration."""
    rows: dict[str, list[str]] = {}
    for name in cells:
        rows.setdefault(name.rsplit(", ", 1)[0], []).append(name)
    return rows


def _least_and_epochs(cells: Cells, runs: Runs) -> Values:
    """Return for each configuration the smallest fraction at which it converges, and its epochs at each in percent."""
    values: Values = {}
    for configuration, names in _rows(cells).items():
        there = [fraction(name) for name in names if reached(runs[name], SEEN)]
        values[f"{configuration}_least"] = min(there, default=np.nan)
        for name in names:
            epochs, at = steps_per_epoch(cells[name]), f"{configuration}_{round(100 * fraction(name))}"
            values[at] = (float(runs[name][SEEN]) / epochs, float(runs[name]["steps"]) / epochs)
    return values
