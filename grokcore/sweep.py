"""Sweeps: load the runs that are at hand, train the rest, save each as it ends, and give one tidy frame.

On a CPU every process trains one run on one thread, as many processes as cores; on a GPU one process trains many runs at once.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from grokcore import __version__
from grokcore.spec import RunSpec
from grokcore.store import Record, Store, make_record, repository

if TYPE_CHECKING:
    from grokcore.train import Trained

GPU_BYTES_PER_RUN = 80e6  # weights, moments and activations of the largest source model, with room to spare
SECONDS_PER_FLOP = 1 / 30e9  # of one CPU thread, for an estimate where nothing like it is recorded


class MissingRuns(RuntimeError):
    """Runs that are not recorded while training was not asked for; `specs` are the runs, `hours` the estimate."""

    def __init__(self, specs: Sequence[RunSpec], hours: float) -> None:
        self.specs, self.hours = list(specs), hours
        super().__init__(
            f"{len(specs)} runs are not recorded; training them takes about {hours:.2g} hours: ask for it with --train or train=True"
        )


@dataclass(frozen=True)
class Progress:
    """State of a sweep: runs and steps done of all, rate, seconds left, and the curves so far of the runs in training."""

    done: int
    total: int
    steps_done: int
    steps_total: int
    steps_per_second: float
    seconds_left: float | None
    curves: pd.DataFrame


Watch = Callable[[Progress], None]


def missing(specs: Sequence[RunSpec], store: Store | None = None) -> list[RunSpec]:
    """Return the specifications that are neither recorded nor in the cache, each once."""
    found = (store or Store()).find(specs)
    return [spec for run, spec in {spec.id: spec for spec in specs}.items() if run not in found]


def estimate(specs: Sequence[RunSpec], store: Store | None = None, jobs: int | None = None) -> float:
    """Return about how many hours the runs take with `jobs` processes (default: one a core), from what is recorded of their like."""
    store = store or Store()
    rates: dict[tuple[Any, ...], list[float]] = {}
    for header in (
        header for experiment in store.experiments() for header in store.headers(experiment).values()
    ):
        spec = RunSpec.model_validate(header["spec"])
        rates.setdefault(_like(spec), []).append(header["provenance"]["seconds"] / spec.steps)
    seconds = sum(spec.steps * float(np.median(rates.get(_like(spec), [_guess(spec)]))) for spec in specs)
    return seconds / 3600 / min(jobs or _cores(), max(len(specs), 1))


def _like(spec: RunSpec) -> tuple[Any, ...]:
    return (spec.model.model_dump_json(), spec.task.p, spec.batch_size, spec.precision)


def _guess(spec: RunSpec) -> float:
    layers, width, hidden = (
        getattr(spec.model, name, size) for name, size in (("n_layers", 2), ("d_model", 128), ("d_mlp", 512))
    )
    flops = 6 * min(spec.batch_size, spec.n_train) * layers * (4 * width * width + 2 * width * hidden)
    return 2e-3 + flops * SECONDS_PER_FLOP


def sweep(
    specs: Sequence[RunSpec],
    *,
    store: Store | None = None,
    device: str = "auto",
    jobs: int | None = None,
    train: bool = True,
    fresh: bool = False,
    keep_weights: Sequence[int] = (),
    watch: Watch | None = None,
) -> pd.DataFrame:
    """Return the curves of all runs as one tidy frame, a row a (run, evaluation), training what is not at hand.

    `device` is "auto" (a GPU if there is one), "cpu" or a torch device; `jobs` processes train on a CPU (default: one a core);
    `fresh` trains all runs anew; `keep_weights` are steps at which weights are kept (`Store.weights`); `watch(progress)` is called
    about once a second. Runs are saved as they end: started again after an interruption, a sweep goes on with those missing.
    Raises MissingRuns with `train=False`, RecordError for a damaged record, SpecError for runs that cannot be trained.
    """
    store = store or Store()
    unique = {spec.id: spec for spec in specs}
    found = {} if fresh else store.find(unique.values())
    absent = [spec for run, spec in unique.items() if run not in found]
    if keep_weights:
        lacking = [
            spec
            for run, spec in unique.items()
            if run in found and not _has_weights(store, spec, keep_weights)
        ]
        absent += lacking
    if absent and not train:
        raise MissingRuns(absent, estimate(absent, store, jobs))
    if absent:
        for record, weights in _train_all(
            absent, _device(device), jobs or _cores(), tuple(keep_weights), watch
        ):
            store.save(record, weights)
            found[record.spec.id] = record
    return frame([found[run] for run in unique])


def frame(records: Sequence[Record]) -> pd.DataFrame:
    """Return records as one tidy frame: columns of the specification, status, sizes of the sets, then the curve."""
    parts = []
    for record in records:
        spec = record.spec
        fixed = {
            **spec.columns(),
            "status": record.status,
            "n_train": spec.n_train,
            "n_val": spec.task.n_rows - spec.n_train,
        }
        repeated = pd.DataFrame({name: [value] * len(record.curve) for name, value in fixed.items()})
        parts.append(pd.concat([repeated, record.curve.reset_index(drop=True)], axis=1))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _has_weights(store: Store, spec: RunSpec, steps: Sequence[int]) -> bool:
    path = store.cache / f"{spec.id}.safetensors"
    return path.is_file() and set(steps) <= set(store.weights(spec.id))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _device(device: str) -> str:
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _train_all(
    specs: list[RunSpec], device: str, jobs: int, keep: tuple[int, ...], watch: Watch | None
) -> Iterator[tuple[Record, Any]]:
    groups = [[spec] for spec in specs] if device == "cpu" else _gpu_groups(specs, device)
    with tempfile.TemporaryDirectory(prefix="grokcore-") as folder:
        meter = _Meter(specs, Path(folder), watch)
        if device != "cpu" or jobs == 1 or len(groups) == 1:
            for group in groups:
                for result in _train_group(group, device, keep, folder, meter.report):
                    meter.done += 1
                    yield result
        else:
            yield from _train_in_pool(groups, jobs, keep, folder, meter)
        meter.report(force=True)


def _gpu_groups(specs: list[RunSpec], device: str) -> list[list[RunSpec]]:
    """Group runs by program, as many in a group as the free memory of the GPU holds."""
    import torch

    from grokcore.train import program_key

    free, _ = torch.cuda.mem_get_info(device)
    size = max(1, int(free * 0.8 / GPU_BYTES_PER_RUN))
    programs: dict[Any, list[RunSpec]] = {}
    for spec in specs:
        programs.setdefault(program_key(spec), []).append(spec)
    return [group[i : i + size] for group in programs.values() for i in range(0, len(group), size)]


def _train_in_pool(
    groups: list[list[RunSpec]], jobs: int, keep: tuple[int, ...], folder: str, meter: _Meter
) -> Iterator[tuple[Record, Any]]:
    """Train groups in a pool of loky processes (which take classes defined in a notebook); what has ended is kept if one fails."""
    from loky import ProcessPoolExecutor

    pool = ProcessPoolExecutor(min(jobs, len(groups)), env={"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
    waiting: set[Future[Any]] = set()
    failed: list[str] = []
    try:
        tasks = {pool.submit(_train_list, group, keep, folder): group for group in groups}
        waiting = set(tasks)
        while waiting:
            ended, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in ended:
                error = future.exception()
                if error is not None:
                    failed.append(
                        f"{', '.join(spec.id for spec in tasks[future])}: {type(error).__name__}: {error}"
                    )
                    continue
                meter.done += len(future.result())
                yield from future.result()
            meter.report()
    finally:
        pool.shutdown(wait=True, kill_workers=bool(waiting))
    if failed:
        raise RuntimeError(
            f"{len(failed)} of {len(groups)} runs failed, the others are saved:\n" + "\n".join(failed)
        )


def _train_list(group: list[RunSpec], keep: tuple[int, ...], folder: str) -> list[tuple[Record, Any]]:
    return list(_train_group(group, "cpu", keep, folder, None))


def _train_group(
    group: list[RunSpec], device: str, keep: tuple[int, ...], folder: str, report: Callable[[], None] | None
) -> Iterator[tuple[Record, Any]]:
    """Train one program; every evaluation is appended to a file in `folder`, from which the sweep reports its progress."""
    import torch

    from grokcore.train import train

    files = {spec.id: Path(folder) / spec.id for spec in group}

    def note(step: int, rows: dict[str, dict[str, float]]) -> None:
        for run, row in rows.items():
            with files[run].open("a") as file:
                file.write(json.dumps([step, row["train_accuracy"], row["val_accuracy"]]) + "\n")
        if report is not None:
            report()

    threads = torch.get_num_threads()
    torch.set_num_threads(1 if device == "cpu" else threads)
    try:
        for run in train(group, device, keep_weights=keep, watch=note):
            yield (
                make_record(run.spec, run.curve, run.status, _provenance(run, device, len(group))),
                run.weights,
            )
    finally:
        torch.set_num_threads(threads)


def _provenance(run: Trained, device: str, n_runs: int) -> dict[str, Any]:
    """Say where a run comes from; `seconds` is wall time divided by the runs of its program."""
    import torch

    name = (
        torch.cuda.get_device_name(device)
        if device.startswith("cuda")
        else f"CPU {torch.backends.cpu.get_cpu_capability()}"
    )
    return {
        **{
            "grokcore": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        **{
            "device": name,
            "threads": torch.get_num_threads(),
            "runs_in_program": n_runs,
            "seconds": round(run.seconds, 2),
        },
        **{"date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "commit": _commit()},
    }


def _commit() -> str | None:
    """Return the commit of the source tree, with "+" if the package differs from it, or None outside version control."""
    git = ["git", "-C", str(repository())]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--", "grokcore"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changed.strip() else "")


class _Meter:
    """Reports the progress of a sweep to its watcher, at most once a second."""

    def __init__(self, specs: list[RunSpec], folder: Path, watch: Watch | None) -> None:
        self.specs, self.folder, self.watch = specs, folder, watch
        self.done, self.began, self.last = 0, time.monotonic(), 0.0

    def report(self, force: bool = False) -> None:
        now = time.monotonic()
        if self.watch is None or (now - self.last < 1 and not force):
            return
        self.last = now
        rows = [
            (
                spec.id,
                *json.loads(line),
                f"{spec.task.operation}, α = {spec.alpha:g}, {spec.optimizer.name}, seed {spec.seed}",
            )
            for spec in self.specs
            if (self.folder / spec.id).is_file()
            for line in (self.folder / spec.id).read_text().splitlines(keepends=True)
            if line.endswith("\n")
        ]
        curves = pd.DataFrame(rows, columns=["run", "step", "train_accuracy", "val_accuracy", "label"])
        steps_done = int(curves.groupby("run")["step"].max().sum())
        steps_total = sum(spec.steps for spec in self.specs)
        rate = steps_done / max(now - self.began, 1e-9)
        left = (steps_total - steps_done) / rate if steps_done else None
        self.watch(Progress(self.done, len(self.specs), steps_done, steps_total, rate, left, curves))
