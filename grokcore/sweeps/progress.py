"""The progress of a sweep: its workers write every evaluation to a file per run, and its reporter reads the files."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from grokcore.spec.run import RunSpec

LABEL_COLUMNS = ("alpha", "seed", "model", "optimizer", "weight_decay")  # what a reader looks for first in a label
MOST_IN_LABEL = 3


@dataclass(frozen=True)
class Progress:
    """State of a sweep, of the runs that it trains.

    Attributes:
        done: Number of runs that have ended.
        total: Number of runs.
        steps_done: Optimizer steps taken, those before a checkpoint included.
        steps_total: Optimizer steps of all runs.
        steps_per_second: Steps taken by this sweep per second.
        seconds_left: About how long it takes from now; None as long as there is no rate.
        curves: The curves so far, one row per run and evaluation: run, step, train_accuracy, val_accuracy, label.
    """

    done: int
    total: int
    steps_done: int
    steps_total: int
    steps_per_second: float
    seconds_left: float | None
    curves: pd.DataFrame


Watch = Callable[[Progress], None]


def begin(folder: Path, run: str, curve: Mapping[str, np.ndarray]) -> None:
    """Begin the file of a run.

    Args:
        folder: The folder of the sweep.
        run: The id of the run.
        curve: The measures up to a checkpoint by name, one value per evaluation; empty at the start.
    """
    lines = _evaluations(curve)
    _write(folder / run, [lines[-1][0] if lines else 0, *lines])


def complete(folder: Path, run: str, curve: pd.DataFrame) -> None:
    """Write the file of a run that was trained by a process that does not see this folder.

    Args:
        folder: The folder of the sweep.
        run: The id of the run.
        curve: Its whole curve, one row per evaluation.
    """
    if not (folder / run).is_file():
        _write(folder / run, [0, *_evaluations({name: curve[name].to_numpy() for name in curve})])


def add_evaluation(folder: Path, step: int, rows: Mapping[str, Mapping[str, float]]) -> None:
    """Add an evaluation to the files of its runs.

    Args:
        folder: The folder of the sweep.
        step: The step that was evaluated.
        rows: The measures by run id and name.

    Raises:
        FileNotFoundError: If the folder is gone, since the sweep has ended.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"the sweep that asked for these runs has ended: {folder} is gone")
    for run, row in rows.items():
        # A full disk is an error when a record is saved.
        with contextlib.suppress(OSError), (folder / run).open("r+") as file:
            file.seek(0, os.SEEK_END)
            file.write(json.dumps([step, row["train_accuracy"], row["val_accuracy"]]) + "\n")


def _evaluations(curve: Mapping[str, np.ndarray]) -> list[list[float]]:
    values = zip(*(curve.get(name, []) for name in ("step", "train_accuracy", "val_accuracy")), strict=True)
    return [[int(step), float(train), float(val)] for step, train, val in values]


def _write(path: Path, lines: Sequence[Any]) -> None:
    temporary = path.with_name(f".{path.name}")
    with contextlib.suppress(OSError):
        temporary.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        os.replace(temporary, path)


class ProgressReporter:
    """Reports the progress of a sweep to its watcher about once a second, less often if there are thousands of runs.

    Args:
        specs: The runs that the sweep trains.
        folder: The folder to which evaluations are written.
        watch: The watcher; None if nobody watches.
    """

    def __init__(self, specs: Sequence[RunSpec], folder: Path, watch: Watch | None) -> None:
        self.folder = folder
        self.watch = watch
        self.steps = {spec.id: spec.steps for spec in specs}
        self.done = 0  # runs that have ended
        self.began = time.monotonic()
        self.next = 0.0  # when the watcher is called again
        self.labels = _labels(specs)

    def report(self, last: bool = False) -> None:
        """Call the watcher, unless it was called less than a second ago, or less than 20 times as long as that took."""
        now = time.monotonic()
        if self.watch is None or (now < self.next and not last):
            return
        rows: list[tuple[Any, ...]] = []
        done, earlier = 0, 0
        for run in self.steps:
            path = self.folder / run
            lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
            start, *evaluated = [json.loads(line) for line in lines if line.endswith("\n")] or [0]
            earlier += start
            rows += [(run, *values, self.labels[run]) for values in evaluated]
            done += evaluated[-1][0] if evaluated else 0
        curves = pd.DataFrame(rows, columns=["run", "step", "train_accuracy", "val_accuracy", "label"])
        total = sum(self.steps.values())
        rate = max(done - earlier, 0) / max(now - self.began, 1e-9)
        left = (total - done) / rate if rate else None
        self.watch(
            Progress(
                done=self.done,
                total=len(self.steps),
                steps_done=done,
                steps_total=total,
                steps_per_second=rate,
                seconds_left=left,
                curves=curves,
            )
        )
        self.next = now + max(1.0, 20 * (time.monotonic() - now))


def _labels(specs: Sequence[RunSpec]) -> dict[str, str]:
    """Return a label for each run: its operation, and the first columns in which the runs of the sweep differ."""
    columns = {spec.id: spec.columns() for spec in specs}
    names = [*LABEL_COLUMNS, *(name for name in specs[0].columns() if name not in ("run", "operation", *LABEL_COLUMNS))]
    shown = [name for name in names if len({values[name] for values in columns.values()}) > 1][:MOST_IN_LABEL]
    return {
        run: ", ".join([values["operation"], *(f"{name} {values[name]}" for name in shown)])
        for run, values in columns.items()
    }
