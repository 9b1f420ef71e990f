"""The front page: what grokking is, the verdict on every claim so far, what was run, the sources in full."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import quote

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from grokcore.analysis import fourier, invariance, stats
from grokcore.analysis.curves import summary
from grokcore.claims import rules
from grokcore.claims.rules import Claim
from grokcore.claims.verdicts import Verdict, evaluate_all, in_words, with_fourier, with_invariance
from grokcore.claims.wording import ClaimsError, unbroken
from grokcore.plots import figures, style
from grokcore.records.record import Record, RecordError
from grokcore.records.store import Store
from grokcore.report import sources
from grokcore.report.pages import Page, templates
from grokcore.report.sources import Disagreement, Sources
from grokcore.spec.base import suggestion
from grokcore.spec.presets import msu
from grokcore.sweeps import comparison
from grokcore.sweeps.audit import Audit
from grokcore.sweeps.sweep import frame

MARKS = {"confirmed": "✓", "refuted": "✗", "partly": "◐", "not settled": "○"}
SHOWN = ("status", "step", "weight_norm")  # columns that the claims select by, where nothing is recorded yet
TITLE = "Grokking, reproduced"


@dataclass(frozen=True)
class Evidence:
    """What the front page rests on: all curves at hand in one tidy frame, and how much was run for them."""

    curves: pd.DataFrame
    n_runs: int
    n_steps: int
    hours: float

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        """The verdict on every claim that has a rule, judged once."""
        return evaluate_all(self.curves)


@dataclass(frozen=True)
class Waiting:
    """A notebook that is not in the report because runs of it are missing: of how many runs how many are recorded,
    and how long the others take.
    """

    name: str
    n_runs: int
    n_recorded: int
    duration: str


def evidence(store: Store, runs: Sequence[str]) -> Evidence:
    """Return recorded runs as evidence; `hours` is the sum of their own times, as if run one after the
    other."""
    records = store.load_all(runs)
    curves = frame(records) if records else pd.DataFrame(columns=pd.Index([*msu().columns(), *SHOWN]))
    measured = invariance.recorded(store)
    measured = measured.loc[measured["run"].isin(curves["run"])]
    if len(measured):
        curves = with_invariance(curves, measured)
    spectra = fourier.recorded(store)
    spectra = spectra.loc[spectra["run"].isin(curves["run"])]
    if len(spectra):
        curves = with_fourier(curves, spectra)
    steps = sum(int(record.curve["step"].to_numpy().max()) for record in records)
    hours = sum(_seconds(record) for record in records) / 3600
    return Evidence(curves, len(records), steps, hours)


def _seconds(record: Record) -> float:
    try:
        return float(record.provenance["seconds"])
    except (KeyError, TypeError, ValueError):
        raise RecordError(
            f"run {record.spec.id} does not say how long it took: restore it from version control"
        ) from None


def grokking_figure(curves: pd.DataFrame) -> tuple[str, str] | None:
    """Return x·y mod 97 at α = 0.4 as SVG, and what it shows in words; None if no such run is recorded.

    Of several seeds it is the one in the middle by when validation accuracy is reached, the sooner of two.
    """
    seeds = {msu("x*y", seed=int(seed)).id: int(seed) for seed in curves["seed"].unique()} if len(curves) else {}
    own = curves.loc[curves["run"].isin(list(seeds))] if seeds else curves
    if own.empty:
        return None
    order = summary(own).sort_values("val_99_sustained", kind="stable")
    times = order.iloc[(len(order) - 1) // 2].to_dict()
    run = own.loc[own["run"] == times["run"]]
    reached = [
        f"{name} accuracy does not reach 99 %"
        if math.isnan(step)
        else f"{name} accuracy reaches 99 % at step {style.thousands(step)}"
        for name, step in (("training", times["train_99_first"]), ("validation", times["val_99_sustained"]))
    ]
    which = (
        f"One run of {len(order)} (seed {seeds[times['run']]}, the one in the middle)" if len(order) > 1 else "One run"
    )
    said = f"{which} on x·y mod 97, trained on 40 % of the table: {reached[0]}, {reached[1]}."
    with mpl.rc_context(style.STYLE):
        fig = Figure(figsize=(7.2, 3.4), layout="constrained")
        ax = figures.chance(97, figures.accuracy(run, fig.add_subplot()))
        ax.set_title("x·y mod 97, 40 % of the table, AdamW")
        style.legend(fig)
        return style.svg(fig, said), said


def front_page(
    found: Evidence,
    pages: Sequence[Page],
    waiting: Sequence[Waiting],
    figure: tuple[str, str] | None,
    version: str,
    audited: Audit | None = None,
) -> Page:
    """Return the front page of a site with these other pages; `waiting` are those not in it yet."""
    known, cited, by_name = rules.load(), sources.load(), {page.name: page for page in pages}
    rows = [_row(claim, found.verdicts[claim.id], by_name) for claim in known.values()]
    body = (
        templates()
        .get_template("front.html.j2")
        .render(
            title=TITLE,
            figure=figure,
            evidence=found,
            hours=f"{found.hours:,.1f}",
            rows=rows,
            tally=_tally(rows),
            findings=sources.findings(cited, found.verdicts),
            disagreements=_disagreements(cited, rows),
            figures=_figures(rows),
            marks=MARKS,
            documents=cited.documents,
            literature=cited.literature,
            topics=cited.topics,
            pages=pages,
            waiting=waiting,
            thousands=style.thousands,
            unbroken=unbroken,
            audit=audited,
            steps=comparison.STEPS,
            tolerances=comparison.tolerance_sentence(),
        )
    )
    return Page("index", TITLE, body, templates().get_template("made.html.j2").render(version=version))


def _tally(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Return how many claims of each source have each verdict."""
    counts = {row["claim"].source: dict.fromkeys(MARKS, 0) for row in rows}
    for row in rows:
        counts[row["claim"].source][row["verdict"].verdict] += 1
    return counts


