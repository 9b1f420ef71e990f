"""Figures of the report: pure functions from a tidy frame and an `ax` to that `ax`.

The frames are those of `grokcore.sweep` (one row a run and evaluation) and of `analysis.summary` (one row a
run).  Colours and names are those of `grokcore.plots.style`.
"""

from __future__ import annotations

import math
import string
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator
from matplotlib.transforms import ScaledTranslation

from grokcore.plots.style import BLACK, COLLAPSE, GREY, TRAIN, VALIDATION, ink, name_and_colour, plain, thousands


def trace(
    curves: pd.DataFrame, column: str, ax: Axes, *, label: str | None = None, log: bool = True, **line: Any
) -> Axes:
    """Draw one column of the curves against the step, one line a run, all under one label."""
    for i, (_, run) in enumerate(curves.groupby("run", sort=False)):
        run = run[run["step"] > 0] if log else run
        ax.plot(run["step"], run[column], label=label if i == 0 else None, **line)
    return _steps_axis(ax, log)


def accuracy(curves: pd.DataFrame, ax: Axes, *, log: bool = True, worst_batch: bool = False, **line: Any) -> Axes:
    """Draw training and validation accuracy (0 to 1, on the whole sets) against the step, two lines a run.

    With `worst_batch` the space down to the worst mini-batch since the previous evaluation is shaded, so that
    a dip between two evaluations is seen.
    """
    if worst_batch:
        for i, (_, run) in enumerate(curves.groupby("run", sort=False)):
            low = run[["train_accuracy", "batch_accuracy_min"]].min(axis=1)
            band = {"color": TRAIN, "alpha": 0.22, "lw": 0}
            label = "training, down to the worst batch" if i == 0 else None
            ax.fill_between(run["step"], low, run["train_accuracy"], label=label, **band)
    trace(curves, "train_accuracy", ax, label="training", log=log, color=TRAIN, **line)
    trace(curves, "val_accuracy", ax, label="validation", log=log, color=VALIDATION, **line)
    ax.set_ylim(-0.03, 1.05)
    ax.set_ylabel("accuracy")
    return ax


def loss(curves: pd.DataFrame, ax: Axes, *, log: bool = True) -> Axes:
    """Draw training and validation loss (mean cross-entropy in nats, logarithmic) against the step."""
    trace(curves, "train_loss", ax, label="training", log=log, color=TRAIN)
    trace(curves, "val_loss", ax, label="validation", log=log, color=VALIDATION)
    ax.set_yscale("log")
    ax.set_ylabel("loss (nats)")
    return ax


def compare(curves: pd.DataFrame, column: str, ax: Axes, *, by: str, log: bool = True, **line: Any) -> Axes:
    """Draw one column for every value of `by`, each in its colour: "alpha", "operation" or "optimizer"."""
    for label, colour, runs in _groups(curves, by):
        trace(runs, column, ax, label=label, log=log, color=colour, **line)
    return ax


def weight_norm(curves: pd.DataFrame, ax: Axes, *, column: str = "weight_norm", log: bool = True) -> Axes:
    """Draw the L2 norm of the weights (or another norm's `column`) of each optimizer against the step."""
    styles = ("-", "-", (0, (5, 4)), ":")
    for i, (label, colour, runs) in enumerate(_groups(curves, "optimizer")):
        trace(runs, column, ax, label=label, log=log, color=colour, linestyle=styles[i % len(styles)])
    ax.set_ylabel("sum of the weights' norms" if column == "weight_norm_sum" else "norm of the weights (L2)")
    return ax


def effective(curves: pd.DataFrame, measure: str, ax: Axes, *, log: bool = False, **line: Any) -> Axes:
    """Draw a measure of the steps (`effective_lr`, `effective_grad_si`, …): mean, and a band min to max."""
    label, colour = line.pop("label", None), line.pop("color", BLACK)
    for i, (_, run) in enumerate(curves.groupby("run", sort=False)):
        run = run[run["step"] > 0]
        low, high = run[f"{measure}_min"], run[f"{measure}_max"]
        ax.fill_between(run["step"], low, high, color=colour, alpha=0.18, lw=0)
        ax.plot(run["step"], run[f"{measure}_mean"], color=colour, label=label if i == 0 else None, **line)
    ax.set_yscale("log")
    return _steps_axis(ax, log)


def collapses(dips: pd.DataFrame, ax: Axes) -> Axes:
    """Mark collapses of training accuracy (`analysis.collapses`), each a band from its start to its end."""
    for i, (start, end) in enumerate(zip(dips["start"], dips["end"], strict=True)):
        label = "collapse of training accuracy" if i == 0 else None
        ax.axvspan(start, end, color=COLLAPSE, alpha=0.35, lw=0.8, label=label, zorder=0.5)
    return ax


