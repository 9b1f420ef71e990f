"""Specifications: ids that stay, fields that all matter, copies with changes, and columns of a frame."""

import json
from typing import Any

import numpy as np
import pytest

from grokcore.spec.base import FrozenModel, SpecError
from grokcore.spec.networks import (
    DecoderConfig,
    EncoderConfig,
    GrokformerConfig,
    LSTMConfig,
    MLPConfig,
    PeriodicConfig,
    UserModelConfig,
)
from grokcore.spec.optimizers import SGD, Adam, AdamW, RMSprop
from grokcore.spec.presets import msu, periodic
from grokcore.spec.run import RunSpec, grid, replace
from grokcore.spec.task import Task

SQUARES = Task(operation="custom", table=tuple(tuple((x * x + y) % 5 for y in range(5)) for x in range(5)))
# Runs are recorded under these ids: a change of one loses every record of its kind.
PINNED = {
    "cb5bffd477ba4619": msu(),
    "8afccf56c25ca1ec": msu(seed=1),
    "c16b3f968cf137e2": msu("x/y"),
    "2f329f22adff13f5": msu("sin(x+y)", steps=30_000),
    "f8b557417ea0da9f": msu(optimizer=Adam()),
    "ec2d3c7900b8bc26": msu("s5:xy"),
    "9e5a97a980466b11": msu(optimizer=SGD(momentum=0.9, nesterov=True)),
    "9803d6d5482ca17c": msu(optimizer=RMSprop()),
    "4eaaebc960bf5c03": msu(task=SQUARES),
    "a45b390108277240": periodic(),
    "eb49aa8c092be68a": periodic(1),
    "47d4bdeec3b3690d": periodic(layernorm=False),
    "1265d6b1741051db": RunSpec(task=Task(operation="x+y", p=19, n_operands=3)),
}


@pytest.mark.parametrize("run", PINNED)
def test_ids_of_recorded_runs_do_not_change(run: str) -> None:
    assert PINNED[run].id == run


def test_id_does_not_depend_on_order_or_on_defaults_being_spelled_out() -> None:
    def reverse(values: Any) -> Any:
        return {key: reverse(values[key]) for key in reversed(values)} if isinstance(values, dict) else values

    for spec in PINNED.values():
        values = spec.to_dict()
        assert list(reverse(values)) == list(values)[::-1]
        assert RunSpec.model_validate(reverse(values)).id == RunSpec.model_validate(values).id == spec.id
    assert RunSpec().id == RunSpec(task=Task(operation="x*y", p=97), alpha=0.4, optimizer=AdamW(lr=0.001), seed=0).id
    assert msu(lr=1).id == msu(lr=1.0).id and msu(optimizer="sgd").id == msu(optimizer=SGD()).id
    assert msu(alpha=np.float64(0.3), seed=np.int64(3)).id == msu(alpha=0.3, seed=3).id


def test_numbers_that_are_equal_after_reading_give_one_id() -> None:
    assert replace(msu(), alpha=0.1 + 0.2).id != replace(msu(), alpha=0.3).id  # 0.30000000000000004 is another number
    read = RunSpec.model_validate(json.loads(json.dumps(replace(msu(), alpha=0.1 + 0.2).to_dict())))
    assert read.id == replace(msu(), alpha=0.1 + 0.2).id


SIZES = {"n_layers": 1, "d_model": 64, "n_heads": 2, "d_mlp": 64}
STEPS = {"lr": 0.2, "weight_decay": 0.1, "warmup": 5, "warmup_start": 0.5}
# Another value for every field of every part; a field that is missing here fails the test.
OTHERS: dict[type[FrozenModel], tuple[Any, dict[str, Any]]] = {
    Task: (
        Task(operation="x+y", p=5),
        {"operation": "x-y", "p": 7, "y_min": 1, "n_operands": 3, "table": (SQUARES, {"table": ((0,) * 5,) * 5})},
    ),
    GrokformerConfig: (GrokformerConfig(), SIZES),
    PeriodicConfig: (
        PeriodicConfig(),
        SIZES | {"layernorm": False, "affine": True, "operator_tokens": True, "norm_first": False},
    ),
    DecoderConfig: (DecoderConfig(), SIZES | {"dropout": 0.1, "operator_tokens": False}),
    EncoderConfig: (EncoderConfig(), SIZES | {"dropout": 0.1, "readout": "last"}),
    MLPConfig: (MLPConfig(), {"d_model": 64, "d_mlp": 64}),
    LSTMConfig: (LSTMConfig(), {"n_layers": 1, "d_model": 64}),
    UserModelConfig: (
        UserModelConfig(class_name="Net", source="class Net: ...", arguments={"width": 3}),
        {"class_name": "Other", "source": "class Net: pass", "arguments": {"width": 4}},
    ),
    SGD: (SGD(momentum=0.5), STEPS | {"momentum": 0.9, "nesterov": True}),
    RMSprop: (RMSprop(), STEPS | {"momentum": 0.9, "smoothing": 0.5, "eps": 1e-3}),
    Adam: (Adam(), STEPS | {"betas": (0.9, 0.99), "eps": 1e-3, "update_noise": 0.1}),
    AdamW: (AdamW(), STEPS | {"betas": (0.8, 0.98), "eps": 1e-3, "update_noise": 0.1, "decay_to_init": True}),
}
OF_RUN = {
    "task": Task(operation="x-y"),
    "model": PeriodicConfig(),
    "optimizer": Adam(),
    "alpha": 0.5,
    "batch_size": 64,
    "steps": 5,
    "seed": 1,
    "split_seed": 0,
    "init_seed": 0,
    "batch_seed": 0,
    "early_stop": 100,
    "precision": "float64",
    "noise_seed": 0,
    "weight_noise": 0.1,
    "mirrors_together": True,
    "clip_grad_norm": 1.0,
}
NOT_IDENTITY = {"name", "module_class"}  # the name says which part it is; a class is known by its source


