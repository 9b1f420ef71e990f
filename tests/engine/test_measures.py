"""Measures against numpy and torch's own autograd, on arrays and on runs of a few steps."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from grokcore.engine import batches, measures
from grokcore.engine.train import Trained, train
from grokcore.nn.build import build_network
from grokcore.spec import tables
from grokcore.spec.presets import msu, periodic
from grokcore.spec.run import RunSpec

TINY: dict[str, Any] = {"p": 7, "d_model": 8, "d_mlp": 12, "n_heads": 2, "precision": "float64"}


def test_losses_and_accuracies_of_a_padded_batch() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(2, 5, 4)), rng.integers(0, 4, size=(2, 5))
    counted = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    losses = -np.log(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))
    losses = np.take_along_axis(losses, labels[:, :, None], 2)[:, :, 0]
    right = logits.argmax(-1) == labels
    args = torch.from_numpy(logits), torch.from_numpy(labels)
    np.testing.assert_allclose(measures.row_losses(*args), losses, rtol=1e-12)
    loss, accuracy = measures.batch_measures(*args, torch.from_numpy(counted / counted.sum(1, keepdims=True)))
    np.testing.assert_allclose(loss, [losses[0].mean(), losses[1, :2].mean()], rtol=1e-12)
    np.testing.assert_allclose(accuracy, [right[0].mean(), right[1, :2].mean()], rtol=1e-12)


def test_means_over_each_set() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0, 10.0], [4.0, 5.0, 6.0, 20.0]])
    train = torch.tensor([[True, True, False, False], [False, False, False, True]])
    means = measures.split_means({"loss": values}, train)
    assert {name: value.tolist() for name, value in means.items()} == {
        "train_loss": [1.5, 20.0],
        "val_loss": [6.5, 5.0],
    }
    assert measures.masked_mean(torch.tensor([[1.0, torch.inf]]), torch.tensor([[True, False]])).tolist() == [1.0]


def test_norms_and_cosine() -> None:
    flat = torch.tensor([[3.0, 4.0, 12.0], [0.0, 5.0, 0.0]], dtype=torch.float64)
    whole, subset = measures.norms(flat, torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64))
    assert whole.tolist() == [13.0, 5.0] and subset.tolist() == [5.0, 5.0]
    whole, subset = measures.norms(flat, None)
    assert whole.tolist() == [13.0, 5.0] and subset.isnan().all()
    a, b = torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 2.0], [-3.0, -3.0]])
    np.testing.assert_allclose(measures.cosine(a, b), [0, -1], atol=1e-6)


def by_hand(spec: RunSpec, weights: dict[str, np.ndarray], step: int) -> dict[str, float]:
    """Every measure of one mini-batch by torch's autograd on a model that holds these weights."""
    model = build_network(spec)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    tokens, labels = (torch.from_numpy(column) for column in tables.table(spec.task))
    rows, counts = batches.batches(spec, step, step + 1)
    chosen = rows[0, : counts[0]]
    logits = model(tokens[chosen])
    loss = F.cross_entropy(logits, labels[chosen])
    loss.backward()
    subset: list[str] = list(model.scale_invariant)  # type: ignore[arg-type]
    gradient = {name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}

    def norm(arrays: dict[str, np.ndarray], names: list[str] | None = None) -> float:
        return np.sqrt(sum((arrays[name] ** 2).sum() for name in names or arrays)) if names != [] else np.nan

    lr, warmup = spec.optimizer.lr, spec.optimizer.warmup
    lr *= min(step / warmup, 1) if warmup else 1
    return {
        "batch_loss": loss.item(),
        "batch_accuracy": (logits.argmax(1) == labels[chosen]).double().mean().item(),
        "grad_norm": norm(gradient),
        "step_weight_norm": norm(weights),
        "effective_grad": norm(gradient) * norm(weights),
        "effective_lr": lr / norm(weights) ** 2,
        "effective_grad_si": norm(gradient, subset) * norm(weights, subset),
        "effective_lr_si": lr / norm(weights, subset) ** 2,
    }


