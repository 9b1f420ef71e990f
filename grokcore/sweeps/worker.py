"""One group of runs in one process, here or elsewhere: its progress, its checkpoints, where its records come from."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import platform
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from grokcore import __version__
from grokcore.engine.snapshot import Checkpoints, Snapshot
from grokcore.records.atomic import StoreError
from grokcore.records.record import Record, RecordError, make_record
from grokcore.spec.base import GrokcoreError
from grokcore.spec.run import RunSpec
from grokcore.sweeps import checkpoint, progress

if TYPE_CHECKING:
    from grokcore.engine.train import Trained

Weights = Mapping[int, Mapping[str, np.ndarray]]
Result = tuple[Record, Weights]
# Of a process that trains: one thread, and the memory of a step stays with it for the next (glibc would give it back).
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**31),
}
# The hash of the package's text that this process has loaded; the files may change while it lives.
PACKAGE = Path(__file__).resolve().parents[1]
CODE = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(PACKAGE.rglob("*.py")))).hexdigest()
_ONE_AT_A_TIME = threading.Lock()  # of the threads of one process, which would share torch's settings


class CodeError(GrokcoreError, RuntimeError):
    """A process that has another version of this package than the sweep that it is to train for."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A group of runs to train together.

    Checkpoints are written to `path` and resumed from there by a process that sees the folder `progress`: one on the
    same machine or file system.

    Attributes:
        specs: The runs.
        device: "cpu" or a CUDA device.
        keep_weights: Steps at which weights are kept.
        plain: Whether the engine's short cuts are left out.
        progress: The folder of the sweep to which evaluations are written.
        checkpoints: The folder of the checkpoints.
        checkpoint_every: Seconds between two checkpoints.
        parent: The id of a process; training ends if it is not the parent of this one any more.
        code: The hash of the text of the package that the records are to come from.
    """

    specs: list[RunSpec]
    device: str
    keep_weights: tuple[int, ...]
    plain: bool
    progress: Path
    checkpoints: Path
    checkpoint_every: float
    parent: int | None = None
    code: str = CODE

    @property
    def settings(self) -> dict[str, Any]:
        """What a checkpoint has to share with this job, beside its runs, for the training to go on from it."""
        return {"device": self.device, "keep": sorted(self.keep_weights), "plain": self.plain}

    @property
    def path(self) -> Path:
        """The file of the checkpoint of this group."""
        return checkpoint.path(self.checkpoints, [spec.id for spec in self.specs], self.settings)


def train_job(job: Job, report: Callable[[], None] | None = None) -> Iterator[Result]:
    """Train a group, on one thread if on a CPU.

    Args:
        job: The group.
        report: Called after every evaluation.

    Yields:
        The record of each run as it ends, with the weights kept.

    Raises:
        FileNotFoundError: If the sweep has ended meanwhile.
    """
    from grokcore.engine.train import train

    engine, sees_sweep = _versions_and_code(job.device), job.progress.is_dir()
    resume, written = _resumed(job, engine) if sees_sweep else None, time.monotonic()

    def watch(step: int, rows: dict[str, dict[str, float]]) -> None:
        if job.parent is not None and os.getppid() != job.parent:
            os._exit(1)  # nobody waits for the result, and another sweep may be training these runs
        if sees_sweep:
            progress.add_evaluation(job.progress, step, rows)
        if report is not None:
            report()

    def save(take: Callable[[], Snapshot]) -> None:
        nonlocal written
        if sees_sweep and time.monotonic() - written >= job.checkpoint_every:
            try:
                checkpoint.write(job.path, take(), {**job.settings, "made_by": engine})
            except StoreError as error:
                warnings.warn(f"no checkpoint, training goes on: {error}", RuntimeWarning, stacklevel=2)
            written = time.monotonic()

    for spec in job.specs if sees_sweep else []:
        progress.begin(job.progress, spec.id, resume.curves[spec.id] if resume is not None else {})
    with one_thread(job.device):
        runs = train(
            job.specs,
            job.device,
            plain=job.plain,
            keep_weights=job.keep_weights,
            watch=watch,
            checkpoints=Checkpoints(resume=resume, save=save),
        )
        for run in runs:
            provenance = _provenance(run, job.device, len(job.specs))
            yield make_record(run.spec, run.curve, run.status, provenance), run.weights


@contextlib.contextmanager
def one_thread(device: str = "cpu") -> Iterator[None]:
    """Let torch take one thread on a CPU: the networks are too small for more."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1 if device == "cpu" else threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def train_whole(job: Job) -> list[Result]:
    """Train a group to its end for the sweep of another process.

    Args:
        job: The group.

    Returns:
        The record of each run with the weights kept.

    Raises:
        CodeError: If the sweep has another version of this package.
        torch.OutOfMemoryError: If the group does not fit into the memory of the GPU, which is free again then.
    """
    import torch

    require_code(job.code)
    with _ONE_AT_A_TIME:
        try:
            return list(train_job(job))
        except torch.OutOfMemoryError as error:
            message = str(error)
        torch.cuda.empty_cache()  # after the error, which holds what did not fit
        raise torch.OutOfMemoryError(message)


def require_code(code: str) -> None:
    """Raise CodeError unless this process has loaded the text of the package that has this hash."""
    if code != CODE:
        raise CodeError(
            f"this process on {platform.node()} has another grokcore ({__version__}, {CODE[:8]}) than the sweep "
            f"({code[:8]}), and a record has to come from one version: install the same there and start it again; "
            "if it is this machine, the package was changed since the sweep's program began: start that again"
        )


def _resumed(job: Job, engine: dict[str, Any]) -> Snapshot | None:
    """Return the snapshot to go on from; one that is damaged or of another version is removed with a warning."""
    if not job.path.is_file():
        return None
    try:
        snapshot, made_by = checkpoint.read(job.path), checkpoint.header(job.path)["settings"]["made_by"]
        changes = [
            f"{name} {made_by.get(name)}, now {engine[name]}" for name in engine if made_by.get(name) != engine[name]
        ]
        if not changes:
            return snapshot
        reason = f"a curve has to come from one version: {'; '.join(changes)}"
    except RecordError as error:
        reason = str(error)
    job.path.unlink(missing_ok=True)
    message = f"{len(job.specs)} runs start again, not from their checkpoint ({reason})"
    warnings.warn(message, RuntimeWarning, stacklevel=2)
    return None


def versions(device: str) -> dict[str, Any]:
    """Return what numbers depend on beside specification and package text: versions, the device and its precision."""
    import torch

    on_gpu = device.startswith("cuda")
    return {
        "grokcore": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if on_gpu else f"CPU {torch.backends.cpu.get_cpu_capability()}",
        "matmul_precision": torch.get_float32_matmul_precision(),
    }


def _versions_and_code(device: str) -> dict[str, Any]:
    """Return what a checkpoint depends on beside its specification: versions, device, and the text of the package."""
    return {**versions(device), "code": CODE[:16]}


def _provenance(run: Trained, device: str, n_runs: int) -> dict[str, Any]:
    """Return where a run comes from; `seconds` is wall time divided by the number of runs of its program."""
    import torch

    return {
        **versions(device),
        "threads": torch.get_num_threads(),
        "runs_in_program": n_runs,
        "engine": run.engine,
        "commit": _commit(),
        "seconds": run.seconds,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


@cache
def _commit() -> str | None:
    """Return the commit that this package is of, with "+" if it differs from it; None outside version control."""
    git = ["git", "-C", str(PACKAGE)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", "__init__.py"], capture_output=True, check=True)
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", "--", "."], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
