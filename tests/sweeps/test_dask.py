"""A Dask cluster of a real scheduler and real worker processes on loopback: what it trains, and what it survives."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import pandas as pd
import pytest
from helpers.sweep_processes import LONG, SHORT, checkpoints, environment, tidy
from torch import Tensor, nn

from grokcore.cli.main import main
from grokcore.nn.build import user_model
from grokcore.records.record import Record, RecordError
from grokcore.records.store import Store
from grokcore.spec.run import grid, replace
from grokcore.sweeps import checkpoint
from grokcore.sweeps.dask import connected
from grokcore.sweeps.executors import ExecutorError
from grokcore.sweeps.progress import Progress
from grokcore.sweeps.sweep import sweep
from grokcore.sweeps.worker import Weights


@dataclass
class Cluster:
    """A scheduler and workers, each a process."""

    folder: Path
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        file = self.folder / "scheduler.json"
        where = ["--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file), "--no-dashboard"]
        self.scheduler = self._launch("distributed.cli.dask_scheduler", *where)
        deadline = time.monotonic() + 60
        while not file.is_file():
            assert self.scheduler.poll() is None and time.monotonic() < deadline, self.output()
            time.sleep(0.05)
        self.address: str = json.loads(file.read_text())["address"]

    def start_worker(self) -> None:
        options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(self.folder)]
        self.workers.append(self._launch("distributed.cli.dask_worker", self.address, *options))

    def _launch(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            command = [sys.executable, "-m", module, *arguments]
            return subprocess.Popen(command, stdout=log, stderr=log, env=environment(self.folder), cwd=self.folder)

    def output(self) -> str:
        return (self.folder / "log").read_text()

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGKILL)
        process.wait()

    def close(self) -> None:
        for process in [*self.workers, self.scheduler]:
            if process.poll() is None:
                self.kill(process)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster of two workers."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    started = Cluster(folder)
    try:
        started.start_worker()
        started.start_worker()
        yield started
    finally:
        started.close()


@pytest.fixture
def local(tmp_path: Path) -> Store:
    """A store for the same runs trained one by one in this process."""
    return Store(tmp_path / "local", tmp_path / "none")


def test_a_cluster_gives_the_records_of_local_training(
    store: Store, local: Store, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also of a network that only this process knows; and through the command line."""

    class Mine(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.embed, self.out = nn.Embedding(7, width), nn.Linear(2 * width, 7)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.out(self.embed(tokens).flatten(1).relu())

    specs = [*grid(SHORT, seed=range(5)), replace(SHORT, model=user_model(Mine, width=5))]
    lines: list[str] = []
    with connected(cluster.address, lines.append) as executor:
        got = sweep(specs, store=store, device="auto", executor=executor)
        executor.client.wait_for_workers(2, timeout=60)
        assert executor.workers == 2
    assert all("no worker has joined" in line for line in lines)
    pd.testing.assert_frame_equal(got, sweep(specs, store=local, device="cpu", jobs=1), check_exact=True)
    assert tidy(store)

    monkeypatch.setenv("GROKCORE_CACHE", str(store.cache))
    command = ["train", "--p", "7", "--steps", "5", "--set", "d_model=8", "--cluster", cluster.address]
    assert main(command) == 0
    assert "trained and saved" in capsys.readouterr().out


def test_a_worker_killed_in_the_middle_loses_nothing_and_nothing_is_done_twice(
    store: Store, local: Store, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was at goes on from its checkpoint in another worker."""
    specs = grid(replace(LONG, steps=600), seed=range(3))
    saved, seen, killed = Counter[str](), list[int](), list[int]()
    save = Store.save

    def kill_one() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with contextlib.suppress(RecordError):  # a checkpoint that has just been removed
                at = [checkpoint.header(path)["step"] for path in checkpoints(store)]
                if len(at) == 2 and min(at) > 100:
                    killed.append(sum(at))
                    cluster.kill(cluster.workers[0])
                    return
            time.sleep(0.01)

    def note(progress: Progress) -> None:
        if killed:
            seen.append(progress.steps_done)

    def counted(self: Store, record: Record, weights: Weights | None = None) -> None:
        saved[record.spec.id] += 1
        save(self, record, weights)

    monkeypatch.setattr(Store, "save", counted)
    with connected(cluster.address) as executor, ThreadPoolExecutor(1) as beside:
        executor.client.wait_for_workers(2, timeout=60)
        executor.client.run(import_module, "grokcore.engine.train")  # both begin at once, however busy the machine
        killing = beside.submit(kill_one)
        got = sweep(specs, store=store, device="cpu", checkpoint_every=0, executor=executor, watch=note)
        killing.result()
    assert killed and saved == dict.fromkeys((spec.id for spec in specs), 1)
    assert min(seen) >= killed[0], "a run began again at its first step"
    monkeypatch.undo()
    pd.testing.assert_frame_equal(got, sweep(specs, store=local, device="cpu", jobs=1), check_exact=True)
    assert tidy(store)


@pytest.mark.parametrize("saving", [False, True])
def test_a_scheduler_that_has_gone_is_named_and_what_had_ended_is_kept(
    store: Store, local: Store, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, saving: bool
) -> None:
    """Gone while results are waited for, or while the third of them is saved and others wait to be handed over."""
    specs = [*grid(SHORT, seed=range(3)), *grid(replace(LONG, steps=100_000), seed=range(8 if saving else 2))]
    save = Store.save

    def watch(progress: Progress) -> None:
        if progress.done == 3 and not saving:
            cluster.kill(cluster.scheduler)

    def last(self: Store, record: Record, weights: Weights | None = None) -> None:
        if len(self.ids()) == 2 and saving:
            cluster.kill(cluster.scheduler)
        save(self, record, weights)

    monkeypatch.setattr(Store, "save", last)

    with (
        pytest.raises(ExecutorError, match="takes no more runs.*scheduler of a cluster.*ended is saved"),
        connected(cluster.address) as executor,
    ):
        sweep(specs, store=store, device="cpu", executor=executor, watch=watch)
    assert store.ids() == sorted(spec.id for spec in specs[:3])
    got = sweep(specs[:3], store=store, train=False)
    pd.testing.assert_frame_equal(got, sweep(specs[:3], store=local, device="cpu", jobs=1), check_exact=True)


def test_no_scheduler_no_worker_and_no_dask_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("grokcore.sweeps.dask.TIMEOUT", 0.5)
    for address in ("tcp://127.0.0.1:9", "nowhere://x"):
        assert main(["train", "--cluster", address]) == 1
        errors = capsys.readouterr().err
        assert f"no Dask scheduler answers at '{address}'" in errors and "dask scheduler" in errors
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ExecutorError, match=r"pip install 'grokcore\[cluster\]'"), connected("tcp://127.0.0.1:9"):
        pass
