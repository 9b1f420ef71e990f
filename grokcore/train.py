"""Training: R runs advance as one program, from initial weights to curves."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from grokcore import tasks
from grokcore.parts import SpecError
from grokcore.program import Program, program_key
from grokcore.spec import RunSpec

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
) -> Iterator[Trained]:
    """Train runs of one program together and yield each as it ends.

    `keep_weights` lists steps at which weights are kept; `watch(step, {run id: measures})` is called
    after each evaluation; `plain` leaves out first-token sharing, compilation and the CUDA graph.
    Raises SpecError if runs are given twice or do not share a program (see `program_key`).
    """
    if len({program_key(spec) for spec in specs}) != 1 or len({spec.id for spec in specs}) != len(specs):
        raise SpecError(
            f"{len(specs)} runs given; runs trained together differ, but have table shape, architecture, optimizer, "
            "batch size, steps and precision in common: train the others apart"
        )
    began, program = time.perf_counter(), Program(specs, torch.device(device), plain=plain)
    evaluations = set(tasks.evaluation_steps(specs[0].steps))
    kept = {step for step in keep_weights if 0 <= step <= specs[0].steps}
    curves: dict[str, list[Row]] = {spec.id: [] for spec in specs}
    weights: dict[str, dict[int, dict[str, np.ndarray]]] = {spec.id: {} for spec in specs}
    step = 0
    stops = sorted(evaluations | kept)
    for stop, following in zip(stops, [*stops[1:], None], strict=True):
        program.advance(step, stop, following)
        step = stop
        if step in kept:
            for run, spec in enumerate(program.specs):
                weights[spec.id][step] = program.weights(run)
        if step not in evaluations:
            continue
        rows = _rows(step, program)
        for run, row in rows.items():
            curves[run].append(row)
        if watch is not None:
            watch(step, rows)
        ends: list[Status | None] = [_status(spec, curves[spec.id]) for spec in program.specs]
        seconds = (time.perf_counter() - began) / len(specs)
        for spec, status in zip(program.specs, ends, strict=True):
            if status is not None:
                yield Trained(spec, _columns(curves[spec.id]), status, seconds, program.engine, weights[spec.id])
        left = [run for run, status in enumerate(ends) if status is None]
        if not left:
            return
        if len(left) < len(ends):
            program.keep(left)


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
