"""Training: R runs advance as one program, from initial weights to curves.

`train` is the loop. `program` holds what it advances, `grokcore.spec.schedule` says when runs are evaluated, and
`grokcore.sweeps` decides which runs are trained together and keeps their results.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from grokcore.engine.compatibility import program_key
from grokcore.engine.program import Program
from grokcore.engine.snapshot import Checkpoints, Snapshot
from grokcore.spec import schedule
from grokcore.spec.base import SpecError
from grokcore.spec.run import RunSpec

Status = Literal["finished", "stopped early", "nonfinite"]
Row = dict[str, float]
STOP_ACCURACY = 0.99


@dataclass
class Trained:
    """A run that has ended.

    Attributes:
        spec: the run.
        curve: an array for each measure, with an entry for each evaluation.
        status: how the run ended.
        seconds: wall time of its program divided by the number of runs.
        engine: how its steps were taken: "plain", "eager", "compiled" or "CUDA graph".
        weights: weights kept, by step and name.

    Example:
        >>> (run,) = train([RunSpec(steps=2, batch_size=64)])
        >>> run.status, run.curve["step"].tolist()
        ('finished', [0, 1, 2])
    """

    spec: RunSpec
    curve: dict[str, np.ndarray]
    status: Status
    seconds: float
    engine: str
    weights: dict[int, dict[str, np.ndarray]]


def train(
    specs: Sequence[RunSpec],
    device: str = "cpu",
    *,
    plain: bool = False,
    keep_weights: Sequence[int] = (),
    watch: Callable[[int, dict[str, Row]], None] | None = None,
    checkpoints: Checkpoints | None = None,
) -> Iterator[Trained]:
    """Train runs of one program together and yield each when it ends.

    Args:
        specs: different runs with one `program_key`.
        device: "cpu", or a CUDA device by its name in torch.
        plain: leave out first-token sharing, compilation and CUDA graphs.
        keep_weights: steps at which weights are kept; steps beyond the budget are ignored.
        watch: called after each evaluation with its step and the measures of every run, by id.
        checkpoints: where to resume, and what to call between evaluations.

    Raises:
        SpecError: if a run is given twice, if runs cannot share a program, or if the snapshot is of other runs.
    """
    checkpoints = checkpoints or Checkpoints()
    group = _Group(specs, checkpoints.resume)
    yield from group.results()
    program = Program(group.active, torch.device(device), plain=plain)
    if checkpoints.resume is not None:
        program.restore(checkpoints.resume.state, checkpoints.resume.since)
    evaluations = set(schedule.evaluation_steps(specs[0].steps))
    kept = {step for step in keep_weights if 0 <= step <= specs[0].steps}
    stops = sorted(stop for stop in evaluations | kept if checkpoints.resume is None or stop > group.step)
    for stop, following in zip(stops, [*stops[1:], None], strict=True):
        program.advance(group.step, stop, following)
        group.step = stop
        if stop in kept:
            group.keep_weights(program)
        if stop not in evaluations:
            continue
        rows = _rows(stop, program)
        if watch is not None:
            watch(stop, rows)
        active = group.add(rows, program.engine)
        yield from group.results()
        if not active:
            return
        if len(active) < len(program.specs):
            program.keep(active)
        if checkpoints.save is not None:
            checkpoints.save(lambda: group.snapshot(program))


class _Group:
    """The results of runs trained together: curves, weights kept, and how the runs ended that have ended."""

    def __init__(self, specs: Sequence[RunSpec], resume: Snapshot | None) -> None:
        if len({program_key(spec) for spec in specs}) != 1 or len({spec.id for spec in specs}) != len(specs):
            raise SpecError(
                f"{len(specs)} runs given; runs trained together differ, but have table shape, architecture, "
                "optimizer, batch size, steps and precision in common: train the others apart"
            )
        runs = [spec.id for spec in specs]
        start = resume or Snapshot(runs, runs)
        if start.runs != runs:
            raise SpecError(f"the snapshot is of {', '.join(start.runs)}, not of {', '.join(runs)}")
        self.specs, self.step, self.ended = list(specs), start.step, dict(start.ended)
        self.began, self.yielded = time.perf_counter() - start.seconds, set[str]()
        self.active = [spec for spec in specs if spec.id in start.left]
        self.curves: dict[str, list[Row]] = {run: _as_rows(start.curves.get(run, {})) for run in runs}
        self.weights = {run: dict(start.weights.get(run, {})) for run in runs}

    def add(self, rows: dict[str, Row], engine: str) -> list[int]:
        """Add an evaluation; return the indices, in the program, of the runs that go on."""
        seconds = round((time.perf_counter() - self.began) / len(self.specs), 2)
        for spec in self.active:
            self.curves[spec.id].append(rows[spec.id])
            status = _status(spec, self.curves[spec.id])
            if status is not None:
                self.ended[spec.id] = {"status": status, "seconds": seconds, "engine": engine}
        indices = [index for index, spec in enumerate(self.active) if spec.id not in self.ended]
        self.active = [self.active[index] for index in indices]
        return indices

    def keep_weights(self, program: Program) -> None:
        """Keep the weights of the runs in training at this step."""
        for run, spec in enumerate(program.specs):
            self.weights[spec.id][self.step] = program.weights(run)

    def results(self) -> Iterator[Trained]:
        """Yield the runs that have ended, each once."""
        for spec in self.specs:
            if spec.id in self.ended and spec.id not in self.yielded:
                self.yielded.add(spec.id)
                curve, weights = _columns(self.curves[spec.id]), self.weights[spec.id]
                yield Trained(spec, curve, weights=weights, **self.ended[spec.id])

    def snapshot(self, program: Program) -> Snapshot:
        """Return all that the further training of the group depends on."""
        return Snapshot(
            runs=[spec.id for spec in self.specs],
            left=[spec.id for spec in self.active],
            step=self.step,
            since=program.since,
            seconds=time.perf_counter() - self.began,
            ended=dict(self.ended),
            curves={run: _columns(rows) for run, rows in self.curves.items()},
            weights={run: dict(steps) for run, steps in self.weights.items()},
            state=program.snapshot(),
        )


def _rows(step: int, program: Program) -> dict[str, Row]:
    """Return a row of the curve for every run id: an evaluation and the steps before it, brought to the host."""
    evaluated = program.evaluate()
    values = dict(zip(evaluated, torch.stack([v.double() for v in evaluated.values()]).cpu().numpy(), strict=True))
    values |= program.meter.read()
    rows = {}
    for run, spec in enumerate(program.specs):
        position = {"step": step, "epoch": step / spec.steps_per_epoch}
        rows[spec.id] = position | {name: float(value[run]) for name, value in values.items()}
    return rows


def _status(spec: RunSpec, curve: list[Row]) -> Status | None:
    """Return how a run has ended at its latest evaluation, or None if it goes on."""
    latest = curve[-1]
    if not np.isfinite([latest["train_loss"], latest["val_loss"], latest["weight_norm"]]).all():
        return "nonfinite"
    if latest["step"] >= spec.steps:
        return "finished"
    if spec.early_stop is not None:
        streak = list(itertools.takewhile(lambda row: row["val_accuracy"] >= STOP_ACCURACY, reversed(curve)))
        if streak and latest["step"] - streak[-1]["step"] >= spec.early_stop:
            return "stopped early"
    return None


def _columns(curve: list[Row]) -> dict[str, np.ndarray]:
    """Return a curve as an array for each measure."""
    types = {"step": np.int64}
    return {name: np.array([row[name] for row in curve], dtype=types.get(name, np.float64)) for name in curve[0]}


def _as_rows(curve: dict[str, np.ndarray]) -> list[Row]:
    """Return a curve as a row for each evaluation."""
    columns = [values.tolist() for values in curve.values()]
    return [dict(zip(curve, row, strict=True)) for row in zip(*columns, strict=True)]
