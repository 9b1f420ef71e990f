"""Tasks as tables: the tokens and labels of every row, and tasks of a user's own operation.

`grokcore.engine.batches` splits a table into training and validation rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from grokcore.spec.base import SpecError, short_repr
from grokcore.spec.task import Task

Ints = NDArray[np.int64]


def inverse(y: Ints, p: int) -> Ints:
    """Return the inverses modulo the prime p of integers y of any shape, and 0 for 0.

    By Fermat's little theorem the inverse of y is y^(p-2).

    Example:
        >>> inverse(np.array([1, 2, 3]), 7).tolist()
        [1, 4, 5]
    """
    return np.array([pow(int(value), p - 2, p) if value % p else 0 for value in range(p)], dtype=np.int64)[y % p]


def _sine(x: Ints, y: Ints, p: int) -> Ints:
    return np.floor(np.abs(np.sin((x + y).astype(np.float64))) * 3 * p).astype(np.int64)


# Each maps integer arrays x and y and the modulus p to integers, of which `table` takes the remainder mod p.
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


def _permutation_labels(operation: str, x: Ints, y: Ints) -> Ints:
    result = _compose(S5[x], S5[y])
    if operation == "s5:xyx^-1":
        result = _compose(result, np.argsort(S5[x], axis=1))
    elif operation == "s5:xyx":
        result = _compose(result, S5[x])
    digits = 5 ** np.arange(5)  # the images of a permutation are the digits of one number
    order = np.argsort(S5 @ digits)
    return order[np.searchsorted((S5 @ digits)[order], result @ digits)]


def table(task: Task) -> tuple[Ints, Ints]:
    """Return all rows of a task, in lexicographic order of the operands.

    Args:
        task: the operation and its size.

    Returns:
        Tokens `[n_rows, T]`, which are the operands, and labels `[n_rows]`, both int64.

    Example:
        >>> tokens, labels = table(Task(operation="x+y", p=2))
        >>> tokens.tolist(), labels.tolist()
        ([[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0])
    """
    axes = [np.arange(task.p)] * (task.n_operands - 1) + [np.arange(task.y_min, task.p)]
    tokens = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=1).astype(np.int64)
    x, y = tokens[:, 0], tokens[:, 1]
    if task.table is not None:
        labels = np.array(task.table, dtype=np.int64)[x, y]
    elif task.operation.startswith("s5:"):
        labels = _permutation_labels(task.operation, x, y)
    elif task.n_operands > 2:
        labels = tokens.sum(axis=1) % task.p
    else:
        labels = MODULAR[task.operation](x, y, task.p) % task.p
    return tokens, labels


def operation_from(function: Callable[[int, int], int], p: int, y_min: int = 0) -> Task:
    """Return the task of a user's own operation, which is known by its table alone.

    Args:
        function: maps x and y to an integer from 0 to p - 1; it is called for x from 0 and y from `y_min` to p - 1.
        p: number of operands and of labels, 2 to 1000.
        y_min: smallest y, 0 or 1.

    Raises:
        SpecError: for a result that is no integer or out of range; the message names x and y.

    Example:
        >>> task = operation_from(lambda x, y: (x * x + 3 * y) % 5, p=5)
        >>> task.n_rows, task.table[2]
        (25, (4, 2, 0, 3, 1))
    """
    if y_min not in (0, 1):
        raise SpecError(f"y_min = {short_repr(y_min)} was given; y begins at 0 or at 1")
    rows = []
    for x in range(p):
        row = [0] * y_min + [function(x, y) for y in range(y_min, p)]
        for y, result in enumerate(row):
            if not isinstance(result, (int, np.integer)):
                raise SpecError(
                    f"the operation gave {result!r} for x = {x}, y = {y}; expected an integer from 0 to {p - 1}"
                )
        rows.append(tuple(int(result) for result in row))
    return Task(operation="custom", p=p, y_min=1 if y_min else 0, table=tuple(rows))