def _disagreements(cited: Sources, rows: Sequence[dict[str, Any]]) -> list[tuple[Disagreement, list[dict[str, Any]]]]:
    """Return every disagreement with the rows of its claims; raises ClaimsError for a claim that is unknown."""
    known = {row["claim"].id: row for row in rows}
    for one in cited.disagreements:
        if unknown := set(one.claims) - set(known):
            raise ClaimsError(
                f"data/sources.yaml: {one.question!r} names {min(unknown)!r}; {suggestion(min(unknown), known)}"
            )
    return [(one, [known[id] for id in one.claims]) for one in cited.disagreements]


def _figures(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return the claims that rest on each figure or place of a source."""
    places: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        places.setdefault((row["claim"].source, row["claim"].figure), []).append(row)
    return places


def claims_json(found: Evidence, plan: str) -> str:
    """Return the verdicts on all claims of the sources as JSON: a list of objects, one a claim.

    `interval` is the share of the seeds on which the claim holds (`value`) with its 95 % Wilson interval, null without
    runs; `plan` is the plan of runs that the report was built from.
    """
    known, rows = rules.load(), []
    for id, claim in known.items():
        verdict = found.verdicts[id]
        share = stats.wilson(list(verdict.values["level"]).count("holds"), verdict.n_seeds) if verdict.n_seeds else None
        row = {"id": id, "source": claim.source, "statement": claim.statement, "verdict": verdict.verdict}
        row |= {"measured": verdict.measured, "interval": None if share is None else share._asdict()}
        row |= {"n_seeds": verdict.n_seeds, "n_runs": verdict.n_runs, "run_ids": verdict.run_ids}
        row |= {"rule_sha256": verdict.rule_sha256, "plan": plan, "notebook": claim.notebook}
        rows.append(row | {"reason": f"{verdict.reason} {verdict.leaning}".strip()})
    return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"


def _row(claim: Claim, verdict: Verdict, pages: dict[str, Page]) -> dict[str, Any]:
    page = pages.get(claim.notebook)
    anchor = f"#{claim.id}" if page is not None and f'id="{claim.id}"' in page.body else ""
    return {
        "claim": claim,
        "verdict": verdict,
        "mark": MARKS[verdict.verdict],
        "parts": {name.replace("_", " "): f"{in_words(part, claim.parameters)}." for name, part in claim.parts.items()},
        "link": f"{quote(claim.notebook)}.html{anchor}" if page is not None else None,
        "page": page.title if page is not None else None,
        "support": _support(claim, verdict),
        "numbers": ", ".join(
            f"{name.replace('_', ' ')} {value:g}"
            for name, value in claim.parameters.items()
            if isinstance(value, (int, float)) and not any(f"`{name}`" in part for part in claim.parts.values())
        ),
    }


def _support(claim: Claim, verdict: Verdict) -> str:
    """Return on how many seeds the claim holds, in few words; empty without runs."""
    n = verdict.n_seeds
    holds, partly, fails = (list(verdict.values["level"]).count(level) for level in ("holds", "holds partly", "fails"))
    if n == 0:
        return ""
    if verdict.verdict == "not settled":
        return f"{n} of {claim.min_seeds} seeds" if n < claim.min_seeds else "nothing against it; not all judged"
    if verdict.verdict == "refuted":
        return f"fails on {fails} of {n} seeds"
    if verdict.verdict == "partly" and holds < claim.share * n:
        return (
            "; ".join(
                f"{word} on {count}" for word, count in (("all", holds), ("some", partly), ("none", fails)) if count
            )
            + f" of {n} seeds"
        )
    return f"holds on {holds} of {n} seeds" + ("; capped" if verdict.verdict == "partly" else "")
