"""Verdicts: every claim of data/claims.yaml judged from the curves of runs, by the rule that stands beside it.

The head of data/claims.yaml says how seeds and parts become a verdict; this module does it. The statistics are in
`grokcore.claims.statistics`. Everything is computed from the curves each time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from grokcore.claims.rules import Claim as Claim
from grokcore.claims.rules import Judgement
from grokcore.claims.rules import load as load
from grokcore.claims.statistics.cycles import INVARIANCE
from grokcore.claims.statistics.times import Parts, Values
from grokcore.claims.statistics.weights import FOURIER
from grokcore.claims.wording import BRACKETS, BUDGET, PART, counted, fill, gaps, listed
from grokcore.claims.wording import ClaimsError as ClaimsError
from grokcore.spec.base import suggestion

Level = Literal["holds", "holds partly", "fails", "undecided"]
THESE_RUNS = (
    "Judged from this notebook's runs alone. The report's front page judges every recorded run with these settings: "
    "more seeds, or longer runs, where another notebook has some, so that its numbers can differ."
)
# How we read a claim that does not speak of these: a run in which one is otherwise counts only in a cell that names it.
UNCHANGED = {
    "weight_noise": 0, "update_noise": 0, "decay_to_init": 0, "mirrors_together": 0, "norm_first": 1,
    "clip_grad_norm": 0, "n_heads": 4, "precision": "float32", "own_seeds": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """What the runs say about a claim: its main number as `headline`, all of them as `measured`.

    `values` has one row a seed, `leaning` is empty unless not settled.
    """

    id: str
    source: str
    statement: str
    verdict: Judgement
    headline: str
    measured: str
    values: pd.DataFrame
    n_runs: int
    n_seeds: int
    run_ids: list[str]
    reason: str
    leaning: str
    rule_sha256: str


def evaluate(id: str, curves: pd.DataFrame, path: str | Path | None = None) -> Verdict:
    """Judge one claim from the curves of any runs (a frame of `grokcore.sweep`); what it needs is selected here.

    Runs that are not there make the claim *not settled*, and `reason` names them. Raises ClaimsError for an unknown
    claim (with the nearest id) and for a frame without the columns that the claim selects by.
    """
    return _evaluate(_claim(id, path), Runs(curves))


def evaluate_all(curves: pd.DataFrame) -> dict[str, Verdict]:
    """Judge every claim of data/claims.yaml from the curves of any runs; return the verdicts by id, in its order."""
    runs = Runs(curves)
    return {id: _evaluate(claim, runs) for id, claim in load().items()}


class Runs:
    """The runs of a frame of curves: for each the curve, and its last row as a mapping, both in the frame's order."""

    def __init__(self, curves: pd.DataFrame) -> None:
        self.columns = set(curves.columns)
        self.require(["run", "seed", "steps", "step", "status"])
        self.ends = curves.loc[~curves["run"].duplicated(keep="last")].to_dict("records")
        self.curve = dict(iter(curves.groupby("run", sort=False)))

    def require(self, names: Sequence[str]) -> None:
        """Raise ClaimsError if the frame lacks a column."""
        if lacking := [name for name in names if name not in self.columns]:
            raise ClaimsError(f"the curves lack the columns {', '.join(lacking)}; pass a frame made by grokcore.sweep")


def _evaluate(claim: Claim, runs: Runs) -> Verdict:
    found = {name: select(cell, runs) for name, cell in claim.cells.items()}
    cells = {
        name: {seed: run for seed, run in runs.items() if seed >= claim.first_seed} for name, runs in found.items()
    }
    values = _values(claim, cells)
    decided = values.loc[values["level"] != "undecided"]
    ids = sorted({str(runs[seed]["run"].iloc[0]) for runs in cells.values() for seed in decided["seed"]})
    verdict, tendency = judge(claim, list(decided["level"]), opposed="no" in decided.filter(like=PART).to_numpy())
    shown = counted(decided) if len(decided) else ""
    medians = f"{len(values)} seeds, medians: " if len(values) > 1 else ""
    said = [f"{shown[:1].upper()}{shown[1:]}."]
    if len(decided) < claim.min_seeds:
        said = [f"{len(decided)} of the {claim.min_seeds} seeds needed can be judged."]
    elif verdict == "not settled":
        said = ["No part of it fails on any seed, but not all could be judged.", *said]
    if len(decided) < len(values):
        said.append(f"Undecided on {len(values) - len(decided)} of {len(values)} seeds.")
    if any(len(cells[name]) < len(runs) for name, runs in found.items()):
        said.append(f"Seeds under {claim.first_seed} do not count: runs of theirs were known before the rule.")
    if claim.at_best != "confirmed" and tendency == claim.at_best:
        said.append(claim.why_capped)
    return Verdict(
        id=claim.id,
        source=claim.source,
        statement=claim.statement,
        verdict=verdict,
        headline=fill(claim.headline, values, ranges=True),
        measured=fill(claim.measured, values, medians),
        values=values,
        n_runs=len(ids),
        n_seeds=len(decided),
        run_ids=ids,
        reason=" ".join([*said, gaps(cells, claim.cells, claim.min_seeds) if verdict == "not settled" else ""]).strip(),
        leaning=f"Leans to {tendency}: {shown}." if shown and verdict != tendency else "",
        rule_sha256=claim.rule_sha256,
    )


