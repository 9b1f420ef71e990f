"""Which runs can be trained as one program; without torch, so that a sweep can group its runs before it loads torch."""

from __future__ import annotations

from typing import Any

from grokcore.spec.run import RunSpec


def program_key(spec: RunSpec) -> tuple[Any, ...]:
    """Return what runs of one program have in common: all but the numbers that may differ from run to run.

    Example:
        >>> program_key(RunSpec(seed=1)) == program_key(RunSpec(seed=2, alpha=0.5))
        True
        >>> program_key(RunSpec(batch_size=64)) == program_key(RunSpec())
        False
    """
    return (
        spec.task.p,
        spec.task.y_min,
        spec.task.n_operands,
        spec.batch_size,
        spec.steps,
        spec.precision,
        spec.model.model_dump_json(),
        spec.optimizer.name,
        kinds_of_noise(spec),
        getattr(spec.optimizer, "decay_to_init", False),
        spec.clip_grad_norm > 0,
    )


def kinds_of_noise(spec: RunSpec) -> tuple[bool, bool]:
    """Return whether there is noise on the weights, and whether there is noise on their updates."""
    return spec.weight_noise > 0, getattr(spec.optimizer, "update_noise", 0.0) > 0
