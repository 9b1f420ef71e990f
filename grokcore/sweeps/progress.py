"""How far a sweep is: workers write every evaluation to a file a run in a folder of the sweep, its meter reads them."""

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
    part = path.with_name(f".{path.name}")
    with contextlib.suppress(OSError):
        part.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        os.replace(part, path)


def note(folder: Path, step: int, rows: Mapping[str, Mapping[str, float]]) -> None:
    """Add an evaluation to the files of its runs. Raises FileNotFoundError if the sweep, and so its folder, is gone."""
    if not folder.is_dir():
        raise FileNotFoundError(f"the sweep that asked for these runs has ended: {folder} is gone")
    for run, row in rows.items():
        with contextlib.suppress(OSError), (folder / run).open("r+") as file:  # on a full disk a record tells of it
            file.seek(0, os.SEEK_END)
            file.write(json.dumps([step, row["train_accuracy"], row["val_accuracy"]]) + "\n")


class ProgressReporter:
    """Reports the progress of a sweep to its watcher, about once a second, of thousands of runs less often."""

    def __init__(self, specs: Sequence[RunSpec], folder: Path, watch: Watch | None) -> None:
        self.folder, self.watch = folder, watch
        self.steps = {spec.id: spec.steps for spec in specs}
        self.done, self.began, self.next = 0, time.monotonic(), 0.0
        self.labels = _labels(specs)

    def report(self, last: bool = False) -> None:
        """Tell the watcher, unless that was less than a second ago, or 20 times as long as it took."""
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
        self.watch(Progress(self.done, len(self.steps), done, total, rate, left, curves))
        self.next = now + max(1.0, 20 * (time.monotonic() - now))


def _labels(specs: Sequence[RunSpec]) -> dict[str, str]:
    """Name each run by its operation and by what tells it most of what else differs between the runs of the sweep."""
    columns = {spec.id: spec.columns() for spec in specs}
    names = [*TELLING, *(name for name in specs[0].columns() if name not in ("run", "operation", *TELLING))]
    shown = [name for name in names if len({values[name] for values in columns.values()}) > 1][:MOST_SHOWN]
    return {
        run: ", ".join([values["operation"], *(f"{name} {values[name]}" for name in shown)])
        for run, values in columns.items()
    }
