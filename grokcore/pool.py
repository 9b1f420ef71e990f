"""The local pool: a process a core on a CPU with one run each or several small ones, one process on a GPU with many.

A group whose process was killed is trained again, one that does not fit into the memory of a GPU is halved, and one
that another sweep is at is left to it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass, replace
from pathlib import Path

from grokcore import checkpoint
from grokcore.grouping import cpu_groups, gpu_groups
from grokcore.parts import shown
from grokcore.progress import Meter, Watch
from grokcore.reservations import Reservations
from grokcore.spec import RunSpec
from grokcore.store import RecordError
from grokcore.worker import ENVIRONMENT, Job, Result, train_job, train_whole

RETRIES = 2  # of a group whose process was killed


class DeviceError(RuntimeError):
    """A device that this machine does not have; the message says which there are."""


class TrainingError(RuntimeError):
    """Runs that failed; the message names them with the reason. All others were trained and saved."""


@dataclass(frozen=True)
class Options:
    """How a sweep trains; see `grokcore.sweep`. `checkpoints` is the folder of theirs, `every` their seconds."""

    device: str
    jobs: int
    keep: tuple[int, ...]
    plain: bool
    checkpoints: Path
    every: float


def cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_of(device: str) -> str:
    """Return the device meant: "auto" is a GPU if there is one. Raises DeviceError for one that is not there."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise DeviceError(f"device {device!r} was asked for, but torch sees no GPU here: use 'cpu' or 'auto'")
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError):
        raise DeviceError(f"torch has no device {shown(device)} here: use 'cpu', 'cuda' or 'auto'") from None
    return device


def train_all(
    absent: Sequence[RunSpec],
    asked: Sequence[RunSpec],
    options: Options,
    reservations: Reservations,
    at_hand: Callable[[RunSpec], bool],
    watch: Watch | None,
) -> Iterator[Result]:
    """Train the absent runs of those asked for, and yield each record, with the weights kept, as it ends.

    Groups that have a checkpoint go on from it. Left out are groups that another sweep is at, or that are `at_hand`
    when their turn comes. Raises TrainingError at the end if there were runs that failed.
    """
    with tempfile.TemporaryDirectory(prefix="grokcore-") as folder:
        work = _Work(absent, asked, options, Path(folder), reservations, at_hand)
        meter = Meter(absent, Path(folder), watch)
        single = options.device != "cpu" or options.jobs == 1 or len(work.waiting) == 1
        yield from _in_this_process(work, meter) if single else _in_processes(work, options.jobs, meter)
        meter.report(last=True)
    if work.failed:
        raise TrainingError(
            f"{len(work.failed)} runs failed, all others that were trained here are saved:\n" + "\n".join(work.failed)
        )


class _Work:
    """The groups still to train, and the runs that failed."""

    def __init__(
        self,
        absent: Sequence[RunSpec],
        asked: Sequence[RunSpec],
        options: Options,
        folder: Path,
        reservations: Reservations,
        at_hand: Callable[[RunSpec], bool],
    ) -> None:
        self.reservations, self.at_hand, self.failed = reservations, at_hand, list[str]()
        self.tries: dict[Path, int] = {}
        self.wanted = {spec.id for spec in absent}
        self.job = Job([], options.device, options.keep, options.plain, folder, options.checkpoints, options.every)
        self.waiting = self._on_their_way(asked)
        begun = {spec.id for job in self.waiting for spec in job.specs}
        rest = [spec for spec in absent if spec.id not in begun]
        on_cpu = options.device == "cpu"
        groups = cpu_groups(rest, options.jobs) if on_cpu else gpu_groups(rest, options.device, options.plain)
        self.waiting += [replace(self.job, specs=group) for group in groups]

    def _on_their_way(self, asked: Sequence[RunSpec]) -> list[Job]:
        """Return the groups that have a checkpoint under these settings, as they were, the furthest first."""
        specs = {spec.id: spec for spec in asked}
        found: list[tuple[int, Job]] = []
        for path in sorted(self.job.checkpoints.glob("*.safetensors")):
            try:
                header = checkpoint.header(path)
            except RecordError:  # another sweep has just removed it
                continue
            if set(header["runs"]) <= set(specs) and self.wanted & set(header["runs"]):
                job = replace(self.job, specs=[specs[run] for run in header["runs"]])
                if job.path == path:
                    found.append((header["step"], job))
        jobs: list[Job] = []
        for _, job in sorted(found, key=lambda pair: -pair[0]):
            runs = {spec.id for spec in job.specs}
            if not any(runs & {spec.id for spec in other.specs} for other in jobs):
                jobs.append(job)
        return jobs

    def begin(self, job: Job) -> Job | None:
        """Reserve a group; return what of it is to be trained here and now."""
        runs = [spec.id for spec in job.specs]
        if not self.reservations.take(runs):
            return None
        left = [spec for spec in job.specs if not self.at_hand(spec)]
        if left and job.path.is_file():
            return job  # on its way, with runs that have ended: it stays together
        self.reservations.release(set(runs) - {spec.id for spec in left})
        return replace(job, specs=left) if left else None

    def count(self, results: Iterable[Result]) -> int:
        """Return how many of these results were asked for, not those that only belong to a group on its way."""
        return sum(record.spec.id in self.wanted for record, _ in results)

    def end(self, job: Job) -> None:
        """Let go of a group whose records are saved."""
        job.path.unlink(missing_ok=True)
        self.reservations.release(spec.id for spec in job.specs)

    def fail(self, job: Job, reason: str) -> None:
        """Give a group up; if it has a checkpoint, another sweep may go on from there."""
        self.failed += [f"{spec.id}: {reason}" for spec in job.specs if spec.id in self.wanted]
        self.reservations.release(spec.id for spec in job.specs)

    def killed(self, jobs: list[Job]) -> None:
        """Count a death of a process for the groups that had begun; if none had, it died at one that was to begin."""
        files = {job.path: job.progress / job.specs[0].id for job in jobs}
        begun = [job for job in jobs if files[job.path].is_file()] or jobs
        for job in begun:
            files[job.path].unlink(missing_ok=True)
            self.tries[job.path] = self.tries.get(job.path, 0) + 1


