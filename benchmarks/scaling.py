"""What one more run costs besides its training: bytes, files and seconds of the store, of a sweep and of a cluster.

`python benchmarks/scaling.py [--runs N]` makes N records with made-up numbers, as long and as wide as the recorded runs
of `msu`, and prints a table, on which `docs/scaling.md` rests.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client, LocalCluster
from distributed.protocol.serialize import serialize

import grokcore as gc
from grokcore.engine import snapshot
from grokcore.engine.train import train
from grokcore.records.record import Record, make_record
from grokcore.records.store import Store
from grokcore.sweeps import checkpoint, grouping, progress
from grokcore.sweeps.dask import DaskExecutor
from grokcore.sweeps.locks import Reservations
from grokcore.sweeps.progress import ProgressReporter
from grokcore.sweeps.sweep import frame
from grokcore.sweeps.worker import Job


def timed(action: Callable[[], Any]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def made_up_records(n: int) -> list[Record]:
    """Return records of n runs with the columns and the provenance of a recorded one, and random numbers in them."""
    model, rng = Store().load(gc.msu().id), np.random.default_rng(0)
    n_evaluations, n_columns = model.curve.shape
    names = [name for name in model.curve if name not in ("step", "epoch")]
    times = {name: model.curve[name].to_numpy() for name in ("step", "epoch")}
    specs = gc.grid(gc.msu(), seed=range(1000, 1000 + n))
    print(f"{n} records of {n_evaluations} evaluations with {n_columns} measures")
    curves = (times | {name: rng.random(n_evaluations) for name in names} for _ in specs)
    return [make_record(spec, curve, "finished", model.provenance) for spec, curve in zip(specs, curves, strict=True)]


def measure_store(store: Store, records: list[Record], say: Callable[[str, float, str], None]) -> None:
    """Print what a run costs in the store and in a frame."""
    n, specs = len(records), [record.spec for record in records]
    say("specification made", timed(lambda: gc.grid(gc.msu(), seed=range(n))) / n * 1e6, "µs")
    say("its id", timed(lambda: [spec.id for spec in specs]) / n * 1e6, "µs")
    say("grouped for a CPU", timed(lambda: grouping.cpu_groups(specs, 2)) / n * 1e6, "µs")
    say("saved", timed(lambda: [store.save(record) for record in records]) / n * 1e3, "ms")
    say("size in the cache", sum(path.stat().st_size for path in store.cache.glob("*.parquet")) / n / 1e3, "kB")
    say("loaded from the cache", timed(lambda: store.find(specs)) / n * 1e3, "ms")
    say("packed", timed(lambda: store.pack("all", [spec.id for spec in specs])) / n * 1e3, "ms")
    say("size when packed", sum(path.stat().st_size for path in store.records.glob("all.*")) / n / 1e3, "kB")
    say("of that, its header", len(json.dumps(records[0].header(), indent=1)) / 1e3, "kB")
    say("loaded from the pack", timed(lambda: store.find(specs)) / n * 1e3, "ms")
    say("in memory, in a frame", frame(records).memory_usage(deep=True).sum() / n / 1e3, "kB")


def measure_sweep(folder: Path, records: list[Record], say: Callable[[str, float, str], None]) -> None:
    """Print what a run costs a sweep besides its training."""
    specs = [record.spec for record in records]
    with Reservations(folder) as reservations:
        reporter = ProgressReporter(specs, reservations.progress, lambda _: None)
        for record in records:
            progress.complete(reservations.progress, record.spec.id, record.curve)
        say("shown, at each look", timed(lambda: reporter.report(last=True)) / len(specs) * 1e6, "µs")
        first = specs[:200]
        seconds = timed(lambda: [(reservations.take([spec.id]), reservations.release([spec.id])) for spec in first])
    say("reserved and released", seconds / len(first) * 1e3, "ms")
    snapshots: list[snapshot.Snapshot] = []
    save = snapshot.Checkpoints(save=lambda take: snapshots.append(take()))
    list(train([gc.replace(specs[0], steps=5)], checkpoints=save))
    checkpoint.write(folder / "x.safetensors", snapshots[-1], {})
    say("size of a checkpoint", (folder / "x.safetensors").stat().st_size / 1e6, "MB")


def bytes_sent(value: Any) -> int:
    """Return how many bytes Dask sends for a value from one process to another."""
    return sum(memoryview(buffer).nbytes for buffer in serialize(value)[1])


def untrained(job: Job) -> int:
    """Do what a worker does besides training: take a job, return a number."""
    return len(job.specs)


def measure_cluster(records: list[Record], say: Callable[[str, float, str], None]) -> None:
    """Print what a task costs a scheduler on this machine, and how many bytes are sent."""
    job = Job(
        specs=[records[0].spec],
        device="cpu",
        keep_weights=(),
        plain=False,
        progress=Path("progress"),
        checkpoints=Path("checkpoints"),
        checkpoint_every=60.0,
    )
    say("job of one run, sent", bytes_sent(job) / 1e3, "kB")
    say("result of one run, sent back", bytes_sent([(records[0], {})]) / 1e3, "kB")
    options = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster, set_as_default=False) as client:
        executor = DaskExecutor(client)
        executor.submit(untrained, job).result()
        jobs = [replace(job, specs=[record.spec]) for record in records]
        seconds = timed(lambda: [future.result() for future in [executor.submit(untrained, one) for one in jobs]])
        say("scheduled by Dask", seconds / len(jobs) * 1e3, "ms")


def main() -> None:
    """Print the costs of a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    records = made_up_records(parser.parse_args().runs)

    def say(what: str, value: float, unit: str) -> None:
        print(f"{what:<32}{value:>10.3g} {unit} a run", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        measure_store(Store(Path(folder) / "cache", Path(folder) / "records"), records, say)
        measure_sweep(Path(folder) / "sweeps", records, say)
    measure_cluster(records, say)


if __name__ == "__main__":
    main()
