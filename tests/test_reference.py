"""The loop that the benchmark compares with does the same work as the engine: same network, same update, same sets."""

from itertools import islice

import pytest
import torch
from torch import nn

from grokcore import models, reference, tasks
from grokcore.parts import GrokformerConfig
from grokcore.spec import RunSpec, msu, periodic, replace
from grokcore.train import train

TINY = msu(p=11, d_model=8, d_mlp=12, n_heads=2, batch_size=16, steps=30, precision="float64")


def named_as_in_torch(ours: nn.Module, n_layers: int) -> dict[str, nn.Parameter]:
    """Return the weights of our Grokformer under the names of torch's encoder."""
    weights = {"embedding.weight": ours.get_parameter("W_E")}
    names = {"W_QKV": "self_attn.in_proj_", "W_O": "self_attn.out_proj.", "W_in": "linear1.", "W_out": "linear2."}
    names |= {"norm_1": "norm1.", "norm_2": "norm2."}
    for layer in range(n_layers):
        for own, theirs in names.items():
            for kind in ("weight", "bias"):
                value = ours.get_parameter(f"blocks.{layer}.{own}.{kind}")
                weights[f"encoder.layers.{layer}.{theirs}{kind}"] = value
    return weights


@pytest.fixture
def both() -> tuple[reference.PlainGrokformer, nn.Module]:
    """The reference's network and ours, with the same weights, unequal in all layers."""
    assert isinstance(TINY.model, GrokformerConfig)
    ours = models.build(TINY)
    with torch.no_grad():
        for i, parameter in enumerate(ours.parameters()):
            parameter += torch.linspace(-0.1 * i, 0.1, parameter.numel(), dtype=torch.float64).view_as(parameter)
    plain = reference.PlainGrokformer(TINY.model, 11, 2).double()
    missing = plain.load_state_dict(named_as_in_torch(ours, 2), strict=False)
    assert set(missing.missing_keys) == {"mask", "positions"} and not missing.unexpected_keys
    return plain, ours


def test_networks_are_the_same_function(both: tuple[reference.PlainGrokformer, nn.Module]) -> None:
    tokens = torch.from_numpy(tasks.table(TINY.task)[0])
    torch.testing.assert_close(both[0](tokens), both[1](tokens), rtol=0, atol=1e-12)


def test_networks_have_the_same_gradients(both: tuple[reference.PlainGrokformer, nn.Module]) -> None:
    tokens, labels = (torch.from_numpy(part) for part in tasks.table(TINY.task))
    for network in both:
        nn.functional.cross_entropy(network(tokens), labels).backward()
    weights = dict(both[0].named_parameters())
    for name, parameter in named_as_in_torch(both[1], 2).items():
        torch.testing.assert_close(weights[name].grad, parameter.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("spec", [TINY, periodic(p=11, d_model=8, d_mlp=12, n_heads=2, batch_size=16, steps=30)])
def test_every_epoch_ends_with_the_whole_validation_set(spec: RunSpec) -> None:
    torch.manual_seed(0)
    rows = list(reference.train_plainly(replace(spec, precision="float32")))
    per_epoch = tasks.steps_per_epoch(spec)
    assert len(rows) == 30 and 30 % per_epoch == 0
    assert [i for i, row in enumerate(rows, 1) if "val_loss" in row] == list(range(per_epoch, 31, per_epoch))
    assert all({"loss", "accuracy"} <= row.keys() for row in rows)


def test_it_learns_as_the_engine_does() -> None:
    """Their batches differ, so only the course is compared: both fit a tiny table, at about the same loss."""
    spec = replace(TINY, steps=400, lr=0.01, weight_decay=0.1, precision="float32")
    torch.manual_seed(0)
    *_, last = islice(reference.train_plainly(spec), 400)
    (ours,) = train([spec])
    assert last["accuracy"] > 0.95 and ours.curve["train_accuracy"][-1] > 0.95


def test_an_optimizer_it_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="the reference has no 'rmsprop'; it has adamw and sgd"):
        next(reference.train_plainly(replace(TINY, optimizer="rmsprop", lr=0.1)))
