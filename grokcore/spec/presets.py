"""Runs at the settings of the four sources; data/claims.yaml names the documents and what they claim."""

from __future__ import annotations

from typing import Any

from grokcore.spec.base import SpecError, short_repr, suggestion
from grokcore.spec.networks import DecoderConfig, EncoderConfig, LSTMConfig, MLPConfig, PeriodicConfig
from grokcore.spec.optimizers import SGD, AdamW
from grokcore.spec.run import RunSpec, replace
from grokcore.spec.task import Task


def msu(operation: str = "x*y", **changes: Any) -> RunSpec:
    """Return a run at the settings of the source `msu`.

    The source is a coursework notebook by Groznyi and Melnik, "A study of the grokking effect". Its settings: p = 97,
    y from 1, α = 0.4; Grokformer of two layers, width 128, four heads; AdamW with learning rate 10⁻³, weight decay 1,
    β = (0.9, 0.98) and a warm-up over 10 steps; batches of 512, 10 000 steps.

    Args:
        operation: name of the operation, mod 97.
        **changes: fields to change, as `replace` takes them.

    Raises:
        SpecError: for a name that is not known or a value that is not allowed.

    Example:
        >>> msu("x+y", seed=3).columns()["model"]
        'grokformer'
        >>> msu().n_train, msu().steps
        (3724, 10000)
    """
    return replace(RunSpec(task=Task(operation=operation, y_min=1)), **changes)


def periodic(n_layers: int = 2, **changes: Any) -> RunSpec:
    """Return a run at the settings of the source `periodic`.

    The source is a preprint by Melnik, Yuzhakov and Vetrov, "On the Periodic Behavior of DNNs training on the example
    of the Grokking effect". Its settings: x+y mod 97, α = 0.4; a transformer with LayerNorm and without gains, width
    128, four heads; SGD with learning rate 0.1 and weight decay 10⁻³; batches of 512. The budget of 40 000 steps is our
    choice.

    Args:
        n_layers: number of blocks; the source has networks of one and of two.
        **changes: fields to change, as `replace` takes them.

    Raises:
        SpecError: for a name that is not known or a value that is not allowed.

    Example:
        >>> run = periodic(1, layernorm=False)
        >>> run.model.n_layers, run.model.layernorm, run.optimizer.name
        (1, False, 'sgd')
    """
    spec = RunSpec(
        task=Task(operation="x+y"),
        model=PeriodicConfig(n_layers=n_layers),
        optimizer=SGD(lr=0.1, weight_decay=1e-3),
        steps=40_000,
    )
    return replace(spec, **changes)


def power(operation: str = "x/y", **changes: Any) -> RunSpec:
    """Return a run at the settings of the source `power`.

    The source is slides by Kozlova, Knyazhevskii and Ivanov on Power et al. 2022, "Grokking: Generalization beyond
    overfitting on small algorithmic datasets"; the settings are those of the paper: p = 97, half the table; a causal
    decoder of two layers, width 128, four heads; AdamW with learning rate 10⁻³, weight decay 1, β = (0.9, 0.98) and a
    warm-up over 10 steps; batches of 512 or, if that is less, half the training rows; 10⁵ steps.

    Args:
        operation: name of the operation, mod 97 or on S₅.
        **changes: fields to change, as `replace` takes them.

    Raises:
        SpecError: for a name that is not known or a value that is not allowed.

    Example:
        >>> power().batch_size, power(alpha=0.05).batch_size, power(batch_size=64).batch_size
        (512, 232, 64)
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
    """Return a run at the settings of the source `pku`.

    The source is a report on a programming assignment by Wu, He and Chen. Its settings: x+y mod 97; a transformer
    encoder, an MLP or an LSTM; AdamW with learning rate 10⁻³, weight decay 0.1, 0.2 or 0.6 and a warm-up from a tenth
    of that rate. Batches of 512 and a warm-up over 10 epochs (not steps) are our choices.

    Args:
        network: "encoder", "mlp" or "lstm".
        alpha: fraction of the table that is trained on.
        epochs: budget in epochs, as the source counts; `steps` in `changes` goes before it.
        **changes: fields to change, as `replace` takes them.

    Raises:
        SpecError: for a name that is not known or a value that is not allowed.

    Example:
        >>> run = pku("mlp", alpha=0.3, epochs=100)
        >>> run.steps_per_epoch, run.steps, run.optimizer.warmup
        (6, 600, 60)
    """
    if not isinstance(network, str) or network not in PKU:
        raise SpecError(f"unknown network {network!r}; {suggestion(network, PKU)}")
    model, optimizer = PKU[network]
    spec = RunSpec(task=Task(operation="x+y"), model=model, alpha=alpha, optimizer=optimizer)
    return _with_epochs(replace(spec, **changes), epochs, changes)


def pku_sum(n_operands: int = 2, epochs: int = 300, **changes: Any) -> RunSpec:
    """Return a run at the settings of the source `pku` for sums of K operands, x₁ + … + x_K mod 19.

    See `pku` for the source. Its settings: the MLP; AdamW with learning rate 10⁻³, weight decay 0.005 and
    β = (0.9, 0.99); α = 0.9, 0.4 and 0.1 and batches of 2, 8 and 32 for K = 2, 3 and 4. The warm-up over 10 epochs is
    our choice.

    Args:
        n_operands: number of operands K: 2, 3 or 4; another number needs `alpha` and `batch_size` in `changes`.
        epochs: budget in epochs, as the source counts; `steps` in `changes` goes before it.
        **changes: fields to change, as `replace` takes them.

    Raises:
        SpecError: for a name that is not known or a value that is not allowed.

    Example:
        >>> run = pku_sum(3)
        >>> run.alpha, run.batch_size, run.task.n_rows
        (0.4, 8, 6859)
    """
    settings = {2: (0.9, 2), 3: (0.4, 8), 4: (0.1, 32)}
    if n_operands not in settings and not {"alpha", "batch_size"} <= set(changes):
        raise SpecError(f"the source has K = 2, 3 and 4, given {n_operands}: give alpha and batch_size too")
    alpha, batch_size = settings.get(n_operands, (0.5, 32))
    optimizer = AdamW(weight_decay=0.005, betas=(0.9, 0.99), warmup_start=0.1)
    task = Task(operation="x+y", p=changes.pop("p", 19), n_operands=n_operands)
    spec = RunSpec(task=task, model=MLPConfig(), alpha=alpha, batch_size=batch_size, optimizer=optimizer)
    return _with_epochs(replace(spec, **changes), epochs, changes)


def _with_epochs(spec: RunSpec, epochs: int, changes: dict[str, Any]) -> RunSpec:
    """Return a run of so many epochs with a warm-up over ten, except for steps or a warm-up named in `changes`."""
    if not isinstance(epochs, int):
        raise SpecError(f"epochs = {short_repr(epochs)} was given; a whole number is expected: use for instance 2000")
    lengths = {"steps": epochs * spec.steps_per_epoch, "warmup": 10 * spec.steps_per_epoch}
    return replace(spec, **{name: value for name, value in lengths.items() if name not in changes})
