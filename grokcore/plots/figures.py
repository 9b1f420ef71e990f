"""Figures of the report that are not curves: times to grok, scale invariance of weights, tables of letters.

They are pure functions from data and an `ax` to that `ax`. Curves are in `grokcore.plots.curves`; colours and names are
those of `grokcore.plots.style`.
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter
from matplotlib.transforms import ScaledTranslation

from grokcore.plots.style import TRAIN, VALIDATION, groups, ink, plain, thousands


def steps_to(
    runs: pd.DataFrame, ax: Axes, *, column: str = "val_99_sustained", x: str = "alpha", by: str = "operation"
) -> Axes:
    """Draw the step at which each run reached a threshold, and the median as a line.

    A run that did not reach it within its budget is censored: an open arrow head at the budget, pointing up. It counts
    as later than all others, so that there is no median where half of the runs or more are censored. The groups stand
    side by side, each as wide as a mark. Where several runs share a place, their number stands beside it: ×3.

    Args:
        runs: one row a run, as `analysis.summary` returns them.
        ax: where it is drawn.
        column: the step at which the threshold was reached, NaN for a run that did not.
        x: the column of the horizontal axis.
        by: the column that gives each group its colour, as in `style.groups`.
    """
    drawn_groups = list(groups(runs, by))
    for i, (label, colour, group) in enumerate(drawn_groups):
        reached, censored = group.loc[group[column].notna()], group.loc[group[column].isna()]
        median = group.fillna({column: math.inf}).groupby(x)[column].median().replace(math.inf, math.nan).dropna()
        lines = ax.plot(median.index, median, color=colour, lw=1, alpha=0.6)
        if len(reached):
            lines += ax.plot(reached[x], reached[column], "o", color=colour, ms=6, label=label)
        if len(censored):
            style = {"mfc": "none", "mec": colour, "ms": 8, "mew": 1.4}
            lines += ax.plot(censored[x], censored["steps"], "^", label=f"{label}: not within the budget", **style)
        aside = 11 * (i - (len(drawn_groups) - 1) / 2)  # points, so that it is as much on any axis
        shift = ScaledTranslation(aside / 72, 0, ax.figure.dpi_scale_trans)
        for line in lines:  # the data stay where they are: only the drawing moves
            line.set_transform(ax.transData + shift)
        _count(reached, x, column, ax, (aside + 4, 1), color=colour, ha="left", va="bottom")
        _count(censored, x, "steps", ax, (aside, 5), color=colour, ha="center", va="bottom")
    ax.set_xticks(sorted(runs[x].unique()))
    ax.set_xlabel("training fraction α" if x == "alpha" else x)
    ax.set_yscale("log")
    ax.set_ylabel("optimisation steps")
    ax.yaxis.set_major_formatter(FuncFormatter(thousands))
    ax.yaxis.set_minor_formatter(FuncFormatter(thousands))
    return ax


def _count(runs: pd.DataFrame, x: str, y: str, ax: Axes, offset: tuple[float, float], **text: Any) -> None:
    """Write how many runs share a place, where there are several, `offset` points beside it."""
    for at, height, n in runs.groupby([x, y], as_index=False).size().to_numpy():
        if n > 1:
            ax.annotate(f"×{n:g}", (at, height), offset, textcoords="offset points", fontsize=8, **text)


def invariance(measured: pd.DataFrame, ax: Axes) -> Axes:
    """Draw how far log p moves when one weight is scaled, a row for each weight.

    Args:
        measured: what `analysis.scale_invariance` returns.
        ax: where it is drawn.
    """
    place, smallest = np.arange(len(measured)), 1e-17
    declared = measured["scale_invariant"].to_numpy(bool)
    names = (("scale-invariant subset", TRAIN, declared), ("other weights", VALIDATION, ~declared))
    for label, colour, chosen in names:
        change = measured["change"].to_numpy(float)[chosen].clip(smallest)
        ax.plot(change, place[chosen], "o", color=colour, ms=6, label=label)
        ax.hlines(place[chosen], smallest, change, color=colour, lw=1.5)
    ax.set_yticks(place, [plain(name) for name in measured["parameter"]], fontsize=8)
    ax.invert_yaxis()
    ax.set_xscale("log")
    ax.set_xlabel("largest change of log p when the weight is scaled (none: drawn at 10⁻¹⁷)")
    return ax


def letters(
    table: np.ndarray,
    ax: Axes,
    *,
    order: Sequence[int] | None = None,
    fill: np.ndarray | None = None,
    size: float = 7.5,
) -> Axes:
    """Draw the table of an operation on at most 26 letters: row x, column y and in the cell x ∘ y.

    Args:
        table: `[p, p]`, numbers of letters; what is no letter, such as -1 for a hidden cell, is a question mark.
        ax: where it is drawn.
        order: the order of the letters along rows and columns (default: the alphabet).
        fill: `[p, p, 3]`, the colours of the cells, NaN for none.
        size: of the letters, in points.
    """
    p = len(table)
    names = string.ascii_lowercase[:p]
    chosen = np.arange(p) if order is None else np.asarray(order)
    arranged = np.ix_(chosen, chosen)
    colours = np.ones((p, p, 3)) if fill is None else np.nan_to_num(fill[arranged], nan=1.0)
    ax.imshow(colours, interpolation="none")
    middle: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": size, "in_layout": False}
    for (i, j), answer in np.ndenumerate(np.asarray(table)[arranged]):
        ax.text(j, i, names[answer] if 0 <= answer < p else "?", color=ink(colours[i, j]), **middle)
    head = [names[letter] for letter in chosen]
    ax.set_xticks(range(p), head, fontsize=size, weight="bold")
    ax.set_yticks(range(p), head, fontsize=size, weight="bold")
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    ax.set_xlabel("y")
    ax.set_ylabel("x", rotation=0, va="center")
    ax.xaxis.set_label_position("top")
    ax.grid(False)
    ax.spines[["left", "bottom"]].set_visible(False)
    return ax
