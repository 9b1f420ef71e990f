"""What the command line shows: a live bar for training, and results as text.

Modules are imported where they are used, so that a command waits for none that it does not need.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from grokcore.report.durations import duration

if TYPE_CHECKING:
    import pandas as pd
    from tqdm import tqdm

    from grokcore.report.plan import Cost
    from grokcore.sweeps.audit import Audit
    from grokcore.sweeps.progress import Progress, Watch

BAR = "{percentage:3.0f} %|{bar}| {postfix}"


@contextlib.contextmanager
def training_bar() -> Iterator[Watch]:
    """Give a `watch` for a sweep that draws runs, steps a second and time left on stderr."""
    from tqdm import tqdm

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
    from tqdm import tqdm

    tqdm.write(line, file=sys.stdout)


def describe(progress: Progress) -> str:
    """Return a sweep's progress as a line: `3 of 12 runs, 410 steps/s, 12 min left`."""
    left = "" if progress.seconds_left is None else f", {duration(progress.seconds_left)} left"
    return f"{progress.done} of {progress.total} runs, {progress.steps_per_second:,.0f} steps/s{left}"


def text_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows as a table of text, its columns aligned to the right.

    Args:
        rows: The cells of each row by the name of the column; all rows have the columns of the first. A float is shown
            with six digits at most, None and NaN as `-`.

    Example:
        >>> print(text_table([{"run": "a", "lr": 0.001}, {"run": "b", "lr": None}]))
        run    lr
          a 0.001
          b     -
    """
    cells = [list(rows[0]), *([_cell(row[name]) for name in rows[0]] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(" ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if text.isprintable() else repr(text)[1:-1]  # a line end or a terminal's escape as Python writes it


def summary_text(curves: pd.DataFrame) -> str:
    """Return how one run ended: its outcome, and the bracket of evaluations of each threshold of accuracy.

    Args:
        curves: The run as a tidy frame, a row an evaluation.
    """
    from grokcore.analysis.crossings import THRESHOLDS
    from grokcore.analysis.curves import Outcome, run_summary

    row = run_summary(curves)
    outcome = Outcome(row["outcome"])
    lines = [f"outcome    {outcome.value}: {outcome.message}"]
    for side, name in (("train", "training"), ("val", "validation")):
        for percent in THRESHOLDS:
            lines.append(f"{name:<10} {percent:>3} %: {_crossing(row, f'{side}_{percent}')}")
        lines.append(f"{name:<10} final accuracy {row[f'final_{side}_accuracy']:.2%}")
    return "\n".join(lines)


def _crossing(row: dict[str, Any], name: str) -> str:
    from grokcore.analysis.crossings import HOLD

    times = []
    for kind, word in (("first", "first"), ("sustained", f"for {HOLD} steps")):
        step, step_before = row[f"{name}_{kind}"], row[f"{name}_{kind}_after"]
        if math.isnan(step):
            times.append(f"{word}: not within {row['steps']:,} steps")
        elif step_before < step:
            times.append(f"{word}: step {step:,.0f} (not yet at {step_before:,.0f})")
        else:
            times.append(f"{word}: step {step:,.0f}")
    return "; ".join(times)


def runs_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return runs as a table of text: id, what was run, how it ended, and where it is kept.

    Args:
        rows: What `Store.listing` returns.
    """
    return text_table(rows) if rows else "no runs yet; `grokcore train` makes one"


def cost_table(scale: str, costs: Sequence[Cost]) -> str:
    """Return what the runs of a plan take, as a table of text with a line a notebook and their sum.

    Args:
        scale: The plan, "cpu" or "full".
        costs: What the runs of each notebook take.
    """
    from grokcore.report.plan import Cost

    total = Cost(
        notebook="all",
        n_runs=sum(cost.n_runs for cost in costs),
        n_missing=sum(cost.n_missing for cost in costs),
        run_steps=sum(cost.run_steps for cost in costs),
        hours=sum(cost.hours for cost in costs),
        hours_missing=sum(cost.hours_missing for cost in costs),
    )
    rows = [
        {
            "notebook": cost.notebook,
            "runs": cost.n_runs,
            "missing": cost.n_missing,
            "million run-steps": f"{cost.run_steps / 1e6:,.2f}",
            "takes": duration(cost.hours * 3600),
            "rest takes": duration(cost.hours_missing * 3600) if cost.n_missing else "-",
        }
        for cost in [*costs, total]
    ]
    return f"plan {scale}, times estimated for this machine's processors\n{text_table(rows)}\n"


def audit_table(audit: Audit) -> str:
    """Return an audit as text: a line a run, then what was drawn, how it is compared, and the result.

    Args:
        audit: Recorded runs trained again, and compared.
    """
    from grokcore.sweeps.comparison import tolerance_sentence

    rows = [
        {
            "run": run.run,
            "what": run.what,
            "to step": run.steps,
            "values": run.n_values,
            "largest difference": run.largest,
            "in": f"{run.measure} at step {run.at}" if run.n_values else "-",
            "verdict": "agrees" if run.agreed else "DIFFERS",
        }
        for run in audit.runs
    ]
    machine = f"{audit.versions['device']}, torch {audit.versions['torch']}"
    return f"{text_table(rows)}\n{audit.draw}; {machine}\n{tolerance_sentence()}\n{audit.result}"


def bench_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the benchmark's rows as text: medians over the rounds, the speed-up with its smallest and largest.

    Args:
        rows: What `benchmark.run` returns; those that show how a step grows are left out.
    """
    from grokcore.bench.benchmark import SHARP

    lines = []
    for row in rows:
        if row["case"] == "growth":
            continue
        low, high = row["spread"]["job_speedup"]
        sharp = row["matmul_bound_rate_share"] >= SHARP
        lines.append(
            {
                "case": row["case"],
                "R": row["R"],
                "reference ms": _two_digits(row["reference_ms_per_run_step"]),
                "ours ms": _two_digits(row["ms_per_run_step"]),
                "speed-up": f"{row['job_speedup']:.2f} ({low:.2f} to {high:.2f})",
                "over two references": _two_digits(row.get("job_speedup_vs_two_references")),
                "step over matmul bound": _two_digits(row["matmul_bound_ratio"]),
                "evaluation": f"{row['evaluation_share']:.1%}",
                "gain of processes": _two_digits(row.get("gain_of_processes")),
                "gain of runs together": _two_digits(row.get("gain_of_runs")),
                "matmul bound's rate": f"{row['matmul_bound_rate_share']:.0%}{'' if sharp else ' (not sharp)'}",
            }
        )
    about = (
        "ms are those of a run-step, with its evaluations; the matmul bound is the time of the matrix products alone, "
        "its rate a share of the rate of one large product"
    )
    return f"{rows[0]['machine']}, torch {rows[0]['torch']}\n{text_table(lines)}\n{about}"


def _two_digits(number: float | None) -> str:
    return "-" if number is None else f"{number:.2f}"
