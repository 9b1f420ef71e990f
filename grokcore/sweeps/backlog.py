"""The backlog of a sweep: the groups of runs that are still to be trained, and what became of those that failed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path

from grokcore.records.record import RecordError
from grokcore.spec.run import RunSpec
from grokcore.sweeps import checkpoint
from grokcore.sweeps.locks import Reservations
from grokcore.sweeps.worker import Job, Result

RETRIES = 2  # of a group whose process was killed


@dataclass(frozen=True)
class Options:
    """How a sweep trains; see `grokcore.sweep`. `checkpoints` is the folder of theirs, `every` their seconds."""

    device: str
    jobs: int | None  # None: what the executor has workers for
    keep: tuple[int, ...]
    plain: bool
    checkpoints: Path
    every: float
    executor: Executor | None = None


class Backlog:
    """The groups still to train, those on their way first, and the runs that failed."""

    def __init__(
        self,
        absent: Sequence[RunSpec],
        asked: Sequence[RunSpec],
        options: Options,
        reservations: Reservations,
        at_hand: Callable[[RunSpec], bool],
        group: Callable[[Sequence[RunSpec]], list[list[RunSpec]]],
    ) -> None:
        self.reservations, self.at_hand, self.failed = reservations, at_hand, list[str]()
        self.cause: BaseException | None = None  # of the first failure
        self.tries: dict[Path, int] = {}
        self.wanted = {spec.id for spec in absent}
        self.job = Job(
            *([], options.device, options.keep, options.plain),
            *(reservations.progress, options.checkpoints.absolute(), options.every),
        )
        self.waiting = self._on_their_way(asked)
        begun = {spec.id for job in self.waiting for spec in job.specs}
        rest = [spec for spec in absent if spec.id not in begun]
        self.waiting += [replace(self.job, specs=together) for together in group(rest)]

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

    def fail(self, job: Job, error: BaseException, reason: str = "", done: Iterable[str] = ()) -> None:
        """Give up what is not done of a group, for a reason (default: the error); another sweep may go on there."""
        self.cause, reason = self.cause or error, reason or f"{type(error).__name__}: {error}"
        self.failed += [f"{spec.id}: {reason}" for spec in job.specs if spec.id in self.wanted - set(done)]
        self.reservations.release(spec.id for spec in job.specs)

    def killed(self, jobs: list[Job]) -> None:
        """Count a death of a process for the groups that had begun; if none had, it died at one that was to begin."""
        files = {job.path: job.progress / job.specs[0].id for job in jobs}
        begun = [job for job in jobs if files[job.path].is_file()] or jobs
        for job in begun:
            files[job.path].unlink(missing_ok=True)
            self.tries[job.path] = self.tries.get(job.path, 0) + 1

    def halve(self, job: Job, done: Iterable[str] = ()) -> None:
        """Put a group that does not fit into memory back as two, without the runs that have ended."""
        left = [spec for spec in job.specs if spec.id not in set(done)]
        half = -(-len(left) // 2)
        self.waiting[:0] = [replace(job, specs=part) for part in (left[:half], left[half:]) if part]