def markdown(verdicts: Sequence[Verdict]) -> str:
    """Return the verdicts as a table in Markdown, a row each: the claim, its statement, the verdict, what was measured.

    Lines under the table say what the brackets hold and which runs were judged, or, if no verdict rests on a run, that
    the claims are judged at the sources' scale alone.
    """
    rows = ["| claim | said | verdict | measured |", "|---|---|---|---|"]
    for v in verdicts:
        measured = " ".join(filter(None, (v.measured, v.reason, v.leaning)))
        said, measured = (re.sub(r"([\\*_|`$])", r"\\\1", text) for text in (v.statement, measured))
        rows.append(f"| {v.id} | {said} | **{v.verdict}** | {measured} |")
    if any(v.n_seeds > 1 for v in verdicts):
        rows += ["", f"*{BRACKETS}*"]
    if not any(v.n_runs for v in verdicts):
        rows += ["", "*None of these runs has the source's settings: the verdicts need those of a plan.*"]
    else:
        rows += ["", f"*{THESE_RUNS}*"]
    return "\n".join(rows)


def with_invariance(curves: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """Return the curves with what `analysis.scale_invariance` measured, as periodic-7 reads it.

    `measured` has columns `run`, `parameter`, `change` (nats). Each parameter becomes a column
    `invariance:<parameter>`, with a value at the first evaluation of its run.
    """
    wide = measured.pivot(index="run", columns="parameter", values="change").add_prefix(INVARIANCE)
    joined = curves.merge(wide, left_on="run", right_index=True, how="left")
    joined.loc[joined["run"].duplicated(), list(wide.columns)] = np.nan
    return joined


def with_fourier(curves: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """Return the curves with what `fourier.measured` gives one number a step of, as power-6 reads it.

    Every such measure becomes a column `fourier:<measure>`, with values at the steps whose weights were kept, and
    `fourier:n_keys` the number of key frequencies.
    """
    single = measured.loc[measured["frequency"] == 0]
    wide = single.pivot(index=["run", "step"], columns="measure", values="value").add_prefix(FOURIER)
    keys = measured.loc[measured["measure"] == "key"].groupby("run").size().rename(f"{FOURIER}n_keys")
    wide = wide.join(keys, on="run").fillna({f"{FOURIER}n_keys": 0})
    return curves.merge(wide, left_on=["run", "step"], right_index=True, how="left")


def select(cell: dict[str, Any], runs: Runs) -> dict[int, pd.DataFrame]:
    """Return, for each seed, the curve of a run that matches a cell, cut at the cell's budget, its `steps` set to it.

    A run matches if its budget is no smaller, all columns named in the cell have its values (None: any) and it
    reached the cell's budget or overflowed on the way; stopped early after it had generalised, if the cell names
    `early_stop`. What is listed in `UNCHANGED` has to be so unless the cell names it. Of several with one seed the
    one with the largest budget is taken, then the one that got furthest within the cell's. Rows whose weights are not
    finite are left out. Raises ClaimsError if the frame lacks a column.
    """
    budget, wanted = cell["budget"], {k: v for k, v in cell.items() if k != "budget" and v is not None}
    runs.require([*wanted])
    changed = [name for name in UNCHANGED if name in runs.columns and name not in cell]
    chosen: dict[int, pd.DataFrame] = {}
    for end in sorted(runs.ends, key=lambda end: (-end["steps"], -min(end["step"], budget), str(end["run"]))):
        over = end["status"] == "nonfinite" or (end["status"] == "stopped early" and "early_stop" in cell)
        complete = end["steps"] >= budget and (end["step"] >= budget or over)
        if end["seed"] in chosen or not complete or not all(_same(end[name], wanted[name]) for name in wanted):
            continue
        if any(not pd.isna(end[name]) and not _same(end[name], UNCHANGED[name]) for name in changed):
            continue
        chosen[int(end["seed"])] = _until(runs.curve[end["run"]], budget)
    return chosen


def parts_alone(id: str, cell: str, curve: pd.DataFrame) -> dict[str, bool | None]:
    """Judge on the curve of one run, whatever its settings, the parts of a claim that rest on one of its cells alone.

    Returns for each part, in the words of its rule, whether it holds (None: undecided). The run is looked at up to the
    cell's budget. Raises ClaimsError for an unknown claim or cell, or where the statistic compares cells.
    """
    claim = _claim(id)
    if cell not in claim.cells:
        raise ClaimsError(f"{id} has no cell {cell!r}; {suggestion(cell, claim.cells)}")
    given = {name: _of_cell(value, cell, set(claim.cells)) for name, value in claim.parameters.items()}
    budget = min(claim.cells[cell]["budget"], int(curve["steps"].iloc[0]))
    try:
        parts, _ = claim.function({cell: _until(curve, budget)}, **given)
    except KeyError as error:
        raise ClaimsError(f"{id}: {claim.statistic} compares cell {cell!r} with {error}") from error
    return {in_words(claim.parts[part], given): holds for part, holds in parts.items()}


def _claim(id: str, path: str | Path | None = None) -> Claim:
    claims = load(path)
    if id not in claims:
        raise ClaimsError(f"unknown claim {id!r}; {suggestion(id, claims)}")
    return claims[id]


def _of_cell(value: Any, cell: str, cells: set[str]) -> Any:
    """Return a parameter of a rule, without what it says of other cells."""
    return {cell: value[cell]} if isinstance(value, dict) and cell in value and set(value) <= cells else value


def in_words(part: str, parameters: dict[str, Any]) -> str:
    """Return a part of a rule with the numbers in place of its parameters' names, without the full stop."""
    for name, value in parameters.items():
        part = part.replace(f"`{name}`", str(value))
    return part.rstrip(".")


def _until(curve: pd.DataFrame, budget: float) -> pd.DataFrame:
    """Return a run's curve as if it had had this budget, without rows whose weights are not finite."""
    kept = curve.loc[(curve["step"] <= budget) & np.isfinite(curve["weight_norm"].astype(float))].assign(steps=budget)
    return kept if curve["step"].iloc[-1] <= budget else kept.assign(status="finished")


def level(parts: Parts) -> Level:
    """Return what the parts say about the claim on one seed."""
    said = list(parts.values())
    if all(part is None for part in said):
        return "undecided"
    if all(said):
        return "holds"
    return "holds partly" if any(said) else "fails"


def judge(claim: Claim, levels: Sequence[Level], opposed: bool) -> tuple[Judgement, Judgement]:
    """Return the verdict over the seeds that count, and what it would be if they were enough.

    `opposed`: a part failed on a seed. Without that, what is not confirmed for undecided parts alone is not settled.
    """
    if not levels:
        return "not settled", "not settled"
    tendency: Judgement = "partly" if opposed else "not settled"
    if levels.count("holds") >= claim.share * len(levels):
        tendency = claim.at_best
    elif levels.count("fails") >= claim.share * len(levels):
        tendency = "refuted"
    return (tendency if len(levels) >= claim.min_seeds else "not settled"), tendency


def _values(claim: Claim, cells: dict[str, dict[int, pd.DataFrame]]) -> pd.DataFrame:
    """Return one row for each seed that all cells have: its level, the parts, and what the statistic measured."""
    rows = []
    for seed in sorted(set.intersection(*(set(runs) for runs in cells.values()))):
        parts, values = claim.function({name: runs[seed] for name, runs in cells.items()}, **claim.parameters)
        if set(parts) != set(claim.parts):
            raise ClaimsError(
                f"{claim.id}: {claim.statistic} judges the parts {listed(parts)}; the file names {listed(claim.parts)}"
            )
        rows.append({"seed": seed, "level": level(parts), **_columns(parts, values)})
    return pd.DataFrame(rows) if rows else pd.DataFrame({"seed": [], "level": []})


def _columns(parts: Parts, values: Values) -> dict[str, Any]:
    """Return parts as yes, no or undecided and values as columns; a time has its budget in a second one."""
    words = {True: "yes", False: "no", None: "undecided"}
    row: dict[str, Any] = {f"{PART}{name}": words[part] for name, part in parts.items()}
    for name, value in values.items():
        if isinstance(value, tuple):
            row[name], row[f"{name}{BUDGET}"] = value
        else:
            row[name] = float(value)
    return row


def _same(have: Any, wanted: Any) -> bool:
    """Return whether a value of a frame is the one wanted; a float may differ in its last digits, None is nothing."""
    if have is None or have != have:
        return False
    if isinstance(have, str) or isinstance(wanted, str):
        return have == wanted
    return math.isclose(float(have), float(wanted), rel_tol=1e-9)
