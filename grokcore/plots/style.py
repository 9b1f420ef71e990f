"""How the report looks: its colours, names, numbers and line styles.

The same thing has the same colour in every figure: training is blue, validation orange, an operation or an optimizer
has its own colour (Okabe and Ito's palette, distinct for colour-blind readers), and the training fraction a place on a
sequential scale.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from typing import Any

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.colors import to_hex, to_rgb

from grokcore.spec.names import operation_name, optimizer_name

# Distinct for colour-blind readers, after Okabe and Ito.
TRAIN, VALIDATION, GREEN, RED, PINK, COLLAPSE, _, GREY, _, SKY = sns.color_palette("colorblind").as_hex()
BLACK, OCHRE = "#1a1a1a", "#7f5f00"
OPERATION = {"x*y": GREEN, "x/y": PINK, "x*y+y*y": RED, "sin(x+y)": SKY, "x+y": OCHRE}
OPTIMIZER = {"adamw": GREEN, "adam": RED, "sgd": SKY, "rmsprop": PINK}
# How a run ended (`analysis.Outcome`), in the words of tables and figures.
OUTCOME = {
    "GROKKED": "grokked",
    "GENERALISED_AT_ONCE": "no delay",
    "MEMORISED_ONLY": "memorised only",
    "NOT_FITTED": "not fitted",
    "NONFINITE": "overflowed",
}
STYLE: dict[Any, Any] = {
    "figure.dpi": 100,
    "figure.figsize": (7.2, 3.6),
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "grokcore",
    "svg.fonttype": "path",
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titlepad": 13,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def use_style() -> None:
    """Set matplotlib's defaults for all later figures: fonts, sizes, lines, and the same SVG each time."""
    mpl.rcParams.update(STYLE)


def alpha_colour(alpha: float) -> str:
    """Return the colour of a training fraction between 0 and 1: the smaller, the darker.

    Example:
        >>> alpha_colour(0.3), alpha_colour(0.8)
        ('#472d7b', '#69cd5b')
    """
    return to_hex(mpl.colormaps["viridis"](0.9 * min(max((alpha - 0.2) / 0.7, 0.0), 1.0)))


def plain(text: object) -> str:
    r"""Return a name as text of a figure that is shown letter by letter: `$` begins no formula.

    Example:
        >>> print(plain("$x$"))
        \$x\$
    """
    return str(text).encode("utf-8", "replace").decode().replace("$", r"\$")


def outcome_name(outcome: str) -> str:
    """Return how a run ended in words.

    Example:
        >>> outcome_name("MEMORISED_ONLY")
        'memorised only'
    """
    return OUTCOME.get(outcome, outcome)


def ink(ground: Any) -> str:
    """Return the colour of letters, black or white, that has more contrast with a coloured ground (WCAG 2).

    Example:
        >>> ink("white"), ink("#0000ff")
        ('#1a1a1a', 'white')
    """
    luminance, black, white = (_luminance(colour) + 0.05 for colour in (ground, BLACK, "white"))
    return BLACK if luminance / black > white / luminance else "white"


def _luminance(colour: Any) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return sum(share * c for share, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def operation_colour(operation: str) -> str:
    """Return the colour of an operation, black for one that has none of its own."""
    return OPERATION.get(operation, BLACK)


def name_and_colour(by: str, key: Any) -> tuple[str, str]:
    """Return the name and the colour of one group of runs.

    Args:
        by: "alpha", "operation" or "optimizer".
        key: the training fraction, the operation, or the pair of an optimizer and its weight decay.

    Raises:
        ValueError: another `by`.

    Example:
        >>> name_and_colour("alpha", 0.4)
        ('α = 0.4', '#3a538b')
    """
    if by == "alpha":
        return f"α = {key:g}", alpha_colour(key)
    if by == "operation":
        return operation_name(key), operation_colour(key)
    if by == "optimizer":
        colour = BLACK if key[0] == "adamw" and not key[1] else OPTIMIZER.get(key[0], BLACK)
        return optimizer_name(*key), colour
    raise ValueError(f"by={by!r} has no colours; known: 'alpha', 'operation', 'optimizer'")


def thousands(value: float, _position: Hashable = None) -> str:
    """Return a number of steps with its thousands apart by a no-break space, as an axis formatter does.

    Example:
        >>> thousands(10_000)
        '10\xa0000'
    """
    return f"{value:,.0f}".replace(",", "\N{NO-BREAK SPACE}") if value >= 1 else f"{value:g}"


def reached(step: float, budget: float) -> str:
    """Return the step at which something was reached in words, `> budget` if it is NaN, that is, was not reached.

    Example:
        >>> reached(450, 900), reached(math.nan, 900)
        ('450', '> 900')
    """
    return f"> {thousands(budget)}" if math.isnan(step) else thousands(step)


def table(runs: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Return a summary as a table for a reader.

    Args:
        runs: one row a run, as `analysis.summary` returns them.
        *columns: columns of `runs` that identify a run; the first becomes the index.

    Returns:
        One row a run: these columns, how it ended, when training and validation accuracy reached 99 %, and its best
        validation accuracy.
    """
    shown = runs[list(columns)].copy()
    if "operation" in shown:
        shown["operation"] = [operation_name(operation) for operation in runs["operation"]]
    shown["outcome"] = [outcome_name(outcome) for outcome in runs["outcome"]]
    for name, column in (("training 99 %", "train_99_first"), ("validation 99 %", "val_99_sustained")):
        shown[name] = [reached(step, budget) for step, budget in zip(runs[column], runs["steps"], strict=True)]
    shown["best validation"] = [f"{best:.1%}" for best in runs["best_val_accuracy"]]
    return shown.set_index(columns[0]).rename_axis(index=None, columns=columns[0])


def groups(frame: pd.DataFrame, by: str) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield the name, the colour and the rows of each group of runs, as `name_and_colour` has them."""
    keys = ["optimizer", "weight_decay"] if by == "optimizer" else by
    for key, group in frame.groupby(keys, sort=by == "alpha"):
        yield *name_and_colour(by, key), group
