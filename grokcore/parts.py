"""The parts of a run specification, frozen and validated: tasks and optimizers (networks: `architectures`)."""

from __future__ import annotations

import difflib
import math
import reprlib
from collections.abc import Iterable
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

ModularOperation = Literal[
    "x+y",
    "x-y",
    "x*y",
    "x/y",
    "x*y+y*y",
    "x/y if y odd else x-y",
    "x^2+y^2",
    "x^2+xy+y^2",
    "x^2+xy+y^2+x",
    "x^3+xy",
    "x^3+xy^2+y",
    "sin(x+y)",
]
PermutationOperation = Literal["s5:xy", "s5:xyx^-1", "s5:xyx"]
MODULAR_OPERATIONS: tuple[str, ...] = get_args(ModularOperation)
PERMUTATION_OPERATIONS: tuple[str, ...] = get_args(PermutationOperation)
OPERATIONS: tuple[str, ...] = (*MODULAR_OPERATIONS, *PERMUTATION_OPERATIONS, "custom")
DIVISIONS = ("x/y", "x/y if y odd else x-y")
N_PERMUTATIONS = 120
MAX_ROWS = 2_000_000
MOST_STEPS = 100_000_000


class SpecError(ValueError):
    """A specification that cannot be trained; the message names the field, the value and what is allowed."""


def shown(value: Any) -> str:
    """Return a value as it stands in a message: as Python writes it, cut where it is long or deep."""
    short = reprlib.Repr()
    short.maxstring = short.maxlong = short.maxother = 120
    try:
        return short.repr(value)
    except ValueError:  # Python does not write whole numbers of more than 4300 digits
        return f"a value of type {type(value).__name__} that is too long to write"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a sentence that lists the known names and, where one is close, suggests it."""
    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}known: {', '.join(known) or 'none'}"


class Part(BaseModel):
    """Frozen and strict about names; raises `SpecError` instead of pydantic's own error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SpecError("\n".join(_explain(type(self), item) for item in error.errors())) from None

    @model_validator(mode="wrap")
    @classmethod
    def _fields_have_names(cls, values: Any, validate: Any) -> Any:
        """Refuse keys that are no text before they are taken for the names of arguments."""
        if isinstance(values, dict) and not all(isinstance(key, str) for key in values):
            raise ValueError(f"the fields of {cls.__name__} have names; given {shown(list(values))}")
        return validate(values)


