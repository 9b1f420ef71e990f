"""The schedule of evaluations: dense early, and a function of the step alone."""

import itertools

import numpy as np
import pytest

from grokcore.spec import schedule


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
