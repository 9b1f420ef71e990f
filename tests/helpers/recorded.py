"""Records with made-up curves: no network is trained."""

from typing import Any

import numpy as np
import pandas as pd

from grokcore.records.record import Record, make_record
from grokcore.spec.presets import msu, periodic
from grokcore.spec.run import RunSpec

RUNS = [msu(), msu(seed=1), periodic(1), periodic(1, layernorm=False)]
PROVENANCE = {"torch": "2.0", "seconds": 12.5, "commit": "abc", "device": "CPU"}


def record(spec: RunSpec, **changes: Any) -> Record:
    """A record with a made-up curve of five evaluations; no network is trained."""
    rng = np.random.default_rng(int(spec.id, 16))
    steps = np.array([0, 1, 2, 3, spec.steps])
    curve: dict[str, np.ndarray] = {"step": steps, "train_accuracy": rng.random(5), "val_loss": rng.random(5)}
    curve["grad_norm_mean"] = np.array([np.nan, *rng.random(4)])
    curve[f"norm:{spec.model.name}"] = rng.random(5)  # other models have other columns
    return make_record(spec, {**curve, **changes}, "finished", dict(PROVENANCE))


def same(one: Record, other: Record) -> None:
    """Assert that two records are equal in all that they hold."""
    for name in ("spec", "status", "provenance", "checksum"):
        assert getattr(one, name) == getattr(other, name), name
    pd.testing.assert_frame_equal(one.curve, other.curve, check_exact=True)
