"""What the command line shows: a live bar for training, and runs as text."""

from __future__ import annotations

import contextlib
import math
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import astuple
from typing import Any

import pandas as pd
from tqdm import tqdm

from grokcore.analysis.curves import HOLD, THRESHOLDS, Outcome, run_summary
from grokcore.bench import benchmark
from grokcore.records.record import Record
from grokcore.report.build import Cost, duration
from grokcore.sweeps.audit import Audit
from grokcore.sweeps.comparison import tolerance_sentence
from grokcore.sweeps.progress import Progress, Watch

FORMULA = "=+-@\uff1d\uff0b\uff0d\uff20"  # as a spreadsheet takes them, the last four in full width
BAR = "{percentage:3.0f} %|{bar}| {postfix}"


@contextlib.contextmanager
def training_bar() -> Iterator[Watch]:
    """Give a `watch` for a sweep that draws runs, steps a second and time left on stderr."""
    bar: tqdm[Any] | None = None

    def watch(progress: Progress) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(total=progress.steps_total, bar_format=BAR, file=sys.stderr, mininterval=0, dynamic_ncols=True)
        bar.total = progress.steps_total  # a report may make several sweeps
        bar.n = progress.steps_total if progress.done == progress.total else progress.steps_done
        bar.set_postfix_str(describe(progress))

    try:
        yield watch
    finally:
        if bar is not None:
            bar.close()


def say(line: str) -> None:
    """Print a line above the bar, if there is one."""
    tqdm.write(line, file=sys.stdout)


def describe(progress: Progress) -> str:
    """Return a sweep's progress as a line: `3 of 12 runs, 410 steps/s, 12 min left`."""
    left = "" if progress.seconds_left is None else f", {duration(progress.seconds_left)} left"
    return f"{progress.done} of {progress.total} runs, {progress.steps_per_second:,.0f} steps/s{left}"


def summary_text(curves: pd.DataFrame) -> str:
    """Return how one run ended: its outcome, and the bracket of evaluations of each threshold of accuracy."""
    row = run_summary(curves)
    outcome = Outcome(row["outcome"])
    lines = [f"outcome    {outcome.value}: {outcome.message}"]
    for side, name in (("train", "training"), ("val", "validation")):
        for percent in THRESHOLDS:
            lines.append(f"{name:<10} {percent:>3} %: {_crossing(row, f'{side}_{percent}')}")
        lines.append(f"{name:<10} final accuracy {row[f'final_{side}_accuracy']:.2%}")
    return "\n".join(lines)


def _crossing(row: dict[str, Any], name: str) -> str:
    times = []
    for kind, word in (("first", "first"), ("sustained", f"for {HOLD} steps")):
        at, after = row[f"{name}_{kind}"], row[f"{name}_{kind}_after"]
        if math.isnan(at):
            times.append(f"{word}: not within {row['steps']:,} steps")
        else:
            times.append(
                f"{word}: step {at:,.0f} (not yet at {after:,.0f})" if after < at else f"{word}: step {at:,.0f}"
            )
    return "; ".join(times)


def table(records: Sequence[Record], places: dict[str, str]) -> str:
    """Return runs as a table of text: id, what was run, how it ended, and where it is kept."""
    rows = []
    for record in records:
        known = record.spec.columns()
        names = (
            "run",
            "operation",
            "p",
            "alpha",
            "model",
            "n_layers",
            "optimizer",
            "lr",
            "weight_decay",
            "steps",
            "seed",
        )
        where = places.get(record.spec.id, "cache")
        rows.append({**{name: known[name] for name in names}, "status": record.status, "where": where})
    return pd.DataFrame(rows).to_string(index=False, na_rep="-") if rows else "no runs yet; `grokcore train` makes one"


def for_spreadsheets(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with a ' before every text and name that a spreadsheet would take for a formula.

    Numbers stay what they are, negative ones too.
    """
    safe = table.copy(deep=False)
    for i, kind in enumerate(table.dtypes):
        if not pd.api.types.is_numeric_dtype(kind):
            safe.isetitem(i, table.iloc[:, i].map(_no_formula))
    return safe.set_axis([_no_formula(name) for name in table.columns], axis=1)


def _no_formula(value: Any) -> Any:
    if not isinstance(value, str) or not value:
        return value
    text = re.sub(r"[\r\n]", " ", value)  # behind which a reader may begin a new cell
    return f"'{text}" if value[0].isspace() or (text.lstrip() or " ")[0] in FORMULA else text


def cost_table(scale: str, rows: Sequence[Cost]) -> str:
    """Return what the runs of a plan take, as a table of text with a line a notebook and their sum."""
    total = Cost("all", *(sum(values) for values in zip(*(astuple(row)[1:] for row in rows), strict=True)))
    lines = [
        {
            **{"notebook": row.notebook, "runs": row.n_runs, "missing": row.n_missing},
            **{"million run-steps": f"{row.run_steps / 1e6:,.2f}", "takes": duration(row.hours * 3600)},
            "rest takes": duration(row.hours_missing * 3600) if row.n_missing else "-",
        }
        for row in [*rows, total]
    ]
    text = pd.DataFrame(lines).to_string(index=False)
    return f"plan {scale}, times estimated for this machine's processors\n{text}\n"


def audit_table(made: Audit) -> str:
    """Return an audit as text: a line a run, then what was drawn, how it is compared, and what came out."""
    lines = [
        {
            **{"run": one.run, "what": one.what, "to step": one.steps, "values": one.n_values},
            **{"largest difference": one.largest, "in": f"{one.measure} at step {one.at}" if one.n_values else "-"},
            "verdict": "agrees" if one.agreed else "DIFFERS",
        }
        for one in made.runs
    ]
    text = pd.DataFrame(lines).to_string(index=False)
    about = f"{made.versions['device']}, torch {made.versions['torch']}"
    return f"{text}\n{made.draw}; {about}\n{tolerance_sentence()}\n{made.result}"


def bench_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the benchmark's rows as text: medians over the rounds, the speed-up with its smallest and largest."""
    lines = []
    for row in rows:
        if row["case"] == "growth":
            continue
        low, high = row["spread"]["job_speedup"]
        line = {"case": row["case"], "R": row["R"], "reference ms": row["reference_ms_per_run_step"]}
        line |= {"ours ms": row["ms_per_run_step"], "speed-up": f"{row['job_speedup']:.2f} ({low:.2f} to {high:.2f})"}
        line |= {"over two references": row.get("job_speedup_vs_two_references"), "step over floor": row["floor_ratio"]}
        line |= {"evaluation": f"{row['evaluation_share']:.1%}", "gain of processes": row.get("gain_of_processes")}
        line |= {"gain of runs together": row.get("gain_of_runs")}
        sharp = row["floor_rate_share"] >= benchmark.SHARP
        line |= {"floor's rate": f"{row['floor_rate_share']:.0%}{'' if sharp else ' (not sharp)'}"}
        lines.append(line)
    text = pd.DataFrame(lines).to_string(index=False, float_format="{:.2f}".format, na_rep="-")
    about = "ms are of a run-step, evaluation included; the floor's rate is its share of that of a large product"
    return f"{rows[0]['machine']}, torch {rows[0]['torch']}\n{text}\n{about}"