RUNS = {
    "periodic": periodic(1, **TINY, steps=12, batch_size=8, alpha=0.4),  # 19 training rows: batches of 8, 8, 3
    "grokformer": msu(**TINY, steps=12, batch_size=8, alpha=0.4, warmup=4, lr=0.01),
}


def train_alone(spec: RunSpec, **options: Any) -> Trained:
    (run,) = train([spec], **options)
    return run


@pytest.mark.parametrize("kind", RUNS)
def test_measures_of_every_step_are_gathered_between_evaluations(kind: str) -> None:
    """Also a dip that lies between two evaluations: no step is missed by mean, minimum or maximum."""
    spec = RUNS[kind]
    run = train_alone(spec, keep_weights=range(13))
    for name, values in train_alone(spec).curve.items():  # keeping weights takes one step at a time
        np.testing.assert_array_equal(run.curve[name], values, err_msg=name)
    steps = [by_hand(spec, run.weights[step], step) for step in range(12)]
    at = run.curve["step"].astype(int)
    assert at.tolist() == [0, 1, 2, 3, 4, 6, 8, 11, 12]
    unseen = 0
    for measure in steps[0]:
        kinds = {kind: run.curve[f"{measure}_{kind}"] for kind in ("mean", "min", "max")}
        for name, values in kinds.items():
            assert np.isnan(values[0]), f"{measure}_{name} before any step"
        for i in range(1, len(at)):
            expected = np.array([step[measure] for step in steps[at[i - 1] : at[i]]])
            seen = [kinds[name][i] for name in ("mean", "min", "max")]
            np.testing.assert_allclose(
                seen, [expected.mean(), expected.min(), expected.max()], rtol=1e-7, atol=1e-12, err_msg=measure
            )
            unseen += len(expected) == 3 and expected.argmin() == 1
    assert unseen > 0, "no measure had its lowest value at a step between two evaluations"


@pytest.mark.parametrize("kind", RUNS)
def test_measures_of_an_evaluation(kind: str) -> None:
    spec = RUNS[kind]
    run = train_alone(spec, keep_weights=range(13))
    tokens, labels = tables.table(spec.task)
    train_rows, val_rows = batches.split(spec)
    answers_before, flat_before = None, None
    for i, step in enumerate(run.curve["step"].astype(int)):
        at = {name: values[i] for name, values in run.curve.items()}
        weights = run.weights[step]
        model = build_network(spec)
        model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
        with torch.no_grad():
            log_p = model(torch.from_numpy(tokens)).log_softmax(1).numpy()
        losses, answers = -log_p[np.arange(len(labels)), labels], log_p.argmax(1)
        for side, rows in (("train", train_rows), ("val", val_rows)):
            assert at[f"{side}_loss"] == pytest.approx(losses[rows].mean(), rel=1e-10)
            assert at[f"{side}_accuracy"] == pytest.approx((answers == labels)[rows].mean(), rel=1e-12)
        norms = {name: np.linalg.norm(value) for name, value in weights.items()}
        for name, norm in norms.items():
            assert at[f"norm:{name}"] == pytest.approx(norm, rel=1e-12)
        assert at["weight_norm_sum"] == pytest.approx(sum(norms.values()), rel=1e-12)
        flat = np.concatenate([value.ravel() for value in weights.values()])
        assert at["weight_norm"] == pytest.approx(np.linalg.norm(flat), rel=1e-12)
        subset: list[str] = list(model.scale_invariant)  # type: ignore[arg-type]
        expected = np.sqrt(sum(norms[name] ** 2 for name in subset)) if subset else np.nan
        assert at["weight_norm_si"] == pytest.approx(expected, rel=1e-12, nan_ok=True)
        assert at["epoch"] == pytest.approx(step / 3 if kind == "periodic" else step / 2)
        if answers_before is not None and flat_before is not None:
            assert at["answers_kept"] == pytest.approx((answers == answers_before)[train_rows].mean(), rel=1e-12)
            assert at["answers_kept_val"] == pytest.approx((answers == answers_before)[val_rows].mean(), rel=1e-12)
            cosine = flat @ flat_before / np.linalg.norm(flat) / np.linalg.norm(flat_before)
            assert at["weight_cosine"] == pytest.approx(cosine, rel=1e-10)
        answers_before, flat_before = answers, flat
