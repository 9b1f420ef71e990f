"""Random numbers that are a function of key and place, and what trains with them: dropout and noise."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch.func import vmap

from grokcore.engine.program import Program
from grokcore.engine.train import Trained, train
from grokcore.nn import counter_rng
from grokcore.nn.build import build_network
from grokcore.spec import tables
from grokcore.spec.presets import pku, power
from grokcore.spec.run import RunSpec, replace

CPU = torch.device("cpu")
TINY: dict[str, Any] = {"p": 7, "d_model": 8, "d_mlp": 12, "n_heads": 2, "steps": 30, "precision": "float64"}
BASE = power("x+y", **TINY, batch_size=10, optimizer="adam")


def key(value: int) -> torch.Tensor:
    return torch.tensor(value)


def alone(spec: RunSpec, **options: Any) -> Trained:
    (run,) = train([spec], **options)
    return run


def test_uniform_numbers_are_uniform_and_independent() -> None:
    draws = counter_rng.uniform(key(12345), 3, (400, 500)).numpy()
    assert draws.min() >= 0 and draws.max() < 1
    assert stats.kstest(draws.ravel(), "uniform").pvalue > 0.01
    for lag in (1, 2, 500, 1000):
        assert abs(np.corrcoef(draws.ravel()[:-lag], draws.ravel()[lag:])[0, 1]) < 0.01
    bits = (draws.ravel() * 2**24).astype(np.int64)[:, None] >> np.arange(24) & 1
    assert np.abs(bits.mean(0) - 0.5).max() < 0.006


@pytest.mark.parametrize("other", [(12346, 3), (12345, 4), (0, 0), (2**32 - 1, 3)])
def test_other_keys_and_places_give_other_numbers(other: tuple[int, int]) -> None:
    one, two = (
        counter_rng.uniform(key(12345), 3, (20_000,)).numpy(),
        counter_rng.uniform(key(other[0]), other[1], (20_000,)).numpy(),
    )
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.03 and np.mean(one == two) < 0.001


def test_normal_numbers_are_normal() -> None:
    draws = counter_rng.normal(key(7), 1, (100_000,)).numpy()
    assert stats.kstest(draws, "norm").pvalue > 0.01 and np.isfinite(draws).all()


def test_numbers_do_not_depend_on_what_is_drawn_beside_them() -> None:
    keys = torch.tensor([5, 6, 2**32 - 1])
    together = vmap(lambda one: counter_rng.uniform(one, 2, (3, 4)))(keys)
    for each, one in zip(keys, together, strict=True):
        assert torch.equal(counter_rng.uniform(each, 2, (3, 4)), one)
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


@pytest.mark.parametrize(
    "changes",
    [
        {"dropout": 0.2},
        {"weight_noise": 0.05},
        {"update_noise": 0.5},
        {"model": pku("encoder", **{**TINY, "n_heads": 2}).model, "dropout": 0.2},
    ],
    ids=["dropout", "weight noise", "update noise", "dropout in the encoder"],
)
def test_noise_is_a_function_of_the_seed_alone(changes: dict[str, Any]) -> None:
    base = replace(BASE, **changes)
    specs = [base, replace(base, seed=1), replace(base, alpha=0.7)]
    together = {run.spec.id: run for run in train(specs, keep_weights=[30])}
    for spec in specs:
        run = alone(spec, keep_weights=[30])
        for name, value in run.weights[30].items():
            np.testing.assert_allclose(value, together[spec.id].weights[30][name], rtol=1e-8, atol=1e-9, err_msg=name)
        np.testing.assert_allclose(run.curve["val_loss"], together[spec.id].curve["val_loss"], rtol=1e-8)
    other = alone(replace(base, noise_seed=99)).curve["train_loss"]
    assert not np.allclose(other, together[base.id].curve["train_loss"], rtol=1e-4)
    still = replace(base, dropout=0.0, **({"weight_noise": 0.0, "update_noise": 0.0}))
    assert not np.allclose(alone(still).curve["train_loss"], together[base.id].curve["train_loss"], rtol=1e-4)


def test_dropout_is_for_training_alone() -> None:
    spec = replace(BASE, dropout=0.5)
    model, tokens = build_network(spec), torch.from_numpy(tables.table(spec.task)[0])
    with torch.no_grad():
        assert torch.equal(
            Program([spec], CPU).logits(tokens)[0], Program([replace(spec, dropout=0.0)], CPU).logits(tokens)[0]
        )
        dropped = model(tokens, key=key(3))
        assert not torch.allclose(dropped, model(tokens), rtol=0.01)
        torch.testing.assert_close(dropped, model(tokens, key=key(3)), rtol=0, atol=0)


def test_weight_noise_is_in_the_forward_pass_and_not_in_the_weights() -> None:
    """The first update is that of the gradient at the disturbed weights, applied to the undisturbed ones."""
    spec = replace(BASE, weight_noise=0.1, optimizer="sgd", lr=0.5, warmup=0)
    program = Program([spec], CPU)
    inputs = program.inputs(0, 1)
    before = program.theta.clone()
    rows, weight, keys, h = inputs.at(0, inputs.widths[0])
    program.step(rows, weight, keys, h)
    moved = Program([spec], CPU)
    moved.theta.copy_(before + 0.1 * counter_rng.normal(keys[0], 2_000_000, (before.shape[1],)).double())
    loss = torch.nn.functional.cross_entropy(moved.logits(moved.tokens[rows])[0], moved.labels[0][rows[0]])
    grads = torch.autograd.grad(loss, list(moved.leaves.values()))
    expected = before - 0.5 * torch.cat([grad.flatten() for grad in grads])[None]
    torch.testing.assert_close(program.theta, expected, rtol=1e-9, atol=1e-12)


def test_update_noise_is_scaled_by_the_rate() -> None:
    spec = replace(BASE, update_noise=2.0, lr=0.25, warmup=0)
    quiet, noisy = (Program([one], CPU) for one in (replace(spec, update_noise=0.0), spec))
    for program in (quiet, noisy):
        program.advance(0, 1)
    added = ((noisy.theta - quiet.theta) / (0.25 * 2.0)).numpy().ravel()
    assert stats.kstest(added, "norm").pvalue > 0.01 and len(added) > 1000


def test_decay_towards_the_initial_weights() -> None:
    spec = replace(BASE, optimizer="adamw", weight_decay=1.0, decay_to_init=True, lr=0.1, warmup=0)
    plain = replace(spec, decay_to_init=False)
    start = Program([spec], CPU).theta
    one, two = Program([spec], CPU), Program([plain], CPU)
    for program in (one, two):
        program.advance(0, 1)
    # the first update is the same; decay pulls by lr·wd = 0.1 to the start in one case and to zero in the other
    torch.testing.assert_close(one.theta - two.theta, 0.1 * start, rtol=1e-9, atol=1e-12)
