"""Sweeps in an executor that was given: the same records as locally, and a clear error when it takes no more."""

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from helpers.sweep_processes import SHORT, tidy

from grokcore.records.store import Store
from grokcore.spec.run import grid, replace
from grokcore.sweeps import executors, pool, progress, worker
from grokcore.sweeps.executors import ExecutorError
from grokcore.sweeps.locks import Reservations
from grokcore.sweeps.pool import TrainingError
from grokcore.sweeps.progress import Progress
from grokcore.sweeps.sweep import sweep
from grokcore.sweeps.worker import CodeError, Job, train_whole

SPECS = [*grid(SHORT, seed=range(3)), replace(SHORT, lr=0.01)]


class Here(Executor):
    """Calls in this process and at once, what is to be trained through `train`."""

    def __init__(self, train: Callable[[Job], Any] = train_whole) -> None:
        self.train, self.calls, self.jobs = train, list[Any](), list[Job]()

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            if fn is train_whole:
                self.jobs.append(args[0])
                future.set_result(self.train(args[0]))
            else:
                self.calls.append(fn)
                future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture
def local(tmp_path: Path) -> pd.DataFrame:
    """The curves of the same runs trained one by one in this process."""
    return sweep(SPECS, store=Store(tmp_path / "local", tmp_path / "none"), device="cpu", jobs=1)


@pytest.mark.parametrize("make", [lambda: ThreadPoolExecutor(3), Here])
def test_an_executor_gives_the_records_of_local_training(
    store: Store, local: pd.DataFrame, make: Callable[[], Executor]
) -> None:
    with make() as executor:
        got = sweep(SPECS, store=store, device="cpu", executor=executor)
    pd.testing.assert_frame_equal(got, local, check_exact=True)
    assert set(store.ids()) == {spec.id for spec in SPECS} and tidy(store)


