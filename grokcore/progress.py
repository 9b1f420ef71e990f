"""How far a sweep is: workers write every evaluation to a file a run in a folder of the sweep, its meter reads them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from grokcore.spec import RunSpec

TELLING = ("alpha", "seed", "model", "optimizer", "weight_decay")  # what a reader looks for first in a run's label
MOST_SHOWN = 3


@dataclass(frozen=True)
class Progress:
    """State of a sweep: runs and steps done of all, rate, seconds left (None at first), and the curves so far.

    `curves` has the columns run, step, train_accuracy, val_accuracy and label, for the runs trained in this sweep.
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
    """Begin the file of a run: the step from which it goes on, and the evaluations it has had."""
    lines = _evaluations(curve)
    _write(folder / run, [lines[-1][0] if lines else 0, *lines])


def complete(folder: Path, run: str, curve: pd.DataFrame) -> None:
    """Write the file of a run that has ended where this folder is not seen."""
    if not (folder / run).is_file():
        _write(folder / run, [0, *_evaluations({name: curve[name].to_numpy() for name in curve})])


def _evaluations(curve: Mapping[str, np.ndarray]) -> list[list[float]]:
    values = zip(*(curve.get(name, []) for name in ("step", "train_accuracy", "val_accuracy")), strict=True)
    return [[int(step), float(train), float(val)] for step, train, val in values]


def _write(path: Path, lines: Sequence[Any]) -> None:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def note(folder: Path, step: int, rows: Mapping[str, Mapping[str, float]]) -> None:
    """Add an evaluation to the files of its runs."""
    for run, row in rows.items():
        with (folder / run).open("a") as file:
            file.write(json.dumps([step, row["train_accuracy"], row["val_accuracy"]]) + "\n")


class Meter:
    """Reports the progress of a sweep to its watcher, about once a second."""

    def __init__(self, specs: Sequence[RunSpec], folder: Path, watch: Watch | None) -> None:
        self.specs, self.folder, self.watch = specs, folder, watch
        self.done, self.began, self.latest = 0, time.monotonic(), 0.0
        self.labels = _labels(specs)

    def report(self, last: bool = False) -> None:
        """Tell the watcher, unless that was less than a second ago."""
        now = time.monotonic()
        if self.watch is None or (now - self.latest < 1 and not last):
            return
        self.latest = now
        rows: list[tuple[Any, ...]] = []
        done, earlier = 0, 0
        for spec in self.specs:
            path = self.folder / spec.id
            lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
            start, *evaluated = [json.loads(line) for line in lines if line.endswith("\n")] or [0]
            earlier += start
            rows += [(spec.id, *values, self.labels[spec.id]) for values in evaluated]
            done += evaluated[-1][0] if evaluated else 0
        curves = pd.DataFrame(rows, columns=["run", "step", "train_accuracy", "val_accuracy", "label"])
        total = sum(spec.steps for spec in self.specs)
        rate = max(done - earlier, 0) / max(now - self.began, 1e-9)
        left = (total - done) / rate if rate else None
        self.watch(Progress(self.done, len(self.specs), done, total, rate, left, curves))


def _labels(specs: Sequence[RunSpec]) -> dict[str, str]:
    """Name each run by its operation and by what tells it most of what else differs between the runs of the sweep."""
    columns = {spec.id: spec.columns() for spec in specs}
    names = [*TELLING, *(name for name in specs[0].columns() if name not in ("run", "operation", *TELLING))]
    shown = [name for name in names if len({values[name] for values in columns.values()}) > 1][:MOST_SHOWN]
    return {
        run: ", ".join([values["operation"], *(f"{name} {values[name]}" for name in shown)])
        for run, values in columns.items()
    }
