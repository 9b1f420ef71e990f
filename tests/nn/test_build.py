"""Networks against loops over positions and heads, parameters counted by hand, and a user's own module."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from grokcore.engine.train import train
from grokcore.nn import blocks, decoders
from grokcore.nn.build import build_network, user_model
from grokcore.spec import tables
from grokcore.spec.base import SpecError
from grokcore.spec.networks import GrokformerConfig, PeriodicConfig
from grokcore.spec.presets import msu, periodic
from grokcore.spec.run import RunSpec, replace
from grokcore.spec.task import Task

TINY: dict[str, Any] = {"p": 11, "d_model": 8, "d_mlp": 12, "n_heads": 2, "batch_size": 16, "steps": 12}


def n_weights(spec: RunSpec) -> int:
    return sum(p.numel() for p in build_network(spec).parameters())


@pytest.mark.parametrize(("p", "d", "m", "layers"), [(97, 128, 512, 2), (11, 8, 12, 3)])
def test_number_of_weights(p: int, d: int, m: int, layers: int) -> None:
    size: dict[str, Any] = {"p": p, "d_model": d, "d_mlp": m, "n_layers": layers}
    attention, mlp = 4 * d * d, 2 * d * m + m + d
    assert n_weights(msu(**size)) == (p + 2 + 2) * d + layers * (attention + 4 * d + mlp + 2 * 2 * d)
    plain = p * d + 2 * d + layers * (attention + mlp) + d * p
    assert n_weights(periodic(**size)) == n_weights(periodic(**size, layernorm=False)) == plain
    assert n_weights(periodic(**size, affine=True)) == plain + layers * 2 * (d + d + m) + 2 * d
    assert n_weights(periodic(**size, n_operands=3)) == plain + d


def normalise(x: np.ndarray) -> np.ndarray:
    return (x - x.mean()) / math.sqrt(x.var() + 1e-5)


def periodic_by_hand(
    weights: dict[str, np.ndarray], tokens: list[int], layers: int, heads: int, norm: bool, first: bool = True
) -> np.ndarray:
    """Logits of one example, by loops over positions and heads; position t attends to positions 0..t.

    Without `first` normalisation follows the sums in place of preceding attention and MLP.
    """
    ln = normalise if norm else np.asarray
    before, after = (ln, np.asarray) if first else (np.asarray, ln)
    x = [weights["W_E"][token] + weights["W_pos"][t] for t, token in enumerate(tokens)]
    width = len(x[0]) // heads
    for layer in range(layers):
        w = {kind: weights[f"blocks.{layer}.W_{kind}.weight"] for kind in ("Q", "K", "V", "O", "in", "out")}
        b = {kind: weights[f"blocks.{layer}.W_{kind}.bias"] for kind in ("in", "out")}
        q, k, v = ([w[kind] @ before(row) for row in x] for kind in "QKV")
        new = []
        for t in range(len(x)):
            mixed = np.zeros(len(x[0]))
            for head in range(heads):
                head_columns = slice(head * width, (head + 1) * width)
                scores = np.exp([q[t][head_columns] @ k[s][head_columns] / math.sqrt(width) for s in range(t + 1)])
                mixed[head_columns] = sum(score / scores.sum() * v[s][head_columns] for s, score in enumerate(scores))
            row = after(x[t] + w["O"] @ mixed)
            hidden = np.maximum(w["in"] @ before(row) + b["in"], 0)
            new.append(after(row + w["out"] @ ln(hidden) + b["out"]))
        x = new
    return weights["W_U.weight"] @ ln(x[-1])


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("layernorm, norm_first", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("n_operands", [2, 3])
def test_periodic_transformer_equals_loops_over_positions_and_heads(
    n_operands: int, layernorm: bool, norm_first: bool, share: bool
) -> None:
    changes = TINY | {"p": 5, "n_operands": n_operands, "layernorm": layernorm, "norm_first": norm_first}
    spec = periodic(**changes, precision="float64")
    model = build_network(spec)
    with torch.no_grad():  # biases are zero at first and would hide an error
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.copy_(torch.linspace(-1, 1, len(parameter)))
        tokens = tables.table(spec.task)[0]
        logits = model(torch.from_numpy(tokens), share=share).numpy()
    weights = {name: value.detach().numpy() for name, value in model.named_parameters()}
    for row in (0, 1, 7, 24, -1):
        expected = periodic_by_hand(weights, tokens[row].tolist(), 2, 2, layernorm, norm_first)
        np.testing.assert_allclose(logits[row], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("queries", [1, 2, 4])
def test_attention_of_a_position_does_not_see_the_future(queries: int) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 5, 4, 8, requires_grad=True).unbind()
    for s in range(queries):
        position = 4 - queries + s
        out = blocks.attention(q[:, 4 - queries :], k, v, n_heads=2)[:, s]
        by_key, by_value = torch.autograd.grad(out.square().sum(), (k, v), retain_graph=True)
        assert not by_key[:, position + 1 :].any()
        assert (by_value.abs().sum((0, 2)) > 0).tolist() == [t <= position for t in range(4)]


@pytest.mark.parametrize("kind", ["grokformer", "periodic"])
def test_last_position_reads_every_token_in_every_place(kind: str) -> None:
    base = TINY | {"p": 5, "operation": "x+y", "n_operands": 3}
    spec = msu(**base, y_min=0) if kind == "grokformer" else periodic(**base)
    model, tokens = build_network(spec), torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        reference = model(tokens)
        for other in ([4, 2, 3], [1, 4, 3], [1, 2, 4], [2, 1, 3]):
            assert (model(torch.tensor([other])) - reference).abs().max() > 1e-3


def test_blocks_of_the_grokformer_start_as_copies_and_those_of_the_periodic_do_not() -> None:
    blocks: Any = build_network(msu(**TINY)).blocks
    first, second = blocks
    for (name, a), b in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b) and a.data_ptr() != b.data_ptr(), name
    blocks = build_network(periodic(**TINY)).blocks
    first, second = blocks
    assert not torch.equal(first.W_Q.weight, second.W_Q.weight)


def test_grokformer_starts_at_the_loss_of_the_source() -> None:
    """N(0, 1) weights tied to the output give a first loss near 75, far from ln 97 = 4.6."""
    spec = msu()
    tokens, labels = (torch.from_numpy(column) for column in tables.table(spec.task))
    with torch.no_grad():
        logits = build_network(spec)(tokens, share=True)
    assert logits.shape == (9312, 99)
    assert 55 < nn.functional.cross_entropy(logits, labels).item() < 90


def test_initial_scale_of_the_periodic_transformer() -> None:
    weights = dict(build_network(periodic(1)).named_parameters())
    for name, value in weights.items():
        if name.endswith("bias"):
            assert not value.any(), name
        elif value.numel() > 2 * 128:
            assert value.std().item() == pytest.approx(1 / math.sqrt(128), rel=0.05), name


@pytest.mark.parametrize(
    "changes",
    [{}, {"affine": True}, {"layernorm": False}, {"n_layers": 1}, {"norm_first": False}]
    + [{"norm_first": False, "affine": True}],
)
def test_declared_scale_invariant_weights_are_those_that_can_be_scaled(changes: dict[str, Any]) -> None:
    spec = periodic(**TINY, **changes, precision="float64")
    model = build_network(spec)
    names = set(model.scale_invariant)  # type: ignore[arg-type]
    assert names <= {name for name, _ in model.named_parameters()}
    if changes.get("layernorm") is False:
        assert not names
        return
    tokens = torch.from_numpy(tables.table(spec.task)[0])
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("bias"):  # zero at first
                value.copy_(torch.linspace(-0.5, 0.5, len(value)))
        before = model(tokens)
        for name, value in model.named_parameters():
            value.mul_(100 if name in names else 1)
        torch.testing.assert_close(model(tokens), before, rtol=0, atol=0.01)


@pytest.mark.parametrize(
    ("spec", "number", "total", "squares"),
    [(msu(), 409472, 600.8973, 14121.569), (periodic(), 419584, 90.43667, 3269.1062)],
    ids=["msu", "periodic"],
)
def test_initial_weights_do_not_change(spec: RunSpec, number: int, total: float, squares: float) -> None:
    weights = torch.cat([p.detach().flatten().double() for p in build_network(spec).parameters()])
    assert len(weights) == number
    # torch may round its normal and uniform numbers differently on another CPU, in the last digits
    assert weights.sum().item() == pytest.approx(total, rel=1e-5)
    assert (weights**2).sum().item() == pytest.approx(squares, rel=1e-6)


def test_initial_weights_are_a_function_of_their_seed_alone() -> None:
    def flat(spec: RunSpec) -> list[float]:
        return torch.cat([p.detach().flatten() for p in build_network(spec).parameters()]).tolist()

    torch.manual_seed(1)
    state, reference = torch.random.get_rng_state(), flat(msu(**TINY))
    assert torch.equal(torch.random.get_rng_state(), state), "building a network moved torch's own generator"
    torch.manual_seed(2)
    same = replace(msu(**TINY), steps=5, alpha=0.7, lr=0.1, operation="x-y", split_seed=4, batch_seed=5)
    assert flat(msu(**TINY)) == flat(same) == flat(msu(**TINY, seed=3, init_seed=0)) == reference
    assert flat(msu(**TINY, seed=1)) == flat(msu(**TINY, init_seed=1)) != reference
    assert torch.tensor(flat(msu(**TINY, precision="float64"))).tolist() == reference


def test_weights_have_the_precision_of_the_run() -> None:
    for precision, dtype in (("float32", torch.float32), ("float64", torch.float64)):
        model = build_network(periodic(**TINY, precision=precision))
        assert {p.dtype for p in model.parameters()} == {dtype}


class Pairs(nn.Module):
    """A user's own network: embeddings side by side, one hidden layer."""

    def __init__(self, width: int, p: int = 11, drop: float = 0.0) -> None:
        super().__init__()
        self.embed, self.drop = nn.Embedding(p, width), nn.Dropout(drop)
        self.hidden, self.out = nn.Linear(2 * width, 24), nn.Linear(24, p)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(torch.relu(self.hidden(self.drop(self.embed(tokens).flatten(1)))))