def _explain(part: type[BaseModel], item: Any) -> str:
    field = ".".join(str(key)[:120] for key in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"{part.__name__} has no field {shown(field)}; {nearest(field, part.model_fields)}"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error":
        return f"{field}: {message}" if field else message
    return f"{part.__name__}.{field}: given {shown(item['input'])}; {message}"


def is_prime(n: int) -> bool:
    """Tell whether n is prime, by trial division."""
    return n > 1 and all(n % divisor for divisor in range(2, math.isqrt(n) + 1))


class Task(Part):
    """The full table of an operation x∘y = c (or x₁+…+x_K = c), from which a run learns a part.

    `p` is the modulus (for S₅ the number of permutations, 120); `y_min` the smallest second operand (1 leaves out
    zero: always so for x/y); `n_operands` > 2 only for the sum; `table[x][y]` the answers of a user's own operation.
    """

    operation: str = "x*y"
    p: int = Field(default=97, ge=2, le=1000)
    y_min: Literal[0, 1] = 0
    n_operands: int = Field(default=2, ge=2, le=8)
    table: tuple[tuple[int, ...], ...] | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            raise ValueError(f"a task is a mapping of its fields, as {{'operation': 'x*y'}}; given {shown(values)}")
        operation = values.get("operation", "x*y")
        if operation == "x/y":
            values = {"y_min": 1, **values}
        if operation in PERMUTATION_OPERATIONS:
            values = {"p": N_PERMUTATIONS, **values}
        if operation == "custom" and isinstance(values.get("table"), (list, tuple)):
            values = {"p": len(values["table"]), **values}
        return values

    @field_validator("operation")
    @classmethod
    def _known(cls, operation: str) -> str:
        if operation not in OPERATIONS:
            raise ValueError(f"unknown operation {shown(operation)}; {nearest(operation, OPERATIONS)}")
        return operation

    @model_validator(mode="after")
    def _possible(self) -> Task:
        operation, p = self.operation, self.p
        if operation in DIVISIONS and not is_prime(p):
            raise ValueError(
                f"{operation} mod p needs a prime modulus, p = {p} is not prime: not every y has an inverse"
            )
        if operation == "x/y" and self.y_min == 0:
            raise ValueError("x/y has no answer for y = 0: give y_min=1 or leave it out")
        if operation in PERMUTATION_OPERATIONS and p != N_PERMUTATIONS:
            raise ValueError(f"{operation} acts on the 120 permutations of S5, given p = {p}: leave p out")
        if self.n_operands > 2 and operation != "x+y":
            raise ValueError(f"n_operands = {self.n_operands} is defined for x+y alone, given {shown(operation)}")
        if self.n_rows > MAX_ROWS:
            raise ValueError(
                f"the table would have {self.n_rows} rows, at most {MAX_ROWS} are possible: lower p or n_operands"
            )
        if (self.table is None) == (operation == "custom"):
            raise ValueError("table goes with operation='custom', and only with it: see grokcore.operation_from")
        if self.table is not None:
            self._check_table(self.table)
        return self

    def _check_table(self, table: tuple[tuple[int, ...], ...]) -> None:
        if len(table) != self.p or any(len(row) != self.p for row in table):
            raise ValueError(f"table has to be {self.p} rows of {self.p} answers, table[x][y]")
        for x, row in enumerate(table):
            for y, answer in enumerate(row):
                if y >= self.y_min and not 0 <= answer < self.p:
                    raise ValueError(f"table[{x}][{y}] is {answer}, expected 0 to {self.p - 1}")

    @property
    def n_rows(self) -> int:
        """Number of rows of the table."""
        return self.p ** (self.n_operands - 1) * (self.p - self.y_min)


class SGD(Part):
    """Stochastic gradient descent as in `torch.optim.SGD` (weight decay is added to the gradient)."""

    name: Literal["sgd"] = "sgd"
    lr: float = Field(default=0.1, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    nesterov: bool = False
    warmup: int = Field(default=0, ge=0, le=MOST_STEPS)
    warmup_start: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _needs_momentum(self) -> SGD:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov=True needs momentum > 0, given 0")
        return self


class RMSprop(Part):
    """RMSprop as in `torch.optim.RMSprop`; `smoothing` is what torch calls alpha."""

    name: Literal["rmsprop"] = "rmsprop"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    smoothing: float = Field(default=0.99, ge=0, lt=1)
    eps: float = Field(default=1e-8, gt=0)
    warmup: int = Field(default=0, ge=0, le=MOST_STEPS)
    warmup_start: float = Field(default=0.0, ge=0, le=1)


Beta = Annotated[float, Field(ge=0, lt=1)]


class Adam(Part):
    """Adam as in `torch.optim.Adam` (weight decay is added to the gradient).

    The rate rises linearly from `warmup_start` times `lr` over `warmup` steps. `update_noise` adds a Gaussian of that
    standard deviation to every weight's update before the rate: W + lr·(ΔW + ε), as in Power et al. 2022, A.1.2.
    """

    name: Literal["adam"] = "adam"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    eps: float = Field(default=1e-8, gt=0)
    warmup: int = Field(default=10, ge=0, le=MOST_STEPS)
    warmup_start: float = Field(default=0.0, ge=0, le=1)
    update_noise: float = Field(default=0.0, ge=0)


class AdamW(Part):
    """AdamW as in `torch.optim.AdamW` (weight decay acts on the weights, Loshchilov & Hutter 2019).

    `decay_to_init` lets it pull the weights towards their initial values instead of zero (Power et al. 2022, 3.3).
    """

    name: Literal["adamw"] = "adamw"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1.0, ge=0)
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    eps: float = Field(default=1e-8, gt=0)
    warmup: int = Field(default=10, ge=0, le=MOST_STEPS)
    warmup_start: float = Field(default=0.0, ge=0, le=1)
    update_noise: float = Field(default=0.0, ge=0)
    decay_to_init: bool = False

    @model_validator(mode="after")
    def _decays(self) -> AdamW:
        if self.decay_to_init and self.weight_decay == 0:
            raise ValueError("decay_to_init=True changes nothing at weight_decay = 0: give a weight decay")
        return self


OPTIMIZERS = {"sgd": SGD, "rmsprop": RMSprop, "adam": Adam, "adamw": AdamW}
Seed = Annotated[int, Field(ge=0, lt=2**63)]
