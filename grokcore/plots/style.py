"""How the report looks: one set of colours, names and line styles, and figures as SVG with its text.

The same thing has the same colour in every figure: training blue, validation orange, an operation or an
optimizer its own colour (Okabe and Ito's palette, distinct for colour-blind readers), the training fraction a
place on a sequential scale.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
from collections.abc import Hashable
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from grokcore.spec.names import operation_name, optimizer_name

# Distinct for colour-blind readers, after Okabe and Ito.
TRAIN, VALIDATION, GREEN, RED, PINK, COLLAPSE, _, GREY, _, SKY = sns.color_palette("colorblind").as_hex()
BLACK, OCHRE = "#1a1a1a", "#7f5f00"
OPERATION = {"x*y": GREEN, "x/y": PINK, "x*y+y*y": RED, "sin(x+y)": SKY, "x+y": OCHRE}
OPTIMIZER = {"adamw": GREEN, "adam": RED, "sgd": SKY, "rmsprop": PINK}
# What a run came to (`analysis.Outcome`), in the words of tables and figures.
OUTCOME = {
    "GROKKED": "grokked",
    "GENERALISED_AT_ONCE": "no delay",
    "MEMORISED_ONLY": "memorised only",
    "NOT_FITTED": "not fitted",
    "NONFINITE": "overflowed",
}
NOT_OF_XML = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]"
)  # a name with one would spoil the figure
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
    """Make every later figure one of the report's: its fonts, sizes and lines, and the same SVG each time."""
    mpl.rcParams.update(STYLE)


def alpha_colour(alpha: float) -> str:
    """Return the colour of a training fraction in (0, 1): the darker, the smaller."""
    return to_hex(mpl.colormaps["viridis"](0.9 * min(max((alpha - 0.2) / 0.7, 0.0), 1.0)))


def plain(text: object) -> str:
    """Return a name as a figure's label shows it letter by letter: `$` begins no formula."""
    return str(text).encode("utf-8", "replace").decode().replace("$", r"\$")


def outcome_name(outcome: str) -> str:
    """Return what a run came to in words: `memorised only` for `MEMORISED_ONLY`."""
    return OUTCOME.get(outcome, outcome)


def ink(ground: Any) -> str:
    """Return the colour of letters, black or white, that stands out more from a coloured ground (WCAG 2)."""
    luminance = [_luminance(colour) + 0.05 for colour in (ground, BLACK, "white")]
    return BLACK if luminance[0] / luminance[1] > luminance[2] / luminance[0] else "white"


def _luminance(colour: Any) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return sum(share * c for share, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def operation_colour(operation: str) -> str:
    """Return the colour of an operation, black for one that has none of its own."""
    return OPERATION.get(operation, BLACK)


def name_and_colour(by: str, key: Any) -> tuple[str, str]:
    """Return name and colour of one value of `by`: an "alpha", an "operation" or an ("optimizer", decay).

    Raises ValueError for another `by`.
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
    """Return a number of steps with its thousands apart, as an axis formatter: `10 000`."""
    return f"{value:,.0f}".replace(",", "\N{NO-BREAK SPACE}") if value >= 1 else f"{value:g}"


def reached(step: float, budget: float) -> str:
    """Return the step at which something was reached for a reader: `3 450`, or `> 10 000` if not in the budget."""
    return f"> {thousands(budget)}" if math.isnan(step) else thousands(step)


def table(runs: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Return a summary (`analysis.summary`) for a reader, a row a run: the columns named, then what it came to."""
    shown = runs[list(columns)].copy()
    if "operation" in shown:
        shown["operation"] = [operation_name(operation) for operation in runs["operation"]]
    shown["outcome"] = [outcome_name(outcome) for outcome in runs["outcome"]]
    for name, column in (("training 99 %", "train_99_first"), ("validation 99 %", "val_99_sustained")):
        shown[name] = [reached(s, b) for s, b in zip(runs[column], runs["steps"], strict=True)]
    shown["best validation"] = [f"{best:.1%}" for best in runs["best_val_accuracy"]]
    return shown.set_index(columns[0]).rename_axis(index=None, columns=columns[0])


def panels(n: int, *, columns: int = 3) -> tuple[Figure, list[Axes]]:
    """Return a figure of `n` equal plots in rows of `columns` that share their axes, and the plots.

    The tick labels of the steps stand under the lowest plot of each column, those of the values left of each row.
    """
    rows = math.ceil(n / columns)
    fig, grid = plt.subplots(
        rows,
        columns,
        figsize=(9, 2.6 * rows + 0.4),
        sharex=True,
        sharey=True,
        squeeze=False,
        gridspec_kw={"hspace": 0.1},
    )
    axes = list(grid.flat)
    for ax in axes[n:]:
        ax.set_visible(False)
    for ax in axes[max(n - columns, 0) : n]:
        ax.tick_params(labelbottom=True)
    return fig, axes[:n]


def legend(fig: Figure, *, columns: int = 4) -> Figure:
    """Put one legend of all the figure's axes under them, where it hides nothing."""
    handles: dict[str, Any] = {}
    for ax in fig.axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(str(label), handle)
    fig.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=columns)
    return fig


def svg(fig: Figure, alt: str) -> str:
    """Return the figure as one `<svg>` element that says what it shows; the same figure gives the same text.

    Its ids begin with a digest of the drawing, so that several figures can stand in one page.
    Raises ValueError if `alt` is empty.
    """
    if not alt.strip():
        raise ValueError("a figure needs a text alternative, but alt is empty: write what the figure shows")
    buffer = io.StringIO()
    fig.savefig(buffer, format="svg", metadata={"Date": None})
    text = NOT_OF_XML.sub("", buffer.getvalue())
    alt = NOT_OF_XML.sub("", alt)
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.S)
    text = re.sub(r"\s*<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.S)
    digest = "f" + hashlib.sha256(text.encode()).hexdigest()[:8]
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{digest}-", text)
    head, _, body = text.partition(">")
    style = "stroke-linejoin: round; stroke-linecap: butt; max-width: 100%; height: auto"
    said = f'role="img" aria-label={quoteattr(alt)} style="{style}">\n <title>{escape(alt)}</title>'
    return f"{head} {said}{body}".rstrip()


def bundle(fig: Figure, alt: str) -> dict[str, str]:
    """Return what a notebook displays for the figure: its SVG, and its text alternative if that is lost."""
    return {"image/svg+xml": svg(fig, alt), "text/plain": alt}


def show(fig: Figure, alt: str) -> None:
    """Display the figure in a notebook as SVG with its text alternative `alt`, and close it."""
    from IPython.display import display

    display(bundle(fig, alt), raw=True)
    plt.close(fig)
