"""Every update equals its namesake in torch.optim: 20 steps in float64, three hyperparameter sets in one program."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from grokcore.engine import optimizers
from grokcore.spec.optimizers import SGD, Adam, AdamW, RMSprop
from grokcore.spec.presets import pku
from grokcore.spec.run import RunSpec, replace

Optimizer = SGD | RMSprop | Adam | AdamW
STEPS, SIZE = 20, 6
# Each case: three sets of hyperparameters, all differing.
CASES: dict[str, list[Optimizer]] = {
    "sgd": [SGD(lr=0.1), SGD(lr=0.03), SGD(lr=0.2)],
    "sgd decay": [SGD(lr=0.1, weight_decay=0.3), SGD(lr=0.05, weight_decay=0.0), SGD(lr=0.2, weight_decay=1.0)],
    "sgd momentum": [SGD(lr=0.1, momentum=0.9), SGD(lr=0.05), SGD(lr=0.02, momentum=0.5, weight_decay=0.1)],
    "sgd nesterov": [
        SGD(lr=0.1, momentum=0.9, nesterov=True),
        SGD(lr=0.1, momentum=0.9),  # with and without in one program
        SGD(lr=0.05, momentum=0.6, nesterov=True, weight_decay=0.2),
    ],
    "rmsprop": [RMSprop(lr=0.01), RMSprop(lr=0.02, smoothing=0.9), RMSprop(lr=0.01, eps=1e-2, smoothing=0.5)],
    "rmsprop momentum, decay": [
        RMSprop(lr=0.01, momentum=0.9),
        RMSprop(lr=0.01, weight_decay=0.5),
        RMSprop(lr=0.02, momentum=0.5, weight_decay=0.1, smoothing=0.9),
    ],
    "adam": [
        Adam(lr=0.01, warmup=0),
        Adam(lr=0.05, betas=(0.5, 0.9), eps=1e-3, warmup=0),
        Adam(lr=0.1, betas=(0.0, 0.999), warmup=0),
    ],
    "adam decay": [Adam(lr=0.01, weight_decay=d, warmup=w) for d, w in ((1.0, 0), (0.1, 3), (0.0, 30))],
    "adamw": [AdamW(lr=0.02, weight_decay=d, warmup=0) for d in (0.0, 0.1, 5.0)],
    "warm-up": [
        AdamW(lr=0.05, weight_decay=1.0, warmup=10),
        AdamW(lr=0.05, weight_decay=1.0, warmup=1, betas=(0.8, 0.9)),
        AdamW(lr=0.05, weight_decay=1.0, warmup=50, eps=1e-4),
    ],
    "sgd warm-up": [SGD(lr=0.1, momentum=0.9, warmup=10), SGD(lr=0.1, warmup=4), SGD(lr=0.1, momentum=0.5, warmup=0)],
    "rmsprop warm-up": [RMSprop(lr=0.02, momentum=0.9, warmup=w) for w in (10, 4, 0)],
}


def torch_optimizer(setting: Optimizer, weights: torch.Tensor) -> torch.optim.Optimizer:
    """The namesake with the same settings."""
    common: dict[str, Any] = {"lr": setting.lr, "weight_decay": setting.weight_decay}
    if isinstance(setting, SGD):
        return torch.optim.SGD([weights], momentum=setting.momentum, nesterov=setting.nesterov, **common)
    if isinstance(setting, RMSprop):
        return torch.optim.RMSprop(
            [weights], alpha=setting.smoothing, eps=setting.eps, momentum=setting.momentum, **common
        )
    kind = torch.optim.Adam if isinstance(setting, Adam) else torch.optim.AdamW
    return kind([weights], betas=setting.betas, eps=setting.eps, **common)


def problems(n_runs: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random strictly convex quadratics A/2 w·w - b·w `[R, P, P]`, `[R, P]` and where to start `[R, P]`."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(n_runs, SIZE, SIZE, generator=generator, dtype=torch.float64)
    b, start = torch.randn(2, n_runs, SIZE, generator=generator, dtype=torch.float64)
    return root @ root.mT / SIZE + 0.1 * torch.eye(SIZE), b, start


def torch_path(setting: Optimizer, A: torch.Tensor, b: torch.Tensor, start: torch.Tensor) -> list[torch.Tensor]:
    """The weights after every step of torch's optimizer on one quadratic."""
    weights = start.clone().requires_grad_()
    stepper = torch_optimizer(setting, weights)
    warmup: Callable[[int], float] = lambda step: min(step / setting.warmup, 1.0) if setting.warmup else 1.0  # noqa: E731
    schedule = torch.optim.lr_scheduler.LambdaLR(stepper, warmup)
    path = []
    for _ in range(STEPS):
        stepper.zero_grad()
        (weights @ A @ weights / 2 - b @ weights).backward()
        stepper.step()
        schedule.step()
        path.append(weights.detach().clone())
    return path


