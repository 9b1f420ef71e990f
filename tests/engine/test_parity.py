"""A run is the same alone or beside others, shared or not, and equals a plain loop of torch's own parts."""

import math
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from helpers.as_in_torch import plain_grokformer
from torch.nn import functional as F

from grokcore.engine import batches, stepping
from grokcore.engine.program import Program
from grokcore.engine.train import Trained, train
from grokcore.nn.build import build_network
from grokcore.spec import tables
from grokcore.spec.presets import msu, periodic, pku, power
from grokcore.spec.run import RunSpec, grid, replace

SGD_RUN = periodic(
    1,
    p=11,
    d_model=16,
    d_mlp=32,
    steps=40,
    batch_size=32,
    alpha=0.4,
    precision="float64",
    momentum=0.9,
    lr=0.05,
)
ADAMW_RUN = msu(p=11, d_model=16, d_mlp=32, steps=40, batch_size=32, alpha=0.4, precision="float64", lr=0.003)
SIZE: dict[str, Any] = {"p": 11, "steps": 40, "precision": "float64", "batch_size": 32, "warmup": 5}
DECODER = power("x+y", **SIZE, d_model=16, d_mlp=32, alpha=0.4, lr=0.003)
OTHERS = {
    "decoder": DECODER,
    "encoder": pku("encoder", **SIZE, d_model=16, d_mlp=32),
    "mlp": pku("mlp", **SIZE, d_model=16, d_mlp=32),
    "lstm": pku("lstm", **SIZE, d_model=16),
    "with operators": replace(SGD_RUN, operator_tokens=True, n_layers=2),
}
# float64 and 40 steps: sums over examples are formed in another order, nothing else differs.
RTOL, ATOL = 1e-8, 1e-9


def run_all(specs: list[RunSpec], **options: object) -> dict[str, Trained]:
    return {run.spec.id: run for run in train(specs, keep_weights=(specs[0].steps,), **options)}  # type: ignore[arg-type]


def assert_same(run: Trained, other: Trained, rtol: float = RTOL, atol: float = ATOL) -> None:
    assert run.spec == other.spec and run.status == other.status
    assert run.curve.keys() == other.curve.keys()
    for name, values in run.curve.items():
        np.testing.assert_allclose(values, other.curve[name], rtol=rtol, atol=atol, err_msg=name)
    (weights,), (others,) = run.weights.values(), other.weights.values()
    for name, value in weights.items():
        np.testing.assert_allclose(value, others[name], rtol=rtol, atol=atol, err_msg=name)


CLIPPED = replace(SGD_RUN, clip_grad_norm=0.5)


@pytest.mark.parametrize("base", [SGD_RUN, ADAMW_RUN, CLIPPED, *OTHERS.values()], ids=["sgd", "adamw", "clip", *OTHERS])
def test_run_among_others_equals_run_alone(base: RunSpec) -> None:
    """Neighbours differ in all that may differ in a program: α (so in padding), seed, operation, lr, decay, bound."""
    specs = [
        base,
        replace(base, alpha=0.7, seed=3),
        replace(base, operation="x-y", lr=0.001, weight_decay=0.3, clip_grad_norm=base.clip_grad_norm / 2),
        replace(base, alpha=0.27, seed=5, weight_decay=0.0),
    ]
    together, permuted = run_all(specs), run_all([specs[i] for i in (2, 0, 3, 1)])
    for spec in specs:
        alone = run_all([spec])[spec.id]
        assert_same(alone, together[spec.id])
        assert_same(alone, permuted[spec.id])
        lengths = alone.curve["grad_norm_max"][1:]
        assert not spec.clip_grad_norm or max(lengths) > spec.clip_grad_norm, "nothing is clipped"


@pytest.mark.parametrize("base", [SGD_RUN, ADAMW_RUN], ids=["sgd", "adamw"])
def test_neighbours_of_a_run_that_ends_early_go_on_unchanged(base: RunSpec) -> None:
    lost = replace(base, lr=1e200, seed=8)  # overflows at once and leaves the batch
    kept = replace(base, seed=9)
    together = run_all([lost, kept])
    assert together[lost.id].status == "nonfinite"
    assert together[lost.id].curve["step"][-1] < base.steps
    assert_same(run_all([kept])[kept.id], together[kept.id])


@pytest.mark.parametrize(
    "base", [SGD_RUN, replace(SGD_RUN, n_layers=2), ADAMW_RUN, replace(ADAMW_RUN, n_layers=3), *OTHERS.values()]
)
def test_sharing_the_first_token_changes_nothing(base: RunSpec) -> None:
    assert_same(run_all([base])[base.id], run_all([base], plain=True)[base.id])


def test_plain_training_shares_nothing() -> None:
    """Bits cannot tell: on some machines the two ways round alike."""
    short, plain = (Program([SGD_RUN], torch.device("cpu"), plain=plain) for plain in (False, True))
    assert (short.options, plain.options) == ({"share": True}, {})


