"""Training with dropout, noise on weights and on updates, and decay towards the initial weights."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

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


def alone(spec: RunSpec, **options: Any) -> Trained:
    (run,) = train([spec], **options)
    return run


@pytest.mark.parametrize(
    "changes",
    [
        {"dropout": 0.2},
        {"weight_noise": 0.05},
        {"update_noise": 0.5},
        {"model": pku("encoder", **TINY).model, "dropout": 0.2},
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
    other_noise = alone(replace(base, noise_seed=99)).curve["train_loss"]
    assert not np.allclose(other_noise, together[base.id].curve["train_loss"], rtol=1e-4)
    still = replace(base, dropout=0.0, weight_noise=0.0, update_noise=0.0)
    assert not np.allclose(alone(still).curve["train_loss"], together[base.id].curve["train_loss"], rtol=1e-4)


def test_dropout_is_for_training_alone() -> None:
    spec = replace(BASE, dropout=0.5)
    model, tokens = build_network(spec), torch.from_numpy(tables.table(spec.task)[0])
    with torch.no_grad():
        assert torch.equal(
            Program([spec], CPU).logits(tokens)[0], Program([replace(spec, dropout=0.0)], CPU).logits(tokens)[0]
        )
        dropped = model(tokens, key=torch.tensor(3))
        assert not torch.allclose(dropped, model(tokens), rtol=0.01)
        torch.testing.assert_close(dropped, model(tokens, key=torch.tensor(3)), rtol=0, atol=0)


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
    quiet, noisy = (Program([replace(spec, update_noise=noise)], CPU) for noise in (0.0, 2.0))
    for program in (quiet, noisy):
        program.advance(0, 1)
    added = ((noisy.theta - quiet.theta) / (0.25 * 2.0)).numpy().ravel()
    assert stats.kstest(added, "norm").pvalue > 0.01 and len(added) > 1000


def test_decay_towards_the_initial_weights() -> None:
    spec = replace(BASE, optimizer="adamw", weight_decay=1.0, decay_to_init=True, lr=0.1, warmup=0)
    plain = replace(spec, decay_to_init=False)
    start = Program([spec], CPU).theta
    to_init, to_zero = Program([spec], CPU), Program([plain], CPU)
    for program in (to_init, to_zero):
        program.advance(0, 1)
    # the first update is the same; decay pulls by lr·wd = 0.1 to the start in one case and to zero in the other
    torch.testing.assert_close(to_init.theta - to_zero.theta, 0.1 * start, rtol=1e-9, atol=1e-12)
