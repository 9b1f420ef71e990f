"""The evidence for the verdicts of a report, and the verdicts as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from grokcore.analysis import fourier, invariance, stats
from grokcore.claims import rules
from grokcore.claims.verdicts import Verdict, evaluate_all, with_fourier, with_invariance
from grokcore.records.record import Record, RecordError
from grokcore.records.store import Store
from grokcore.spec.presets import msu
from grokcore.sweeps.sweep import frame

SELECTED_BY = ("status", "step", "weight_norm")  # columns that the claims select by, where nothing is recorded yet


@dataclass(frozen=True)
class Evidence:
    """The runs that the verdicts are judged from.

    Attributes:
        curves: Their curves as one tidy frame, a row a (run, evaluation), with what was measured from their weights.
        n_runs: How many runs these are.
        n_steps: The steps that they took, all together.
        hours: The sum of their own times, as if they had been trained one after the other.
    """

    curves: pd.DataFrame
    n_runs: int
    n_steps: int
    hours: float

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        """The verdict on every claim that has a rule, by the claim's id, judged once."""
        return evaluate_all(self.curves)


def evidence(store: Store, runs: Sequence[str]) -> Evidence:
    """Return runs as evidence.

    Args:
        store: Where the runs, and what was measured from their weights, are read.
        runs: Ids of runs.

    Raises:
        RecordError: A run is absent or damaged, or does not say how long it took.
    """
    records = store.load_all(runs)
    curves = frame(records) if records else pd.DataFrame(columns=pd.Index([*msu().columns(), *SELECTED_BY]))
    changes = invariance.recorded(store)
    changes = changes.loc[changes["run"].isin(curves["run"])]
    if len(changes):
        curves = with_invariance(curves, changes)
    spectra = fourier.recorded(store)
    spectra = spectra.loc[spectra["run"].isin(curves["run"])]
    if len(spectra):
        curves = with_fourier(curves, spectra)
    return Evidence(
        curves=curves,
        n_runs=len(records),
        n_steps=sum(int(record.curve["step"].to_numpy().max()) for record in records),
        hours=sum(_seconds(record) for record in records) / 3600,
    )


def _seconds(record: Record) -> float:
    try:
        return float(record.provenance["seconds"])
    except (KeyError, TypeError, ValueError):
        raise RecordError(
            f"run {record.spec.id} does not say how long it took: restore it from version control"
        ) from None


def claims_json(evidence: Evidence, plan: str) -> str:
    """Return the verdicts on all claims of the sources as JSON: a list of objects, one a claim.

    `interval` is the share of the seeds on which the claim holds (`value`) with its 95 % Wilson interval, null without
    runs.

    Args:
        evidence: The runs that the verdicts are judged from.
        plan: The plan of runs that the report was built from.
    """
    rows = []
    for id, claim in rules.load().items():
        verdict = evidence.verdicts[id]
        share = stats.wilson(list(verdict.values["level"]).count("holds"), verdict.n_seeds) if verdict.n_seeds else None
        rows.append(
            {
                "id": id,
                "source": claim.source,
                "statement": claim.statement,
                "verdict": verdict.verdict,
                "measured": verdict.measured,
                "interval": None if share is None else share._asdict(),
                "n_seeds": verdict.n_seeds,
                "n_runs": verdict.n_runs,
                "run_ids": verdict.run_ids,
                "rule_sha256": verdict.rule_sha256,
                "plan": plan,
                "notebook": claim.notebook,
                "reason": f"{verdict.reason} {verdict.leaning}".strip(),
            }
        )
    return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
