"""The operations of a specification, frozen and validated; `tables` computes their rows and labels."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from grokcore.spec.base import FrozenModel, short_repr, suggestion

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


def is_prime(n: int) -> bool:
    """Return whether n is prime, by trial division."""
    return n > 1 and all(n % divisor for divisor in range(2, math.isqrt(n) + 1))


class Task(FrozenModel):
    """The full table of an operation x ∘ y = c (or x₁ + … + x_K = c), of which a run is trained on a fraction.

    Attributes:
        operation: one of `OPERATIONS`; "custom" for a user's own (see `grokcore.operation_from`).
        p: modulus, 2 to 1000; prime for division; for S₅ the number of permutations, 120. It is also the number of
            labels.
        y_min: smallest second operand; 1 leaves out zero, as it is always for x/y.
        n_operands: number of operands K, 2 to 8; more than 2 for x+y alone.
        table: for "custom" alone, the result of every row as `table[x][y]`, p rows of p integers from 0 to p - 1.

    Example:
        >>> Task(operation="x/y", p=7).n_rows  # y = 0 is left out
        42
    """

    operation: str = "x*y"
    p: int = Field(default=97, ge=2, le=1000)
    y_min: Literal[0, 1] = 0
    n_operands: int = Field(default=2, ge=2, le=8)
    table: tuple[tuple[int, ...], ...] | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_defaults(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            raise ValueError(
                f"a task is a mapping of its fields, as {{'operation': 'x*y'}}; given {short_repr(values)}"
            )
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
    def _is_known(cls, operation: str) -> str:
        if operation not in OPERATIONS:
            raise ValueError(f"unknown operation {short_repr(operation)}; {suggestion(operation, OPERATIONS)}")
        return operation

    @model_validator(mode="after")
    def _is_possible(self) -> Task:
        operation, p = self.operation, self.p
        if operation in DIVISIONS and not is_prime(p):
            raise ValueError(
                f"{operation} mod p needs a prime modulus, p = {p} is not prime: not every y has an inverse"
            )
        if operation == "x/y" and self.y_min == 0:
            raise ValueError("x/y is not defined for y = 0: give y_min=1 or leave it out")
        if operation in PERMUTATION_OPERATIONS and p != N_PERMUTATIONS:
            raise ValueError(f"{operation} acts on the 120 permutations of S5, given p = {p}: leave p out")
        if self.n_operands > 2 and operation != "x+y":
            raise ValueError(f"n_operands = {self.n_operands} is defined for x+y alone, given {short_repr(operation)}")
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
            raise ValueError(f"table has to be {self.p} rows of {self.p} results, table[x][y]")
        for x, row in enumerate(table):
            for y, result in enumerate(row):
                if y >= self.y_min and not 0 <= result < self.p:
                    raise ValueError(f"table[{x}][{y}] is {result}, expected 0 to {self.p - 1}")

    @property
    def n_rows(self) -> int:
        """Number of rows of the table: p^(K-1) · (p - y_min)."""
        return self.p ** (self.n_operands - 1) * (self.p - self.y_min)
