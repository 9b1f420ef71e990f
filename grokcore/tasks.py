"""Tasks as tables: tokens, labels, the split into training and validation rows, and the batches of every step."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from grokcore.parts import SpecError, Task, shown
from grokcore.spec import RunSpec

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
        raise SpecError(f"y_min = {shown(y_min)} was given; y begins at 0 or at 1")
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


def _permutation(seed: int, epoch: int, n: int) -> Ints:
    """Return a permutation of n that depends on the seed and the epoch alone (counter-based generator)."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(n)


def split(spec: RunSpec) -> tuple[Ints, Ints]:
    """Return row numbers of the training and the validation set: all rows shuffled, the first int(α·N) train.

    With `mirrors_together` pairs of mirror images are shuffled as one.
    """
    order = _permutation(spec.derived_seed("split"), 0, spec.task.n_rows)
    if spec.mirrors_together:
        order = _with_mirrors(order, spec)
    return order[: spec.n_train], order[spec.n_train :]


def _with_mirrors(order: Ints, spec: RunSpec) -> Ints:
    """Return rows with (y, x) right after (x, y) and otherwise in this order; no such pair lies across the cut."""
    pairs = np.sort(table(spec.task)[0][order], axis=1) @ [spec.task.p, 1]
    _, first, inverse, size = np.unique(pairs, return_index=True, return_inverse=True, return_counts=True)
    behind = np.argsort(first[inverse], kind="stable")
    order, pairs, alone = order[behind], pairs[behind], (size[inverse] == 1)[behind]
    cut = spec.n_train
    if pairs[cut - 1] == pairs[cut]:  # then the last row without a mirror image changes sides
        single = int(np.flatnonzero(alone)[-1])
        place = cut - 1 if single > cut else cut
        order = np.insert(np.delete(order, single), place, order[single])
    return order


def batches(spec: RunSpec, start: int, stop: int) -> tuple[Ints, Ints]:
    """Return row numbers of the batches of steps start..stop-1, `[K, batch]`, and how many of each count, `[K]`.

    Every epoch is a new permutation of the training rows, cut in order; the ragged last batch is padded with row 0 of
    the table.
    """
    train_rows, _ = split(spec)
    per_epoch, size = spec.steps_per_epoch, min(spec.batch_size, spec.n_train)
    rows, counts = np.zeros((stop - start, size), dtype=np.int64), np.zeros(stop - start, dtype=np.int64)
    epoch, order = -1, train_rows
    for step in range(start, stop):
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            order = train_rows[_permutation(spec.derived_seed("batch"), epoch, len(train_rows))]
        chosen = order[(step % per_epoch) * size : (step % per_epoch + 1) * size]
        rows[step - start, : len(chosen)], counts[step - start] = chosen, len(chosen)
    return rows, counts


def step_keys(spec: RunSpec, start: int, stop: int) -> Ints:
    """Return the keys `[K]` (0 to 2^32 - 1) of the random numbers of steps start..stop-1, 0 for a run without any."""
    if not spec.draws_noise:
        return np.zeros(stop - start, dtype=np.int64)
    seed = spec.derived_seed("noise")
    draws = (np.random.Generator(np.random.Philox(key=[seed, step])).integers(2**32) for step in range(start, stop))
    return np.fromiter(draws, dtype=np.int64, count=stop - start)


def evaluation_steps(budget: int) -> list[int]:
    """Return the steps at which a run is evaluated: a function of the step alone, and the last step of the budget.

    0, the powers of √2 up to 512, every 100 steps up to 4 000, every 200 up to 20 000, every 400 beyond.
    """
    early = {0, *(round(2 ** (k / 2)) for k in range(19))}
    regular = {*range(600, 4_000, 100), *range(4_000, 20_000, 200), *range(20_000, budget + 1, 400)}
    return sorted({step for step in early | regular if step <= budget} | {budget})
