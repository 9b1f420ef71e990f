"""Training: R runs advance as one program, from initial weights to curves.

A program holds the weights of its runs as one flat tensor `[R, P]`; the modules read views of it. With R = 1 the module is called as it
is, with more it is lifted by `torch.func.vmap`. Batches, hyperparameters and measures of all steps between two evaluations are on the
device before the first of them, so that no step waits for the host.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from grokcore import measures, models, optim, tasks
from grokcore.parts import SpecError
from grokcore.spec import RunSpec

Status = Literal["finished", "stopped early", "nonfinite"]
STOP_ACCURACY = 0.99
EVALUATION_ROWS = 512
STEP_MEASURES = (
    "batch_loss",
    "batch_accuracy",
    "grad_norm",
    "step_weight_norm",
    "effective_grad",
    "effective_lr",
    "effective_grad_si",
    "effective_lr_si",
)
Watch = Callable[[int, dict[str, dict[str, float]]], None]


@dataclass
class Trained:
    """What training one run gave: its curve (one array a measure, one entry an evaluation), how it ended, weights kept by step."""

    spec: RunSpec
    curve: dict[str, np.ndarray]
    status: Status
    seconds: float
    weights: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)


def program_key(spec: RunSpec) -> tuple[Any, ...]:
    """Return what runs of one program have in common: table shape, architecture, optimizer family, batch size, budget, precision."""
    task = spec.task
    shape = (task.p, task.y_min, task.n_operands)
    return (
        *shape,
        spec.model.model_dump_json(),
        spec.optimizer.name,
        spec.batch_size,
        spec.steps,
        spec.precision,
    )


class Program:
    """R runs as one: weights, data and optimizer state on the device, and the step and the evaluation of them all."""

    def __init__(self, specs: Sequence[RunSpec], device: torch.device, share: bool) -> None:
        self.specs, self.device, self.name = list(specs), device, specs[0].optimizer.name
        networks = [models.build(spec) for spec in specs]
        self.model = networks[0].to(device)
        self.shapes = {name: p.shape for name, p in self.model.named_parameters() if p.requires_grad}
        self.theta = torch.stack([_flat(network, self.shapes) for network in networks]).to(device)
        self.buffers = {k: v.detach().to(device) for k, v in stack_module_state(networks)[1].items()}  # type: ignore[arg-type]
        self.state = optim.init_state(self.name, self.theta)
        saves = specs[0].task.p < specs[0].batch_size and getattr(self.model, "shares_first_token", False)
        self.options = {"share": True} if share and saves else {}
        self.mask = _invariant_mask(self.model, self.shapes, self.theta)
        tables = [tasks.table(spec.task) for spec in specs]
        self.tokens = torch.from_numpy(tables[0][0]).to(device)  # [rows, T]
        self.labels = torch.from_numpy(np.stack([labels for _, labels in tables])).to(device)  # [R, rows]
        train = np.zeros(self.labels.shape, dtype=bool)
        for run, spec in enumerate(specs):
            train[run, tasks.split(spec)[0]] = True
        self.train_mask = torch.from_numpy(train).to(device)
        self.answers, self.previous = torch.zeros_like(self.labels), self.theta.clone()
        self.attach()

    def attach(self) -> None:
        """Make the leaves that gradients are taken of: views of the flat weights, the module's own parameters if R = 1."""
        sizes = [shape.numel() for shape in self.shapes.values()]
        views = [
            part.view(-1, *shape)
            for part, shape in zip(self.theta.split(sizes, 1), self.shapes.values(), strict=True)
        ]
        self.single = len(self.specs) == 1
        if self.single:
            for view, (name, parameter) in zip(views, _named(self.model, self.shapes), strict=True):
                parameter.data = view[0]
        leaves = (
            [p for _, p in _named(self.model, self.shapes)]
            if self.single
            else [v.detach().requires_grad_() for v in views]
        )
        self.leaves = dict(zip(self.shapes, leaves, strict=True))

    def logits(self, tokens: Tensor) -> Tensor:
        """Return logits `[R, N, V]` of tokens `[R, N, T]`, or of `[N, T]` common to all runs."""
        if self.single:
            return self.model(tokens if tokens.ndim == 2 else tokens[0], **self.options)[None]
        lifted = vmap(
            lambda w, b, x: functional_call(self.model, (w, b), (x,), self.options),
            (0, 0, None if tokens.ndim == 2 else 0),
        )
        return lifted(self.leaves, self.buffers, tokens)

    def step(self, rows: Tensor, weight: Tensor, h: dict[str, Tensor]) -> Tensor:
        """Advance every run by one step on its rows `[R, N]`; return `STEP_MEASURES` as `[M, R]`, before the update."""
        loss, accuracy = measures.batch_measures(
            self.logits(self.tokens[rows]), self.labels.gather(1, rows), weight
        )
        grads = torch.autograd.grad(loss.sum(), list(self.leaves.values()))
        with torch.no_grad():
            grad = torch.cat([g.reshape(len(self.specs), -1) for g in grads], dim=1)
            grad_norm, grad_si = measures.norms(grad, self.mask)
            norm, norm_si = measures.norms(self.theta, self.mask)
            lr = h["lr"][:, 0]
            effective = (grad_norm * norm, lr / norm**2, grad_si * norm_si, lr / norm_si**2)
            optim.update(self.name, self.theta, grad, self.state, h)
            return torch.stack([loss.detach(), accuracy, grad_norm, norm, *effective])

    @torch.no_grad()
    def evaluate(self) -> dict[str, Tensor]:
        """Return the measures of an evaluation, each `[R]`: losses and accuracies on the whole sets, norms, what changed since the last."""
        logits = [self.logits(chunk) for chunk in self.tokens.split(EVALUATION_ROWS)]
        losses = torch.cat(
            [
                measures.row_losses(x, y)
                for x, y in zip(logits, self.labels.split(EVALUATION_ROWS, 1), strict=True)
            ],
            1,
        )
        answers = torch.cat([x.argmax(-1) for x in logits], 1)
        right, kept = (answers == self.labels).to(losses.dtype), (answers == self.answers).to(losses.dtype)
        train, val = self.train_mask, ~self.train_mask
        norm, norm_si = measures.norms(self.theta, self.mask)
        sizes = [shape.numel() for shape in self.shapes.values()]
        parts = {
            f"norm:{name}": part.norm(dim=1)
            for name, part in zip(self.shapes, self.theta.split(sizes, 1), strict=True)
        }
        out = {
            **{
                "train_loss": measures.masked_mean(losses, train),
                "train_accuracy": measures.masked_mean(right, train),
            },
            **{
                "val_loss": measures.masked_mean(losses, val),
                "val_accuracy": measures.masked_mean(right, val),
            },
            **{
                "weight_norm": norm,
                "weight_norm_sum": torch.stack(list(parts.values())).sum(0),
                "weight_norm_si": norm_si,
            },
            **{"weight_cosine": measures.cosine(self.theta, self.previous)},
            **{
                "answers_kept": measures.masked_mean(kept, train),
                "answers_kept_val": measures.masked_mean(kept, val),
                **parts,
            },
        }
        self.answers, self.previous = answers, self.theta.clone()
        return out

    def inputs(self, start: int, stop: int) -> Iterator[tuple[Tensor, Tensor, dict[str, Tensor]]]:
        """Yield rows `[R, N]`, weights `[R, N]` and hyperparameters `[R, 1]` of steps start..stop-1, sent to the device together."""
        drawn = [tasks.batches(spec, start, stop) for spec in self.specs]
        counts = np.stack([c for _, c in drawn], 1)  # [K, R]
        rows = np.zeros((stop - start, len(drawn), counts.max()), dtype=np.int64)
        for run, (chosen, _) in enumerate(drawn):
            width = min(chosen.shape[1], rows.shape[2])
            rows[:, run, :width] = chosen[:, :width]
        weight = (np.arange(rows.shape[2]) < counts[..., None]) / counts[..., None]
        send = {"device": self.device, "non_blocking": True}
        rows_on, weight_on = (
            torch.from_numpy(rows).to(**send),
            torch.from_numpy(weight).to(self.theta.dtype).to(**send),
        )
        scalars = optim.hyperparameters(self.specs, start, stop)
        h = {name: torch.from_numpy(value).to(self.theta.dtype).to(**send) for name, value in scalars.items()}
        for k in range(stop - start):
            width = int(counts[k].max())  # known to the host: nothing is computed for what all runs leave out
            yield (
                rows_on[k, :, :width],
                weight_on[k, :, :width],
                {name: value[k] for name, value in h.items()},
            )

    def weights(self, run: int) -> dict[str, np.ndarray]:
        """Return the weights of one run by name, copied to the host."""
        sizes = [shape.numel() for shape in self.shapes.values()]
        parts = self.theta[run].split(sizes)
        return {
            name: part.view(shape).cpu().numpy().copy()
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def keep(self, runs: list[int]) -> None:
        """Keep only these runs: the others have ended and leave the batch."""
        chosen = torch.tensor(runs, device=self.device)
        self.specs = [self.specs[run] for run in runs]
        for name in ("theta", "labels", "train_mask", "answers", "previous"):
            setattr(self, name, getattr(self, name)[chosen])
        self.state = {key: value[chosen] for key, value in self.state.items()}
        self.buffers = {key: value[chosen] for key, value in self.buffers.items()}
        if len(runs) == 1:
            for key, buffer in self.model.named_buffers():
                buffer.copy_(self.buffers[key][0])
        self.attach()


class Meter:
    """Mean, minimum and maximum over steps of measures `[M, R]`, kept on the device until they are read."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, values: Tensor) -> None:
        if self.count == 0:
            self.sum, self.low, self.high = values.double(), values.clone(), values.clone()
        else:
            self.sum += values
            torch.minimum(self.low, values, out=self.low)
            torch.maximum(self.high, values, out=self.high)
        self.count += 1

    def read(self, n_runs: int) -> dict[str, np.ndarray]:
        """Return `<measure>_mean`, `_min`, `_max`, each `[R]` (NaN if no step was taken), and start again."""
        empty = torch.full((len(STEP_MEASURES), n_runs), torch.nan)
        parts = (self.sum / self.count, self.low, self.high) if self.count else (empty,) * 3
        self.count = 0
        names = zip(("mean", "min", "max"), (part.cpu().double().numpy() for part in parts), strict=True)
        return {
            f"{measure}_{kind}": part[i] for kind, part in names for i, measure in enumerate(STEP_MEASURES)
        }


def train(
    specs: Sequence[RunSpec],
    device: str = "cpu",
    *,
    share: bool = True,
    keep_weights: Sequence[int] = (),
    watch: Watch | None = None,
) -> Iterator[Trained]:
    """Train runs of one program together and yield each as it ends.

    `keep_weights` lists steps at which every run's weights are kept; `watch(step, {run id: measures})` is called after each evaluation;
    `share=False` computes every position for every example. Raises SpecError if the runs do not share a program (see `program_key`).
    """
    if len({program_key(spec) for spec in specs}) != 1:
        raise SpecError(
            "these runs differ in more than numbers (table shape, architecture, optimizer, batch size or steps): train them apart"
        )
    began, program, meter = time.perf_counter(), Program(specs, torch.device(device), share), Meter()
    budget = specs[0].steps
    evaluations = set(tasks.evaluation_steps(budget))
    curves: dict[str, list[dict[str, float]]] = {spec.id: [] for spec in specs}
    weights: dict[str, dict[int, dict[str, np.ndarray]]] = {spec.id: {} for spec in specs}
    step = 0
    for stop in sorted(evaluations | {kept for kept in keep_weights if 0 <= kept <= budget}):
        for inputs in program.inputs(step, stop) if stop > step else ():
            meter.add(program.step(*inputs))
        step = stop
        if step in keep_weights:
            for run, spec in enumerate(program.specs):
                weights[spec.id][step] = program.weights(run)
        if step not in evaluations:
            continue
        rows = _rows(step, program, meter)
        for spec in program.specs:
            curves[spec.id].append(rows[spec.id])
        if watch is not None:
            watch(step, rows)
        ended = {run: _status(spec, curves[spec.id]) for run, spec in enumerate(program.specs)}
        share_of_time = (time.perf_counter() - began) / len(specs)
        for run, status in ended.items():
            if status is not None:
                spec = program.specs[run]
                yield Trained(spec, _columns(curves.pop(spec.id)), status, share_of_time, weights[spec.id])
        left = [run for run, status in ended.items() if status is None]
        if not left:
            return
        if len(left) < len(ended):
            program.keep(left)


def _rows(step: int, program: Program, meter: Meter) -> dict[str, dict[str, float]]:
    """Bring one evaluation and the steps before it to the host: a row of the curve for every run id."""
    evaluated = program.evaluate()
    values = dict(
        zip(evaluated, torch.stack([v.double() for v in evaluated.values()]).cpu().numpy(), strict=True)
    )
    values |= meter.read(len(program.specs))
    return {
        spec.id: {
            "step": step,
            "epoch": step / tasks.steps_per_epoch(spec),
            **{name: float(value[run]) for name, value in values.items()},
        }
        for run, spec in enumerate(program.specs)
    }


def _status(spec: RunSpec, curve: list[dict[str, float]]) -> Status | None:
    """Tell how a run has ended after its latest evaluation, or None if it goes on."""
    now = curve[-1]
    if not np.isfinite([now["train_loss"], now["val_loss"], now["weight_norm"]]).all() or np.isinf(
        now["batch_loss_mean"]
    ):
        return "nonfinite"
    if now["step"] >= spec.steps:
        return "finished"
    if spec.early_stop is not None:
        low = [row["step"] for row in curve if row["val_accuracy"] < STOP_ACCURACY]
        if now["val_accuracy"] >= STOP_ACCURACY and now["step"] - max(low, default=0) > spec.early_stop:
            return "stopped early"
    return None


def _columns(curve: list[dict[str, float]]) -> dict[str, np.ndarray]:
    return {
        name: np.array([row[name] for row in curve], dtype=np.int64 if name == "step" else np.float64)
        for name in curve[0]
    }


def _named(model: nn.Module, shapes: dict[str, torch.Size]) -> list[tuple[str, nn.Parameter]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if name in shapes]


def _flat(model: nn.Module, shapes: dict[str, torch.Size]) -> Tensor:
    return torch.cat([parameter.detach().flatten() for _, parameter in _named(model, shapes)])


def _invariant_mask(model: nn.Module, shapes: dict[str, torch.Size], theta: Tensor) -> Tensor | None:
    names = set(getattr(model, "scale_invariant", ()))
    parts = [torch.full((shape.numel(),), float(name in names)) for name, shape in shapes.items()]
    return torch.cat(parts).to(theta) if names else None
