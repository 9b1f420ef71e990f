"""Run specifications: what is trained, frozen and validated, and the id that names it.

`presets` makes the specifications of the four sources, `grokcore.engine.train` trains them.

Shape legend of the whole package: R runs trained at once, N examples, T tokens of an example (the operands),
V vocabulary (logits), D width of the residual stream, H heads, P weights of one network, K steps.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from grokcore.spec.base import MAX_STEPS, FrozenModel, Seed, SpecError, short_repr, suggestion
from grokcore.spec.networks import MODELS, GrokformerConfig, ModelConfig, UserModelConfig
from grokcore.spec.optimizers import OPTIMIZERS, SGD, Adam, AdamW, RMSprop
from grokcore.spec.task import Task

MODEL_COLUMNS = (
    "n_layers",
    "d_model",
    "n_heads",
    "d_mlp",
    "layernorm",
    "affine",
    "norm_first",
    "readout",
    "operator_tokens",
)
OPTIMIZER_COLUMNS = ("lr", "weight_decay", "momentum", "warmup")


def _as_part(field: str, value: Any, classes: dict[str, type[FrozenModel]]) -> Any:
    """Return the model or optimizer that a part, its name or a dict of its fields stands for."""
    if isinstance(value, tuple(classes.values())):
        return value
    value = {"name": value} if isinstance(value, str) else value
    name = value.get("name") if isinstance(value, dict) else value
    if not isinstance(value, dict) or not isinstance(name, str) or name not in classes:
        names = suggestion(name if isinstance(name, str) else "", classes)
        raise SpecError(f"unknown {field} {short_repr(name)}; {names}")
    if not all(isinstance(key, str) for key in value):
        raise SpecError(f"the fields of a {field} have names; given {short_repr(list(value))}")
    return classes[name](**value)


class RunSpec(FrozenModel):
    """One training run: task, model, optimizer, and how it is split, batched, seeded and ended.

    Attributes:
        task: the operation and its table.
        model: the network; its name or a dict of its fields is taken too.
        optimizer: the optimizer; its name or a dict of its fields is taken too.
        alpha: fraction of the table that is trained on, 0 < alpha < 1.
        batch_size: examples per batch, 1 to 10⁸; never more than the training rows are taken.
        steps: budget in optimizer steps, 1 to 10⁸.
        seed: seed from which split, initial weights, batch order and noise (dropout too) are derived, 0 to 2⁶³ - 1.
        split_seed: seed of the split in place of `seed`, or None.
        init_seed: seed of the initial weights in place of `seed`, or None.
        batch_seed: seed of the batch order in place of `seed`, or None.
        noise_seed: seed of noise and dropout in place of `seed`, or None.
        weight_noise: standard deviation ≥ 0 of Gaussian noise on every weight in the forward pass, drawn anew at each
            step (Power et al. 2022, A.1.2).
        clip_grad_norm: L2 norm to which a longer gradient (without weight decay) is scaled down, as by
            `torch.nn.utils.clip_grad_norm_`; 0 leaves gradients as they are.
        mirrors_together: whether x ∘ y and y ∘ x are on the same side of the split, so that no validation row
            has its mirror image in the training set.
        early_stop: end the run this many steps (1 to 10⁸) after validation accuracy reached 99 %, if it stayed there;
            None trains to the end of the budget.
        precision: floating-point type of weights and arithmetic, "float32" or "float64".

    Example:
        >>> RunSpec(task=Task(operation="x+y", p=23), optimizer="sgd", steps=500).n_train
        211
    """

    task: Task = Field(default_factory=Task)
    model: ModelConfig = Field(default_factory=GrokformerConfig)
    optimizer: SGD | RMSprop | Adam | AdamW = Field(default_factory=AdamW)
    alpha: float = Field(default=0.4, gt=0, lt=1)
    batch_size: int = Field(default=512, ge=1, le=MAX_STEPS)
    steps: int = Field(default=10_000, ge=1, le=MAX_STEPS)
    seed: Seed = 0
    split_seed: Seed | None = None
    init_seed: Seed | None = None
    batch_seed: Seed | None = None
    noise_seed: Seed | None = None
    weight_noise: float = Field(default=0.0, ge=0)
    clip_grad_norm: float = Field(default=0.0, ge=0)
    mirrors_together: bool = False
    early_stop: int | None = Field(default=None, ge=1, le=MAX_STEPS)
    precision: Literal["float32", "float64"] = "float32"

    @field_validator("model", mode="before")
    @classmethod
    def _known_model(cls, value: Any) -> Any:
        return _as_part("model", value, MODELS)

    @field_validator("optimizer", mode="before")
    @classmethod
    def _known_optimizer(cls, value: Any) -> Any:
        return _as_part("optimizer", value, OPTIMIZERS)

    @model_validator(mode="after")
    def _splits(self) -> RunSpec:
        if not 0 < self.n_train < self.task.n_rows:
            raise ValueError(
                f"alpha = {self.alpha} of {self.task.n_rows} rows leaves {self.n_train} for training and "
                f"{self.task.n_rows - self.n_train} for validation: both need at least one"
            )
        if self.mirrors_together and self.task.n_operands != 2:
            raise ValueError(
                f"mirrors_together is defined for two operands, given {self.task.n_operands}: leave it out"
            )
        return self

    @property
    def n_train(self) -> int:
        """Number of training rows: int(alpha · rows), as in the sources."""
        return int(self.alpha * self.task.n_rows)

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches of one pass over the training set; the last one may be smaller."""
        return -(-self.n_train // self.batch_size)

    @property
    def dropout(self) -> float:
        """Dropout rate of the network, 0 where it has none."""
        return getattr(self.model, "dropout", 0.0)

    @property
    def draws_noise(self) -> bool:
        """Whether a step draws random numbers: dropout, noise on the weights or on their updates."""
        return self.dropout > 0 or self.weight_noise > 0 or getattr(self.optimizer, "update_noise", 0.0) > 0

    @property
    def id(self) -> str:
        """Name of the run: sixteen hex digits, the hash of every field that is not at its default."""
        return hashlib.sha256(json.dumps(_canonical(self), sort_keys=True).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Return the whole specification as plain JSON values; `RunSpec.model_validate` reads it back."""
        return self.model_dump(mode="json")

    def derived_seed(self, use: Literal["split", "init", "batch", "noise"]) -> int:
        """Return the 63-bit seed of one use: a hash of the use and of its own seed, or of `seed` if it has none."""
        own = getattr(self, f"{use}_seed")
        text = f"{use}:{self.seed if own is None else own}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

    def columns(self) -> dict[str, Any]:
        """Return the specification flat, as the first columns of a tidy frame; None where a part has no such field."""
        operation = self.task.operation
        if self.task.table is not None:
            operation += ":" + hashlib.sha256(json.dumps(self.task.table).encode()).hexdigest()[:6]
        columns: dict[str, Any] = {
            "run": self.id,
            "operation": operation,
            "p": self.task.p,
            "y_min": self.task.y_min,
            "n_operands": self.task.n_operands,
            "model": self.model.class_name if isinstance(self.model, UserModelConfig) else self.model.name,
        }
        columns |= {name: getattr(self.model, name, None) for name in MODEL_COLUMNS}
        columns |= {"dropout": self.dropout, "optimizer": self.optimizer.name}
        columns |= {name: getattr(self.optimizer, name, None) for name in OPTIMIZER_COLUMNS}
        return columns | {
            "update_noise": float(getattr(self.optimizer, "update_noise", 0)),
            "decay_to_init": float(getattr(self.optimizer, "decay_to_init", 0)),
            "alpha": self.alpha,
            "batch_size": self.batch_size,
            "steps": self.steps,
            "seed": self.seed,
            "weight_noise": self.weight_noise,
            "clip_grad_norm": self.clip_grad_norm,
            "mirrors_together": self.mirrors_together,
            "early_stop": self.early_stop,
            "precision": self.precision,
            "own_seeds": self._has_own_seeds(),
        }

    def _has_own_seeds(self) -> bool:
        """Return whether split, initial weights, batches or noise have a seed of their own."""
        return any(getattr(self, f"{use}_seed") is not None for use in ("split", "init", "batch", "noise"))


def _canonical(part: BaseModel) -> dict[str, Any]:
    """Return the fields that differ from their default, and always the parts and the names of models and optimizers."""
    fields = {}
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        if isinstance(value, BaseModel):
            fields[name] = _canonical(value)
        elif not field.exclude and (name == "name" or value != field.get_default(call_default_factory=True)):
            fields[name] = value
    return fields


def replace(spec: RunSpec, /, **changes: Any) -> RunSpec:
    """Return a copy of a run with fields changed; names of fields of its task, model and optimizer are taken too.

    Args:
        spec: the run, which is not changed.
        **changes: new values by field name. A part given by name or as a whole is replaced first; fields of parts are
            changed then.

    Returns:
        The changed run.

    Raises:
        SpecError: for a name that neither the run nor its task, model or optimizer has, or a value that is not allowed.

    Example:
        >>> changed = replace(RunSpec(), p=23, weight_decay=0.0, seed=1)
        >>> changed.task.p, changed.optimizer.weight_decay, changed.seed
        (23, 0.0, 1)
        >>> replace(RunSpec(), optimizer="sgd", momentum=0.9).optimizer.momentum
        0.9
    """
    values = {name: changes.pop(name, getattr(spec, name)) for name in RunSpec.model_fields}
    values["model"] = _as_part("model", values["model"], MODELS)
    values["optimizer"] = _as_part("optimizer", values["optimizer"], OPTIMIZERS)
    parts = [name for name in ("task", "model", "optimizer") if isinstance(values[name], BaseModel)]
    valid_names = list(RunSpec.model_fields)
    for name in parts:
        part = values[name]
        valid_names += [field for field in type(part).model_fields if field not in ("name", "module_class")]
        new = {field: changes.pop(field) for field in list(changes) if field in type(part).model_fields}
        if new:
            module_class = {key: value for key, value in part if key == "module_class"}  # not in the canonical fields
            fields = _canonical(part) | module_class | new
            values[name] = type(part)(**fields)
    if changes:
        unknown = next(iter(changes))
        raise SpecError(f"this run has no field {short_repr(unknown)}; {suggestion(unknown, valid_names)}")
    return RunSpec(**values)


def grid(spec: RunSpec, /, **values: Iterable[Any]) -> list[RunSpec]:
    """Return a run for every combination of values, in the order of the arguments: the last varies fastest.

    Args:
        spec: the run that is changed.
        **values: a list of values for each field name that `replace` takes.

    Raises:
        SpecError: as `replace`.

    Example:
        >>> [(spec.alpha, spec.seed) for spec in grid(RunSpec(), alpha=[0.3, 0.4], seed=range(2))]
        [(0.3, 0), (0.3, 1), (0.4, 0), (0.4, 1)]
    """
    lists = [list(field_values) for field_values in values.values()]
    return [replace(spec, **dict(zip(values, chosen, strict=True))) for chosen in itertools.product(*lists)]
