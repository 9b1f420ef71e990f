"""The local pool: a process a core on a CPU with one run each or several small ones, one process on a GPU with many.

Workers append every evaluation to a file a run in a folder of the sweep, from which its progress is read.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from grokcore import __version__
from grokcore.grouping import cpu_groups, gpu_groups
from grokcore.spec import RunSpec
from grokcore.store import Record, make_record, repository

if TYPE_CHECKING:
    from grokcore.train import Trained

Weights = Mapping[int, Mapping[str, np.ndarray]]
TELLING = ("alpha", "seed", "model", "optimizer", "weight_decay")  # what a reader looks for first in a run's label
MOST_SHOWN = 3
# Of a process that trains: one thread, and the memory of a step stays with it for the next (glibc would give it back).
ENVIRONMENT = {
    **{"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    **{"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**31)},
}


class DeviceError(RuntimeError):
    """A device that this machine does not have; the message says which there are."""


@dataclass(frozen=True)
class Progress:
    """State of a sweep: runs and steps done of all, rate, seconds left (None at first), and the curves so far.

    `curves` has the columns run, step, train_accuracy, val_accuracy and label, for the runs trained in this sweep.
    """

    done: int
    total: int
    steps_done: int
    steps_total: int
    steps_per_second: float
    seconds_left: float | None
    curves: pd.DataFrame


Watch = Callable[[Progress], None]


def cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def train_all(
    specs: Sequence[RunSpec],
    device: str,
    jobs: int,
    keep: Sequence[int],
    watch: Watch | None,
    plain: bool = False,
) -> Iterator[tuple[Record, Weights]]:
    """Train all runs and yield each record, with the weights kept, as it ends; options as in `grokcore.sweep`."""
    device = device_of(device)
    groups = cpu_groups(specs, jobs) if device == "cpu" else gpu_groups(specs, device, plain)
    with tempfile.TemporaryDirectory(prefix="grokcore-") as folder:
        meter = _Meter(specs, Path(folder), watch)
        if device != "cpu" or jobs == 1 or len(groups) == 1:
            for group in groups:
                for result in _train_group(group, device, keep, folder, meter.report, plain):
                    meter.done += 1
                    yield result
        else:
            yield from _train_in_processes(groups, jobs, keep, folder, meter, plain)
        meter.report(last=True)


def device_of(device: str) -> str:
    """Return the device meant: "auto" is a GPU if there is one. Raises DeviceError for a GPU that is not there."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise DeviceError(f"device {device!r} was asked for, but torch sees no GPU here: use 'cpu' or 'auto'")
    return device


def _train_in_processes(
    groups: list[list[RunSpec]], jobs: int, keep: Sequence[int], folder: str, meter: _Meter, plain: bool
) -> Iterator[tuple[Record, Weights]]:
    """Train groups in loky processes, which also take classes defined in a notebook; if one fails the others go on.

    No more than two groups a process are handed over at a time, so that results do not pile up.
    """
    from loky import ProcessPoolExecutor

    jobs = min(jobs, len(groups))
    pool = ProcessPoolExecutor(jobs, env=ENVIRONMENT)
    failed: list[str] = []
    groups, running = list(groups), {}
    try:
        while groups or running:
            while groups and len(running) < 2 * jobs:
                group = groups.pop(0)
                try:
                    running[pool.submit(_train_listed, group, keep, folder, plain)] = group
                except RuntimeError as error:  # a worker was killed and took the pool with it
                    failed += [f"{spec.id}: {type(error).__name__}: {error}" for spec in group]
            ended, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            while ended:
                future = ended.pop()
                group, error = running.pop(future), future.exception()
                if error is None:
                    meter.done += len(group)
                    yield from future.result()
                else:
                    failed += [f"{spec.id}: {type(error).__name__}: {error}" for spec in group]
            meter.report()
    finally:
        pool.shutdown(wait=True, kill_workers=bool(running))
    if failed:
        raise RuntimeError(f"{len(failed)} runs failed, all others are saved:\n" + "\n".join(failed))


