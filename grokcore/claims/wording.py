"""Words for verdicts: numbers of one seed or many as they stand in a sentence."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from grokcore.analysis.stats import median_time, wilson
from grokcore.spec.base import GrokcoreError

PART = "part: "
BUDGET = "_budget"
MOST_GAPS = 3
NBSP = "\N{NO-BREAK SPACE}"
KINDS = ("step", "epoch", "at step", "at epoch", "share", "points", "number")
BRACKETS = (
    "In brackets: the range over the seeds; for the step or epoch at which something was first so a 95 % interval of "
    "the median, in which a run that did not get there counts as later than its budget (the estimate of Kaplan and "
    "Meier). So few seeds seldom bound it from above; then it ends in ∞, which does not mean that a run failed. Where "
    "a largest or smallest value lies is known on every seed: the range. What has no brackets is so on every seed, to "
    "the digits shown."
)
NOTHING = "Nothing is measured: no seed has all the runs."
SHOWN = ("operation", "alpha", "optimizer", "weight_decay")


class ClaimsError(GrokcoreError, ValueError):
    """The claims file is damaged, a claim is unknown, or the curves are no frame of `grokcore.sweep`."""


class Shown:
    """Values of one column over the seeds `[n]`, formatted as a kind of `KINDS`.

    NaN is not reached or undefined; `budgets` `[n]` are the steps at which missing times are censored. Brackets hold
    the range over the seeds if `ranges`, else for times the interval of the Kaplan-Meier median.
    """

    def __init__(
        self, values: Sequence[float], budgets: Sequence[float] | None = None, *, ranges: bool = False
    ) -> None:
        self.values = np.asarray(values, dtype=float)
        self.budgets = None if budgets is None else np.asarray(budgets, dtype=float)
        self.ranges = ranges

    def __format__(self, kind: str) -> str:
        if kind not in KINDS:
            raise ValueError(f"values are shown as {', '.join(KINDS)}, not {kind!r}")
        at, unit = "at " * kind.startswith("at "), kind.removeprefix("at ")
        if unit in ("step", "epoch") and self.budgets is not None:
            return self._times(self.budgets, unit, at)
        known = self.values[np.isfinite(self.values)]
        if len(known) == 0:
            return f"{at}no step" if unit == "step" else "n/a"
        words, least, most = (_write(float(value), unit) for value in (np.median(known), known.min(), known.max()))
        everywhere = len(known) == len(self.values)
        if least != most or not everywhere:
            words += f" [{least},{NBSP}{most}]"
        words += "" if everywhere else f" (on {len(known)} of {len(self.values)} seeds)"
        return f"{at}step {words}" if unit == "step" else words

    def _times(self, budgets: np.ndarray, unit: str, at: str) -> str:
        reached = np.isfinite(self.values)
        n, latest = len(reached), _write(float(budgets.max()), "step")
        within = f"within {latest} {unit}s"
        if not reached.any():
            return f"not {within}"
        least, most = (_write(float(end(self.values[reached])), "step") for end in (np.min, np.max))
        if reached.all() and least == most:
            return f"{at}{unit} {least}"
        found = median_time(np.where(reached, self.values, budgets).tolist(), reached.tolist())
        some = f"on {reached.sum()} of {n} seeds"
        if not np.isfinite(found.value):  # most do not get there, so that what is known is when the others do
            which = least if least == most else f"{least} to {most}"
            return f"{at}{unit} {which} {some}, not {within} on the others"
        if self.ranges:
            interval = f" [{least},{NBSP}{most if reached.all() else f'>{NBSP}{latest}'}]"
        else:
            high = f"{_write(found.high, 'step')}]" if np.isfinite(found.high) else "∞)"
            interval = f" [{_write(found.low, 'step')},{NBSP}{high}"
        missing = "" if reached.all() else f" ({n - reached.sum()} of {n} not {within})"
        return f"{at}{unit} {_write(found.value, 'step')}{interval}{missing}"


def fill(template: str, table: pd.DataFrame, prefix: str = "", *, ranges: bool = False) -> str:
    """Return a sentence with its `{name:kind}` filled from columns of a verdict's values, one row a seed.

    `prefix` stands before it; `ranges` is that of `Shown`. Without rows, or where nothing could be measured, only that
    is said.
    """
    if table.empty:
        return NOTHING
    shown = values_shown(table, ranges=ranges)
    if not any(np.isfinite(one.values).any() for one in shown.values()):
        return "Nothing is measured: the runs lack what the statistic reads."
    try:
        return prefix + unbroken(template.format_map(shown))
    except KeyError as error:
        raise ClaimsError(f"the sentence {template!r} needs {error}; the statistic gives {listed(shown)}") from None


def unbroken(text: str) -> str:
    """Return text in which no line breaks within a number or before its percent sign."""
    return re.sub(r"(?<=\d) (?=\d{3}\b|%)", NBSP, text)


def values_shown(table: pd.DataFrame, *, ranges: bool = False) -> dict[str, Shown]:
    """Return what a statistic measured, by name, from a verdict's values, one row a seed; `ranges` as in `Shown`."""
    shown: dict[str, Shown] = {}
    for name in map(str, table):
        budgets = table[f"{name}{BUDGET}"].tolist() if f"{name}{BUDGET}" in table else None
        if name not in ("seed", "level") and not name.startswith(PART):
            shown[name] = Shown(table[name].tolist(), budgets, ranges=ranges)
    return shown


