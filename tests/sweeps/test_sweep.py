"""Sweeps: train what is missing and that alone, save each run as it ends."""

import datetime
import os
import subprocess
import sys
import textwrap
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from grokcore.engine.train import train
from grokcore.nn.build import build_network, user_model
from grokcore.records.record import Record, RecordError, make_record
from grokcore.records.store import Store, repository
from grokcore.spec.base import SpecError
from grokcore.spec.presets import msu, periodic
from grokcore.spec.run import RunSpec, grid, replace
from grokcore.sweeps import pool
from grokcore.sweeps.backlog import SweepOptions
from grokcore.sweeps.locks import Reservations
from grokcore.sweeps.progress import Progress
from grokcore.sweeps.sweep import MissingRuns, estimate, frame, missing, sweep
from grokcore.sweeps.worker import Job, Result

TINY: dict[str, Any] = {"p": 7, "d_model": 8, "d_mlp": 12, "n_heads": 2, "batch_size": 8, "steps": 12}
RUNS = [msu(**TINY), msu(**TINY, seed=1), periodic(1, **TINY)]


def run_sweep(specs: list[RunSpec], store: Store, **options: Any) -> pd.DataFrame:
    options = {"device": "cpu", "jobs": 1} | options
    return sweep(specs, store=store, **options)


def times(store: Store) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in store.cache.iterdir() if path.is_file()}


@pytest.mark.parametrize("jobs", [0, -1, 1.5, "2"])
def test_processes_that_are_no_number_of_them_are_refused(store: Store, jobs: Any) -> None:
    with pytest.raises(SpecError, match=r"jobs = .* was given; a whole number from 1 on is expected"):
        run_sweep(RUNS, store, jobs=jobs)


@pytest.mark.parametrize("value", [RUNS[0], [RUNS[0], RUNS[1].id], [RUNS]])
def test_what_is_no_list_of_runs_is_refused(store: Store, value: Any) -> None:
    for function in (run_sweep, missing):
        with pytest.raises(SpecError, match=r"a list of RunSpec is expected, as \[grokcore.msu\(\)\]"):
            function(value, store)


def test_a_device_may_be_torchs_and_has_to_be_one_that_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pool.device_of(torch.device("cpu")) == pool.device_of("cpu:0") == "cpu"
    there = torch.zeros(1)
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: there)  # as where torch has such a device
    with pytest.raises(pool.DeviceError, match="nothing is trained on device 'meta': use 'cpu', 'cuda' or 'auto'"):
        pool.device_of("meta")


def test_frame_is_tidy_and_holds_what_training_gave(store: Store) -> None:
    curves: Any = run_sweep(RUNS, store)
    assert list(dict.fromkeys(curves["run"])) == [spec.id for spec in RUNS]
    (run,) = train([RUNS[2]])
    rows = curves[curves["run"] == RUNS[2].id].reset_index(drop=True)
    for name, values in run.curve.items():
        np.testing.assert_allclose(rows[name], values.astype(np.float32), rtol=1e-6, err_msg=name)
    for name, value in RUNS[2].columns().items():
        assert (rows[name] == value).all() or value is None and rows[name].isna().all(), name
    assert (curves["n_train"] + curves["n_val"]).unique().tolist() == [42, 49]  # msu leaves out y = 0
    assert set(curves["status"]) == {"finished"} and set(curves["steps"]) == {12}
    for _, group in curves.groupby("run"):
        assert group["step"].is_monotonic_increasing and group["step"].iloc[0] == 0
    assert curves.loc[curves["model"] == "grokformer", "weight_norm_si"].isna().all()


def test_recorded_runs_are_loaded_and_only_missing_ones_are_trained(store: Store) -> None:
    first = run_sweep(RUNS[:2], store)
    before = times(store)
    assert [spec.id for spec in missing([*RUNS, RUNS[2]], store)] == [RUNS[2].id]
    second: Any = run_sweep(RUNS, store)
    assert {name: times(store)[name] for name in before} == before and len(times(store)) == 3
    pd.testing.assert_frame_equal(second[second["run"].isin([s.id for s in RUNS[:2]])][first.columns], first)
    pd.testing.assert_frame_equal(run_sweep(RUNS, store, train=False), second)
    assert missing(RUNS, store) == []
    store.pack("experiment", [spec.id for spec in RUNS])
    for path in store.cache.glob("*.parquet"):
        path.unlink()
    pd.testing.assert_frame_equal(run_sweep(RUNS, store, train=False), second)


def test_runs_come_in_the_order_asked_each_once(store: Store) -> None:
    run_sweep(RUNS, store)
    curves = run_sweep([RUNS[2], RUNS[0], RUNS[2]], store, train=False)
    assert list(dict.fromkeys(curves["run"])) == [RUNS[2].id, RUNS[0].id]
    assert not curves.duplicated(["run", "step"]).any()
    assert run_sweep([], store).empty and frame([]).empty