def test_threads_of_one_process_train_one_after_the_other(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would change the number of threads that torch uses under each other."""
    train_job, under_way, most = worker.train_job, 0, 0

    def count(job: Job) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        yield from train_job(job)
        under_way -= 1

    monkeypatch.setattr(worker, "train_job", count)
    with ThreadPoolExecutor(3) as executor:
        sweep(SPECS, store=store, device="cpu", executor=executor)
    assert most == 1


def out_of_sight(job: Job) -> Any:
    """Train as on a machine that does not see the folders of the sweep."""
    return train_whole(
        changed(job, progress=Path("/none/progress"), checkpoints=Path("/none/checkpoints"), checkpoint_every=0.0)
    )


@pytest.mark.parametrize("train", [train_whole, out_of_sight])
def test_progress_is_told_also_of_runs_trained_out_of_sight(store: Store, train: Any) -> None:
    seen: list[Progress] = []
    sweep(SPECS, store=store, device="cpu", executor=Here(train), watch=seen.append)
    assert (seen[-1].done, seen[-1].total, seen[-1].steps_done) == (4, 4, 120)
    assert set(seen[-1].curves["run"]) == {spec.id for spec in SPECS}
    assert not Path("/none").exists() and tidy(store)


def test_device_and_groups_are_found_out_where_the_training_is(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "device_of", {"auto": "cuda:7"}.__getitem__)
    monkeypatch.setattr(pool, "gpu_groups", lambda specs, device, plain: [specs[:3], specs[3:]])
    executor = Here(lambda job: train_whole(changed(job, device="cpu")))
    sweep(SPECS, store=store, executor=executor)
    assert executor.calls == [pool._device_of_worker, pool.gpu_groups]
    assert [(job.device, [spec.id for spec in job.specs]) for job in executor.jobs] == [
        ("cuda:7", [spec.id for spec in SPECS[:3]]),
        ("cuda:7", [SPECS[3].id]),
    ]


def test_a_group_that_does_not_fit_into_a_workers_memory_is_halved(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scarce(job: Job) -> Any:
        if len(job.specs) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return train_whole(job)

    monkeypatch.setattr("grokcore.sweeps.grouping.runs_per_program", lambda _: 7)
    executor = Here(scarce)
    sweep(grid(SHORT, seed=range(7)), store=store, device="cpu", executor=executor, jobs=1)
    assert [len(job.specs) for job in executor.jobs] == [7, 4, 2, 2, 3, 2, 1]
    with pytest.raises(TrainingError, match=f"{SPECS[3].id}: OutOfMemoryError: CUDA out"):
        sweep(SPECS[3:], store=store, device="cpu", executor=Here(lambda job: scarce(changed(job, specs=SPECS))))
    assert tidy(store)


def test_memory_of_a_worker_is_free_again_after_a_group_that_was_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error that it sends does not hold the frames, and so the tensors, of the training."""

    def too_large(job: Job) -> Any:
        raise torch.OutOfMemoryError(f"{len(job.specs)} runs")

    monkeypatch.setattr(worker, "train_job", too_large)
    job = Job(
        specs=[SHORT],
        device="cpu",
        keep_weights=(),
        plain=False,
        progress=Path("none"),
        checkpoints=Path("none"),
        checkpoint_every=60.0,
    )
    with pytest.raises(torch.OutOfMemoryError, match="1 runs") as caught:
        train_whole(job)
    assert caught.value.__context__ is None and [entry.name for entry in caught.traceback][-1] == "train_whole"


def breaking(error: Exception, after: int) -> Callable[[Job], Any]:
    """Train a few groups; all later ones meet an executor that takes no more."""
    met: list[Job] = []

    def train(job: Job) -> Any:
        met.append(job)
        if len(met) > after:
            raise error
        return train_whole(job)

    return train


def test_an_executor_that_breaks_is_named_and_what_had_ended_is_kept(store: Store, local: pd.DataFrame) -> None:
    executor = Here(breaking(BrokenProcessPool("a process died"), after=2))
    with pytest.raises(ExecutorError, match=r"no more runs \(BrokenProcessPool: a process died\).*ended is saved"):
        sweep(SPECS, store=store, device="cpu", executor=executor)
    assert store.ids() == sorted(spec.id for spec in SPECS[:2])
    again = Here()
    pd.testing.assert_frame_equal(sweep(SPECS, store=store, device="cpu", executor=again), local, check_exact=True)
    assert [job.specs for job in again.jobs] == [[SPECS[2]], [SPECS[3]]] and tidy(store)


def test_an_executor_that_was_shut_down_is_named(store: Store) -> None:
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(ExecutorError, match="cannot schedule new futures after shutdown"):
        sweep(SPECS, store=store, device="cpu", executor=executor)


def test_a_run_that_fails_does_not_stop_the_others(store: Store) -> None:
    def train(job: Job) -> Any:
        if job.specs == [SPECS[1]]:
            raise ValueError("no such table")
        return train_whole(job)

    with pytest.raises(TrainingError, match=f"1 runs failed, .*\n{SPECS[1].id}: ValueError: no such table"):
        sweep(SPECS, store=store, device="cpu", executor=Here(train))
    assert len(store.ids()) == 3 and tidy(store)


class KilledWorker(Exception):
    """As Dask's, which is known by its name."""


def test_groups_that_a_dead_worker_had_are_tried_once_more_alone(store: Store) -> None:
    """Dask blames all of them; only the one that kills its process again is given up."""
    tried: list[Job] = []

    def train(job: Job) -> Any:
        tried.append(job)
        if job.specs == [SPECS[0]] or (job.specs == [SPECS[1]] and tried.count(job) == 1):
            raise KilledWorker("died")
        return train_whole(job)

    with pytest.raises(TrainingError, match=f"1 runs failed, .*\n{SPECS[0].id}: KilledWorker: died"):
        sweep(SPECS, store=store, device="cpu", executor=Here(train))
    assert [job.specs[0].id for job in tried] == [spec.id for spec in [*SPECS, *SPECS[:2]]]
    assert len(store.ids()) == 3 and tidy(store)


def test_a_run_that_cannot_be_sent_does_not_stop_the_others(store: Store) -> None:
    class Picky(Here):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            if fn is train_whole and args[0].specs == [SPECS[2]]:
                raise TypeError("cannot pickle a lock")
            return super().submit(fn, *args, **kwargs)

    with pytest.raises(TrainingError, match=f"1 runs failed, .*\n{SPECS[2].id}: TypeError: cannot pickle a lock"):
        sweep(SPECS, store=store, device="cpu", executor=Picky())
    assert len(store.ids()) == 3 and tidy(store)


def test_a_cluster_that_is_gone_when_it_is_asked_for_workers_loses_no_result(store: Store) -> None:
    class Gone(Here):
        @property
        def workers(self) -> int:
            if len(self.jobs) > 1:
                raise BrokenProcessPool("no answer")
            return 1

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            if len(self.jobs) > 1:
                raise BrokenProcessPool("no answer")
            return super().submit(fn, *args, **kwargs)

    executor = Gone()
    with pytest.raises(ExecutorError, match="no answer"):
        sweep(SPECS, store=store, device="cpu", executor=executor)
    assert store.ids() == sorted(spec.id for spec in SPECS[:2])
    with pytest.raises(ExecutorError, match="no answer"):
        executors.workers(executor, None)


def test_waiting_for_a_worker_is_said(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Both for the first answer and for a result when all workers have left."""
    monkeypatch.setattr(executors, "NOTICE_AFTER", 0.05)
    monkeypatch.setattr(pool, "NOTICE_AFTER", 0.05)

    class Late(Here):
        workers = 0

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            future: Future[Any] = Future()
            threading.Timer(1.5, lambda: future.set_result(fn(*args, **kwargs))).start()
            return future

    sweep(SPECS[:1], store=store, device="cpu", executor=Late())
    assert [message.split(":")[0] for message in caplog.messages] == ["waiting for a worker", "no worker is left"]


def test_a_sweep_that_has_ended_ends_the_training_for_it(tmp_path: Path) -> None:
    """Its folder goes at once, also under a process that is writing there, which then cannot make it again."""
    with Reservations(tmp_path) as reservations:
        progress.begin(reservations.progress, "run", {})
        progress.add_evaluation(reservations.progress, 1, {"run": {"train_accuracy": 0.5, "val_accuracy": 0.1}})
        assert (reservations.progress / "run").read_text() == "0\n[1, 0.5, 0.1]\n"
    with pytest.raises(FileNotFoundError, match="has ended"):
        progress.add_evaluation(reservations.progress, 2, {"run": {"train_accuracy": 0.5, "val_accuracy": 0.1}})
    assert [path.name for path in tmp_path.iterdir()] == ["turn.lock"]


def test_a_worker_with_another_version_trains_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Here(lambda job: train_whole(changed(job, code="0" * 64)))
    with pytest.raises(TrainingError, match="CodeError: this process on .* has another grokcore"):
        sweep(SPECS, store=store, device="cpu", executor=other)
    monkeypatch.setattr(pool, "CODE", "0" * 64)
    with pytest.raises(CodeError, match=r"than the sweep \(00000000\).*install the same there"):
        sweep(SPECS, store=store, device="cpu", executor=Here())
    assert store.ids() == []


@pytest.mark.parametrize(("workers", "jobs", "most"), [(3, None, 6), (3, 1, 1), (None, 2, 2)])
def test_two_groups_a_worker_are_handed_over(
    store: Store, monkeypatch: pytest.MonkeyPatch, workers: int | None, jobs: int | None, most: int
) -> None:
    """Whatever has been handed over when the sweep looks for results is trained then."""
    handed_over: list[tuple[Future[Any], Job]] = []
    numbers: list[int] = []

    class Later(Here):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            if fn is not train_whole:
                return super().submit(fn, *args, **kwargs)
            handed_over.append((Future(), args[0]))
            return handed_over[-1][0]

    def look(futures: Any, **options: Any) -> Any:
        numbers.append(len(handed_over))
        for future, job in handed_over:
            future.set_result(train_whole(job))
        handed_over.clear()
        return wait(futures, **options)

    monkeypatch.setattr(pool, "wait", look)
    executor = Later()
    if workers is not None:
        executor.workers = workers  # type: ignore[attr-defined]
    sweep(grid(SHORT, steps=[3], seed=range(12)), store=store, device="cpu", executor=executor, jobs=jobs)
    assert numbers == [most] * (12 // most)
