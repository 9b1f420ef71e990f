"""Presets: the settings of the four sources, spelled out."""

import pytest

from grokcore.spec.base import SpecError
from grokcore.spec.networks import GrokformerConfig, PeriodicConfig
from grokcore.spec.optimizers import SGD, AdamW
from grokcore.spec.presets import msu, periodic, pku, pku_sum, power
from grokcore.spec.run import RunSpec
from grokcore.spec.task import Task


def test_settings_of_msu_and_periodic() -> None:
    assert msu() == RunSpec(
        task=Task(operation="x*y", p=97, y_min=1),
        model=GrokformerConfig(n_layers=2, d_model=128, n_heads=4, d_mlp=512),
        optimizer=AdamW(lr=1e-3, weight_decay=1.0, betas=(0.9, 0.98), eps=1e-8, warmup=10),
        alpha=0.4,
        batch_size=512,
        steps=10_000,
        seed=0,
    )
    assert periodic() == RunSpec(
        task=Task(operation="x+y", p=97, y_min=0),
        model=PeriodicConfig(n_layers=2, d_model=128, n_heads=4, d_mlp=512, layernorm=True, affine=False),
        optimizer=SGD(lr=0.1, weight_decay=1e-3, momentum=0.0, nesterov=False, warmup=0),
        alpha=0.4,
        batch_size=512,
        steps=40_000,
        seed=0,
    )


def test_settings_of_power_and_pku() -> None:
    assert power().task.y_min == 1 and power().batch_size == 512 and power(alpha=0.05).batch_size == 232
    assert power("x+y", alpha=0.05, batch_size=32).batch_size == 32
    for network, decay in (("encoder", 0.1), ("mlp", 0.2), ("lstm", 0.6)):
        spec = pku(network, alpha=0.3, epochs=100)
        assert spec.optimizer == AdamW(
            weight_decay=decay, warmup=60, warmup_start=0.1, betas=(0.9, 0.99 if network == "lstm" else 0.98)
        )
        assert spec.steps == 600
    assert pku("mlp", steps=77, warmup=5).steps == 77 and pku("mlp", warmup=5).optimizer.warmup == 5
    sums = {k: pku_sum(k) for k in (2, 3, 4)}
    assert {k: (s.alpha, s.batch_size, s.n_train) for k, s in sums.items()} == {
        2: (0.9, 2, 324),
        3: (0.4, 8, 2743),
        4: (0.1, 32, 13032),
    }
    with pytest.raises(SpecError, match="unknown network 'mpl'; did you mean 'mlp'"):
        pku("mpl")
    with pytest.raises(SpecError, match="K = 2, 3 and 4, given 5: give alpha and batch_size too"):
        pku_sum(5)
    assert pku_sum(5, p=5, alpha=0.5, batch_size=64).task.n_rows == 3125