@pytest.mark.parametrize(
    "specs",
    [
        [OTHERS["mlp"]],
        [SGD_RUN, replace(SGD_RUN, alpha=0.7, seed=3), replace(SGD_RUN, lr=1e200, seed=8)],
        [replace(DECODER, n_layers=1, operator_tokens=False, dropout=0.1, weight_noise=0.02, update_noise=0.1)],
        [replace(SGD_RUN, clip_grad_norm=clip) for clip in (0.3, 1.0)],
    ],
    ids=["one run, batches of two sizes", "three runs, of which one leaves", "one run with noise", "two that clip"],
)
def test_compiled_steps_change_nothing(specs: list[RunSpec], monkeypatch: pytest.MonkeyPatch) -> None:
    if not any(map(shutil.which, ("g++", "clang++"))):
        pytest.skip("no C++ compiler here, so no step is ever compiled")
    expected = run_all(specs)
    monkeypatch.setattr(stepping, "COMPILE_FROM", 1)
    compiled = run_all(specs)
    assert {run.engine for run in expected.values()} == {"eager"}
    assert {run.engine for run in compiled.values()} == {"compiled"}
    for spec in specs:
        assert compiled[spec.id].status == expected[spec.id].status
        if expected[spec.id].status == "finished":
            loose = {"rtol": 1e-5, "atol": 1e-6} if spec.draws_noise else {}  # normal numbers have single precision
            assert_same(expected[spec.id], compiled[spec.id], **loose)


@pytest.mark.parametrize("n_operands", [2, 3, 4])
@pytest.mark.parametrize("base", [SGD_RUN, replace(ADAMW_RUN, operation="x+y"), DECODER, OTHERS["with operators"]])
def test_shared_logits_equal_plain_logits_on_every_row(base: RunSpec, n_operands: int) -> None:
    spec = replace(base, p=5, n_operands=n_operands, n_layers=2)
    model, tokens = build_network(spec), torch.from_numpy(tables.table(spec.task)[0])
    torch.testing.assert_close(model(tokens, share=True), model(tokens), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("optimizer", "clip"), [("adamw", 0.0), ("sgd", 0.0), ("sgd", 3.0)])
def test_run_equals_a_plain_loop_of_torch_parts(optimizer: str, clip: float) -> None:
    spec = ADAMW_RUN if optimizer == "adamw" else replace(ADAMW_RUN, optimizer=replace(SGD_RUN).optimizer)
    spec = replace(spec, clip_grad_norm=clip)
    reference = plain_grokformer(spec, build_network(spec))
    h = spec.optimizer
    if optimizer == "adamw":
        stepper: torch.optim.Optimizer = torch.optim.AdamW(
            reference.parameters(), lr=h.lr, weight_decay=h.weight_decay, betas=(0.9, 0.98)
        )
        warm_up = torch.optim.lr_scheduler.LambdaLR(stepper, lambda step: min(step / 10, 1.0))
    else:
        stepper = torch.optim.SGD(reference.parameters(), lr=h.lr, weight_decay=h.weight_decay, momentum=0.9)
        warm_up = torch.optim.lr_scheduler.LambdaLR(stepper, lambda step: 1.0)
    x = np.arange(11).repeat(10)
    y = np.tile(np.arange(1, 11), 11)
    tokens, labels = torch.from_numpy(np.stack([x, y], 1)), torch.from_numpy(x * y % 11)
    rows, counts = batches.batches(spec, 0, spec.steps)
    losses, lengths = [], []
    for row, count in zip(rows, counts, strict=True):
        chosen = row[:count]
        loss = F.cross_entropy(reference(tokens[chosen]), labels[chosen])
        stepper.zero_grad()
        loss.backward()
        length = torch.nn.utils.clip_grad_norm_(reference.parameters(), clip or math.inf)
        stepper.step()
        warm_up.step()
        losses.append(loss.item())
        lengths.append(length.item())
    run = run_all([spec])[spec.id]
    first, last = (int(run.curve["step"][i]) for i in (-2, -1))
    assert run.curve["batch_loss_mean"][-1] == pytest.approx(np.mean(losses[first:last]), rel=1e-8)
    assert run.curve["grad_norm_mean"][-1] == pytest.approx(np.mean(lengths[first:last]), rel=1e-8)
    assert not clip or min(lengths) < clip < max(lengths), "both kinds of steps are taken"
    np.testing.assert_allclose(
        run.weights[spec.steps]["W_E"], reference.embedding.weight.detach(), rtol=RTOL, atol=ATOL
    )
    in_training = np.zeros(len(labels), dtype=bool)
    in_training[batches.split(spec)[0]] = True
    with torch.no_grad():
        final = F.cross_entropy(reference(tokens), labels, reduction="none").numpy()
    assert run.curve["train_loss"][-1] == pytest.approx(final[in_training].mean(), rel=1e-8)
    assert run.curve["val_loss"][-1] == pytest.approx(final[~in_training].mean(), rel=1e-8)
    assert not math.isclose(final[in_training].mean(), final[~in_training].mean(), rel_tol=1e-3)


def test_shorter_budget_is_a_prefix_of_a_longer_one() -> None:
    short, long = replace(ADAMW_RUN, steps=45), replace(ADAMW_RUN, steps=90)
    a, b = run_all([short])[short.id].curve, run_all([long])[long.id].curve
    n = len(a["step"]) - 1
    for name in a:
        np.testing.assert_array_equal(a[name][:n], b[name][:n], err_msg=name)


def test_grid_of_seeds_gives_different_runs() -> None:
    runs = run_all(grid(ADAMW_RUN, seed=range(3)))
    finals = [run.curve["train_loss"][-1] for run in runs.values()]
    assert len({round(final, 6) for final in finals}) == 3