def test_a_run_given_twice_is_trained_once(store: Store) -> None:
    seen: list[Progress] = []
    run_sweep([RUNS[0], RUNS[0], replace(RUNS[0])], store, watch=seen.append)
    assert seen[-1].total == 1 and len(times(store)) == 1


def test_missing_runs_are_counted_with_their_hours(store: Store) -> None:
    run_sweep(RUNS[:1], store)
    long = [periodic(seed=seed) for seed in range(3)]
    with pytest.raises(MissingRuns, match="3 runs are not recorded.*hours.*--train.*train=True") as caught:
        run_sweep([RUNS[0], *long], store, train=False)
    assert caught.value.specs == long and caught.value.hours == estimate(long, store, 1)
    assert len(times(store)) == 1, "something was trained"
    assert 0.05 < caught.value.hours < 50
    assert estimate(long, store, jobs=3) == pytest.approx(caught.value.hours / 3)
    assert estimate(long[:1], store, jobs=3) == pytest.approx(caught.value.hours / 3)  # one run takes one process
    assert estimate([], store) == 0


def test_estimate_follows_what_is_recorded(store: Store) -> None:
    curve = {"step": np.array([0, 12]), "val_loss": np.zeros(2)}
    store.save(make_record(RUNS[0], curve, "finished", {"seconds": 36.0}))
    store.pack("one", [RUNS[0].id])
    like = replace(RUNS[0], seed=5, lr=0.1, steps=2400)
    assert estimate([like], store, jobs=1) == pytest.approx(36 / 12 * 2400 / 3600)
    assert estimate([replace(like, d_model=16)], store, jobs=1) < 0.1


def test_fresh_trains_all_anew(store: Store) -> None:
    run_sweep(RUNS[:1], store)
    store.save(Record(RUNS[0], store.load(RUNS[0].id).curve, "nonfinite", {}))
    assert set(run_sweep(RUNS[:1], store)["status"]) == {"nonfinite"}
    assert set(run_sweep(RUNS[:1], store, fresh=True)["status"]) == {"finished"}
    assert store.load(RUNS[0].id).status == "finished"


def test_weights_are_kept_and_found_again(store: Store) -> None:
    run_sweep(RUNS[:1], store)
    run_sweep(RUNS[:1], store, keep_weights=[3, 12])  # recorded, but without weights
    assert list(store.weights(RUNS[0].id)) == [3, 12]
    model = build_network(RUNS[0])
    model.load_state_dict({name: torch.from_numpy(value) for name, value in store.weights(RUNS[0].id)[12].items()})
    norm = torch.cat([p.detach().flatten() for p in model.parameters()]).norm().item()
    assert norm == pytest.approx(store.load(RUNS[0].id).curve["weight_norm"].iloc[-1], rel=1e-6)
    before = times(store)
    run_sweep(RUNS[:1], store, keep_weights=[12])
    run_sweep(RUNS[:1], store, keep_weights=[3, 13, 1000], train=False)  # 12 is its last step
    assert times(store) == before, "trained again though the weights are there"
    run_sweep(RUNS[:1], store, keep_weights=[4])
    assert list(store.weights(RUNS[0].id)) == [4]


def test_provenance_says_where_a_run_comes_from(store: Store) -> None:
    began = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=2)
    run_sweep(RUNS[:1], store)
    provenance = store.load(RUNS[0].id).provenance
    assert provenance["torch"] == torch.__version__ and provenance["numpy"] == np.__version__
    assert provenance["device"].startswith("CPU") and provenance["threads"] == 1 == provenance["runs_in_program"]
    assert 0 < provenance["seconds"] < 60 and datetime.datetime.fromisoformat(provenance["date"]) > began
    if (repository() / ".git").exists():
        assert len(provenance["commit"].rstrip("+")) == 40
    else:
        assert provenance["commit"] is None


def test_a_damaged_record_stops_the_sweep(store: Store) -> None:
    run_sweep(RUNS[:1], store)
    (store.cache / f"{RUNS[0].id}.parquet").write_bytes(b"PAR1")
    with pytest.raises(RecordError, match=RUNS[0].id):
        run_sweep(RUNS, store)


def test_watch_sees_the_progress_of_a_sweep(store: Store) -> None:
    seen: list[Progress] = []
    specs = grid(msu(**{**TINY, "steps": 60}), seed=range(3))
    run_sweep(specs, store, watch=seen.append)
    steps = [progress.steps_done for progress in seen]
    assert steps == sorted(steps) and steps[-1] == 3 * 60 == seen[-1].steps_total
    assert [p.done for p in seen] == sorted(p.done for p in seen) and (seen[-1].done, seen[-1].total) == (3, 3)
    assert seen[-1].steps_per_second > 0 and seen[-1].seconds_left == 0
    curves = seen[-1].curves
    assert list(curves.columns) == ["run", "step", "train_accuracy", "val_accuracy", "label"]
    recorded = frame([store.load(spec.id) for spec in specs])
    np.testing.assert_allclose(curves["val_accuracy"], recorded["val_accuracy"], rtol=1e-6)
    assert curves["label"].iloc[-1] == "x*y, seed 2"