def counted(table: pd.DataFrame) -> str:
    """Return on how many seeds a claim holds, partly holds and fails, and each of its parts; one row a seed."""
    n, names = len(table), [name for name in map(str, table) if name.startswith(PART)]
    titles = {name: name.removeprefix(PART).replace("_", " ") for name in names}
    if n == 1:
        said = [f"{title}: {table[name].iloc[0]}" for name, title in titles.items()]
        return f"on the one seed so far it {table['level'].iloc[0]} ({'; '.join(said)})"
    holds, partly, fails = (list(table["level"]).count(level) for level in ("holds", "holds partly", "fails"))
    share = wilson(holds, n)
    value, low, high = (_write(number, "share") for number in share)
    words = {name: list(table[name]) for name in names}
    parts = [f"{titles[name]}: {said.count('yes')} of {n - said.count('undecided')}" for name, said in words.items()]
    return (
        f"of {n} seeds it holds on {holds}, holds partly on {partly}, fails on {fails} "
        f"(share that holds {value}, 95{NBSP}% interval {low} to {high}; {'; '.join(parts)})"
    )


def gaps(cells: dict[str, dict[int, Any]], wanted: dict[str, dict[str, Any]], enough: int) -> str:
    """Return which runs are missing: cells without any, and those of the `enough` seeds nearest to complete.

    Empty if nothing is missing. Some cells have runs with further seeds, which other claims needed.
    """
    had = Counter(seed for runs in cells.values() for seed in runs)
    seeds = sorted(sorted(had, key=lambda seed: (-had[seed], seed))[:enough])
    said = []
    for name, runs in cells.items():
        lacking = [str(seed) for seed in seeds if seed not in runs]
        if lacking or not runs:
            which = f"seed {', '.join(lacking)} of " if runs else ""
            said.append(f"{which}{name} ({describe(wanted[name])})")
    more = f"; and of {len(said) - MOST_GAPS} more cells" if len(said) > MOST_GAPS else ""
    return f"Missing runs: {'; '.join(said[:MOST_GAPS])}{more}." if said else ""


def describe(cell: dict[str, Any]) -> str:
    """Return the settings of a cell that tell it from others of its source."""
    said = [f"{name} {cell[name]}".replace("_", " ") for name in SHOWN if cell.get(name) is not None]
    said += [f"{cell['n_layers']} layer{'s' * (cell['n_layers'] > 1)}"] if "layernorm" in cell else []
    said += ["no LayerNorm"] if cell.get("layernorm") is False else []
    said += [f"gradient clipped at {cell['clip_grad_norm']:g}"] if cell.get("clip_grad_norm") else []
    return ", ".join([*said, f"{_write(cell['budget'], 'step')} steps"])


def listed(names: Iterable[Any]) -> str:
    """Return names separated by commas."""
    return ", ".join(map(str, names)) or "none"


def _write(value: float, kind: str) -> str:
    if kind == "share":
        return f"{100 * value:.3g}{NBSP}%"
    value = 100 * value if kind == "points" else value
    words = f"{value:,.0f}" if kind == "step" or abs(value) >= 1000 else f"{value:.3g}"
    return words.replace(",", NBSP).replace("-", "\N{MINUS SIGN}")
