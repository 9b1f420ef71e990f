"""Snapshots and their files: training goes on from one bit for bit, and damage is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from grokcore.engine import stepping
from grokcore.engine.snapshot import Checkpoints, Snapshot
from grokcore.engine.train import Trained, train
from grokcore.records.record import RecordError
from grokcore.spec.presets import msu, periodic, pku, power
from grokcore.spec.run import RunSpec, grid, replace
from grokcore.sweeps import checkpoint

TINY: dict[str, Any] = {"p": 7, "d_model": 8, "d_mlp": 12, "n_heads": 2, "batch_size": 8, "steps": 60}
SGD = periodic(1, **TINY)
NOISE = power("x/y", **{**TINY, "dropout": 0.1}, weight_noise=0.01)
GROUPS = {
    "one run": [msu(**TINY)],
    "three runs": grid(msu(**TINY), seed=range(3), alpha=[0.4]),
    "ragged batches": [msu(**TINY, alpha=alpha) for alpha in (0.3, 0.55, 0.8)],
    "SGD with momentum": [replace(SGD, momentum=0.9), replace(SGD, momentum=0.5, seed=1)],
    "dropout and noise": grid(NOISE, seed=range(2)),
    "decay towards the start": [replace(msu(**TINY), decay_to_init=True)],
    "LSTM": [pku("lstm", p=7, d_model=8, batch_size=8, steps=60)],
    "one leaves early": [msu(**TINY), msu(**TINY, seed=1, lr=1e30), msu(**TINY, seed=2)],  # its numbers overflow
}
KEPT = [0, 8, 11, 60]


def snapshots(specs: list[RunSpec]) -> tuple[list[Trained], list[Snapshot]]:
    taken: list[Snapshot] = []

    def keep(take: Callable[[], Snapshot]) -> None:
        taken.append(take())

    return list(train(specs, keep_weights=KEPT, checkpoints=Checkpoints(save=keep))), taken


def assert_same(run: Trained, other: Trained) -> None:
    """All but the time is the same, to the last bit."""
    assert (run.spec, run.status, run.engine) == (other.spec, other.status, other.engine)
    assert list(run.curve) == list(other.curve)
    for name, values in run.curve.items():
        assert values.tobytes() == other.curve[name].tobytes() and values.dtype == other.curve[name].dtype, name
    assert list(run.weights) == list(other.weights)
    for step, named in run.weights.items():
        assert set(named) == set(other.weights[step])
        for name, value in named.items():
            assert value.tobytes() == other.weights[step][name].tobytes(), (step, name)


@pytest.mark.parametrize("name", GROUPS)
def test_training_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    whole, taken = snapshots(GROUPS[name])
    assert [snapshot.step for snapshot in taken] == [0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45]
    assert ("nonfinite" in {run.status for run in whole}) == (name == "one leaves early")
    for snapshot in taken[::4]:
        assert_goes_on(GROUPS[name], whole, snapshot, tmp_path / "group")
    assert_goes_on(GROUPS[name], whole, taken[-1], tmp_path / "group")


def assert_goes_on(specs: list[RunSpec], whole: list[Trained], snapshot: Snapshot, path: Path) -> None:
    checkpoint.write(path, snapshot, {})
    resumed = Checkpoints(resume=checkpoint.read(path))
    again = list(train(specs, keep_weights=KEPT, checkpoints=resumed))
    assert len(again) == len(whole)
    for run in again:
        assert_same(run, next(other for other in whole if other.spec == run.spec))


def test_compiled_training_goes_on_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Few steps are left at the last snapshot, and its first batch may be a ragged one: the engine is the same."""
    monkeypatch.setattr(stepping, "COMPILE_FROM", 40)
    specs = [pku("mlp", 0.55, p=7, batch_size=8, steps=60)]
    whole, taken = snapshots(specs)
    assert {run.engine for run in whole} == {"compiled"}
    torch.compiler.reset()
    assert_goes_on(specs, whole, taken[-1], tmp_path / "group")


def test_damage_is_refused_wherever_it_is(tmp_path: Path) -> None:
    """Cut anywhere or with one bit changed anywhere, a checkpoint is an error or reads as it was written."""
    _, taken = snapshots(GROUPS["one leaves early"])
    path, whole = tmp_path / "group", tmp_path / "whole"
    checkpoint.write(whole, taken[-1], {"device": "cpu"})
    data, refused = whole.read_bytes(), 0
    places = np.linspace(0, len(data) - 1, 150).astype(int)
    for place in places:
        path.write_bytes(data[:place])
        with pytest.raises(RecordError, match="group: the checkpoint"):
            checkpoint.read(path)
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
        try:
            snapshot = checkpoint.read(path)
        except RecordError as error:
            assert "group: the checkpoint" in str(error)
            refused += 1
        else:  # a bit of the padding of the header
            checkpoint.write(path, snapshot, {"device": "cpu"})
            assert path.read_bytes() == data
    assert refused > 0.9 * len(places)
    assert checkpoint.header(whole)["settings"] == {"device": "cpu"}
