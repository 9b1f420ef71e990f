"""Other processes that train groups of runs: loky's on this machine, or those of an executor that was given."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, wait
from dataclasses import replace
from typing import TypeVar

from grokcore.spec.base import GrokcoreError, SpecError, short_repr
from grokcore.sweeps.worker import ENVIRONMENT, Job, Result, train_whole

T = TypeVar("T")
NOTICE_AFTER = 10.0  # seconds without an answer, after which it is said that one is waited for
log = logging.getLogger("grokcore")


class ExecutorError(GrokcoreError, RuntimeError):
    """An executor that takes no more runs, or a cluster that is not there; what had ended is saved."""


def cores() -> int:
    """Return the number of cores this process may use: those it is bound to, or what a container allows it."""
    from loky import cpu_count

    return cpu_count()


def workers(executor: Executor | None, jobs: int | None) -> int:
    """Return how many groups train at once: `jobs` if given, else what an executor says of itself, else one a core.

    Raises SpecError for `jobs` that is no number of processes.
    """
    if jobs is not None and (not isinstance(jobs, int) or jobs < 1):
        raise SpecError(
            f"jobs = {short_repr(jobs)} was given; a whole number from 1 on is expected: leave it out for one a core"
        )
    try:
        known = getattr(executor, "workers", 0)
    except BrokenExecutor as error:
        raise gone(error) from error
    return jobs or (known if isinstance(known, int) else 0) or cores()


def ask(executor: Executor, function: Callable[..., T], *given: object) -> T:
    """Return what a call gives in a process of an executor; raises ExecutorError if there is none."""
    try:
        future = _hand(executor, function, *given)
        if not wait([future], timeout=NOTICE_AFTER).done:
            log.warning("waiting for a worker: all are busy, or none is there (with this version of grokcore?)")
        return future.result()
    except (BrokenExecutor, CancelledError) as error:
        raise gone(error) from error


def _hand(executor: Executor, function: Callable[..., T], *given: object) -> Future[T]:
    try:
        return executor.submit(function, *given)
    except RuntimeError as error:  # it was shut down, or has lost its cluster
        raise BrokenExecutor(str(error)) from error


def gone(error: BaseException) -> ExecutorError:
    """Return the error of an executor that takes no more."""
    return ExecutorError(
        f"the executor takes no more runs ({type(error).__name__}{f': {error}' if str(error) else ''}): its processes, "
        "or the scheduler of a cluster, have gone. What had ended is saved; start them and the same sweep again"
    )


class Local:
    """Loky processes, which also take classes defined in a notebook; new ones when one of them was killed."""

    def __init__(self, n: int) -> None:
        self.room, self.n = 2 * n, n
        self.processes: Executor | None = None

    def submit(self, job: Job) -> Future[list[Result]]:
        from loky import ProcessPoolExecutor

        self.processes = self.processes or ProcessPoolExecutor(self.n, env=ENVIRONMENT)
        return self.processes.submit(train_whole, replace(job, parent=os.getpid()))

    def broken(self, error: BaseException) -> None:
        """Take new processes; a killed one takes all others with it."""
        self.close()

    def deserted(self) -> bool:
        return False

    def close(self) -> None:
        from loky import ProcessPoolExecutor

        if isinstance(self.processes, ProcessPoolExecutor):
            self.processes.shutdown(wait=True, kill_workers=True)
        self.processes = None


class Given:
    """An executor of the user's, which is left as it is: what cannot be had of it any more ends the sweep."""

    def __init__(self, executor: Executor, jobs: int | None) -> None:
        self.executor, self.jobs, self.known = executor, jobs, 1

    @property
    def room(self) -> int:
        """How many groups may be under way; the workers of a cluster come and go."""
        with contextlib.suppress(ExecutorError):  # handing over, or a result, will tell of it
            self.known = workers(self.executor, None)
        return self.jobs or 2 * self.known

    def submit(self, job: Job) -> Future[list[Result]]:
        return _hand(self.executor, train_whole, job)

    def broken(self, error: BaseException) -> None:
        raise gone(error)

    def deserted(self) -> bool:
        """Tell whether the executor says that it has no workers."""
        with contextlib.suppress(BrokenExecutor):
            return getattr(self.executor, "workers", None) == 0
        return False

    def close(self) -> None: ...


def submit(pool: Local | Given, job: Job) -> Future[list[Result]]:
    """Hand a group over; if that fails its future has the error."""
    try:
        return pool.submit(job)
    except Exception as error:  # a process was killed since the last look, or this job cannot be sent
        failed: Future[list[Result]] = Future()
        failed.set_exception(error)
        return failed


def error_of(future: Future[list[Result]]) -> BaseException | None:
    """Return why a future has no result, CancelledError too; None if it has one."""
    try:
        return future.exception()
    except CancelledError as error:
        return error


def is_broken(error: BaseException | None) -> bool:
    """Tell whether an error is not the group's but the executor's; nobody here cancels what is under way."""
    return isinstance(error, BrokenExecutor | CancelledError)
