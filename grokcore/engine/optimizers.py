"""Optimizer updates on flat weights `[R, P]`, with every hyperparameter a column `[R, 1]`: one set for each run.

Each follows the formulas of its namesake in `torch.optim`; the fields are those of `grokcore.spec.optimizers`. What
depends on the step number alone (learning rate under warm-up, bias corrections) is computed on the host in float64 for
many steps at once, so that a step itself asks the host for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from grokcore.spec.run import RunSpec

State = dict[str, Tensor]
STATE = {
    "sgd": ("momentum",),
    "rmsprop": ("square", "momentum"),
    "adam": ("mean", "square"),
    "adamw": ("mean", "square"),
}


def init_state(name: str, theta: Tensor, decay_to_init: bool = False) -> State:
    """Return the state of an optimizer before its first step.

    Args:
        name: name of the optimizer.
        theta: initial weights `[R, P]`.
        decay_to_init: whether weight decay pulls the weights towards their initial values.

    Returns:
        Zeros `[R, P]` for every moment, by name, and a copy of theta as "init" if decay goes there.
    """
    state = {moment: torch.zeros_like(theta) for moment in STATE[name]}
    if decay_to_init:
        state["init"] = theta.clone()
    return state


def hyperparameters(specs: Sequence[RunSpec], start: int, stop: int) -> dict[str, np.ndarray]:
    """Return the scalars that the updates of steps start..stop-1 take.

    Args:
        specs: the runs, all with one kind of optimizer.
        start: first step.
        stop: step after the last.

    Returns:
        Float64 arrays `[K, R, 1]` of K = stop - start steps by name: `lr` (with warm-up), `weight_decay`,
        `weight_noise`, `clip_grad_norm` and what the kind of optimizer needs beside them.
    """
    t = np.arange(start, stop, dtype=np.float64)[:, None, None]
    warmup = _column(specs, "warmup")
    risen = np.where(warmup > 0, np.minimum(t / np.maximum(warmup, 1), 1), 1)  # share of the warm-up that is over
    scalars = {
        "lr": _column(specs, "lr") * (_column(specs, "warmup_start") * (1 - risen) + risen),
        "weight_decay": _column(specs, "weight_decay"),
        "weight_noise": np.array([spec.weight_noise for spec in specs])[:, None],
        "clip_grad_norm": np.array([spec.clip_grad_norm for spec in specs])[:, None],
    }
    name = specs[0].optimizer.name
    if name == "sgd":
        scalars["momentum"] = _column(specs, "momentum")
        scalars["nesterov"] = _column(specs, "nesterov")
    elif name == "rmsprop":
        scalars["momentum"] = _column(specs, "momentum")
        scalars["new_square"] = 1 - _column(specs, "smoothing")
        scalars["eps"] = _column(specs, "eps")
    else:
        scalars |= _adam_scalars(specs, t, scalars["lr"])
    shape = (stop - start, len(specs), 1)
    return {key: np.broadcast_to(value, shape).copy() for key, value in scalars.items()}


def _adam_scalars(specs: Sequence[RunSpec], t: np.ndarray, lr: np.ndarray) -> dict[str, np.ndarray]:
    """Return the scalars of Adam and AdamW beside the common ones, for steps t `[K, 1, 1]` with rates `[K, R, 1]`."""
    beta_1, beta_2 = _column(specs, "betas", 0), _column(specs, "betas", 1)
    return {
        "new_mean": 1 - beta_1,
        "new_square": 1 - beta_2,
        "eps": _column(specs, "eps"),
        "step_size": lr / (1 - beta_1 ** (t + 1)),
        "correction": np.sqrt(1 - beta_2 ** (t + 1)),
        "decay_factor": 1 - lr * _column(specs, "weight_decay"),
        "noise": lr * _column(specs, "update_noise"),
    }


def _column(specs: Sequence[RunSpec], field: str, index: int | None = None) -> np.ndarray:
    """Return a field of the optimizers, or one entry of it, as floats `[1, R, 1]`."""
    values = [getattr(spec.optimizer, field) for spec in specs]
    return np.array([float(value if index is None else value[index]) for value in values])[None, :, None]


def update(name: str, theta: Tensor, grad: Tensor, state: State, h: dict[str, Tensor]) -> None:
    """Advance the weights and the state of an optimizer by one step, in place.

    Args:
        name: name of the optimizer.
        theta: weights `[R, P]`.
        grad: gradients `[R, P]`.
        state: what `init_state` returned.
        h: scalars of this step by name, each `[R, 1]` (see `hyperparameters`).
    """
    if "init" in state:
        theta.lerp_(state["init"], 1 - h["decay_factor"])
    elif name == "adamw":
        theta.mul_(h["decay_factor"])
    else:
        grad = grad.addcmul(theta, h["weight_decay"])
    if name == "sgd":
        buffer = state["momentum"].mul_(h["momentum"]).add_(grad)
        grad = torch.where(h["nesterov"] > 0, grad + h["momentum"] * buffer, buffer)
        theta.addcmul_(grad, h["lr"], value=-1)
        return
    square = state["square"].lerp_(grad * grad, h["new_square"])
    if name == "rmsprop":
        buffer = state["momentum"].mul_(h["momentum"]).add_(grad / square.sqrt().add_(h["eps"]))
        theta.addcmul_(buffer, h["lr"], value=-1)
        return
    mean = state["mean"].lerp_(grad, h["new_mean"])
    denominator = square.sqrt().div_(h["correction"]).add_(h["eps"])
    theta.sub_(denominator.reciprocal_().mul_(mean).mul_(h["step_size"]))
