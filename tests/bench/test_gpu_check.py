"""The checks that `make gpu-check` makes of a GPU are sound: a CPU passes them, and a device that errs does not."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

import grokcore as gc
from grokcore.engine.train import train

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu_check.py"
TINY: dict[str, Any] = {"p": 7, "d_model": 8, "d_mlp": 12, "n_heads": 2, "batch_size": 8}
BASES = {"msu": gc.msu(**TINY, steps=24), "periodic": gc.periodic(2, **TINY, steps=8)}
SMALL = gc.msu(**TINY, steps=400, alpha=0.8, lr=0.01, weight_decay=0.1)


@pytest.fixture(scope="module")
def check() -> Any:
    spec = importlib.util.spec_from_file_location("gpu_check", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_cpu_agrees_with_itself(check: Any) -> None:
    checks = check.agreement("cpu", BASES)
    assert len(checks) == 14 and all(one.passed for one in checks), checks


def test_a_device_that_computes_something_else_is_found_out(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(specs: Any, device: str, plain: bool = False) -> Any:
        decayed = [gc.replace(spec, lr=1.001 * spec.optimizer.lr) if device == "other" else spec for spec in specs]
        named = dict(zip([spec.id for spec in decayed], specs, strict=True))
        return {named[run.spec.id].id: run for run in train(decayed, "cpu", plain=plain)}

    monkeypatch.setattr(check, "trained", other)
    checks = {one.what: one.passed for one in check.agreement("other", BASES)}
    assert not checks["msu, float64: GPU and CPU"] and not checks["periodic, float64: GPU and CPU"]


def test_grokking_times_that_differ_are_found_out(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    (result,) = check.tf32("cpu", 8, gc.replace(SMALL, steps=100))
    assert result.passed and torch.get_float32_matmul_precision() == "highest"
    trained = check.trained

    def slower(specs: Any, device: str) -> Any:
        runs = trained(specs, device)
        at = 0 if torch.get_float32_matmul_precision() == "highest" else 1
        for run in runs.values():
            run.curve["val_accuracy"][:] = 0.0
            run.curve["val_accuracy"][at + 1] = 1.0
        return runs

    monkeypatch.setattr(check, "trained", slower)
    (result,) = check.tf32("cpu", 8, gc.replace(SMALL, steps=100))
    assert not result.passed


def test_a_small_sweep_is_stored_and_loaded(check: Any) -> None:
    (result,) = check.small_sweep("cpu", 2, gc.replace(SMALL, d_model=16, d_mlp=64, weight_decay=0.0))
    assert "run-steps a second, 2 of 2 runs fitted" in result.result and result.passed
    (result,) = check.small_sweep("cpu", 2, gc.replace(SMALL, steps=3))
    assert "0 of 2 runs fitted" in result.result and not result.passed


def test_without_a_gpu_nothing_is_checked_and_that_is_said(
    check: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check, "device_of", lambda device: "cpu")
    assert check.main([]) == 1
    assert "not run, torch sees no GPU" in capsys.readouterr().err
