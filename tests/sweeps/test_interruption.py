"""Sweeps that are interrupted or run out of memory or disk say what is saved, break nothing and go on."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from helpers.sweep_processes import LONG, SHORT, alive, checkpoints, environment, start, tidy, wait_for

from grokcore.cli.main import main
from grokcore.engine.snapshot import Snapshot
from grokcore.engine.train import Trained, train
from grokcore.records.atomic import StoreError
from grokcore.records.store import Store
from grokcore.spec.run import RunSpec, grid, replace
from grokcore.sweeps import checkpoint, worker
from grokcore.sweeps.pool import TrainingError
from grokcore.sweeps.sweep import sweep
from grokcore.sweeps.worker import Job


def test_interrupted_from_the_keyboard_it_says_what_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(folder: Path, step: int, rows: dict[str, Any]) -> None:
        if step == 8:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setenv("GROKCORE_CACHE", str(tmp_path))
    monkeypatch.setattr("grokcore.sweeps.progress.add_evaluation", interrupt)
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main(["train", "--p", "7", "--steps", "100", "--set", "d_model=8"]) == 130
    finally:
        signal.signal(signal.SIGINT, previous)
    errors = capsys.readouterr().err
    assert "interrupted; 0 of 1 runs are saved, and there are 0 checkpoints to go on from; the same command" in errors


def test_ctrl_c_while_a_record_is_written_lets_it_be_written(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    save = Store.save

    def interrupted(*arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        save(*arguments)

    monkeypatch.setattr(Store, "save", interrupted)
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            sweep(grid(SHORT, seed=range(2)), store=store, device="cpu", jobs=1)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert len(store.ids()) == 1 and store.load(store.ids()[0]).status == "finished"
    assert caught.value.__notes__ == ["1 of 2 runs are saved, and there are 0 checkpoints to go on from"]


def test_an_interrupted_parallel_sweep_leaves_no_process_and_no_broken_file(tmp_path: Path) -> None:
    specs = grid(LONG, seed=range(4))
    process = start(tmp_path, specs)
    store = Store(tmp_path / "cache", tmp_path / "records")
    wait_for(process, lambda: len(checkpoints(store)) > 1)
    os.killpg(process.pid, signal.SIGINT)
    errors = process.communicate()[1]
    assert process.returncode != 0 and "0 of 4 runs are saved, and there are 2 checkpoints" in errors, errors
    assert errors.count("Traceback") == 1  # of the sweep, none of its processes
    deadline = time.monotonic() + 30
    while left := alive(process.pid):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    for path in checkpoints(store):
        checkpoint.read(path)


def test_a_group_that_does_not_fit_into_memory_is_halved(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def scarce(specs: list[RunSpec], *arguments: Any, **options: Any) -> Iterator[Trained]:
        sizes.append(len(specs))
        if len(specs) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return train(specs, *arguments, **options)

    monkeypatch.setattr("grokcore.engine.train.train", scarce)
    monkeypatch.setattr("grokcore.sweeps.grouping.runs_per_program", lambda _: 7)
    specs = grid(SHORT, seed=range(7))
    assert sweep(specs, store=store, device="cpu", jobs=1).groupby("run").ngroups == 7
    assert sizes == [7, 4, 2, 2, 3, 2, 1]
    monkeypatch.setattr("grokcore.engine.train.train", lambda specs, *_, **__: scarce(specs * 3))
    with pytest.raises(TrainingError, match=f"{LONG.id}: OutOfMemoryError") as caught:
        sweep([LONG], store=store, device="cpu", jobs=1)
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)


def test_a_run_that_fails_in_this_process_does_not_stop_the_others(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def picky(specs: list[RunSpec], *arguments: Any, **options: Any) -> Iterator[Trained]:
        if specs[0].seed == 1:
            raise ValueError("no such table")
        return train(specs, *arguments, **options)

    monkeypatch.setattr("grokcore.engine.train.train", picky)
    specs = grid(SHORT, seed=range(3))
    with pytest.raises(TrainingError, match=f"1 runs failed, .*\n{specs[1].id}: ValueError: no such table") as caught:
        sweep(specs, store=store, device="cpu", jobs=1)
    assert isinstance(caught.value.__cause__, ValueError)
    assert set(store.ids()) == {specs[0].id, specs[2].id} and tidy(store)


FULL = """
    import resource, sys
    from pathlib import Path
    import grokcore as gc
    from grokcore.records.atomic import StoreError
    from grokcore.records.store import Store

    folder = Path(sys.argv[1])
    spec = gc.msu(p=7, d_model=8, d_mlp=12, n_heads=2, batch_size=8, steps=30)
    store = Store(folder / "cache", folder / "records")
    gc.sweep([spec], store=store, device="cpu", jobs=1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))  # a write beyond it fails, as on a disk that is full
    try:
        gc.sweep([gc.replace(spec, seed=1)], store=store, device="cpu", jobs=1, checkpoint_every=0)
    except StoreError as error:
        print(error)
