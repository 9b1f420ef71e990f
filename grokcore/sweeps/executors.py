"""Other processes that train groups of runs: loky's on this machine, or those of an executor of the user's."""

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
NOTICE_AFTER = 10.0  # seconds without an answer, after which a line says what is waited for
log = logging.getLogger("grokcore")


class ExecutorError(GrokcoreError, RuntimeError):
    """An executor that takes no more runs, or a cluster that is not there; runs that had ended are saved."""


def cores() -> int:
    """Return the number of cores this process may use: those it is bound to, or what a container allows it."""
    from loky import cpu_count

    return cpu_count()


def workers(executor: Executor | None, jobs: int | None) -> int:
    """Return how many groups train at once.

    Args:
        executor: The executor of the user's, if there is one; its attribute `workers`, if any, is a number of groups.
        jobs: The number that the user asked for; it comes before what the executor says.

    Returns:
        `jobs`, else the workers of the executor, else the number of cores.

    Raises:
        SpecError: If `jobs` is no number of processes.
        ExecutorError: If the executor is broken.
    """
    if jobs is not None and (not isinstance(jobs, int) or jobs < 1):
        raise SpecError(
            f"jobs = {short_repr(jobs)} was given; a whole number from 1 on is expected: leave it out for one a core"
        )
    try:
        n_workers = getattr(executor, "workers", 0)
    except BrokenExecutor as error:
        raise lost_executor(error) from error
    return jobs or (n_workers if isinstance(n_workers, int) else 0) or cores()


def result_in(executor: Executor, function: Callable[..., T], *arguments: object) -> T:
    """Return what a function returns in a process of an executor; while all are busy, wait for one.

    Args:
        executor: The executor.
        function: What is called there.
        *arguments: Its arguments.

    Raises:
        ExecutorError: If there is no process any more.
    """
    try:
        future = _call_in(executor, function, *arguments)
        if not wait([future], timeout=NOTICE_AFTER).done:
            log.warning("waiting for a worker: all are busy, or none is there (with this version of grokcore?)")
        return future.result()
    except (BrokenExecutor, CancelledError) as error:
        raise lost_executor(error) from error


def _call_in(executor: Executor, function: Callable[..., T], *arguments: object) -> Future[T]:
    """Return the future of a call in an executor; raises BrokenExecutor if it takes none."""
    try:
        return executor.submit(function, *arguments)
    except RuntimeError as error:  # it was shut down, or has lost its cluster
        raise BrokenExecutor(str(error)) from error


def lost_executor(error: BaseException) -> ExecutorError:
    """Return the error of an executor that takes no more runs, from the error that showed it."""
    return ExecutorError(
        f"the executor takes no more runs ({type(error).__name__}{f': {error}' if str(error) else ''}): its processes, "
        "or the scheduler of a cluster, have gone. What had ended is saved; start them and the same sweep again"
    )


class LocalProcesses:
    """Loky processes, which also take classes defined in a notebook; new ones after one of them was killed.

    Args:
        n: The number of processes.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self.capacity = 2 * n  # groups that may be handed over at a time
        self.pool: Executor | None = None
        self.n_in_pool = 0

    def submit(self, job: Job, alone: bool) -> Future[list[Result]]:
        """Hand a group over; if `alone`, to a new process that trains nothing else and has no other beside it."""
        from loky import ProcessPoolExecutor

        n = 1 if alone else self.n
        if alone or n != self.n_in_pool:
            self.close()
        if self.pool is None:
            self.pool, self.n_in_pool = ProcessPoolExecutor(n, env=ENVIRONMENT), n
        return self.pool.submit(train_whole, replace(job, parent=os.getpid()))

    def on_break(self, error: BaseException) -> None:
        """Take new processes for what comes; a killed one takes all others of its pool with it."""
        self.close()

    def is_deserted(self) -> bool:
        """Tell whether there is no process: never, since this machine starts them."""
        return False

    def close(self) -> None:
        """End the processes."""
        from loky import ProcessPoolExecutor

        if isinstance(self.pool, ProcessPoolExecutor):
            self.pool.shutdown(wait=True, kill_workers=True)
        self.pool = None


class UserExecutor:
    """An executor of the user's, which is not shut down; if it breaks, the sweep ends.

    Args:
        executor: Any executor whose processes have this package.
        jobs: How many groups it is given at once; default: two for each of its workers.
    """

    def __init__(self, executor: Executor, jobs: int | None) -> None:
        self.executor = executor
        self.jobs = jobs
        self.n_workers = 1  # when it was last asked

    @property
    def capacity(self) -> int:
        """How many groups may be handed over at a time; the workers of a cluster come and go."""
        with contextlib.suppress(ExecutorError):  # the next call, or a result, will raise it
            self.n_workers = workers(self.executor, None)
        return self.jobs or 2 * self.n_workers

    def submit(self, job: Job, alone: bool) -> Future[list[Result]]:
        """Hand a group over; whether it is `alone` is seen to by the sweep, which hands over no other meanwhile."""
        return _call_in(self.executor, train_whole, job)

    def on_break(self, error: BaseException) -> None:
        """Raise ExecutorError: only the user can start it again."""
        raise lost_executor(error)

    def is_deserted(self) -> bool:
        """Tell whether the executor says that it has no workers."""
        with contextlib.suppress(BrokenExecutor):
            return getattr(self.executor, "workers", None) == 0
        return False

    def close(self) -> None:
        """Do nothing: the executor is the user's."""


def future_of(processes: LocalProcesses | UserExecutor, job: Job, alone: bool = False) -> Future[list[Result]]:
    """Hand a group over and return its future, which holds the error if that fails."""
    try:
        return processes.submit(job, alone)
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
    """Tell whether an error is not the group's but the executor's; nothing here cancels a group."""
    return isinstance(error, BrokenExecutor | CancelledError)
