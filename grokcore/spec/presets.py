"""Runs at the settings of the four sources."""

from __future__ import annotations

from typing import Any

from grokcore.spec.base import SpecError, short_repr, suggestion
from grokcore.spec.networks import DecoderConfig, EncoderConfig, LSTMConfig, MLPConfig, PeriodicConfig
from grokcore.spec.optimizers import SGD, AdamW
from grokcore.spec.run import RunSpec, replace
from grokcore.spec.task import Task


def msu(operation: str = "x*y", **changes: Any) -> RunSpec:
    """Return a run at the settings of the source `msu`: p 97, y from 1, Grokformer, AdamW, batch 512, 10 000 steps."""
    return replace(RunSpec(task=Task(operation=operation, y_min=1)), **changes)


def periodic(n_layers: int = 2, **changes: Any) -> RunSpec:
    """Return a run at the settings of the source `periodic`: x+y mod 97, SGD; the budget of 40 000 steps is ours."""
    spec = RunSpec(
        task=Task(operation="x+y"),
        model=PeriodicConfig(n_layers=n_layers),
        optimizer=SGD(lr=0.1, weight_decay=1e-3),
        steps=40_000,
    )
    return replace(spec, **changes)


def power(operation: str = "x/y", **changes: Any) -> RunSpec:
    """Return a run at the settings of the paper of the source `power`: the decoder, AdamW, half the table, 10⁵ steps.

    The batch is min(512, half the training rows) unless it is given.
    """
    spec = RunSpec(task=Task(operation=operation), model=DecoderConfig(), alpha=0.5, steps=100_000)
    spec = replace(spec, **changes)
    return spec if "batch_size" in changes else replace(spec, batch_size=max(1, min(512, spec.n_train // 2)))


PKU = {
    "encoder": (EncoderConfig(), AdamW(weight_decay=0.1, warmup_start=0.1)),
    "mlp": (MLPConfig(), AdamW(weight_decay=0.2, warmup_start=0.1)),
    "lstm": (LSTMConfig(), AdamW(weight_decay=0.6, betas=(0.9, 0.99), warmup_start=0.1)),
}


def pku(network: str = "encoder", alpha: float = 0.4, epochs: int = 2000, **changes: Any) -> RunSpec:
    """Return a run at the settings of the source `pku`: x+y mod 97 on its transformer ("encoder"), "mlp" or "lstm".

    The budget is given in epochs, as the source counts. Batches of 512 and a warm-up over 10 epochs (not steps) are
    our choices.
    """
    if not isinstance(network, str) or network not in PKU:
        raise SpecError(f"unknown network {network!r}; {suggestion(network, PKU)}")
    model, optimizer = PKU[network]
    spec = RunSpec(task=Task(operation="x+y"), model=model, alpha=alpha, optimizer=optimizer)
    spec = replace(spec, **changes)
    return _in_epochs(spec, epochs, changes)


def pku_sum(n_operands: int = 2, epochs: int = 300, **changes: Any) -> RunSpec:
    """Return a run at the settings of the source `pku` for x₁ + … + x_K mod 19: the MLP, AdamW with weight decay 0.005.

    α is 0.9, 0.4 and 0.1 and the batch 2, 8 and 32 for K = 2, 3 and 4. The warm-up over 10 epochs is our choice.
    """
    settings = {2: (0.9, 2), 3: (0.4, 8), 4: (0.1, 32)}
    if n_operands not in settings and not {"alpha", "batch_size"} <= set(changes):
        raise SpecError(f"the source has K = 2, 3 and 4, given {n_operands}: give alpha and batch_size too")
    alpha, batch = settings.get(n_operands, (0.5, 32))
    optimizer = AdamW(weight_decay=0.005, betas=(0.9, 0.99), warmup_start=0.1)
    task = Task(operation="x+y", p=changes.pop("p", 19), n_operands=n_operands)
    spec = RunSpec(task=task, model=MLPConfig(), alpha=alpha, batch_size=batch, optimizer=optimizer)
    spec = replace(spec, **changes)
    return _in_epochs(spec, epochs, changes)


def _in_epochs(spec: RunSpec, epochs: int, changes: dict[str, Any]) -> RunSpec:
    """Return a run of so many epochs with a warm-up over ten, unless `changes` gave its steps or warm-up."""
    if not isinstance(epochs, int):
        raise SpecError(f"epochs = {short_repr(epochs)} was given; a whole number is expected: use for instance 2000")
    lengths = {"steps": epochs * spec.steps_per_epoch, "warmup": 10 * spec.steps_per_epoch}
    return replace(spec, **{name: value for name, value in lengths.items() if name not in changes})
