"""Random numbers that are a function of key and stream: their distribution, and dropout."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch.func import vmap

from grokcore.nn import counter_rng


def key(value: int) -> torch.Tensor:
    return torch.tensor(value)


def test_uniform_numbers_are_uniform_and_independent() -> None:
    draws = counter_rng.uniform(key(12345), 3, (400, 500)).numpy()
    assert draws.min() >= 0 and draws.max() < 1
    assert stats.kstest(draws.ravel(), "uniform").pvalue > 0.01
    for lag in (1, 2, 500, 1000):
        assert abs(np.corrcoef(draws.ravel()[:-lag], draws.ravel()[lag:])[0, 1]) < 0.01
    bits = (draws.ravel() * 2**24).astype(np.int64)[:, None] >> np.arange(24) & 1
    assert np.abs(bits.mean(0) - 0.5).max() < 0.006


@pytest.mark.parametrize("other", [(12346, 3), (12345, 4), (0, 0), (2**32 - 1, 3)])
def test_other_keys_and_streams_give_other_numbers(other: tuple[int, int]) -> None:
    draws = counter_rng.uniform(key(12345), 3, (20_000,)).numpy()
    other_draws = counter_rng.uniform(key(other[0]), other[1], (20_000,)).numpy()
    assert abs(np.corrcoef(draws, other_draws)[0, 1]) < 0.03 and np.mean(draws == other_draws) < 0.001


def test_normal_numbers_are_normal() -> None:
    draws = counter_rng.normal(key(7), 1, (100_000,)).numpy()
    assert stats.kstest(draws, "norm").pvalue > 0.01 and np.isfinite(draws).all()


def test_numbers_do_not_depend_on_what_is_drawn_beside_them() -> None:
    keys = torch.tensor([5, 6, 2**32 - 1])
    together = vmap(lambda run_key: counter_rng.uniform(run_key, 2, (3, 4)))(keys)
    for run_key, draws in zip(keys, together, strict=True):
        assert torch.equal(counter_rng.uniform(run_key, 2, (3, 4)), draws)
    assert torch.equal(counter_rng.uniform(key(5), 2, (6, 4))[:3], together[0])  # nor on the examples after them


def test_dropout_keeps_the_mean_and_drops_its_share() -> None:
    drop = counter_rng.dropout(key(1), 0.3)
    first, second = drop(torch.ones(1000, 100)), drop(torch.ones(1000, 100))
    assert first.mean().item() == pytest.approx(1, abs=0.01) and (first == 0).float().mean().item() == pytest.approx(
        0.3, abs=0.01
    )
    assert first.unique().tolist() == [0.0, pytest.approx(1 / 0.7)]
    assert (first == second).float().mean().item() == pytest.approx(0.7**2 + 0.3**2, abs=0.01)
    assert counter_rng.dropout(None, 0.3) is counter_rng.no_dropout
    assert counter_rng.dropout(key(1), 0.0) is counter_rng.no_dropout
