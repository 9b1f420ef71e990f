"""The split of a table into training and validation rows, and batches and random keys of every step.

All are functions of the run's seeds and of the epoch or step alone.
"""

from __future__ import annotations

import numpy as np

from grokcore.spec.run import RunSpec
from grokcore.spec.tables import Ints, table


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
