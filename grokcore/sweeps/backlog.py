"""The backlog of a sweep: the groups of runs that are still to be trained, and what became of those that failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path

from grokcore.records.record import RecordError
from grokcore.spec.run import RunSpec
from grokcore.sweeps import checkpoint
from grokcore.sweeps.locks import Reservations
from grokcore.sweeps.progress import Watch
from grokcore.sweeps.worker import Job, Result

MOST_DEATHS = 3  # of the process of a group that trains alone, after which the group is given up


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """How a sweep trains; see `grokcore.sweep` for what the options mean.

    Attributes:
        device: "cpu" or a CUDA device, as `pool.device_for` gives it.
        jobs: The number of processes; None for what the executor has workers for, or this machine cores.
        keep_weights: Steps at which weights are kept.
        plain: Whether the engine's short cuts are left out.
        fresh: Whether available runs are trained again.
        checkpoints: The folder of the checkpoints.
        checkpoint_every: Seconds between two checkpoints of a group.
        executor: Whose processes train; None for those of this machine.
        watch: Called with the progress about once a second.
    """

    device: str
    jobs: int | None = None
    keep_weights: tuple[int, ...] = ()
    plain: bool = False
    fresh: bool = False
    checkpoints: Path
    checkpoint_every: float = 60.0
    executor: Executor | None = None
    watch: Watch | None = None


class Backlog:
    """The groups still to be trained, those with a checkpoint first, and the runs that failed.

    A group that had begun when its pool of processes broke is tried again beside others once, so that a single death
    costs no time. If its pool breaks again, it is a suspect: it is tried alone, in a pool of its own, and only deaths
    there count. With others beside it nobody can tell whose process died first: the others of a broken pool are killed
    too.

    Args:
        absent: The runs to train.
        requested: All runs of the sweep; a checkpoint may hold some that are saved already.
        options: How the sweep trains.
        reservations: Those of this sweep.
        is_available: Tells whether a run need not be trained, when its turn comes.
        group: Divides runs into groups that train together.
    """

    def __init__(
        self,
        *,
        absent: Sequence[RunSpec],
        requested: Sequence[RunSpec],
        options: SweepOptions,
        reservations: Reservations,
        is_available: Callable[[RunSpec], bool],
        group: Callable[[Sequence[RunSpec]], list[list[RunSpec]]],
    ) -> None:
        self.reservations = reservations
        self.is_available = is_available
        self.absent = {spec.id for spec in absent}
        self.failed: list[str] = []  # a line each, with the reason
        self.cause: BaseException | None = None  # of the first failure
        self.suspects: list[Job] = []  # to be tried alone, once nothing else is waiting
        self.suspected: set[Path] = set()  # checkpoints of groups that have been among the suspects
        self.breaks = Counter[Path]()  # of pools in which groups had begun
        self.deaths = Counter[Path]()  # of the processes of groups that trained alone
        self.job = Job(
            specs=[],
            device=options.device,
            keep_weights=options.keep_weights,
            plain=options.plain,
            progress=reservations.progress,
            checkpoints=options.checkpoints.absolute(),
            checkpoint_every=options.checkpoint_every,
        )
        self.waiting = self._with_checkpoint(requested)
        begun = {spec.id for job in self.waiting for spec in job.specs}
        rest = [spec for spec in absent if spec.id not in begun]
        self.waiting += [replace(self.job, specs=specs) for specs in group(rest)]

    def _with_checkpoint(self, requested: Sequence[RunSpec]) -> list[Job]:
        """Return the groups that have a checkpoint under these settings, as they were, the furthest first."""
        specs = {spec.id: spec for spec in requested}
        jobs_by_step: list[tuple[int, Job]] = []
        for path in sorted(self.job.checkpoints.glob("*.safetensors")):
            try:
                header = checkpoint.header(path)
            except RecordError:  # another sweep has just removed it
                continue
            if set(header["runs"]) <= set(specs) and self.absent & set(header["runs"]):
                job = replace(self.job, specs=[specs[run] for run in header["runs"]])
                if job.path == path:
                    jobs_by_step.append((header["step"], job))
        jobs: list[Job] = []
        for _, job in sorted(jobs_by_step, key=lambda pair: -pair[0]):
            runs = {spec.id for spec in job.specs}
            if not any(runs & {spec.id for spec in other.specs} for other in jobs):
                jobs.append(job)
        return jobs

    def begin(self, job: Job) -> Job | None:
        """Reserve a group; return what of it is to be trained here and now, None if nothing."""
        runs = [spec.id for spec in job.specs]
        if not self.reservations.take(runs):
            return None
        left = [spec for spec in job.specs if not self.is_available(spec)]
        if left and job.path.is_file():
            return job  # it has a checkpoint, with runs that have ended: it stays together
        self.reservations.release(set(runs) - {spec.id for spec in left})
        return replace(job, specs=left) if left else None

    def count(self, results: Iterable[Result]) -> int:
        """Return how many of these results were to be trained, without those that only belong to a resumed group."""
        return sum(record.spec.id in self.absent for record, _ in results)

    def end(self, job: Job) -> None:
        """Release a group whose records are saved."""
        job.path.unlink(missing_ok=True)
        self.reservations.release(spec.id for spec in job.specs)

    def fail(self, job: Job, error: BaseException, reason: str = "", done: Iterable[str] = ()) -> None:
        """Give up a group; another sweep may resume it from its checkpoint.

        Args:
            job: The group.
            error: What went wrong.
            reason: What the message says of it; default: the error.
            done: Ids of its runs that have ended and did not fail.
        """
        self.cause, reason = self.cause or error, reason or f"{type(error).__name__}: {error}"
        self.failed += [f"{spec.id}: {reason}" for spec in job.specs if spec.id in self.absent - set(done)]
        self.reservations.release(spec.id for spec in job.specs)

    def put_back(self, jobs: Sequence[Job], error: BaseException) -> None:
        """Put back the groups of a pool of processes that broke, but give up one that has died alone too often.

        Args:
            jobs: All groups that the pool had.
            error: The error that each of them has.
        """
        files = {job.path: job.progress / job.specs[0].id for job in jobs}
        begun = {path for path, file in files.items() if file.is_file()} or set(files)  # none: one died at its start
        for job in jobs:
            if job.path not in begun:
                self.waiting.append(job)
                continue
            files[job.path].unlink(missing_ok=True)
            self.breaks[job.path] += 1
            self.deaths[job.path] += job.path in self.suspected  # a suspect was alone
            if self.breaks[job.path] == 1:
                self.waiting.append(job)
            elif self.deaths[job.path] < MOST_DEATHS:
                self.suspect(job)
            else:
                reason = f"its process was killed {MOST_DEATHS} times while nothing trained beside it (out of memory?)"
                self.fail(job, error, f"{reason}: {error}")

    def suspect(self, job: Job) -> None:
        """Have a group tried again alone."""
        self.suspected.add(job.path)
        self.suspects.append(job)

    def halve(self, job: Job, done: Iterable[str] = ()) -> None:
        """Put a group that does not fit into memory back as two.

        Args:
            job: The group.
            done: Ids of its runs that have ended; they are left out.
        """
        left = [spec for spec in job.specs if spec.id not in set(done)]
        half = -(-len(left) // 2)
        self.waiting[:0] = [replace(job, specs=specs) for specs in (left[:half], left[half:]) if specs]
