"""Tasks against brute force: plain Python integers, inverses by search, permutations composed by hand."""

import itertools
import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
import torch

from grokcore.engine import batches
from grokcore.spec import schedule, tables
from grokcore.spec.base import SpecError
from grokcore.spec.presets import msu, periodic
from grokcore.spec.run import RunSpec, replace
from grokcore.spec.task import MODULAR_OPERATIONS, OPERATIONS, Task

Operation = Callable[[int, int, int], int]


def divide(x: int, y: int, p: int) -> int:
    """The only c with c·y = x mod p, found by trying them all."""
    (quotient,) = [c for c in range(p) if c * y % p == x]
    return quotient


EXPECTED: dict[str, Operation] = {
    "x+y": lambda x, y, p: (x + y) % p,
    "x-y": lambda x, y, p: (x - y + p) % p,
    "x*y": lambda x, y, p: sum([x] * y) % p,
    "x/y": divide,
    "x*y+y*y": lambda x, y, p: y * (x + y) % p,
    "x/y if y odd else x-y": lambda x, y, p: divide(x, y, p) if y & 1 else (x - y + p) % p,
    "x^2+y^2": lambda x, y, p: (x * x + y * y) % p,
    "x^2+xy+y^2": lambda x, y, p: ((x + y) * (x + y) - x * y) % p,
    "x^2+xy+y^2+x": lambda x, y, p: ((x + y) * (x + y) - x * y + x) % p,
    "x^3+xy": lambda x, y, p: x * (x * x + y) % p,
    "x^3+xy^2+y": lambda x, y, p: (x * (x * x + y * y) + y) % p,
    "sin(x+y)": lambda x, y, p: math.floor(abs(math.sin(float(x + y))) * 3 * p) % p,
}
COMMUTATIVE = {"x+y", "x*y", "x^2+y^2", "x^2+xy+y^2", "sin(x+y)"}


def square(operation: str, p: int) -> np.ndarray:
    """The answers as a matrix [x, y], y from its smallest value."""
    task = Task(operation=operation, p=p)
    return tables.table(task)[1].reshape(p, p - task.y_min)


def test_every_modular_operation_is_checked() -> None:
    assert set(EXPECTED) == set(MODULAR_OPERATIONS) == set(tables.MODULAR)


@pytest.mark.parametrize("p", [2, 5, 11, 97])
@pytest.mark.parametrize("operation", EXPECTED)
def test_modular_operation_equals_brute_force(operation: str, p: int) -> None:
    task = Task(operation=operation, p=p)
    tokens, labels = tables.table(task)
    rows = list(itertools.product(range(p), range(task.y_min, p)))
    assert [tuple(row) for row in tokens.tolist()] == rows
    assert labels.tolist() == [EXPECTED[operation](x, y, p) for x, y in rows]


@pytest.mark.parametrize("operation", sorted(set(EXPECTED) - {"x/y", "x/y if y odd else x-y"}))
def test_modulus_need_not_be_prime_but_for_division(operation: str) -> None:
    assert square(operation, 12).tolist() == [[EXPECTED[operation](x, y, 12) for y in range(12)] for x in range(12)]


@pytest.mark.parametrize("operation", EXPECTED)
def test_commutative_operations_equal_their_transpose_and_no_other_does(operation: str) -> None:
    answers = square(operation, 11)
    answers = answers if answers.shape == (11, 11) else answers[1:]
    assert (answers == answers.T).all() == (operation in COMMUTATIVE)


@pytest.mark.parametrize("y_min", [0, 1])
def test_sine_does_not_depend_on_the_precision_of_the_source(y_min: Literal[0, 1]) -> None:
    tokens, labels = tables.table(Task(operation="sin(x+y)", p=97, y_min=y_min))
    single = torch.floor(torch.sin(torch.from_numpy(tokens).sum(1).float()).abs() * 3 * 97).long() % 97
    assert labels.tolist() == single.tolist()
    assert len(set(labels.tolist())) > 60  # of 193 sums: not a table of few answers


