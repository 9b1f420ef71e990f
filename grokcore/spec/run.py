"""Run specifications: what is trained, frozen and validated, and the id that names it.

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

from grokcore.spec.base import MOST_STEPS, FrozenModel, Seed, SpecError, short_repr, suggestion
from grokcore.spec.networks import (
    MODELS,
    GrokformerConfig,
    ModelConfig,
    UserModelConfig,
)
from grokcore.spec.optimizers import OPTIMIZERS, SGD, Adam, AdamW, RMSprop
from grokcore.spec.task import Task

MODEL_COLUMNS = (
    *("n_layers", "d_model", "n_heads", "d_mlp"),
    *("layernorm", "affine", "norm_first", "readout", "operator_tokens"),
)
OPTIMIZER_COLUMNS = ("lr", "weight_decay", "momentum", "warmup")


def _by_name(field: str, value: Any, known: dict[str, type[FrozenModel]]) -> Any:
    if isinstance(value, tuple(known.values())):
        return value
    value = {"name": value} if isinstance(value, str) else value
    name = value.get("name") if isinstance(value, dict) else value
    if not isinstance(value, dict) or not isinstance(name, str) or name not in known:
        close = suggestion(name if isinstance(name, str) else "", known)
        raise SpecError(f"unknown {field} {short_repr(name)}; {close}")
    if not all(isinstance(key, str) for key in value):
        raise SpecError(f"the fields of a {field} have names; given {short_repr(list(value))}")
    return known[name](**value)


class RunSpec(FrozenModel):
    """One training run: task, model, optimizer, and how it is split, batched, seeded and ended.

    `alpha` is the fraction of the table that is trained on, `steps` the budget in optimizer steps. `early_stop` ends
    the run that many steps after validation accuracy reached 99 %, if it stayed there. `weight_noise` is the standard
    deviation of Gaussian noise on every weight of the network, drawn anew at each step (Power et al. 2022, A.1.2).
    `clip_grad_norm` scales the gradient of a step (without weight decay) down to that L2 norm where it is longer, as
    `torch.nn.utils.clip_grad_norm_` does; 0 leaves it as it is.
    `mirrors_together` puts x ∘ y and y ∘ x on the same side of the split, so that knowing one does not give the other.
    Split, initial weights, batch order and noise (dropout too) derive from `seed` unless they have a seed of their own.
    """

    task: Task = Field(default_factory=Task)
    model: ModelConfig = Field(default_factory=GrokformerConfig)
    optimizer: SGD | RMSprop | Adam | AdamW = Field(default_factory=AdamW)
    alpha: float = Field(default=0.4, gt=0, lt=1)
    batch_size: int = Field(default=512, ge=1, le=MOST_STEPS)
    steps: int = Field(default=10_000, ge=1, le=MOST_STEPS)
    seed: Seed = 0
    split_seed: Seed | None = None
    init_seed: Seed | None = None
    batch_seed: Seed | None = None
    noise_seed: Seed | None = None
    weight_noise: float = Field(default=0.0, ge=0)
    clip_grad_norm: float = Field(default=0.0, ge=0)
    mirrors_together: bool = False
    early_stop: int | None = Field(default=None, ge=1, le=MOST_STEPS)
    precision: Literal["float32", "float64"] = "float32"

    @field_validator("model", mode="before")
    @classmethod
    def _known_model(cls, value: Any) -> Any:
        return _by_name("model", value, MODELS)

    @field_validator("optimizer", mode="before")
    @classmethod
    def _known_optimizer(cls, value: Any) -> Any:
        return _by_name("optimizer", value, OPTIMIZERS)

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
        """Number of training rows, int(alpha · rows) as in the sources."""
        return int(self.alpha * self.task.n_rows)

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches that make one pass over the training set; the last one may be smaller."""
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
        """Sixteen hex digits: the hash of everything that is not at its default."""
        return hashlib.sha256(json.dumps(_canonical(self), sort_keys=True).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Return the whole specification as plain JSON values; `RunSpec.model_validate` reads it back."""
        return self.model_dump(mode="json")

    def derived_seed(self, use: Literal["split", "init", "batch", "noise"]) -> int:
        """Return the 63-bit seed of one use: a hash of the use and its own seed, else of `seed`."""
        own = getattr(self, f"{use}_seed")
        text = f"{use}:{self.seed if own is None else own}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

    def columns(self) -> dict[str, Any]:
        """Return the specification flat, as the first columns of a tidy frame."""
        task = self.task
        operation = task.operation
        if task.table is not None:
            operation += ":" + hashlib.sha256(json.dumps(task.table).encode()).hexdigest()[:6]
        model = self.model.class_name if isinstance(self.model, UserModelConfig) else self.model.name
        part = {name: getattr(self.model, name, None) for name in MODEL_COLUMNS}
        part["dropout"] = self.dropout
        steps = {name: getattr(self.optimizer, name, None) for name in OPTIMIZER_COLUMNS}
        options = {name: getattr(self.optimizer, name, 0) for name in ("update_noise", "decay_to_init")}
        return {
            "run": self.id,
            **{"operation": operation, "p": task.p, "y_min": task.y_min, "n_operands": task.n_operands},
            **{"model": model, **part, "optimizer": self.optimizer.name, **steps},
            **{name: float(value) for name, value in options.items()},
            **{"alpha": self.alpha, "batch_size": self.batch_size, "steps": self.steps, "seed": self.seed},
            **{"weight_noise": self.weight_noise, "clip_grad_norm": self.clip_grad_norm},
            **{"mirrors_together": self.mirrors_together},
            **{"early_stop": self.early_stop, "precision": self.precision, "own_seeds": self._has_own_seeds()},
        }

    def _has_own_seeds(self) -> bool:
        """Return whether split, initial weights, batches or noise have a seed of their own."""
        return any(getattr(self, f"{use}_seed") is not None for use in ("split", "init", "batch", "noise"))


def _canonical(part: BaseModel) -> dict[str, Any]:
    """Fields that differ from their default, parts and the names of models and optimizers always."""
    kept = {}
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        if isinstance(value, BaseModel):
            kept[name] = _canonical(value)
        elif not field.exclude and (name == "name" or value != field.get_default(call_default_factory=True)):
            kept[name] = value
    return kept


def replace(spec: RunSpec, /, **changes: Any) -> RunSpec:
    """Return a copy with fields changed; flat names reach into the parts: `replace(spec, p=23, weight_decay=0.0)`.

    Raises SpecError for a name that neither the run nor its task, model or optimizer has.
    """
    values = {name: getattr(spec, name) for name in RunSpec.model_fields}
    values |= {name: changes.pop(name) for name in list(changes) if name in values}
    for name, known in (("task", None), ("model", MODELS), ("optimizer", OPTIMIZERS)):
        part = values[name] = _by_name(name, values[name], known) if known else values[name]
        own = [key for key in changes if isinstance(part, BaseModel) and key in type(part).model_fields]
        if own:
            new = {key: changes.pop(key) for key in own}
            kept = _canonical(part) | {key: value for key, value in part if key in ("module_class",)}
            values[name] = type(part)(**{**kept, **new})
    if changes:
        parts = (values[name] for name in ("task", "model", "optimizer") if isinstance(values[name], BaseModel))
        fields = [key for part in parts for key in type(part).model_fields if key not in ("name", "module_class")]
        wrong = next(iter(changes))
        raise SpecError(
            f"this run has no field {short_repr(wrong)}; {suggestion(wrong, [*RunSpec.model_fields, *fields])}"
        )
    return RunSpec(**values)


def grid(spec: RunSpec, /, **values: Iterable[Any]) -> list[RunSpec]:
    """Return the product of the lists given, as specs, in the order of the arguments (the last varies fastest)."""
    names, lists = list(values), [list(value) for value in values.values()]
    return [replace(spec, **dict(zip(names, chosen, strict=True))) for chosen in itertools.product(*lists)]
