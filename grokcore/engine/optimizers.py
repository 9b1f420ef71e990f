"""Optimizer updates on flat weights `[R, P]`, every hyperparameter a column `[R, 1]`: one set a run.

Each follows the formulas of its namesake in `torch.optim`. What depends on the step number alone (learning rate under
warm-up, bias corrections) is computed on the host in float64 for many steps at once, so that a step itself asks the
host for nothing.
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
    """Return zeros shaped like the weights theta `[R, P]` for every moment, and theta itself if decay goes there."""
    state = {key: torch.zeros_like(theta) for key in STATE[name]}
    return state | ({"init": theta.clone()} if decay_to_init else {})


def hyperparameters(specs: Sequence[RunSpec], start: int, stop: int) -> dict[str, np.ndarray]:
    """Return the scalars of the update for steps start..stop-1, float64 `[K, R, 1]`; a warm-up rises linearly."""
    t = np.arange(start, stop, dtype=np.float64)[:, None, None]

    def column(field: str, item: int | None = None) -> np.ndarray:
        values = [getattr(spec.optimizer, field) for spec in specs]
        return np.array([float(v if item is None else v[item]) for v in values])[None, :, None]

    warmup, name = column("warmup"), specs[0].optimizer.name
    risen = np.where(warmup > 0, np.minimum(t / np.maximum(warmup, 1), 1), 1)
    lr = column("lr") * (column("warmup_start") * (1 - risen) + risen)
    out = {"lr": lr, "weight_decay": column("weight_decay")}
    out |= {key: np.array([getattr(s, key) for s in specs])[:, None] for key in ("weight_noise", "clip_grad_norm")}
    if name in ("sgd", "rmsprop"):
        out["momentum"] = column("momentum")
    if name == "sgd":
        out["nesterov"] = column("nesterov")
    if name == "rmsprop":
        out |= {"new_square": 1 - column("smoothing"), "eps": column("eps")}
    if name in ("adam", "adamw"):
        beta_1, beta_2 = column("betas", 0), column("betas", 1)
        out |= {"new_mean": 1 - beta_1, "new_square": 1 - beta_2, "eps": column("eps")}
        out |= {
            "step_size": lr / (1 - beta_1 ** (t + 1)),
            "correction": np.sqrt(1 - beta_2 ** (t + 1)),
            "keep": 1 - lr * out["weight_decay"],
            "noise": lr * column("update_noise"),
        }
    return {key: np.broadcast_to(value, (stop - start, len(specs), 1)).copy() for key, value in out.items()}


def update(name: str, theta: Tensor, grad: Tensor, state: State, h: dict[str, Tensor]) -> None:
    """Advance weights theta `[R, P]` and state by one step, in place; `h` holds the scalars `[R, 1]` of this step."""
    if "init" in state:
        theta.lerp_(state["init"], 1 - h["keep"])
    elif name == "adamw":
        theta.mul_(h["keep"])
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
