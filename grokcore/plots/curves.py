"""Curves of the report: pure functions that draw the curves of runs against the step, and marks on them, into an `ax`.

The frames are those of `grokcore.sweep`: one row for each run and evaluation.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator

from grokcore.plots.style import BLACK, COLLAPSE, GREY, TRAIN, VALIDATION, groups, thousands


def trace(
    curves: pd.DataFrame, column: str, ax: Axes, *, label: str | None = None, log: bool = True, **line: Any
) -> Axes:
    """Draw one column of the curves against the step, one line a run, all under one label.

    Args:
        curves: the curves of any number of runs.
        column: what is drawn.
        ax: where it is drawn.
        label: the name of the lines in the legend.
        log: whether the axis of the steps is logarithmic; it has no place for step 0 then.
        **line: how the lines look, as in `Axes.plot`.
    """
    for i, (_, run) in enumerate(curves.groupby("run", sort=False)):
        run = run[run["step"] > 0] if log else run
        ax.plot(run["step"], run[column], label=label if i == 0 else None, **line)
    return _steps_axis(ax, log)


def accuracy(curves: pd.DataFrame, ax: Axes, *, log: bool = True, worst_batch: bool = False, **line: Any) -> Axes:
    """Draw training and validation accuracy (0 to 1, on the whole sets) against the step, two lines a run.

    Args:
        curves: the curves of any number of runs.
        ax: where they are drawn.
        log: as in `trace`.
        worst_batch: shade the space down to the worst mini-batch since the evaluation before, so that a dip between
            two evaluations is seen.
        **line: how the lines look, as in `Axes.plot`.
    """
    if worst_batch:
        for i, (_, run) in enumerate(curves.groupby("run", sort=False)):
            low = run[["train_accuracy", "batch_accuracy_min"]].min(axis=1)
            label = "training, down to the worst batch" if i == 0 else None
            ax.fill_between(run["step"], low, run["train_accuracy"], label=label, color=TRAIN, alpha=0.22, lw=0)
    trace(curves, "train_accuracy", ax, label="training", log=log, color=TRAIN, **line)
    trace(curves, "val_accuracy", ax, label="validation", log=log, color=VALIDATION, **line)
    ax.set_ylim(-0.03, 1.05)
    ax.set_ylabel("accuracy")
    return ax


def loss(curves: pd.DataFrame, ax: Axes, *, log: bool = True) -> Axes:
    """Draw training and validation loss (mean cross-entropy in nats, logarithmic) against the step.

    Args:
        curves: the curves of any number of runs.
        ax: where they are drawn.
        log: as in `trace`.
    """
    trace(curves, "train_loss", ax, label="training", log=log, color=TRAIN)
    trace(curves, "val_loss", ax, label="validation", log=log, color=VALIDATION)
    ax.set_yscale("log")
    ax.set_ylabel("loss (nats)")
    return ax


def compare(curves: pd.DataFrame, column: str, ax: Axes, *, by: str, log: bool = True, **line: Any) -> Axes:
    """Draw one column of the curves, in a colour for each group of runs.

    Args:
        curves: the curves of any number of runs.
        column: what is drawn.
        ax: where it is drawn.
        by: what the runs of a group share: "alpha", "operation" or "optimizer".
        log: as in `trace`.
        **line: how the lines look, as in `Axes.plot`.

    Raises:
        ValueError: another `by`.
    """
    for label, colour, runs in groups(curves, by):
        trace(runs, column, ax, label=label, log=log, color=colour, **line)
    return ax


def weight_norm(curves: pd.DataFrame, ax: Axes, *, column: str = "weight_norm", log: bool = True) -> Axes:
    """Draw the L2 norm of the weights against the step, in a colour for each optimizer.

    Args:
        curves: the curves of any number of runs.
        ax: where they are drawn.
        column: the norm: "weight_norm", that of all weights, or "weight_norm_sum", the sum of the tensors' norms.
        log: as in `trace`.
    """
    styles = ("-", "-", (0, (5, 4)), ":")
    for i, (label, colour, runs) in enumerate(groups(curves, "optimizer")):
        trace(runs, column, ax, label=label, log=log, color=colour, linestyle=styles[i % len(styles)])
    ax.set_ylabel("sum of the weights' norms" if column == "weight_norm_sum" else "norm of the weights (L2)")
    return ax


def effective(curves: pd.DataFrame, measure: str, ax: Axes, *, log: bool = False, **line: Any) -> Axes:
    """Draw a measure of the steps between two evaluations: its mean as a line, from minimum to maximum as a band.

    Args:
        curves: the curves of any number of runs.
        measure: `effective_lr`, `effective_grad_si`, …: the columns are `{measure}_mean`, `_min` and `_max`.
        ax: where it is drawn.
        log: as in `trace`.
        **line: how the line looks, as in `Axes.plot`; `color` is that of the band, too.
    """
    label, colour = line.pop("label", None), line.pop("color", BLACK)
    for i, (_, run) in enumerate(curves.groupby("run", sort=False)):
        run = run[run["step"] > 0]
        low, high = run[f"{measure}_min"], run[f"{measure}_max"]
        ax.fill_between(run["step"], low, high, color=colour, alpha=0.18, lw=0)
        ax.plot(run["step"], run[f"{measure}_mean"], color=colour, label=label if i == 0 else None, **line)
    ax.set_yscale("log")
    return _steps_axis(ax, log)


def collapses(dips: pd.DataFrame, ax: Axes) -> Axes:
    """Mark collapses of training accuracy: each a band from start to end.

    Args:
        dips: what `analysis.collapses` returns for a run.
        ax: where they are marked.
    """
    for i, (start, end) in enumerate(zip(dips["start"], dips["end"], strict=True)):
        label = "collapse of training accuracy" if i == 0 else None
        ax.axvspan(start, end, color=COLLAPSE, alpha=0.35, lw=0.8, label=label, zorder=0.5)
    return ax


def points(
    point_1: float | None, point_2: float | None, ax: Axes, *, names: tuple[str, str] = ("point 1", "point 2")
) -> Axes:
    """Mark point 1 (training 100 %) and point 2 (training and validation 100 %), where they were reached.

    Args:
        point_1: the step, None or NaN if it was not reached.
        point_2: the same.
        ax: where they are marked.
        names: what stands at the marks.
    """
    for name, step in zip(names, (point_1, point_2), strict=True):
        if step is not None and math.isfinite(step):
            ax.axvline(step, color=BLACK, lw=1.0, ls=(0, (1, 2)))
            ax.text(step, 1.0, name, fontsize=8, transform=ax.get_xaxis_transform(), ha="center", va="bottom")
    return ax


def chance(p: int, ax: Axes) -> Axes:
    """Mark the accuracy of guessing one of `p` answers."""
    ax.axhline(1 / p, color=GREY, lw=1.0, ls=":", label=f"chance (1/{p})", zorder=0.5)
    return ax


def skip_flat_start(*axes: Axes, rise: float = 0.05) -> tuple[Axes, ...]:
    """Let all logarithmic axes of steps begin where the first of their curves is about to leave its first value.

    Args:
        *axes: the plots; they get the same limits.
        rise: by how much a curve has to differ from its first value.

    Returns:
        The same plots.
    """
    begins, ends = [], []
    for ax in axes:
        curves = [line for line in ax.get_lines() if line.get_transform() == ax.transData]  # no marks across the axes
        for steps, values in (np.asarray(line.get_data(), dtype=float) for line in curves):
            away = np.flatnonzero(np.abs(values - values[:1]) > rise)
            begins += list(steps[away[:1] - 1])
            ends += list(steps[-1:])
    for ax in axes if begins else ():
        ax.set_xlim(min(begins), max(ends) * (max(ends) / min(begins)) ** 0.04)
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(ends) < 100 * min(begins) else (1,)))
        ax.xaxis.set_minor_formatter("")
    return axes


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
