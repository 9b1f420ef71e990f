"""Training: every accepted number changes the curve, runs end as they should, and the smallest example groks."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from grokcore.analysis.curves import Outcome, summary
from grokcore.engine import batches, stepping
from grokcore.engine.program import Program
from grokcore.engine.stepping import Inputs, Step, StepMeter
from grokcore.engine.train import Trained, train
from grokcore.nn.build import build_network, user_model
from grokcore.records.record import make_record
from grokcore.spec import schedule, tables
from grokcore.spec.base import SpecError
from grokcore.spec.optimizers import SGD, Adam, AdamW, RMSprop
from grokcore.spec.presets import msu, periodic
from grokcore.spec.run import RunSpec, replace
from grokcore.sweeps.sweep import frame

TINY: dict[str, Any] = {"p": 7, "d_model": 8, "d_mlp": 12, "n_heads": 2, "batch_size": 8, "steps": 12}


def alone(spec: RunSpec, **options: Any) -> Trained:
    (run,) = train([spec], **options)
    return run


def by_name(name: str) -> SGD | RMSprop | Adam | AdamW:
    """An optimizer whose every number matters: all at values that are neither zero nor one."""
    common: dict[str, Any] = {"lr": 0.01, "weight_decay": 0.1, "warmup": 3}
    optimizers = (
        SGD(**common, momentum=0.5),
        RMSprop(**common, momentum=0.5, smoothing=0.9, eps=1e-4),
        Adam(**common, betas=(0.8, 0.9), eps=1e-4),
        AdamW(**common, betas=(0.8, 0.9), eps=1e-4),
    )
    return {optimizer.name: optimizer for optimizer in optimizers}[name]


CHANGES: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.02, "weight_decay": 0.2, "momentum": 0.6, "nesterov": True, "warmup": 6, "warmup_start": 0.5},
    "rmsprop": {"lr": 0.02, "weight_decay": 0.2, "momentum": 0.6, "smoothing": 0.5, "eps": 1e-3, "warmup": 6}
    | {"warmup_start": 0.5},
    "adam": {"lr": 0.02, "weight_decay": 0.2, "betas[0]": (0.5, 0.9), "betas[1]": (0.8, 0.5), "eps": 1e-3, "warmup": 6}
    | {"warmup_start": 0.5, "update_noise": 0.1},
    "adamw": {
        "lr": 0.02,
        "weight_decay": 0.2,
        "betas[0]": (0.5, 0.9),
        "betas[1]": (0.8, 0.5),
        "eps": 1e-3,
        "warmup": 6,
        "warmup_start": 0.5,
        "update_noise": 0.1,
        "decay_to_init": True,
    },
}
# Changes of a run that are no number of its optimizer, and the column in which they first show.
OF_RUN: dict[str, Any] = {
    "alpha": 0.5,
    "batch_size": 9,
    "seed": 1,
    "split_seed": 1,
    "init_seed": 1,
    "batch_seed": 1,
    "precision": "float64",
    "operation": "x+y",
    "p": 11,
    "y_min": 0,
    "n_layers": 1,
    "d_model": 12,
    "d_mlp": 16,
    "n_heads": 4,
    "weight_noise": 0.1,
    "mirrors_together": True,
    "clip_grad_norm": 0.01,
}


def distance(a: Trained, b: Trained, name: str = "train_loss") -> float:
    """Largest relative difference of a measure over the evaluations both have."""
    n = min(len(a.curve["step"]), len(b.curve["step"]))
    return float(np.abs(a.curve[name][:n] / b.curve[name][:n] - 1).max())


@pytest.mark.parametrize("name", CHANGES)
def test_every_number_of_an_optimizer_changes_the_curve(name: str) -> None:
    base = replace(periodic(1, **TINY, precision="float64"), optimizer=by_name(name))
    fields = {field.split("[")[0] for field in CHANGES[name]}
    assert fields == set(type(base.optimizer).model_fields) - {"name"}, "a field has no test"
    reference = alone(base)
    runs = {}
    for field, value in CHANGES[name].items():
        runs[field] = alone(replace(base, **{field.split("[")[0]: value}))
        assert distance(runs[field], reference) > 1e-5, f"{field} changes nothing"
    finals = [run.curve["train_loss"][-1] for run in runs.values()]
    assert len({round(final, 9) for final in finals}) == len(finals), "two changes give the same run"


@pytest.mark.parametrize("field", OF_RUN)
def test_every_field_of_a_run_changes_the_curve(field: str) -> None:
    base = msu(**TINY, warmup=0, lr=0.01)
    changed = alone(replace(base, **{field: OF_RUN[field]}))
    difference = distance(changed, alone(base))
    assert 0 < difference < 1e-3 if field == "precision" else difference > 1e-3


def test_budget_changes_where_the_curve_ends() -> None:
    assert [alone(replace(msu(**TINY), steps=steps)).curve["step"][-1] for steps in (5, 12)] == [5, 12]


@pytest.mark.parametrize("changes", [{"layernorm": False}, {"affine": True}, {"norm_first": False}])
def test_layernorm_and_its_gains_change_the_curve(changes: dict[str, Any]) -> None:
    base = periodic(1, **TINY)
    assert distance(alone(replace(base, **changes)), alone(base)) > 1e-4


def test_each_seed_moves_what_it_names_and_nothing_else() -> None:
    base = msu(**TINY, warmup=0)
    runs = {name: alone(replace(base, **{f"{name}_seed": 1})) for name in ("split", "init", "batch")}
    reference = alone(base)
    first = {name: run.curve["train_loss"][0] != reference.curve["train_loss"][0] for name, run in runs.items()}
    norm = {name: run.curve["weight_norm"][0] != reference.curve["weight_norm"][0] for name, run in runs.items()}
    batch = {
        name: run.curve["batch_loss_mean"][1] != reference.curve["batch_loss_mean"][1] for name, run in runs.items()
    }
    assert first == {"split": True, "init": True, "batch": False}
    assert norm == {"split": False, "init": True, "batch": False}
    assert batch == {"split": True, "init": True, "batch": True}


def test_a_run_is_reproduced_bit_by_bit() -> None:
    first, second = alone(msu(**TINY)), alone(msu(**TINY))
    for name, values in first.curve.items():
        np.testing.assert_array_equal(values, second.curve[name], err_msg=name)


def test_curve_has_every_evaluation_and_ends_with_the_budget() -> None:
    run = alone(replace(msu(**TINY), steps=40))
    assert run.status == "finished" and run.seconds > 0
    assert run.curve["step"].tolist() == schedule.evaluation_steps(40)
    assert {len(values) for values in run.curve.values()} == {len(run.curve["step"])}
    np.testing.assert_allclose(run.curve["epoch"], run.curve["step"] / 2)  # 16 of 42 rows, 8 a batch


def test_weights_are_kept_at_the_steps_asked_and_change_nothing_else() -> None:
    spec = replace(periodic(1, **TINY), steps=40)
    run, plain = alone(spec, keep_weights=[0, 7, 8, 40]), alone(spec)  # 7 is not an evaluation
    assert sorted(run.weights) == [0, 7, 8, 40] and plain.weights == {}
    for name, values in run.curve.items():
        np.testing.assert_array_equal(values, plain.curve[name], err_msg=name)
    model = build_network(spec)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in run.weights[40].items()})
    logits = model(torch.from_numpy(tables.table(spec.task)[0])).detach()
    answers = logits.argmax(1).numpy() == tables.table(spec.task)[1]
    assert answers[batches.split(spec)[1]].mean() == pytest.approx(run.curve["val_accuracy"][-1], abs=1e-6)
    norms = [np.sqrt(sum((value**2).sum() for value in run.weights[step].values())) for step in (0, 8, 40)]
    at = [int(np.flatnonzero(run.curve["step"] == step)[0]) for step in (0, 8, 40)]
    np.testing.assert_allclose(run.curve["weight_norm"][at], norms, rtol=1e-6)
    assert len({round(float(norm), 5) for norm in norms}) == 3, "the weights do not move"


def test_initial_weights_are_those_of_the_network() -> None:
    spec = periodic(1, **TINY)
    weights = alone(spec, keep_weights=[0]).weights[0]
    for name, value in build_network(spec).state_dict().items():
        np.testing.assert_array_equal(weights[name], value)


def test_weights_of_every_run_of_a_program_are_kept() -> None:
    specs = [periodic(1, **TINY, seed=seed) for seed in range(2)]
    kept = {run.spec.id: run.weights[12] for run in train(specs, keep_weights=[12])}
    for spec in specs:
        for name, value in alone(spec, keep_weights=[12]).weights[12].items():
            np.testing.assert_allclose(kept[spec.id][name], value, rtol=1e-4, atol=1e-6, err_msg=name)


def test_watch_sees_every_evaluation_as_it_is_made() -> None:
    seen: list[tuple[int, dict[str, Any]]] = []
    specs = [msu(**TINY, seed=seed) for seed in range(2)]
    runs = {run.spec.id: run for run in train(specs, watch=lambda step, rows: seen.append((step, rows)))}
    assert [step for step, _ in seen] == schedule.evaluation_steps(12)
    for i, (_, rows) in enumerate(seen):
        assert rows.keys() == runs.keys()
        for run, row in rows.items():
            assert row["val_loss"] == runs[run].curve["val_loss"][i]


def test_numbers_that_overflow_end_the_run() -> None:
    run = alone(replace(periodic(1, **TINY), steps=200, lr=1e30))
    assert run.status == "nonfinite" and run.curve["step"][-1] < 200
    assert not np.isfinite([run.curve[name][-1] for name in ("train_loss", "val_loss", "weight_norm")]).all()
    finite = [np.isfinite(run.curve[name][:-1]).all() for name in ("train_loss", "val_loss", "weight_norm")]
    assert all(finite), "the run went on after its numbers had overflowed"


def test_a_run_that_overflows_leaves_the_others_alone() -> None:
    lost, kept = periodic(1, **TINY, lr=1e30, seed=1), periodic(1, **TINY)
    runs = {run.spec.id: run for run in train([lost, kept])}
    assert runs[lost.id].status == "nonfinite" and runs[kept.id].status == "finished"
    assert runs[kept.id].curve["train_loss"][-1] == pytest.approx(alone(kept).curve["train_loss"][-1], rel=1e-4)


def test_runs_of_different_programs_are_refused() -> None:
    base = msu(**TINY)
    differences: dict[str, Any] = {
        "p": 11,
        "batch_size": 4,
        "steps": 5,
        "n_layers": 1,
        "optimizer": Adam(),
        "clip_grad_norm": 1.0,
        "precision": "float64",
    }
    for name, value in differences.items():
        with pytest.raises(SpecError, match="train the.* apart"):
            next(train([base, replace(base, **{name: value})]))
    with pytest.raises(SpecError, match="2 runs given.* differ"):
        next(train([base, base]))


class Squares(nn.Module):
    """Sum of two embeddings, squared: the smallest network known to grok modular addition (Gromov 2023)."""

    def __init__(self, p: int, width: int) -> None:
        super().__init__()
        self.x, self.y = nn.Embedding(p, width), nn.Embedding(p, width)
        self.out = nn.Linear(width, p, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out((self.x(tokens[:, 0]) + self.y(tokens[:, 1])).square())


def squares(**changes: Any) -> RunSpec:
    """x+y mod 17: memorised within 100 steps, generalised after 700 with weight decay and never without."""
    base = msu("x+y", p=17, y_min=0, alpha=0.7, lr=0.01, batch_size=1024, steps=1400)
    return replace(base, model=user_model(Squares, p=17, width=64), **changes)


def test_the_smallest_example_groks_with_weight_decay_and_memorises_without() -> None:
    decay, none = squares(), squares(weight_decay=0.0)
    records = [make_record(run.spec, run.curve, run.status, {}) for run in train([decay, none])]
    rows: Any = summary(frame(records)).set_index("run")
    assert rows["outcome"][decay.id] == Outcome.GROKKED and rows["grok_delay"][decay.id] > 5
    assert rows["outcome"][none.id] == Outcome.MEMORISED_ONLY
    assert (rows["train_99_sustained"] < 200).all() and rows["best_val_accuracy"][none.id] < 0.5
    assert rows["weight_norm_final"][none.id] > 2 * rows["weight_norm_final"][decay.id]


class Scheduled(nn.Module):
    """Answers by a schedule of its own training steps: wrong in the half-open intervals given, else right."""

    taken: Tensor

    def __init__(self, p: int, wrong: list[list[int]]) -> None:
        super().__init__()
        self.weight, self.p, self.wrong = nn.Parameter(torch.ones(1)), p, wrong
        self.register_buffer("taken", torch.zeros(1))

    def forward(self, tokens: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            self.taken += 1
        wrong = torch.stack([(self.taken >= low) & (self.taken < high) for low, high in self.wrong]).any(0)
        right = nn.functional.one_hot(tokens.sum(1) % self.p, self.p).to(self.weight)
        return torch.where(wrong, -5.0, 5.0) * right + 0 * self.weight


def scheduled(wrong: list[list[int]], **changes: Any) -> RunSpec:
    base = msu("x+y", p=7, y_min=0, steps=600, alpha=0.5, weight_decay=0.0)
    return replace(base, model=user_model(Scheduled, p=7, wrong=wrong), **changes)


@pytest.mark.parametrize(
    ("wrong", "wait", "end"),
    [
        ([[0, 50]], 1, 91),  # right at the evaluation of step 64, one step later is seen at 91
        ([[0, 50]], 27, 91),
        ([[0, 50]], 28, 128),
        ([[0, 50]], 64, 128),
        ([[0, 50]], 300, 512),
        ([[0, 50]], 536, 600),
        ([[0, 20], [60, 120]], 9, 32),  # right at 23, wrong again at 64 and 91, right from 128 on
        ([[0, 20], [60, 120]], 60, 256),  # not 91 and not 128: the relapse starts the wait anew
        ([[0, 20], [60, 120]], 384, 512),
    ],
)
def test_a_run_stops_early_some_steps_after_it_generalised_for_good(
    wrong: list[list[int]], wait: int, end: int
) -> None:
    run = alone(scheduled(wrong, early_stop=wait))
    assert run.curve["step"][-1] == end and run.status == ("finished" if end == 600 else "stopped early")
    right = [not any(low <= step < high for low, high in wrong) for step in run.curve["step"]]
    assert (run.curve["val_accuracy"] >= 0.99).tolist() == right, "the network does not keep its schedule"


def test_a_run_that_does_not_generalise_does_not_stop_early() -> None:
    assert alone(scheduled([[0, 1000]], early_stop=1)).status == "finished"
    assert alone(scheduled([[0, 50]], early_stop=10_000)).status == "finished"


class Drawn(nn.Module):
    """Wrong until a training step that is drawn with the initial weights."""

    taken: Tensor
    until: Tensor

    def __init__(self, p: int) -> None:
        super().__init__()
        self.weight, self.p = nn.Parameter(torch.ones(1)), p
        self.register_buffer("taken", torch.zeros(1))
        self.register_buffer("until", torch.randint(1, 200, (1,)).float())

    def forward(self, tokens: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            self.taken += 1
        right = nn.functional.one_hot(tokens.sum(1) % self.p, self.p).to(self.weight)
        return torch.where(self.taken < self.until, -5.0, 5.0) * right + 0 * self.weight


def test_runs_of_a_program_stop_early_one_by_one() -> None:
    base = replace(scheduled([[0, 1]], early_stop=20), model=user_model(Drawn, p=7))
    specs = [replace(base, init_seed=seed) for seed in range(4)]
    together = [(run.spec.id, int(run.curve["step"][-1])) for run in train(specs)]
    ends = [end for _, end in together]
    assert ends == sorted(ends) and len(set(ends)) >= 3, "runs are yielded as they end"
    for spec in specs:
        assert dict(together)[spec.id] == alone(spec).curve["step"][-1]


class Branching(nn.Module):
    """A network whose way depends on its input: it cannot be compiled as one graph."""

    def __init__(self, p: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(p, p))

    def forward(self, tokens: Tensor) -> Tensor:
        rows = self.table[tokens[:, 0]]
        return rows * tokens[:, 1:] if tokens.sum() > 0 else rows


def test_a_network_that_cannot_be_compiled_trains_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = msu(p=7, batch_size=8, steps=24)
    spec = replace(spec, model=user_model(Branching, p=7))
    expected = alone(spec)
    monkeypatch.setattr(stepping, "COMPILE_FROM", 24)
    with pytest.warns(RuntimeWarning, match="the step is not compiled and will be slower: Unsupported"):
        run = alone(spec)
    assert run.engine == expected.engine == "eager"
    for name, values in expected.curve.items():
        np.testing.assert_array_equal(values, run.curve[name], err_msg=name)


def test_captured_steps_with_inputs_drawn_ahead_train_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU does around its graph, with a step taken anew in the graph's place: full width, inputs ahead."""
    drawn: list[tuple[int, int]] = []
    attach, inputs = Program._attach, Program.inputs

    class Replayed:
        name = "replayed"

        def __init__(self, step: Step, inputs: Inputs, meter: StepMeter, changing: Any) -> None:
            self.step, self.meter = step, meter

        def take(self, inputs: Inputs, n: int) -> None:
            for k in range(n):
                self.meter.add(self.step(*inputs.at(k)))

    def attached(self: Program) -> None:
        attach(self)
        self.captures = True

    def counted(self: Program, start: int, stop: int) -> Inputs:
        drawn.append((start, stop))
        return inputs(self, start, stop)

    base = msu(p=7, d_model=8, d_mlp=12, n_heads=2, batch_size=8, steps=24, precision="float64")
    specs = [base, replace(base, seed=1), replace(base, lr=1e30)]
    expected = {run.spec.id: run for run in train(specs)}
    monkeypatch.setattr(Program, "_attach", attached)
    monkeypatch.setattr(Program, "inputs", counted)
    monkeypatch.setattr("grokcore.engine.stepping.CapturedStep", Replayed)
    replayed = {run.spec.id: run for run in train(specs)}
    assert {run.id: replayed[run.id].status for run in specs} == {run.id: expected[run.id].status for run in specs}
    for run in (specs[0].id, specs[1].id):
        for name, values in expected[run].curve.items():
            np.testing.assert_allclose(replayed[run].curve[name], values, rtol=1e-9, atol=1e-12, err_msg=name)
    stops = [0, *schedule.evaluation_steps(24)]
    again = [pair for pair in drawn if drawn.count(pair) > 1]
    assert sorted(set(drawn)) == sorted(set(zip(stops, stops[1:], strict=False)))
    assert len(set(again)) == 1  # once more for the runs that went on when one had left