def field_of(part: FrozenModel) -> str:
    """Return the field of a run that holds a part."""
    return "task" if isinstance(part, Task) else "optimizer" if "lr" in type(part).model_fields else "model"


@pytest.mark.parametrize("kind", OTHERS, ids=lambda kind: kind.__name__)
def test_every_field_of_a_part_changes_the_id(kind: type[FrozenModel]) -> None:
    base, others = OTHERS[kind]
    assert set(others) == set(kind.model_fields) - NOT_IDENTITY
    ids = {RunSpec(**{field_of(base): base}).id}
    for field, value in others.items():
        start, change = value if isinstance(value, tuple) and isinstance(value[0], Task) else (base, {field: value})
        spec = RunSpec(**{field_of(start): start})
        fields = dict(start) | change
        part: Any = kind(**fields)
        changed = RunSpec(**{field_of(start): part})
        assert changed.id != spec.id, field
        ids.add(changed.id)
    assert len(ids) == len(others) + 1, "two changes give the same id"


def test_every_field_of_a_run_changes_the_id() -> None:
    assert set(OF_RUN) == set(RunSpec.model_fields)
    ids = {RunSpec(**{field: value}).id for field, value in OF_RUN.items()}
    assert len(ids | {RunSpec().id}) == len(OF_RUN) + 1


def test_optimizers_and_models_of_the_same_numbers_have_different_ids() -> None:
    assert RunSpec(optimizer=Adam(weight_decay=1.0)).id != RunSpec(optimizer=AdamW(weight_decay=1.0)).id
    assert RunSpec(model=GrokformerConfig()).id != RunSpec(model=PeriodicConfig()).id


@pytest.mark.parametrize("spec", [*PINNED.values(), RunSpec(model=OTHERS[UserModelConfig][0])], ids=lambda s: s.id)
def test_round_trip_through_json(spec: RunSpec) -> None:
    read = RunSpec.model_validate(json.loads(json.dumps(spec.to_dict(), allow_nan=False)))
    assert read == spec and read.id == spec.id and read.columns() == spec.columns()


def test_a_specification_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        msu().alpha = 0.5  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        msu().task.p = 5  # type: ignore[misc]


def test_replace_reaches_into_the_parts() -> None:
    spec = replace(msu(), p=23, weight_decay=0.0, n_layers=1, seed=3, alpha=0.5)
    assert (spec.task.p, spec.optimizer.weight_decay, spec.model.n_layers, spec.seed, spec.alpha) == (23, 0, 1, 3, 0.5)  # type: ignore[union-attr]
    assert spec.task.y_min == 1 and isinstance(spec.optimizer, AdamW)
    assert msu().task.p == 97, "replace changed its argument"
    assert replace(msu(), optimizer=Adam(), lr=0.5).optimizer == Adam(lr=0.5)
    assert replace(msu(), task=SQUARES, y_min=1).task == Task(operation="custom", table=SQUARES.table, y_min=1)
    assert replace(periodic(), operation="x/y").task.y_min == 1  # division leaves out zero


def test_grid_is_the_product_in_the_order_of_its_arguments() -> None:
    specs = grid(msu(), alpha=[0.3, 0.4], seed=range(2), operation=["x*y", "x+y"])
    assert [(s.alpha, s.seed, s.task.operation) for s in specs] == [
        (alpha, seed, operation) for alpha in (0.3, 0.4) for seed in (0, 1) for operation in ("x*y", "x+y")
    ]
    assert grid(msu()) == [msu()] and grid(msu(), seed=[]) == []


def test_columns_are_flat_and_say_none_where_a_part_has_no_such_field() -> None:
    columns = periodic(1, seed=4, layernorm=False).columns()
    assert columns["run"] == periodic(1, seed=4, layernorm=False).id
    expected = {"operation": "x+y", "p": 97, "y_min": 0, "model": "periodic", "n_layers": 1, "layernorm": False}
    expected |= {"optimizer": "sgd", "lr": 0.1, "weight_decay": 1e-3, "seed": 4}
    assert columns.items() >= expected.items()
    assert columns["momentum"] == 0 and msu().columns()["momentum"] is None and msu().columns()["layernorm"] is None


def test_derived_seeds_of_uses_and_runs_differ() -> None:
    seeds = [spec.derived_seed(use) for spec in grid(msu(), seed=range(50)) for use in ("split", "init", "batch")]
    assert len(set(seeds)) == 150 and all(0 <= seed < 2**63 for seed in seeds)
    assert msu(seed=7).derived_seed("init") == msu(init_seed=7).derived_seed("init") != msu().derived_seed("init")
    assert msu(init_seed=7).derived_seed("split") == msu().derived_seed("split")


def test_mirror_images_are_of_two_operands() -> None:
    with pytest.raises(SpecError, match="mirrors_together is defined for two operands, given 3: leave it out"):
        RunSpec(task=Task(operation="x+y", p=5, n_operands=3), mirrors_together=True)


def test_a_part_and_its_fields_can_be_replaced_together() -> None:
    assert msu(optimizer="sgd", momentum=0.9).optimizer == SGD(momentum=0.9)
    assert msu(model="periodic", layernorm=False).model == PeriodicConfig(layernorm=False)
