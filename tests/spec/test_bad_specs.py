"""Impossible specifications: the error names the field, the value and what is allowed, or the nearest name."""

import math
from typing import Any

import pytest

from grokcore.spec.base import SpecError
from grokcore.spec.optimizers import SGD, Adam, AdamW
from grokcore.spec.presets import msu, periodic
from grokcore.spec.run import RunSpec, grid, replace
from grokcore.spec.task import Task

BAD: dict[str, tuple[Any, tuple[str, ...]]] = {
    "operation": (lambda: msu("x**y"), ("unknown operation 'x**y'", "did you mean 'x*y'", "s5:xyx^-1", "custom")),
    "operation in replace": (lambda: replace(msu(), operation="sine"), ("unknown operation 'sine'", "sin(x+y)")),
    "operation type": (lambda: msu(operation=3), ("operation", "3", "string")),  # type: ignore[arg-type]
    "model": (
        lambda: msu(model="grokfomer"),
        ("unknown model 'grokfomer'", "did you mean 'grokformer'", "periodic", "user"),
    ),
    "optimizer": (lambda: msu(optimizer="adamx"), ("unknown optimizer 'adamx'", "did you mean 'adam'", "rmsprop")),
    "optimizer in a dict": (
        lambda: RunSpec(optimizer={"name": "lion", "lr": 1}),  # type: ignore[arg-type]
        ("unknown optimizer 'lion'", "sgd, rmsprop, adam, adamw"),
    ),
    "optimizer, name missing": (lambda: RunSpec(optimizer={"lr": 1}), ("unknown optimizer", "adamw")),  # type: ignore[arg-type]
    "alpha 0": (lambda: msu(alpha=0.0), ("alpha", "0.0", "greater than 0")),
    "alpha 1": (lambda: msu(alpha=1), ("alpha", "given 1", "less than 1")),
    "alpha in percent": (lambda: msu(alpha=40), ("alpha", "given 40", "less than 1")),
    "alpha nan": (lambda: msu(alpha=math.nan), ("alpha", "nan", "finite")),
    "no training rows": (
        lambda: msu(alpha=1e-5),
        ("alpha = 1e-05 of 9312 rows", "leaves 0 for training", "at least one"),
    ),
    "no training rows in a small table": (lambda: msu(p=2, alpha=0.4), ("alpha = 0.4 of 2 rows", "leaves 0 for")),
    "division": (lambda: msu("x/y", p=12), ("x/y", "prime", "p = 12")),
    "division or difference": (lambda: msu("x/y if y odd else x-y", p=9), ("prime", "p = 9")),
    "division by zero": (lambda: Task(operation="x/y", y_min=0), ("x/y", "y = 0", "y_min=1")),
    "division by zero in replace": (lambda: replace(msu("x/y"), y_min=0), ("x/y", "y = 0", "y_min=1")),
    "modulus": (lambda: Task(p=1), ("Task.p", "given 1", "greater than or equal to 2")),
    "large modulus": (lambda: Task(p=5000), ("Task.p", "given 5000", "1000")),
    "y_min": (lambda: Task(y_min=2), ("y_min", "given 2", "0 or 1")),  # type: ignore[arg-type]
    "operands": (lambda: Task(operation="x*y", n_operands=3), ("n_operands = 3", "x+y", "'x*y'")),
    "too many rows": (lambda: Task(operation="x+y", n_operands=5), ("rows", "2000000", "lower p or n_operands")),
    "permutations mod p": (lambda: Task(operation="s5:xy", p=97), ("s5:xy", "120 permutations", "p = 97")),
    "table without custom": (lambda: Task(table=((0, 0), (0, 0)), p=2), ("table", "custom")),
    "custom without table": (lambda: Task(operation="custom"), ("table", "operation_from")),
    "table of another size": (lambda: Task(operation="custom", p=3, table=((0, 1), (1, 0))), ("3 rows of 3",)),
    "ragged table": (lambda: Task(operation="custom", table=((0, 1), (1,))), ("2 rows of 2",)),
    "table out of range": (lambda: Task(operation="custom", table=((0, 1), (1, 2))), ("table[1][1] is 2", "0 to 1")),
    "steps negative": (lambda: msu(steps=-5), ("steps", "given -5", "greater than or equal to 1")),
    "steps zero": (lambda: msu(steps=0), ("steps", "given 0", "greater than or equal to 1")),
    "steps fraction": (lambda: msu(steps=2.5), ("steps", "given 2.5", "integer")),
    "batch": (lambda: msu(batch_size=0), ("batch_size", "given 0", "greater than or equal to 1")),
    "seed": (lambda: msu(seed=-1), ("seed", "given -1", "greater than or equal to 0")),
    "early stop": (lambda: msu(early_stop=0), ("early_stop", "given 0", "greater than or equal to 1")),
    "precision": (lambda: msu(precision="float16"), ("precision", "float16", "float32", "float64")),
    "lr": (lambda: AdamW(lr=0), ("AdamW.lr", "given 0", "greater than 0")),
    "lr infinite": (lambda: SGD(lr=math.inf), ("SGD.lr", "inf", "finite")),
    "decay": (lambda: msu(weight_decay=-1), ("weight_decay", "given -1", "greater than or equal to 0")),
    "beta": (lambda: Adam(betas=(0.9, 1.0)), ("betas", "given 1.0", "less than 1")),
    "three betas": (lambda: Adam(betas=(0.9, 0.9, 0.9)), ("betas", "at most 2")),  # type: ignore[arg-type]
    "momentum": (lambda: SGD(momentum=1), ("momentum", "given 1", "less than 1")),
    "nesterov": (lambda: SGD(nesterov=True), ("nesterov", "momentum > 0")),
    "warmup": (lambda: SGD(warmup=-1), ("warmup", "given -1", "greater than or equal to 0")),
    "heads": (lambda: msu(d_model=130), ("n_heads = 4", "d_model = 130")),
    "norm_first": (lambda: periodic(layernorm=False, norm_first=False), ("norm_first=False", "layernorm=True")),
    "affine": (lambda: periodic(layernorm=False, affine=True), ("affine=True", "layernorm=True")),
    "field of a part": (lambda: AdamW(momentum=0.9), ("AdamW has no field 'momentum'", "weight_decay", "betas")),  # type: ignore[call-arg]
    "field of a run": (lambda: RunSpec(alfa=0.4), ("RunSpec has no field 'alfa'", "did you mean 'alpha'")),  # type: ignore[call-arg]
    "field in replace": (lambda: msu(wieght_decay=0), ("no field 'wieght_decay'", "did you mean 'weight_decay'")),
    "field of another model": (lambda: msu(layernorm=False), ("no field 'layernorm'", "d_model")),
    "field in grid": (lambda: grid(msu(), alpah=[0.3]), ("no field 'alpah'", "did you mean 'alpha'")),
    "value in grid": (lambda: grid(msu(), alpha=[0.3, 2.0]), ("alpha", "given 2.0", "less than 1")),
    "several at once": (lambda: RunSpec(alpha=2, steps=0), ("alpha", "given 2", "steps", "given 0")),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_with_what_is_allowed(case: str) -> None:
    make, words = BAD[case]
    with pytest.raises(SpecError) as caught:
        make()
    missing = [word for word in words if word not in str(caught.value)]
    assert not missing, f"{caught.value} lacks {missing}"


def test_a_damaged_dictionary_is_refused_whole() -> None:
    values = msu().to_dict()
    for broken in ({"alpha": 3}, {"optimizer": {"name": "adam", "lr": -1}}, {"task": {"p": 1}}, {"extra": 1}):
        with pytest.raises(ValueError, match=next(iter(broken))):
            RunSpec.model_validate(values | broken)