def _in_this_process(work: _Work, meter: Meter) -> Iterator[Result]:
    import torch

    while work.waiting:
        if (job := work.begin(work.waiting.pop(0))) is None:
            continue
        done: set[str] = set()
        try:
            for result in train_job(job, meter.report):
                meter.done += work.count([result])
                done.add(result[0].spec.id)
                yield result
        except torch.OutOfMemoryError:
            if len(job.specs) == 1:
                raise
            left = [spec for spec in job.specs if spec.id not in done]
            half = -(-len(left) // 2)
            work.waiting[:0] = [replace(job, specs=part) for part in (left[:half], left[half:]) if part]
        work.end(job)
        torch.cuda.empty_cache()  # after the error, which holds what did not fit; does nothing without a GPU


def _in_processes(work: _Work, n: int, meter: Meter) -> Iterator[Result]:
    """Train groups in loky processes, which also take classes defined in a notebook; if one fails the others go on.

    No more than two groups a process are handed over at a time, so that results do not pile up. A process that is
    killed takes the pool with it: what it was at is tried again, the last time with no other group beside it.
    """
    from loky import ProcessPoolExecutor

    n, alone = min(n, len(work.waiting)), list[Job]()
    pool: Executor | None = None
    running: dict[Future[list[Result]], Job] = {}
    try:
        while work.waiting or alone or running:
            while len(running) < 2 * n and (work.waiting or (alone and not running)):
                job = work.begin(work.waiting.pop(0) if work.waiting else alone.pop(0))
                if job is not None:
                    pool = pool or ProcessPoolExecutor(n, env=ENVIRONMENT)
                    running[_submit(pool, replace(job, parent=os.getpid()))] = job
            ended, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            if any(_broken(future) for future in ended):
                ended, _ = wait(running, return_when=ALL_COMPLETED)  # it breaks for all
                work.killed([running[future] for future in ended if _broken(future)])
                _shut_down(pool)
                pool = None
            for future in ended:
                job, error = running.pop(future), future.exception()
                if error is None:
                    meter.done += work.count(future.result())
                    yield from future.result()
                    work.end(job)
                elif not isinstance(error, BrokenExecutor):
                    work.fail(job, f"{type(error).__name__}: {error}")
                elif work.tries.get(job.path, 0) > RETRIES:
                    work.fail(job, f"its process was killed {RETRIES + 1} times (out of memory?): {error}")
                else:
                    last = work.tries.get(job.path, 0) == RETRIES
                    (alone if last else work.waiting).append(job)
            meter.report()
    finally:
        _shut_down(pool)


def _submit(pool: Executor, job: Job) -> Future[list[Result]]:
    try:
        return pool.submit(train_whole, job)
    except BrokenExecutor as error:  # a process was killed since the last look
        failed: Future[list[Result]] = Future()
        failed.set_exception(error)
        return failed


def _broken(future: Future[list[Result]]) -> bool:
    return isinstance(future.exception(), BrokenExecutor)


def _shut_down(pool: Executor | None) -> None:
    from loky import ProcessPoolExecutor

    if isinstance(pool, ProcessPoolExecutor):
        pool.shutdown(wait=True, kill_workers=True)
