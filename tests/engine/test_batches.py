"""Splits and batches: a partition, every training row once an epoch, each a function of its own seed."""

import math

import numpy as np
import pytest

from grokcore.engine import batches
from grokcore.spec import tables
from grokcore.spec.presets import msu, periodic
from grokcore.spec.run import RunSpec, replace
from grokcore.spec.task import Task

TINY = msu(p=11, alpha=0.4, batch_size=16)


@pytest.mark.parametrize(
    ("spec", "train", "batch", "row_sum"),
    [
        (msu(), [7744, 6115, 1257, 8333], [5549, 2171, 4156, 1558], 2329427),
        (periodic(), [2345, 3074, 6841, 1756], [5685, 5022, 39, 3523], 2394167),
    ],
    ids=["msu", "periodic"],
)
def test_split_and_first_batch_do_not_change(spec: RunSpec, train: list[int], batch: list[int], row_sum: int) -> None:
    assert batches.split(spec)[0][:4].tolist() == train
    rows, counts = batches.batches(spec, 0, 1)
    assert rows[0, :4].tolist() == batch and (int(rows.sum()), counts[0]) == (row_sum, 512)


@pytest.mark.parametrize("alpha", [0.1, 0.3, 0.4, 0.77, 0.95])
def test_split_is_a_partition_of_the_rows(alpha: float) -> None:
    spec = replace(TINY, alpha=alpha)
    train, val = batches.split(spec)
    assert len(train) == math.floor(alpha * 110) == spec.n_train
    assert sorted([*train.tolist(), *val.tolist()]) == list(range(110))
    assert sorted(train.tolist()) != list(range(len(train))), "the rows are not shuffled"


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("task", [Task(operation="x+y", p=7), Task(operation="x*y", p=7, y_min=1)])
def test_mirror_images_can_be_kept_on_one_side(task: Task, seed: int) -> None:
    rows = tables.table(task)[0].tolist()
    for alpha in (0.05, 0.3, 0.5, 0.71, 0.97):
        plain = RunSpec(task=task, alpha=alpha, seed=seed)
        train, val = batches.split(replace(plain, mirrors_together=True))
        sides = [{tuple(rows[i]) for i in side} for side in (train, val)]
        assert len(train) == plain.n_train and sorted([*train, *val]) == list(range(task.n_rows))
        assert not any((y, x) in sides[1] for x, y in sides[0] if x != y)
        plainly = [{tuple(rows[i]) for i in side} for side in batches.split(plain)]
        assert alpha in (0.05, 0.97) or any((y, x) in plainly[1] for x, y in plainly[0] if x != y)


def test_split_depends_on_the_split_seed_alone() -> None:
    same = [
        replace(TINY, operation="x-y", lr=0.5, weight_decay=0.0, steps=7, batch_size=3, precision="float64"),
        replace(TINY, init_seed=5, batch_seed=6, n_layers=1, d_model=8, optimizer="sgd"),
        replace(TINY, seed=9, split_seed=0),
    ]
    train, val = batches.split(TINY)
    for spec in same:
        assert batches.split(spec)[0].tolist() == train.tolist() and batches.split(spec)[1].tolist() == val.tolist()
    assert batches.split(replace(TINY, seed=1))[0].tolist() != train.tolist()
    assert batches.split(replace(TINY, split_seed=1))[0].tolist() == batches.split(replace(TINY, seed=1))[0].tolist()


def test_a_larger_fraction_contains_the_smaller_training_set() -> None:
    small, large = (set(batches.split(replace(TINY, alpha=alpha))[0].tolist()) for alpha in (0.3, 0.6))
    assert small < large


@pytest.mark.parametrize(("batch_size", "sizes"), [(16, [16, 16, 12]), (22, [22, 22]), (44, [44]), (500, [44])])
def test_every_epoch_visits_every_training_row_once(batch_size: int, sizes: list[int]) -> None:
    spec = replace(TINY, batch_size=batch_size)
    n = spec.steps_per_epoch
    assert n == len(sizes)
    rows, counts = batches.batches(spec, 0, 4 * n)
    epochs = []
    for epoch in range(4):
        chosen = range(epoch * n, epoch * n + n)
        assert counts[chosen].tolist() == sizes
        epochs.append([row for k in chosen for row in rows[k, : counts[k]].tolist()])
        assert sorted(epochs[-1]) == sorted(batches.split(spec)[0].tolist())
    assert len({tuple(epoch) for epoch in epochs}) == 4, "epochs are in the same order"


def test_batches_are_a_function_of_the_seed_and_the_step() -> None:
    rows, counts = batches.batches(TINY, 0, 50)
    for start, stop in ((20, 30), (0, 1), (49, 50), (7, 7)):
        some, some_counts = batches.batches(TINY, start, stop)
        np.testing.assert_array_equal(some, rows[start:stop])
        np.testing.assert_array_equal(some_counts, counts[start:stop])


def test_batch_order_depends_on_the_batch_seed_alone() -> None:
    rows = batches.batches(TINY, 0, 9)[0].tolist()
    for changes in ({"operation": "x-y", "lr": 0.5, "init_seed": 4, "d_model": 8}, {"seed": 5, "split_seed": 0}):
        spec = replace(TINY, **changes, batch_seed=0)
        assert batches.batches(spec, 0, 9)[0].tolist() == rows
    assert batches.batches(replace(TINY, batch_seed=1), 0, 9)[0].tolist() != rows
    by_position = [batches.split(spec)[0].tolist().index for spec in (TINY, replace(TINY, split_seed=1))]
    others = batches.batches(replace(TINY, split_seed=1), 0, 1)[0][0].tolist()
    assert [by_position[1](row) for row in others] == [by_position[0](row) for row in rows[0]]
