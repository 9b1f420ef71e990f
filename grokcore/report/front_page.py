"""The front page: what grokking is, the verdict on every claim so far, what was run, the sources in full."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from grokcore.claims import rules
from grokcore.claims.rules import Claim
from grokcore.claims.verdicts import Verdict, in_words
from grokcore.claims.wording import ClaimsError, unbroken
from grokcore.plots import style
from grokcore.report import sources
from grokcore.report.evidence import Evidence
from grokcore.report.missing_runs import Waiting
from grokcore.report.pages import Page, templates
from grokcore.report.sources import Disagreement, Sources
from grokcore.spec.base import suggestion
from grokcore.sweeps import comparison
from grokcore.sweeps.audit import Audit

MARKS = {"confirmed": "✓", "refuted": "✗", "partly": "◐", "not settled": "○"}
TITLE = "Grokking, reproduced"
Row = dict[str, Any]  # one claim as the template shows it


@dataclass(frozen=True)
class FrontPage:
    """What the front page shows beside claims and sources.

    Attributes:
        evidence: The runs that the verdicts are judged from.
        pages: The other pages of the site.
        waiting: Notebooks that are not in it because runs of theirs are missing.
        figure: An SVG and what it shows in words.
        audit: Recorded runs trained again.
        version: The version of grokcore.
    """

    evidence: Evidence
    pages: Sequence[Page]
    waiting: Sequence[Waiting]
    figure: tuple[str, str] | None
    audit: Audit | None
    version: str


def front_page(front: FrontPage) -> Page:
    """Return the front page of a site.

    Args:
        front: What it shows.

    Raises:
        ClaimsError: The file of claims or of sources is damaged, or the latter names an unknown claim.
    """
    cited = sources.load()
    by_name = {page.name: page for page in front.pages}
    rows = [_row(claim, front.evidence.verdicts[claim.id], by_name) for claim in rules.load().values()]
    body = (
        templates()
        .get_template("front.html.j2")
        .render(
            title=TITLE,
            figure=front.figure,
            evidence=front.evidence,
            hours=f"{front.evidence.hours:,.1f}",
            rows=rows,
            tally=_tally(rows),
            findings=sources.findings(cited, front.evidence.verdicts),
            disagreements=_disagreements(cited, rows),
            figures=_by_figure(rows),
            marks=MARKS,
            documents=cited.documents,
            literature=cited.literature,
            topics=cited.topics,
            pages=front.pages,
            waiting=front.waiting,
            thousands=style.thousands,
            unbroken=unbroken,
            audit=front.audit,
            steps=comparison.STEPS,
            tolerances=comparison.tolerance_sentence(),
        )
    )
    return Page("index", TITLE, body, templates().get_template("made.html.j2").render(version=front.version))


def _tally(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """Return how many claims of each source have each verdict."""
    counts = {row["claim"].source: dict.fromkeys(MARKS, 0) for row in rows}
    for row in rows:
        counts[row["claim"].source][row["verdict"].verdict] += 1
    return counts


def _disagreements(cited: Sources, rows: Sequence[Row]) -> list[tuple[Disagreement, list[Row]]]:
    """Return every disagreement with the rows of its claims; raises ClaimsError for a claim that is unknown."""
    by_id = {row["claim"].id: row for row in rows}
    for disagreement in cited.disagreements:
        if unknown := set(disagreement.claims) - set(by_id):
            raise ClaimsError(
                f"data/sources.yaml: {disagreement.question!r} names {min(unknown)!r}; "
                f"{suggestion(min(unknown), by_id)}"
            )
    return [(disagreement, [by_id[id] for id in disagreement.claims]) for disagreement in cited.disagreements]


def _by_figure(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """Return the claims about each figure or place of a source."""
    places: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        places.setdefault((row["claim"].source, row["claim"].figure), []).append(row)
    return places


def _row(claim: Claim, verdict: Verdict, pages: dict[str, Page]) -> Row:
    page = pages.get(claim.notebook)
    anchor = f"#{claim.id}" if page is not None and f'id="{claim.id}"' in page.body else ""
    return {
        "claim": claim,
        "verdict": verdict,
        "mark": MARKS[verdict.verdict],
        "parts": {name.replace("_", " "): f"{in_words(part, claim.parameters)}." for name, part in claim.parts.items()},
        "link": f"{quote(claim.notebook)}.html{anchor}" if page is not None else None,
        "page": page.title if page is not None else None,
        "support": support(claim, verdict),
        "numbers": ", ".join(
            f"{name.replace('_', ' ')} {value:g}"
            for name, value in claim.parameters.items()
            if isinstance(value, (int, float)) and not any(f"`{name}`" in part for part in claim.parts.values())
        ),
    }


def support(claim: Claim, verdict: Verdict) -> str:
    """Return on how many seeds a claim holds, in few words; empty without runs."""
    n = verdict.n_seeds
    levels = list(verdict.values["level"])
    holds, partly, fails = (levels.count(level) for level in ("holds", "holds partly", "fails"))
    if n == 0:
        return ""
    if verdict.verdict == "not settled":
        return f"{n} of {claim.min_seeds} seeds" if n < claim.min_seeds else "nothing against it; not all judged"
    if verdict.verdict == "refuted":
        return f"fails on {fails} of {n} seeds"
    if verdict.verdict == "partly" and holds < claim.share * n:
        counts = {"all": holds, "some": partly, "none": fails}
        return "; ".join(f"{word} on {count}" for word, count in counts.items() if count) + f" of {n} seeds"
    return f"holds on {holds} of {n} seeds" + ("; capped" if verdict.verdict == "partly" else "")
