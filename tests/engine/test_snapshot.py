"""Snapshots of a training: what they hold, and that only the same runs resume from one (see sweeps/test_checkpoint)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from grokcore.engine.snapshot import Checkpoints, Snapshot
from grokcore.engine.train import train
from grokcore.spec.base import SpecError
from grokcore.spec.presets import msu
from grokcore.spec.run import RunSpec

TINY: dict[str, Any] = {"p": 7, "d_model": 8, "d_mlp": 12, "n_heads": 2, "batch_size": 8, "steps": 60}


def snapshots(specs: list[RunSpec]) -> list[Snapshot]:
    """Return the snapshots of a training, one after each evaluation but the last."""
    taken: list[Snapshot] = []

    def save(take: Callable[[], Snapshot]) -> None:
        taken.append(take())

    list(train(specs, keep_weights=[0, 8, 11, 60], checkpoints=Checkpoints(save=save)))
    return taken


def test_a_snapshot_is_not_changed_by_the_training_after_it() -> None:
    taken = snapshots([msu(**TINY), msu(**TINY, seed=1, lr=1e30), msu(**TINY, seed=2)])  # the second overflows
    assert [set(snapshot.weights[snapshot.runs[0]]) for snapshot in taken[::4]] == [{0}, {0}, {0, 8, 11}]
    assert [len(next(iter(snapshot.curves[taken[0].runs[0]].values()))) for snapshot in taken] == list(range(1, 13))
    assert taken[0].ended == {} and taken[0].left == taken[0].runs and len(taken[-1].ended) == 1
    assert not np.array_equal(taken[0].state["theta"], taken[4].state["theta"])


def test_a_snapshot_of_other_runs_is_refused() -> None:
    snapshot = snapshots([msu(**TINY)])[0]
    with pytest.raises(SpecError, match=f"snapshot is of {snapshot.runs[0]}"):
        list(train([msu(**TINY), msu(**TINY, seed=1)], checkpoints=Checkpoints(resume=snapshot)))
