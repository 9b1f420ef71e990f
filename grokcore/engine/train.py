"""Training: R runs advance as one program, from initial weights to curves."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from grokcore.engine.program import Program, program_key
from grokcore.engine.snapshot import Snapshot
from grokcore.spec import schedule
from grokcore.spec.base import SpecError
from grokcore.spec.run import RunSpec

Status = Literal["finished", "stopped early", "nonfinite"]
Row = dict[str, float]
STOP_ACCURACY = 0.99


@dataclass
class Trained:
    """What training a run gave: its curve (an array a measure, an entry an evaluation), its end, weights by step."""

    spec: RunSpec
    curve: dict[str, np.ndarray]
    status: Status
    seconds: float  # wall time divided by the runs of the program
    engine: str  # how its steps were taken: "plain", "eager", "compiled" or "CUDA graph"
    weights: dict[int, dict[str, np.ndarray]]


def train(
    specs: Sequence[RunSpec],
    device: str = "cpu",
    *,
    plain: bool = False,
    keep_weights: Sequence[int] = (),
    watch: Callable[[int, dict[str, Row]], None] | None = None,
    checkpoint: Callable[[Callable[[], Snapshot]], None] | None = None,
    resume: Snapshot | None = None,
) -> Iterator[Trained]:
    """Train runs of one program together and yield each as it ends.

    `keep_weights` lists steps at which weights are kept; `watch(step, {run id: measures})` is called
    after each evaluation; `plain` leaves out first-token sharing, compilation and the CUDA graph.
    `checkpoint(take)` is called between evaluations, where `take()` gives the snapshot from which `resume` goes on.
    Raises SpecError if runs are given twice or do not share a program (see `program_key`).
    """
    if len({program_key(spec) for spec in specs}) != 1 or len({spec.id for spec in specs}) != len(specs):
        raise SpecError(
            f"{len(specs)} runs given; runs trained together differ, but have table shape, architecture, optimizer, "
            "batch size, steps and precision in common: train the others apart"
        )
    group = _Group(specs, resume)
    yield from group.results()
    program = Program(group.left, torch.device(device), plain=plain)
    if resume is not None:
        program.restore(resume.state, resume.since)
    evaluations = set(schedule.evaluation_steps(specs[0].steps))
    kept = {step for step in keep_weights if 0 <= step <= specs[0].steps}
    stops = sorted(stop for stop in evaluations | kept if resume is None or stop > resume.step)
    for stop, following in zip(stops, [*stops[1:], None], strict=True):
        program.advance(group.step, stop, following)
        group.step = stop
        if stop in kept:
            for run, spec in enumerate(program.specs):
                group.weights[spec.id][stop] = program.weights(run)
        if stop not in evaluations:
            continue
        rows = _rows(stop, program)
        if watch is not None:
            watch(stop, rows)
        staying = group.take(rows, program)
        yield from group.results()
        if not staying:
            return
        if len(staying) < len(program.specs):
            program.keep(staying)
        if checkpoint is not None:
            checkpoint(lambda: group.snapshot(program))


class _Group:
    """What a group of runs has given: curves, weights kept, and how the runs that have left it ended."""

    def __init__(self, specs: Sequence[RunSpec], resume: Snapshot | None) -> None:
        runs = [spec.id for spec in specs]
        known = resume or Snapshot(runs, runs)
        if known.runs != runs:
            raise SpecError(f"the snapshot is of {', '.join(known.runs)}, not of {', '.join(runs)}")
        self.specs, self.step, self.ended = list(specs), known.step, dict(known.ended)
        self.began, self.told = time.perf_counter() - known.seconds, set[str]()
        self.left = [spec for spec in specs if spec.id in known.left]
        self.curves: dict[str, list[Row]] = {run: _as_rows(known.curves.get(run, {})) for run in runs}
        self.weights = {run: dict(known.weights.get(run, {})) for run in runs}

    def take(self, rows: dict[str, Row], program: Program) -> list[int]:
        """Take in an evaluation; return the places in the program of the runs that go on."""
        seconds = round((time.perf_counter() - self.began) / len(self.specs), 2)
        for spec in self.left:
            self.curves[spec.id].append(rows[spec.id])
            status = _status(spec, self.curves[spec.id])
            if status is not None:
                self.ended[spec.id] = {"status": status, "seconds": seconds, "engine": program.engine}
        staying = [place for place, spec in enumerate(self.left) if spec.id not in self.ended]
        self.left = [self.left[place] for place in staying]
        return staying

    def results(self) -> Iterator[Trained]:
        """Yield the runs that have ended, each once."""
        for spec in self.specs:
            if spec.id in self.ended and spec.id not in self.told:
                self.told.add(spec.id)
                curve, weights = _columns(self.curves[spec.id]), self.weights[spec.id]
                yield Trained(spec, curve, weights=weights, **self.ended[spec.id])

    def snapshot(self, program: Program) -> Snapshot:
        """Return what it takes to go on from here."""
        return Snapshot(
            runs=[spec.id for spec in self.specs],
            left=[spec.id for spec in self.left],
            step=self.step,
            since=program.since,
            seconds=time.perf_counter() - self.began,
            ended=dict(self.ended),
            curves={run: _columns(rows) for run, rows in self.curves.items()},
            weights={run: dict(steps) for run, steps in self.weights.items()},
            state=program.snapshot(),
        )


def _rows(step: int, program: Program) -> dict[str, Row]:
    """Bring one evaluation and the steps before it to the host: a row of the curve for every run id."""
    evaluated = program.evaluate()
    values = dict(zip(evaluated, torch.stack([v.double() for v in evaluated.values()]).cpu().numpy(), strict=True))
    values |= program.meter.read()
    rows = {}
    for run, spec in enumerate(program.specs):
        position = {"step": step, "epoch": step / spec.steps_per_epoch}
        rows[spec.id] = position | {name: float(value[run]) for name, value in values.items()}
    return rows


def _status(spec: RunSpec, curve: list[Row]) -> Status | None:
    """Tell how a run has ended at its latest evaluation, or None if it goes on."""
    now = curve[-1]
    if not np.isfinite([now["train_loss"], now["val_loss"], now["weight_norm"]]).all():
        return "nonfinite"
    if now["step"] >= spec.steps:
        return "finished"
    if spec.early_stop is not None:
        streak = list(itertools.takewhile(lambda row: row["val_accuracy"] >= STOP_ACCURACY, reversed(curve)))
        if streak and now["step"] - streak[-1]["step"] >= spec.early_stop:
            return "stopped early"
    return None


def _columns(curve: list[Row]) -> dict[str, np.ndarray]:
    types = {"step": np.int64}
    return {name: np.array([row[name] for row in curve], dtype=types.get(name, np.float64)) for name in curve[0]}


def _as_rows(columns: dict[str, np.ndarray]) -> list[Row]:
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*(c.tolist() for c in columns.values()), strict=True)
    ]
