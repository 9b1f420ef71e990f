"""What a Dask cluster costs compared with the local pool: 64 short runs on each, in turns, with as many processes.

`python benchmarks/cluster_overhead.py [--rounds N]` starts a scheduler and workers on this machine, and prints the
seconds of both and their ratio. A local sweep starts new processes each time. The cluster's processes are already
running; the time to start them is printed separately.
"""

import argparse
import statistics
import tempfile
import time
from concurrent.futures import Executor
from pathlib import Path

from distributed import Client, LocalCluster

import grokcore as gc
from grokcore.records.store import Store
from grokcore.sweeps.dask import DaskExecutor
from grokcore.sweeps.executors import cores

SPECS = gc.grid(gc.msu(p=23, d_model=32, d_mlp=64, batch_size=64, steps=150), seed=range(64))


def seconds(executor: Executor | None) -> float:
    """Return the seconds that a sweep of all runs takes in an empty store, in the local pool without an executor."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        gc.sweep(SPECS, store=Store(Path(folder) / "cache", Path(folder) / "records"), device="cpu", executor=executor)
        return time.perf_counter() - start


def main() -> None:
    """Print the times of both, round by round, and their medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    start = time.perf_counter()
    options = {"n_workers": cores(), "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster, set_as_default=False) as client:
        executor = DaskExecutor(client)
        print(f"{cores()} workers: started in {time.perf_counter() - start:.1f} s, ", end="")
        print(f"first sweep (they load torch) {seconds(executor):.1f} s", flush=True)
        pairs = [(seconds(None), seconds(executor)) for _ in range(rounds)]
    for local, dask in pairs:
        print(f"{len(SPECS)} runs: local pool {local:.2f} s, Dask {dask:.2f} s, ratio {dask / local:.2f}")
    local, dask = (statistics.median(values) for values in zip(*pairs, strict=True))
    print(f"medians: local pool {local:.2f} s, Dask {dask:.2f} s")


if __name__ == "__main__":
    main()