"""


def test_a_disk_that_fills_up_is_a_clear_error_and_breaks_nothing(tmp_path: Path) -> None:
    """A checkpoint that cannot be written is a warning; a record that cannot be written ends the sweep."""
    command = [sys.executable, "-c", textwrap.dedent(FULL), str(tmp_path)]
    done = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True)
    assert "no checkpoint, training goes on" in done.stderr and "Traceback" not in done.stderr
    assert re.search(r"\.parquet cannot be written \(.*File too large\): free space, make the folder", done.stdout)
    store = Store(tmp_path / "cache", tmp_path / "records")
    assert store.ids() == [SHORT.id] and store.load(SHORT.id).status == "finished" and tidy(store)


def test_a_folder_that_cannot_be_written_is_an_error_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    store = Store(tmp_path / "file" / "cache", tmp_path / "records")
    with pytest.raises(StoreError, match=r"sweeps cannot be written \(Not a directory\).*GROKCORE_CACHE"):
        sweep([SHORT], store=store, device="cpu", jobs=1, watch=lambda _: pytest.fail("it trained"))


@pytest.fixture
def interrupted(store: Store, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only checkpoint of the store, of a sweep of a short run that was interrupted."""
    write, written = checkpoint.write, list[Path]()

    def interrupt(path: Path, *arguments: Any) -> None:
        write(path, *arguments)
        written.append(path)
        if len(written) == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            sweep([SHORT], store=store, device="cpu", jobs=1, checkpoint_every=0)
    assert checkpoints(store) == [written[0]] and store.ids() == []
    return written[0]


def test_a_sweep_goes_on_from_its_checkpoint(store: Store, interrupted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr("grokcore.sweeps.progress.add_evaluation", lambda folder, step, rows: seen.append(step))
    sweep([replace(SHORT, seed=1), SHORT], store=store, device="cpu", jobs=1)
    assert seen == [6, 8, 11, 16, 23, 30] + [0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 30]
    assert store.load(SHORT.id).curve["step"].tolist() == [0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 30]
    assert not checkpoints(store)


def test_a_checkpoint_names_the_code_that_training_began_with(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the one on the disk when it is written, which somebody may have edited meanwhile."""
    write, named, engines = checkpoint.write, list[str](), iter(["first", "edited"])

    def note(path: Path, snapshot: Snapshot, settings: dict[str, Any]) -> None:
        write(path, snapshot, settings)
        named.append(settings["made_by"]["code"])

    monkeypatch.setattr(worker, "_versions_and_code", lambda _: {"code": next(engines)})
    monkeypatch.setattr(checkpoint, "write", note)
    sweep([SHORT], store=store, device="cpu", jobs=1, checkpoint_every=0)
    assert len(named) > 5 and set(named) == {"first"}


@pytest.mark.parametrize("change", [{"plain": True}, {"keep_weights": [3]}, {"fresh": True}])
def test_a_checkpoint_of_another_sweep_is_not_used(
    store: Store, interrupted: Path, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr("grokcore.sweeps.progress.add_evaluation", lambda folder, step, rows: seen.append(step))
    sweep([SHORT], store=store, device="cpu", jobs=1, **change)
    assert seen[0] == 0


def test_a_checkpoint_of_another_version_is_not_used(
    store: Store, interrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "__version__", "0.0.0")
    with pytest.warns(RuntimeWarning, match="1 runs start again.*grokcore 0.1.0, now 0.0.0"):
        sweep([SHORT], store=store, device="cpu", jobs=1)
    assert store.load(SHORT.id).provenance["grokcore"] == "0.0.0" and not checkpoints(store)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-5], lambda data: data[:-5] + b"12345", lambda data: b"", lambda data: data[50:]]
)
def test_a_damaged_checkpoint_is_said_and_not_used(
    store: Store, interrupted: Path, damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    interrupted.write_bytes(damage(interrupted.read_bytes()))
    with pytest.warns(RuntimeWarning, match=interrupted.name):
        curve = sweep([SHORT], store=store, device="cpu", jobs=1)
    pd.testing.assert_frame_equal(curve, sweep([SHORT], store=Store(tmp_path / "a", tmp_path / "b"), device="cpu"))
    assert not checkpoints(store)


def test_what_is_not_a_leftover_stays(store: Store) -> None:
    store.cache.mkdir(parents=True)
    leftover, own = store.cache / ".1f.parquet.x7", store.cache / ".gitignore"
    for path in (leftover, own):
        path.write_text("")
        os.utime(path, (0, 0))
    young = store.cache / ".2f.parquet.x8"
    young.write_text("")
    store.clear_leftovers()
    assert sorted(store.cache.iterdir()) == [young, own]


def test_a_pool_that_breaks_while_a_result_is_saved_does_not_end_the_sweep(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Handing over a group to it fails at once: it is handed to the next pool."""
    from loky import ProcessPoolExecutor
    from loky.process_executor import TerminatedWorkerError

    handed, submit = list[Job](), ProcessPoolExecutor.submit

    def broken(pool: ProcessPoolExecutor, function: Any, job: Job) -> Any:
        handed.append(job)
        if len(handed) == 2:
            raise TerminatedWorkerError("killed")
        return submit(pool, function, job)

    monkeypatch.setattr(ProcessPoolExecutor, "submit", broken)
    specs = grid(SHORT, seed=range(3))
    sweep(specs, store=store, device="cpu", jobs=2)
    assert set(store.ids()) == {spec.id for spec in specs} and len(handed) > 3


def test_a_worker_that_dies_before_it_begins_is_not_tried_for_ever(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("grokcore.sweeps.executors.train_whole", lambda _: os._exit(1))
    with pytest.raises(TrainingError, match="2 runs failed(.|\n)*killed 3 times"):
        sweep(grid(SHORT, seed=range(2)), store=store, device="cpu", jobs=2)
