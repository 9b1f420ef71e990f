"""Tasks against brute force: plain Python integers, inverses by search, permutations composed by hand."""

import itertools
import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
import torch

from grokcore.spec import tables
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
    task = tables.operation_from(lambda x, y: (x * x + 3 * y) % 5, 5)
    by_table = Task(operation="custom", table=tuple(tuple((x * x + 3 * y) % 5 for y in range(5)) for x in range(5)))
    assert task == by_table and RunSpec(task=task).id == RunSpec(task=by_table).id
    assert tables.table(task)[1].tolist() == [(x * x + 3 * y) % 5 for x in range(5) for y in range(5)]
    changed = tables.operation_from(lambda x, y: (x * x + 3 * y + (x == y == 4)) % 5, 5)
    assert RunSpec(task=changed).id != RunSpec(task=task).id
    assert replace(msu(p=5), task=task).columns()["operation"] != replace(msu(p=5), task=changed).columns()["operation"]


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