class Fails(nn.Module):
    """A network that cannot be trained."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        raise ValueError("this network always fails")


def test_pool_of_processes(store: Store, tmp_path: Path) -> None:
    """Two jobs give the frame of one job; a run that fails is named, and the others are saved."""

    class Local(nn.Module):
        """Defined inside a function, as a class of a notebook cell is: a process cannot import it."""

        def __init__(self, width: int) -> None:
            super().__init__()
            self.embed, self.out = nn.Embedding(7, width), nn.Linear(2 * width, 7)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.out(self.embed(tokens).flatten(1))

    failing = replace(RUNS[0], model=user_model(Fails, width=3))
    local = replace(RUNS[0], model=user_model(Local, width=5))
    specs = [*RUNS[:2], failing, local, replace(RUNS[2], seed=1)]
    seen: list[Progress] = []
    with pytest.raises(RuntimeError, match=f"1 runs? failed(.|\n)*{failing.id}.*this network always fails"):
        run_sweep(specs, store, jobs=2, watch=seen.append)
    specs.remove(failing)
    assert {Path(name).stem for name in times(store)} == {spec.id for spec in specs}
    one_by_one = run_sweep(specs, Store(tmp_path / "alone", tmp_path / "none"))
    pd.testing.assert_frame_equal(run_sweep(specs, store, train=False), one_by_one, check_exact=True)
    assert {store.load(spec.id).provenance["threads"] for spec in specs} == {1}
    assert set(one_by_one["model"]) == {"grokformer", "periodic", "Local"}
    steps = [progress.steps_done for progress in seen]
    assert steps == sorted(steps) and seen and seen[-1].total == 5


def test_no_more_than_two_groups_a_process_are_under_way(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep of a thousand runs neither pickles a thousand at once nor keeps a thousand results."""
    handed_over: list[int] = []

    class Pool:
        def __init__(self, *_: object, **__: object) -> None: ...

        def submit(self, _: object, job: Job) -> Future[list[Result]]:
            handed_over.append(len(taken))
            future: Future[list[Result]] = Future()
            future.set_result([(Record(spec, pd.DataFrame(), "finished", {}), {}) for spec in job.specs])
            return future

        def shutdown(self, **_: object) -> None: ...

    monkeypatch.setattr("loky.ProcessPoolExecutor", Pool)
    taken: list[object] = []
    specs = [replace(RUNS[0], seed=seed) for seed in range(20)]
    options = SweepOptions(device="cpu", jobs=3, checkpoints=store.checkpoints)
    with Reservations(store.cache / "sweeps") as reservations:
        for result in pool.train_all(specs, specs, options, reservations, lambda _: False):
            taken.append(result)
    assert len(taken) == len(handed_over) == 20
    assert max(i + 1 - done for i, done in enumerate(handed_over)) == 6


def test_waiting_for_another_sweep_is_said_once(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks: list[float] = []
    with Reservations(store.cache / "sweeps") as other:
        other.take([RUNS[0].id])

        def sleep(seconds: float) -> None:
            looks.append(seconds)
            if len(looks) == 3:
                other.release([RUNS[0].id])  # as if it had been interrupted: the run is trained here

        monkeypatch.setattr("time.sleep", sleep)
        run_sweep(RUNS[:2], store)
    assert caplog.messages == ["1 runs are left to another sweep on this store: waiting for it"]
    assert len(looks) == 3 and set(store.ids()) == {spec.id for spec in RUNS[:2]}


def python(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(repository()), "OMP_NUM_THREADS": "1"}


def test_a_sweep_of_recorded_runs_does_not_load_torch(store: Store) -> None:
    run_sweep(RUNS, store)
    code = f"""
        import sys
        import grokcore as gc
        from grokcore.records.store import Store

        store = Store({str(store.cache)!r}, {str(store.records)!r})
        tiny = dict(p=7, d_model=8, d_mlp=12, n_heads=2, batch_size=8, steps=12)
        specs = [gc.msu(**tiny), gc.msu(**tiny, seed=1), gc.periodic(1, **tiny)]
        assert gc.missing(specs, store) == [] and store.pack("experiment", [spec.id for spec in specs])
        curves = gc.sweep(specs, store=store)
        assert len(gc.summary(curves)) == 3
        assert "torch" not in sys.modules and "loky" not in sys.modules
        print("loaded")
    """
    done = subprocess.run(python("-c", textwrap.dedent(code)), env=environment(), capture_output=True, text=True)
    assert done.stdout == "loaded\n", done.stderr


def test_device_that_is_not_there_is_named(store: Store) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(RuntimeError, match="'cuda'.*no GPU.*'cpu' or 'auto'"):
        run_sweep(RUNS, store, device="cuda")
    assert set(sweep(RUNS[:1], store=store, device="auto", jobs=1)["run"]) == {RUNS[0].id}
