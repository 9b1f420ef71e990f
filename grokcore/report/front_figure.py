"""The figure of the front page: one run that groks."""

from __future__ import annotations

import math

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from grokcore.analysis.curves import summary
from grokcore.plots import style
from grokcore.plots.curves import accuracy, chance
from grokcore.plots.page import legend, svg
from grokcore.spec.presets import msu


def grokking_figure(curves: pd.DataFrame) -> tuple[str, str] | None:
    """Return a run on x·y mod 97 with α = 0.4 as SVG, and what it shows in words; None if no such run is recorded.

    Of several seeds it is the one in the middle by the step from which validation accuracy stays at 99 %; of an even
    number the sooner of the two in the middle.

    Args:
        curves: Curves as one tidy frame, a row a (run, evaluation).
    """
    seeds = {msu("x*y", seed=int(seed)).id: int(seed) for seed in curves["seed"].unique()} if len(curves) else {}
    runs = curves.loc[curves["run"].isin(list(seeds))] if seeds else curves
    if runs.empty:
        return None
    order = summary(runs).sort_values("val_99_sustained", kind="stable")
    times = order.iloc[(len(order) - 1) // 2].to_dict()
    sentence = (
        f"{_which(len(order), seeds[times['run']])} on x·y mod 97, trained on 40 % of the table: {_times(times)}."
    )
    with mpl.rc_context(style.STYLE):
        fig = Figure(figsize=(7.2, 3.4), layout="constrained")
        ax = chance(97, accuracy(runs.loc[runs["run"] == times["run"]], fig.add_subplot()))
        ax.set_title("x·y mod 97, 40 % of the table, AdamW")
        legend(fig)
        return svg(fig, sentence), sentence


def _which(n_runs: int, seed: int) -> str:
    return f"One run of {n_runs} (seed {seed}, the one in the middle)" if n_runs > 1 else "One run"


def _times(times: dict[str, float]) -> str:
    reached = []
    for name, column in (("training", "train_99_first"), ("validation", "val_99_sustained")):
        if math.isnan(times[column]):
            reached.append(f"{name} accuracy does not reach 99 %")
        else:
            reached.append(f"{name} accuracy reaches 99 % at step {style.thousands(times[column])}")
    return ", ".join(reached)