def _train_listed(group: list[RunSpec], keep: Sequence[int], folder: str, plain: bool) -> list[tuple[Record, Weights]]:
    return list(_train_group(group, "cpu", keep, folder, None, plain))


def _train_group(
    group: list[RunSpec],
    device: str,
    keep: Sequence[int],
    folder: str,
    report: Callable[[], None] | None,
    plain: bool,
) -> Iterator[tuple[Record, Weights]]:
    """Train one program, on one thread if on a CPU."""
    import torch

    from grokcore.train import train

    def note(step: int, rows: dict[str, dict[str, float]]) -> None:
        for run, row in rows.items():
            with (Path(folder) / run).open("a") as file:
                file.write(json.dumps([step, row["train_accuracy"], row["val_accuracy"]]) + "\n")
        if report is not None:
            report()

    threads = torch.get_num_threads()
    torch.set_num_threads(1 if device == "cpu" else threads)
    try:
        for run in train(group, device, plain=plain, keep_weights=keep, watch=note):
            provenance = _provenance(run, device, len(group))
            yield make_record(run.spec, run.curve, run.status, provenance), run.weights
    finally:
        torch.set_num_threads(threads)


def _provenance(run: Trained, device: str, n_runs: int) -> dict[str, Any]:
    """Say where a run comes from; `seconds` is wall time divided by the runs of its program."""
    import torch

    on_gpu = device.startswith("cuda")
    name = torch.cuda.get_device_name(device) if on_gpu else f"CPU {torch.backends.cpu.get_cpu_capability()}"
    return {
        **{"grokcore": __version__, "torch": torch.__version__, "numpy": np.__version__},
        **{"python": platform.python_version(), "device": name, "threads": torch.get_num_threads()},
        **{"matmul_precision": torch.get_float32_matmul_precision(), "runs_in_program": n_runs, "engine": run.engine},
        **{"seconds": round(run.seconds, 2), "commit": _commit()},
        **{"date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")},
    }


@cache
def _commit() -> str | None:
    """Return the commit of the source tree, with "+" if the package differs from it; None outside version control."""
    git = ["git", "-C", str(repository())]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--", "grokcore"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


class _Meter:
    """Reports the progress of a sweep to its watcher, about once a second."""

    def __init__(self, specs: Sequence[RunSpec], folder: Path, watch: Watch | None) -> None:
        self.specs, self.folder, self.watch = specs, folder, watch
        self.done, self.began, self.latest = 0, time.monotonic(), 0.0
        self.labels = _labels(specs)

    def report(self, last: bool = False) -> None:
        now = time.monotonic()
        if self.watch is None or (now - self.latest < 1 and not last):
            return
        self.latest = now
        rows: list[tuple[Any, ...]] = []
        done = 0
        for spec in self.specs:
            path = self.folder / spec.id
            lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
            evaluated = [json.loads(line) for line in lines if line.endswith("\n")]
            rows += [(spec.id, *values, self.labels[spec.id]) for values in evaluated]
            done += evaluated[-1][0] if evaluated else 0
        curves = pd.DataFrame(rows, columns=["run", "step", "train_accuracy", "val_accuracy", "label"])
        total = sum(spec.steps for spec in self.specs)
        rate = done / max(now - self.began, 1e-9)
        left = (total - done) / rate if done else None
        self.watch(Progress(self.done, len(self.specs), done, total, rate, left, curves))


def _labels(specs: Sequence[RunSpec]) -> dict[str, str]:
    """Name each run by its operation and by what tells it most of what else differs between the runs of the sweep."""
    columns = {spec.id: spec.columns() for spec in specs}
    names = [*TELLING, *(name for name in specs[0].columns() if name not in ("run", "operation", *TELLING))]
    shown = [name for name in names if len({values[name] for values in columns.values()}) > 1][:MOST_SHOWN]
    return {
        run: ", ".join([values["operation"], *(f"{name} {values[name]}" for name in shown)])
        for run, values in columns.items()
    }
