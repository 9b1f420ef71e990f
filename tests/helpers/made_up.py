"""Made-up curves for tests: a run's specification with values that are straight lines between given points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from grokcore.spec.run import RunSpec


def steps_of(spec: RunSpec, every: int = 100) -> np.ndarray:
    """Return evaluation steps 0, every, 2 every, ... of a run."""
    return np.arange(0, spec.steps + 1, every)


def interpolated(steps: np.ndarray, points: Mapping[Any, float]) -> np.ndarray:
    """Return values on straight lines through points {step: value}, constant before the first and after the last."""
    return np.interp(steps, sorted(points), [points[step] for step in sorted(points)])


def jump(at: float, low: float = 0.0, high: float = 1.0) -> dict[float, float]:
    """Return points of a step: `low` until just before `at`, `high` from there on."""
    return {at - 1: low, at: high}


def made_up_curve(spec: RunSpec, train: Mapping[Any, float], val: Mapping[Any, float], **columns: Any) -> pd.DataFrame:
    """Return the curve of a run from points of its accuracies; other columns are points, arrays or constants."""
    steps = steps_of(spec)
    values: dict[str, Any] = {
        "status": "finished",
        "n_train": spec.n_train,
        "n_val": spec.task.n_rows - spec.n_train,
        "train_loss": 1.0,
        "val_loss": 1.0,
        "weight_norm": 10.0,
        "weight_norm_sum": 20.0,
        "weight_cosine": 1.0,
        "answers_kept": 1.0,
        "effective_lr_mean": 0.01,
        "effective_grad_mean": 1.0,
        "train_accuracy": train,
        "val_accuracy": val,
    }
    columns = {k: interpolated(steps, v) if isinstance(v, dict) else v for k, v in (values | columns).items()}
    return pd.DataFrame({**spec.columns(), "step": steps, **columns})
