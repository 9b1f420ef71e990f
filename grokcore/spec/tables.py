"""Tasks as tables: the tokens and labels of every row, and tasks of a user's own operation."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from grokcore.spec.base import SpecError, short_repr
from grokcore.spec.task import Task

Ints = NDArray[np.int64]


def inverse(y: Ints, p: int) -> Ints:
    """Return the inverses of y modulo the prime p, and 0 for 0, by Fermat's little theorem (y^(p-2))."""
    return np.array([pow(int(value), p - 2, p) if value % p else 0 for value in range(p)], dtype=np.int64)[y % p]


def _sine(x: Ints, y: Ints, p: int) -> Ints:
    return np.floor(np.abs(np.sin((x + y).astype(np.float64))) * 3 * p).astype(np.int64)


# Each maps integer arrays x, y and the modulus p to integers that are then taken mod p.
MODULAR: dict[str, Callable[[Ints, Ints, int], Ints]] = {
    "x+y": lambda x, y, p: x + y,
    "x-y": lambda x, y, p: x - y,
    "x*y": lambda x, y, p: x * y,
    "x/y": lambda x, y, p: x * inverse(y, p),
    "x*y+y*y": lambda x, y, p: x * y + y * y,
    "x/y if y odd else x-y": lambda x, y, p: np.where(y % 2 == 1, x * inverse(y, p), x - y),
    "x^2+y^2": lambda x, y, p: x**2 + y**2,
    "x^2+xy+y^2": lambda x, y, p: x**2 + x * y + y**2,
    "x^2+xy+y^2+x": lambda x, y, p: x**2 + x * y + y**2 + x,
    "x^3+xy": lambda x, y, p: x**3 + x * y,
    "x^3+xy^2+y": lambda x, y, p: x**3 + x * y**2 + y,
    "sin(x+y)": _sine,
}

# S5 in lexicographic order, one permutation a row; (x·y)(i) = x(y(i)).
S5: Ints = np.array(list(itertools.permutations(range(5))), dtype=np.int64)


def _compose(x: Ints, y: Ints) -> Ints:
    return np.take_along_axis(x, y, axis=1)


def _permutation_answers(operation: str, x: Ints, y: Ints) -> Ints:
    result = _compose(S5[x], S5[y])
    if operation == "s5:xyx^-1":
        result = _compose(result, np.argsort(S5[x], axis=1))
    elif operation == "s5:xyx":
        result = _compose(result, S5[x])
    weights = 5 ** np.arange(5)
    order = np.argsort(S5 @ weights)
    return order[np.searchsorted((S5 @ weights)[order], result @ weights)]


def table(task: Task) -> tuple[Ints, Ints]:
    """Return the rows of a task: tokens `[n_rows, T]` (the operands) and labels `[n_rows]`, first operand slowest."""
    axes = [np.arange(task.p)] * (task.n_operands - 1) + [np.arange(task.y_min, task.p)]
    tokens = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=1).astype(np.int64)
    x, y = tokens[:, 0], tokens[:, 1]
    if task.table is not None:
        labels = np.array(task.table, dtype=np.int64)[x, y]
    elif task.operation.startswith("s5:"):
        labels = _permutation_answers(task.operation, x, y)
    elif task.n_operands > 2:
        labels = tokens.sum(axis=1) % task.p
    else:
        labels = MODULAR[task.operation](x, y, task.p) % task.p
    return tokens, labels


def operation_from(function: Callable[[int, int], int], p: int, y_min: int = 0) -> Task:
    """Return the task of a user's operation: `function(x, y)` for x in 0..p-1, y in y_min..p-1, answers in 0..p-1.

    The task is identified by its table alone. Raises SpecError for an answer that is out of range or not an integer.
    """
    if y_min not in (0, 1):
        raise SpecError(f"y_min = {short_repr(y_min)} was given; y begins at 0 or at 1")
    rows = []
    for x in range(p):
        row = [0] * y_min + [function(x, y) for y in range(y_min, p)]
        for y, answer in enumerate(row):
            if not isinstance(answer, (int, np.integer)):
                raise SpecError(
                    f"the operation gave {answer!r} for x = {x}, y = {y}; expected an integer from 0 to {p - 1}"
                )
        rows.append(tuple(int(answer) for answer in row))
    return Task(operation="custom", p=p, y_min=1 if y_min else 0, table=tuple(rows))