def user_run(**changes: Any) -> RunSpec:
    width = changes.pop("width", 6)
    base = msu(p=11, batch_size=16, steps=150, warmup=0, weight_decay=0.0, lr=0.02)
    return replace(base, model=user_model(Pairs, width=width), **changes)


def test_a_users_module_learns() -> None:
    (run,) = train([user_run()])
    assert run.curve["train_accuracy"][-1] == 1.0 and run.curve["train_loss"][-1] < run.curve["train_loss"][0] / 10
    assert {name for name in run.curve if name.startswith("norm:")} == {
        f"norm:{name}" for name, _ in Pairs(6).named_parameters()
    }
    assert np.isnan(run.curve["weight_norm_si"]).all()


def test_a_users_module_trains_the_same_alone_and_among_others() -> None:
    specs = [user_run(seed=seed, precision="float64") for seed in range(3)]
    together = {run.spec.id: run for run in train(specs)}
    (alone,) = train(specs[1:2])
    for name, values in alone.curve.items():
        np.testing.assert_allclose(together[specs[1].id].curve[name], values, rtol=1e-8, atol=1e-9, err_msg=name)


class Frozen(Pairs):
    """Embeddings stay as they are drawn: they differ between runs, but are not trained."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.embed.requires_grad_(False)


def test_frozen_weights_belong_to_their_own_run() -> None:
    model = user_model(Frozen, width=6)
    specs = [replace(user_run(seed=seed), model=model, precision="float64", steps=20) for seed in range(2)]
    together = {run.spec.id: run.curve for run in train(specs)}
    for spec in specs:
        (alone,) = train([spec])
        assert "norm:embed.weight" not in alone.curve and "norm:out.weight" in alone.curve
        np.testing.assert_allclose(together[spec.id]["val_loss"], alone.curve["val_loss"], rtol=1e-9)


def test_a_users_module_is_known_by_its_source_and_arguments() -> None:
    class Other(Pairs):
        pass

    Other.__name__ = "Pairs"
    ids = [user_run().id, user_run(width=7).id, replace(user_run(), model=user_model(Other, width=6)).id]
    assert len(set(ids)) == 3 and user_run().id == ids[0]
    assert "class Pairs" in user_model(Pairs, width=6).source


def test_bad_user_modules_are_refused() -> None:
    with pytest.raises(SpecError, match="dropout.*p=0"):
        build_network(replace(user_run(), model=user_model(Pairs, width=6, drop=0.5)))
    read = RunSpec.model_validate(user_run().to_dict())
    assert read.id == user_run().id
    with pytest.raises(SpecError, match=r"'Pairs'.* record.*user_model\(Pairs"):
        build_network(read)
    namespace: dict[str, Any] = {}
    exec("from torch import nn\nclass Made(nn.Module): pass", namespace)
    with pytest.raises(SpecError, match="source of .*Made.* cannot be read"):
        user_model(namespace["Made"])


class Attends(nn.Module):
    """Dropout that is no module of its own: torch's attention draws its random numbers in the forward pass."""

    def __init__(self, drop: float) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(11, 8), nn.Linear(8, 11)
        self.attention = nn.MultiheadAttention(8, 2, dropout=drop, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        return self.out(self.attention(x, x, x, need_weights=False)[0][:, -1])


def test_random_numbers_in_training_are_refused() -> None:
    build_network(replace(user_run(), model=user_model(Attends, drop=0.0)))
    with pytest.raises(SpecError, match="dropout|random"):
        build_network(replace(user_run(), model=user_model(Attends, drop=0.5)))


def test_arguments_of_a_users_module_have_to_be_plain_values() -> None:
    with pytest.raises(SpecError, match="arguments"):
        _ = replace(user_run(), model=user_model(Pairs, width=6, drop=torch.zeros(1))).id


def test_models_are_made_from_their_configuration() -> None:
    task = Task(operation="x+y", p=5, n_operands=3)
    logits = decoders.Grokformer(GrokformerConfig(d_model=8, n_layers=1), task)(torch.zeros(2, 3, dtype=torch.long))
    assert logits.shape == (2, 7)
    config = PeriodicConfig(d_model=8, n_layers=1, layernorm=False)
    model = decoders.PeriodicTransformer(config, task)
    assert model(torch.zeros(2, 3, dtype=torch.long)).shape == (2, 5)
    assert not any(isinstance(module, nn.LayerNorm) for module in model.modules())