def our_paths(settings: Sequence[Optimizer]) -> list[torch.Tensor]:
    """The weights `[R, P]` after every step, all runs advanced together."""
    A, b, theta = problems(len(settings))
    scalars = optimizers.hyperparameters([RunSpec(optimizer=setting) for setting in settings], 0, STEPS)
    state, path = optimizers.init_state(settings[0].name, theta), []
    for step in range(STEPS):
        grad = (A @ theta[:, :, None])[:, :, 0] - b
        optimizers.update(
            settings[0].name, theta, grad, state, {k: torch.from_numpy(v[step]) for k, v in scalars.items()}
        )
        path.append(theta.clone())
    return path


@pytest.mark.parametrize("case", CASES)
def test_update_equals_torch_for_every_run_of_a_program(case: str) -> None:
    settings = CASES[case]
    ours = torch.stack(our_paths(settings))  # [K, R, P]
    for run, (setting, *problem) in enumerate(zip(settings, *problems(len(settings)), strict=True)):
        expected = torch.stack(torch_path(setting, *problem))
        torch.testing.assert_close(ours[:, run], expected, rtol=0, atol=1e-12, msg=lambda m, p=setting: f"{p}: {m}")
        assert (expected[-1] - problem[2]).abs().max() > 1e-3, "the run does not move"


def test_hyperparameters_depend_on_the_step_alone() -> None:
    specs = [RunSpec(optimizer=setting) for setting in CASES["warm-up"]]
    whole, some = optimizers.hyperparameters(specs, 0, 40), optimizers.hyperparameters(specs, 13, 29)
    assert whole.keys() == some.keys()
    for name, values in whole.items():
        assert values.shape == (40, 3, 1)
        np.testing.assert_array_equal(values[13:29], some[name])


def test_first_step_of_a_warm_up_has_learning_rate_zero() -> None:
    lr = optimizers.hyperparameters([RunSpec(optimizer=AdamW(lr=0.5, warmup=10))], 0, 14)["lr"].ravel()
    np.testing.assert_allclose(lr, [0.5 * step / 10 for step in range(11)] + [0.5] * 3, rtol=1e-15)
    assert (optimizers.hyperparameters([RunSpec(optimizer=SGD(lr=0.5))], 0, 3)["lr"] == 0.5).all()


def test_warm_up_from_a_tenth_of_the_rate() -> None:
    spec = replace(pku("mlp", alpha=0.3), warmup=10)
    lr = optimizers.hyperparameters([spec], 0, 12)["lr"][:, 0, 0]
    linear = torch.optim.lr_scheduler.LinearLR
    stepper = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=1e-3)
    schedule = linear(stepper, start_factor=0.1, end_factor=1.0, total_iters=10)
    for rate in lr:
        assert rate == pytest.approx(stepper.param_groups[0]["lr"], rel=1e-12)
        stepper.step()
        schedule.step()


def test_state_starts_at_zero_for_every_moment() -> None:
    theta = torch.ones(2, 3, dtype=torch.float64)
    moments = {
        setting.name: optimizers.init_state(setting.name, theta) for setting in (SGD(), RMSprop(), Adam(), AdamW())
    }
    assert {name: len(state) for name, state in moments.items()} == {"sgd": 1, "rmsprop": 2, "adam": 2, "adamw": 2}
    for state in moments.values():
        assert all(
            value.shape == (2, 3) and value.dtype == torch.float64 and not value.any() for value in state.values()
        )
