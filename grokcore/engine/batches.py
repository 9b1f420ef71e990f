"""The split of a table into training and validation rows, and batches and random keys of every step.

All are functions of the run's seeds and of the epoch or step alone, drawn on the host; `program` sends them to the
device. The tables themselves are in `grokcore.spec.tables`.
"""

from __future__ import annotations

import numpy as np

from grokcore.spec.run import RunSpec
from grokcore.spec.tables import Ints, table


def _permutation(seed: int, epoch: int, n: int) -> Ints:
    """Return a permutation of n that depends on the seed and the epoch alone (counter-based generator)."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(n)


def split(spec: RunSpec) -> tuple[Ints, Ints]:
    """Return the row numbers of the training set and of the validation set.

    All rows are shuffled; the first int(α·rows) train. With `mirrors_together` pairs of mirror images are shuffled as
    one.

    Args:
        spec: the run; the split depends on its table, `alpha`, `mirrors_together` and the seed of the split.

    Returns:
        Row numbers `[n_train]` and `[n_rows - n_train]`, int64.

    Example:
        >>> train_rows, validation_rows = split(RunSpec())
        >>> len(train_rows), len(validation_rows), train_rows[:3].tolist()
        (3763, 5646, [2345, 3074, 6841])
    """
    order = _permutation(spec.derived_seed("split"), 0, spec.task.n_rows)
    if spec.mirrors_together:
        order = _with_mirrors(order, spec)
    return order[: spec.n_train], order[spec.n_train :]


def _with_mirrors(order: Ints, spec: RunSpec) -> Ints:
    """Return rows with (y, x) right after (x, y) and otherwise in this order; no such pair lies across the cut."""
    pairs = np.sort(table(spec.task)[0][order], axis=1) @ [spec.task.p, 1]
    _, first, inverse, size = np.unique(pairs, return_index=True, return_inverse=True, return_counts=True)
    by_pair = np.argsort(first[inverse], kind="stable")
    order, pairs, unpaired = order[by_pair], pairs[by_pair], (size[inverse] == 1)[by_pair]
    cut = spec.n_train
    if pairs[cut - 1] == pairs[cut]:  # then the last row without a mirror image changes sides
        single = int(np.flatnonzero(unpaired)[-1])
        new_index = cut - 1 if single > cut else cut
        order = np.insert(np.delete(order, single), new_index, order[single])
    return order


def batches(spec: RunSpec, start: int, stop: int) -> tuple[Ints, Ints]:
    """Return the batches of steps start..stop-1.

    Every epoch is a new permutation of the training rows, cut in order. The last batch of an epoch may be smaller; it
    is padded with row 0 of the table.

    Args:
        spec: the run; batches depend on its split, `batch_size` and the seed of the batch order.
        start: first step.
        stop: step after the last.

    Returns:
        Row numbers `[K, N]` of K = stop - start batches of N = min(batch_size, n_train) rows, and how many of each
        batch count, `[K]`.
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
    """Return the keys of the random numbers of steps start..stop-1 (see `grokcore.nn.counter_rng`).

    Args:
        spec: the run; keys depend on the seed of its noise alone.
        start: first step.
        stop: step after the last.

    Returns:
        Keys `[stop - start]`, 0 to 2^32 - 1; all 0 for a run without dropout and noise.
    """
    if not spec.draws_noise:
        return np.zeros(stop - start, dtype=np.int64)
    seed = spec.derived_seed("noise")
    draws = (np.random.Generator(np.random.Philox(key=[seed, step])).integers(2**32) for step in range(start, stop))
    return np.fromiter(draws, dtype=np.int64, count=stop - start)
