"""A plot of the runs in training, redrawn in a notebook while they train."""

from __future__ import annotations

import math
import textwrap
import time
from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure

from grokcore.plots.curves import accuracy
from grokcore.plots.page import bundle, legend
from grokcore.plots.style import plain, thousands


def live(alt: str = "Training and validation accuracy of the runs while they train") -> Callable[[Any], None]:
    """Return a `watch` for `grokcore.sweep` that plots the runs in training, at most once a second.

    Drawing takes at most a tenth of the time. The last state stays in the saved notebook.

    Args:
        alt: the text alternative of the plot.
    """
    handle: Any = None
    due = 0.0

    def watch(progress: Any) -> None:
        nonlocal handle, due
        from IPython.core.getipython import get_ipython
        from IPython.display import display

        start = time.monotonic()
        if get_ipython() is None or progress.curves.empty or (start < due and progress.done < progress.total):
            return
        drawing = bundle(_progress(progress), alt)
        if handle is None:
            handle = display(drawing, raw=True, display_id=True)
        else:
            handle.update(drawing, raw=True)
        due = start + max(1.0, 10 * (time.monotonic() - start))

    return watch


def _progress(progress: Any, most: int = 12) -> Figure:
    names = list(dict.fromkeys(progress.curves["run"]))[-most:]
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    fig = Figure(figsize=(2.6 * columns + 1.6, 1.5 * rows + 1.1), layout="constrained")
    axes = list(fig.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for ax, name in zip(axes, names, strict=False):
        run = progress.curves[progress.curves["run"] == name]
        accuracy(run, ax)
        ax.set_ylabel("")
        ax.set_title(textwrap.fill(plain(run["label"].iloc[0]), 34), fontsize=9)
    for ax in axes[len(names) :]:
        ax.set_visible(False)
    speed = f"{progress.done} of {progress.total} runs done, {thousands(progress.steps_per_second)} steps/s"
    fig.suptitle(speed, fontsize=10)
    fig.supylabel("accuracy", fontsize=10)
    return legend(fig)
