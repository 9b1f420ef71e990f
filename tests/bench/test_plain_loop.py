"""The loop that the benchmark compares with does the same work as the engine: same network, same update, same sets."""

from itertools import islice

import pytest
import torch
from helpers.as_in_torch import names, plain_grokformer
from torch import nn

from grokcore.bench import plain_loop
from grokcore.engine.train import train
from grokcore.nn.build import build_network
from grokcore.spec import tables
from grokcore.spec.presets import msu, periodic
from grokcore.spec.run import RunSpec, replace

TINY = msu(p=11, d_model=8, d_mlp=12, n_heads=2, batch_size=16, steps=30, precision="float64")


@pytest.fixture
def both() -> tuple[plain_loop.PlainGrokformer, nn.Module]:
    """The reference's network and ours, with the same weights, unequal in all layers."""
    ours = build_network(TINY)
    with torch.no_grad():
        for i, parameter in enumerate(ours.parameters()):
            parameter += torch.linspace(-0.1 * i, 0.1, parameter.numel(), dtype=torch.float64).view_as(parameter)
    return plain_grokformer(TINY, ours), ours


def test_networks_are_the_same_function(both: tuple[plain_loop.PlainGrokformer, nn.Module]) -> None:
    tokens = torch.from_numpy(tables.table(TINY.task)[0])
    torch.testing.assert_close(both[0](tokens), both[1](tokens), rtol=0, atol=1e-12)


def test_networks_have_the_same_gradients(both: tuple[plain_loop.PlainGrokformer, nn.Module]) -> None:
    tokens, labels = (torch.from_numpy(array) for array in tables.table(TINY.task))
    for network in both:
        nn.functional.cross_entropy(network(tokens), labels).backward()
    for own, theirs in names(2).items():
        plain, ours = both[0].get_parameter(theirs), both[1].get_parameter(own)
        torch.testing.assert_close(plain.grad, ours.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("spec", [TINY, periodic(p=11, d_model=8, d_mlp=12, n_heads=2, batch_size=16, steps=30)])
def test_every_epoch_ends_with_the_whole_validation_set(spec: RunSpec) -> None:
    torch.manual_seed(0)
    rows = list(plain_loop.train_plainly(replace(spec, precision="float32")))
    per_epoch = spec.steps_per_epoch
    assert len(rows) == 30 and 30 % per_epoch == 0
    assert [i for i, row in enumerate(rows, 1) if "val_loss" in row] == list(range(per_epoch, 31, per_epoch))
    assert all({"loss", "accuracy"} <= row.keys() for row in rows)


def test_it_learns_as_the_engine_does() -> None:
    """Their batches differ, so only the course is compared: both fit a tiny table, at about the same loss."""
    spec = replace(TINY, steps=400, lr=0.01, weight_decay=0.1, precision="float32")
    torch.manual_seed(0)
    *_, last = islice(plain_loop.train_plainly(spec), 400)
    (ours,) = train([spec])
    assert last["accuracy"] > 0.95 and ours.curve["train_accuracy"][-1] > 0.95


def test_an_optimizer_it_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="the reference has no 'rmsprop'; it has adamw and sgd"):
        next(plain_loop.train_plainly(replace(TINY, optimizer="rmsprop", lr=0.1)))