def test_permutations_are_composed_as_functions() -> None:
    group = sorted(itertools.permutations(range(5)))
    number = {permutation: i for i, permutation in enumerate(group)}

    def after(x: tuple[int, ...], y: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(x[y[i]] for i in range(5))

    def inverse(x: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(x.index(i) for i in range(5))

    pairs = list(itertools.product(group, group))
    expected = {
        "s5:xy": [number[after(x, y)] for x, y in pairs],
        "s5:xyx^-1": [number[after(after(x, y), inverse(x))] for x, y in pairs],
        "s5:xyx": [number[after(after(x, y), x)] for x, y in pairs],
    }
    assert set(expected) == {operation for operation in OPERATIONS if operation.startswith("s5:")}
    for operation, answers in expected.items():
        tokens, labels = tables.table(Task(operation=operation))
        assert [(group[x], group[y]) for x, y in tokens] == pairs
        assert labels.tolist() == answers
        assert (labels.reshape(120, 120) != labels.reshape(120, 120).T).any()


@pytest.mark.parametrize(("n_operands", "p"), [(2, 7), (3, 7), (4, 5)])
def test_sum_of_operands(n_operands: int, p: int) -> None:
    tokens, labels = tables.table(Task(operation="x+y", p=p, n_operands=n_operands))
    rows = list(itertools.product(range(p), repeat=n_operands))
    assert [tuple(row) for row in tokens.tolist()] == rows
    assert labels.tolist() == [sum(row) % p for row in rows]


@pytest.mark.parametrize(
    ("spec", "rows", "n_train", "y_min"),
    [
        (msu(), 9312, 3724, 1),
        (msu("sin(x+y)"), 9312, 3724, 1),
        (periodic(), 9409, 3763, 0),
        (RunSpec(task=Task(operation="x/y")), 9312, 3724, 1),
        (RunSpec(task=Task(operation="x/y if y odd else x-y")), 9409, 3763, 0),
        (RunSpec(task=Task(operation="s5:xy")), 14400, 5760, 0),
        (RunSpec(task=Task(operation="x+y", p=19, n_operands=3)), 6859, 2743, 0),
        (RunSpec(task=Task(operation="x+y", p=19, n_operands=4)), 130321, 52128, 0),
    ],
)
def test_row_counts_and_ranges_of_the_sources(spec: RunSpec, rows: int, n_train: int, y_min: int) -> None:
    tokens, labels = tables.table(spec.task)
    assert (len(tokens), len(labels), spec.task.n_rows, spec.n_train) == (rows, rows, rows, n_train)
    assert tokens[:, :-1].min() == 0 and tokens[:, -1].min() == y_min and tokens.max() == spec.task.p - 1
    assert labels.min() >= 0 and labels.max() < spec.task.p


def test_operation_from_a_function_and_from_a_table_are_the_same_task() -> None:
    made = tables.operation_from(lambda x, y: (x * x + 3 * y) % 5, 5)
    given = Task(operation="custom", table=tuple(tuple((x * x + 3 * y) % 5 for y in range(5)) for x in range(5)))
    assert made == given and RunSpec(task=made).id == RunSpec(task=given).id
    assert tables.table(made)[1].tolist() == [(x * x + 3 * y) % 5 for x in range(5) for y in range(5)]
    other = tables.operation_from(lambda x, y: (x * x + 3 * y + (x == y == 4)) % 5, 5)
    assert RunSpec(task=other).id != RunSpec(task=made).id
    assert replace(msu(p=5), task=made).columns()["operation"] != replace(msu(p=5), task=other).columns()["operation"]


def test_operation_from_refuses_a_table_that_begins_elsewhere() -> None:
    with pytest.raises(SpecError, match="y_min = 2 was given; y begins at 0 or at 1"):
        tables.operation_from(lambda x, y: x, 7, y_min=2)


def test_operation_from_asks_only_for_the_rows_of_the_task() -> None:
    task = tables.operation_from(lambda x, y: divide(x, y, 7), 7, y_min=1)
    assert tables.table(task)[1].tolist() == tables.table(Task(operation="x/y", p=7))[1].tolist()
    with_numpy = tables.operation_from(lambda x, y: np.int64((x + y) % 7), 7)  # type: ignore[arg-type,return-value]
    assert tables.table(with_numpy)[1].tolist() == tables.table(Task(operation="x+y", p=7))[1].tolist()


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x, y: x * y, ("table[2][3] is 6", "0 to 4")),
        (lambda x, y: x - y, ("table[0][1] is -1", "0 to 4")),
        (lambda x, y: (x + y) % 5 / 1, ("0.0", "x = 0, y = 0", "integer from 0 to 4")),
        (lambda x, y: None, ("None", "x = 0, y = 0", "integer")),
    ],
)
def test_bad_answers_of_a_users_operation_are_named(
    function: Callable[[int, int], int], words: tuple[str, ...]
) -> None:
    with pytest.raises(SpecError) as caught:
        tables.operation_from(function, 5)
    assert all(word in str(caught.value) for word in words)


TINY = msu(p=11, alpha=0.4, batch_size=16)


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


def test_mirror_images_are_of_two_operands() -> None:
    with pytest.raises(SpecError, match="mirrors_together is defined for two operands, given 3: leave it out"):
        RunSpec(task=Task(operation="x+y", p=5, n_operands=3), mirrors_together=True)


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


def test_evaluations_are_dense_early_and_regular_later() -> None:
    steps = schedule.evaluation_steps(21_000)
    assert steps[:20] == [0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512, 600]
    assert set(np.diff([s for s in steps if 600 <= s <= 4_000])) == {100}
    assert set(np.diff([s for s in steps if 4_000 <= s <= 20_000])) == {200}
    assert set(np.diff([s for s in steps if s >= 20_000])) == {400, 200}  # the last is the end of the budget
    assert schedule.evaluation_steps(1) == [0, 1]


def test_evaluations_of_a_shorter_budget_are_those_of_a_longer_one() -> None:
    budgets = [1, 5, 10, 100, 513, 600, 650, 1_000, 3_999, 4_100, 10_000, 20_000, 20_500, 40_000, 60_000, 100_000]
    for short, long in itertools.combinations(budgets, 2):
        before, after = schedule.evaluation_steps(short), schedule.evaluation_steps(long)
        assert before[-1] == short and before[:-1] == [step for step in after if step < short]


@pytest.mark.parametrize("budget", [10_000, 20_000, 40_000, 60_000, 100_000])
def test_number_of_evaluations(budget: int) -> None:
    assert 75 <= len(schedule.evaluation_steps(budget)) <= 400
