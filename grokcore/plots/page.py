"""Figures on a page: plots that share their axes, one legend, and SVG with its text alternative."""

from __future__ import annotations

import hashlib
import io
import math
import re
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

NOT_OF_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")  # they make an SVG unreadable


def panels(n: int, *, columns: int = 3) -> tuple[Figure, list[Axes]]:
    """Return a figure of equal plots that share their axes, and the plots.

    The tick labels of the steps stand under the lowest plot of each column, those of the values left of each row.

    Args:
        n: how many plots.
        columns: how many of them stand in a row.
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
    """Put one legend of all axes under them, where it hides nothing.

    Args:
        fig: the figure; equal labels appear once.
        columns: how many labels stand in a row.

    Returns:
        The same figure.
    """
    handles: dict[str, Any] = {}
    for ax in fig.axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(str(label), handle)
    fig.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=columns)
    return fig


def svg(fig: Figure, alt: str) -> str:
    """Return a figure as one `<svg>` element with a text alternative; the same figure gives the same text.

    Its ids begin with a digest of the drawing, so that several figures can stand in one page.

    Args:
        fig: the figure.
        alt: what it shows, in words.

    Raises:
        ValueError: `alt` is empty.
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
    attributes = f'role="img" aria-label={quoteattr(alt)} style="{style}"'
    return f"{head} {attributes}>\n <title>{escape(alt)}</title>{body}".rstrip()


def bundle(fig: Figure, alt: str) -> dict[str, str]:
    """Return what a notebook displays for a figure: its SVG, and its text alternative in case that is lost."""
    return {"image/svg+xml": svg(fig, alt), "text/plain": alt}


def show(fig: Figure, alt: str) -> None:
    """Display a figure in a notebook as SVG, and close it.

    Args:
        fig: the figure.
        alt: what it shows, in words, for those who do not see it.

    Raises:
        ValueError: `alt` is empty.
    """
    from IPython.display import display

    display(bundle(fig, alt), raw=True)
    plt.close(fig)