def points(
    point_1: float | None, point_2: float | None, ax: Axes, *, names: tuple[str, str] = ("point 1", "point 2")
) -> Axes:
    """Mark point 1 (training 100 %) and point 2 (training and validation 100 %), where they were reached."""
    for name, step in zip(names, (point_1, point_2), strict=True):
        if step is not None and math.isfinite(step):
            ax.axvline(step, color=BLACK, lw=1.0, ls=(0, (1, 2)))
            place = {"transform": ax.get_xaxis_transform(), "ha": "center", "va": "bottom"}
            ax.text(step, 1.0, name, fontsize=8, **place)
    return ax


def chance(p: int, ax: Axes) -> Axes:
    """Mark the accuracy of guessing one of `p` answers."""
    ax.axhline(1 / p, color=GREY, lw=1.0, ls=":", label=f"chance (1/{p})", zorder=0.5)
    return ax


def steps_to(
    runs: pd.DataFrame, ax: Axes, *, column: str = "val_99_sustained", x: str = "alpha", by: str = "operation"
) -> Axes:
    """Draw the step at which each run of a summary reached a threshold, over `x`, and the median as a line.

    A run that did not reach it within its budget is censored: an open arrow head at the budget, pointing up. It counts
    as later than all others, so that there is no median where half of the runs or more are censored. The groups of
    `by` stand side by side, each as wide as a mark, and runs at one place are counted beside it: ×3.
    """
    groups = list(_groups(runs, by))
    for i, (label, colour, group) in enumerate(groups):
        reached, censored = group.loc[group[column].notna()], group.loc[group[column].isna()]
        middle = group.fillna({column: math.inf}).groupby(x)[column].median().replace(math.inf, math.nan).dropna()
        drawn = ax.plot(middle.index, middle, color=colour, lw=1, alpha=0.6)
        if len(reached):
            drawn += ax.plot(reached[x], reached[column], "o", color=colour, ms=6, label=label)
        if len(censored):
            style = {"mfc": "none", "mec": colour, "ms": 8, "mew": 1.4}
            drawn += ax.plot(censored[x], censored["steps"], "^", label=f"{label}: not within the budget", **style)
        aside = 11 * (i - (len(groups) - 1) / 2)  # points, so that it is as much on any axis
        shift = ScaledTranslation(aside / 72, 0, ax.figure.dpi_scale_trans)
        for line in drawn:  # the data stay where they are: only the drawing moves
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


def skip_flat_start(*axes: Axes, rise: float = 0.05) -> tuple[Axes, ...]:
    """Let all logarithmic axes of steps begin where the first of their curves is about to leave its start by `rise`."""
    begins, ends = [], []
    for ax in axes:
        curves = [line for line in ax.get_lines() if line.get_transform() == ax.transData]  # no marks across the axes
        for step, value in (np.asarray(line.get_data(), dtype=float) for line in curves):
            away = np.flatnonzero(np.abs(value - value[:1]) > rise)
            begins, ends = begins + list(step[away[:1] - 1]), ends + list(step[-1:])
    for ax in axes if begins else ():
        ax.set_xlim(min(begins), max(ends) * (max(ends) / min(begins)) ** 0.04)
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(ends) < 100 * min(begins) else (1,)))
        ax.xaxis.set_minor_formatter("")
    return axes


def invariance(measured: pd.DataFrame, ax: Axes) -> Axes:
    """Draw how far log p moves when one weight is scaled (`measures.scale_invariance`), a row each."""
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
    """Draw the table `[p, p]` of an operation on at most 26 letters: row x, column y and in the cell x ∘ y.

    What is no letter, such as -1 for a hidden cell, is a question mark. `order` arranges rows and columns; `fill`
    `[p, p, 3]` holds the colours of the cells, NaN for none; `size` is that of the letters in points.
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
    head = [names[one] for one in chosen]
    ax.set_xticks(range(p), head, fontsize=size, weight="bold")
    ax.set_yticks(range(p), head, fontsize=size, weight="bold")
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    ax.set_xlabel("y")
    ax.set_ylabel("x", rotation=0, va="center")
    ax.xaxis.set_label_position("top")
    ax.grid(False)
    ax.spines[["left", "bottom"]].set_visible(False)
    return ax


def _groups(frame: pd.DataFrame, by: str) -> Iterator[tuple[str, str, pd.DataFrame]]:
    keys = ["optimizer", "weight_decay"] if by == "optimizer" else by
    for key, group in frame.groupby(keys, sort=by == "alpha"):
        yield *name_and_colour(by, key), group


def _steps_axis(ax: Axes, log: bool) -> Axes:
    ax.set_xscale("log" if log else "linear")
    if not log:
        ax.locator_params(axis="x", nbins=5)
    if log:
        ax.xaxis.set_major_locator(LogLocator(numticks=5))  # labels of more would touch in a narrow panel
    ax.xaxis.set_major_formatter(FuncFormatter(thousands))
    labelled = ax.xaxis.get_tick_params(which="major").get("labelbottom", True)
    ax.set_xlabel("optimisation steps" if labelled else "")
    return ax
