"""A death of a process counts against a run only if nothing else trained in its pool; here the order is forced."""

import os
from collections import Counter
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import pytest
from helpers.sweep_processes import SHORT, tidy

from grokcore.records.store import Store
from grokcore.spec.run import grid
from grokcore.sweeps import pool, progress
from grokcore.sweeps.executors import LocalProcesses
from grokcore.sweeps.pool import TrainingError
from grokcore.sweeps.sweep import sweep
from grokcore.sweeps.worker import Job, Result, train_whole

INNOCENT, TWICE, ALWAYS, LATER = grid(SHORT, seed=range(4))


class FakeProcesses:
    """One pool at a time in this process, which breaks for all groups in it when one of them is to die.

    Args:
        deaths: How often the processes of runs are killed, by run id. In a shared pool that of `ALWAYS` dies first.
        all_begin: Whether all groups of a pool that breaks had begun, or only the one that dies.
    """

    capacity = 3

    def __init__(self, deaths: dict[str, int], all_begin: bool) -> None:
        self.deaths = Counter(deaths)
        self.all_begin = all_begin
        self.running: list[tuple[Future[list[Result]], Job]] = []
        self.alone: list[str] = []  # runs that were handed over alone
        self.beside: list[int] = []  # how many others were running when they were

    def submit(self, job: Job, alone: bool) -> Future[list[Result]]:
        if alone:
            self.alone.append(job.specs[0].id)
            self.beside.append(len(self.running))
        self.running.append((Future(), job))
        return self.running[-1][0]

    def look(self, futures: Any, **options: Any) -> Any:
        """Let all groups end that were handed over, then wait as the sweep does."""
        dying = [job for _, job in self.running if self.deaths[job.specs[0].id]]
        first = max(dying, key=lambda job: job.specs[0] == ALWAYS, default=None)
        for future, job in self.running:
            if first is None:
                future.set_result(train_whole(job))
            else:
                if job is first or self.all_begin:
                    progress.begin(job.progress, job.specs[0].id, {})
                future.set_exception(BrokenProcessPool("a process was killed"))
        if first is not None:
            self.deaths[first.specs[0].id] -= 1
        self.running.clear()
        return wait(futures, **options)

    def on_break(self, error: BaseException) -> None: ...

    def is_deserted(self) -> bool:
        return False

    def close(self) -> None: ...


def swept(store: Store, fake: FakeProcesses, monkeypatch: pytest.MonkeyPatch) -> str:
    """Sweep four runs in these processes and return the message of the error."""
    monkeypatch.setattr(pool, "LocalProcesses", lambda n: fake)
    monkeypatch.setattr(pool, "wait", fake.look)
    with pytest.raises(TrainingError) as caught:
        sweep([INNOCENT, TWICE, ALWAYS, LATER], store=store, device="cpu", jobs=2)
    assert tidy(store)
    return str(caught.value)


def test_a_neighbour_of_runs_that_kill_their_process_is_trained(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """All four groups were running when a pool broke twice; one of them dies twice alone, which is not three times."""
    fake = FakeProcesses({TWICE.id: 3, ALWAYS.id: 99}, all_begin=True)
    message = swept(store, fake, monkeypatch)
    assert message.startswith(f"1 runs failed, all others that were trained here are saved:\n{ALWAYS.id}: its process")
    assert "killed 3 times while nothing trained beside it" in message
    assert set(store.ids()) == {INNOCENT.id, TWICE.id, LATER.id}
    assert Counter(fake.alone) == {INNOCENT.id: 1, TWICE.id: 3, ALWAYS.id: 3, LATER.id: 1}
    assert fake.beside == [0] * 8 and fake.deaths[ALWAYS.id] == 99 - 5


def test_a_single_death_leaves_no_group_to_train_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone one after the other, the groups of a machine with many cores would take many times as long."""
    fake = FakeProcesses({TWICE.id: 1}, all_begin=True)
    monkeypatch.setattr(pool, "LocalProcesses", lambda n: fake)
    monkeypatch.setattr(pool, "wait", fake.look)
    sweep([INNOCENT, TWICE, ALWAYS, LATER], store=store, device="cpu", jobs=2)
    assert fake.deaths[TWICE.id] == 0 and fake.alone == [] and len(store.ids()) == 4


def test_groups_that_had_not_begun_are_no_suspects(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeProcesses({ALWAYS.id: 99}, all_begin=False)
    assert swept(store, fake, monkeypatch).count("killed 3 times") == 1
    assert set(store.ids()) == {INNOCENT.id, TWICE.id, LATER.id}
    assert fake.alone == [ALWAYS.id] * 3 and fake.beside == [0] * 3


def test_a_suspect_has_a_process_of_its_own(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """No process that has trained another run, which could be killed late, and none beside it."""
    monkeypatch.setattr("grokcore.sweeps.executors.train_whole", lambda job: os.getpid())
    job = Job(
        specs=[SHORT],
        device="cpu",
        keep_weights=(),
        plain=False,
        progress=store.cache,
        checkpoints=store.checkpoints,
        checkpoint_every=60.0,
    )
    processes = LocalProcesses(2)
    ids: list[Any] = []
    sizes: list[int] = []
    try:
        for alone in (False, True, True, False):
            ids.append(processes.submit(job, alone).result())
            sizes.append(processes.pool._max_workers)  # type: ignore[union-attr]
    finally:
        processes.close()
    assert len({*ids, os.getpid()}) == 5 and sizes == [2, 1, 1, 2]
