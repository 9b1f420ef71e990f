"""Groups of runs in this process (a GPU takes many runs at once), in processes of this machine, or in an executor.

A group whose process was killed is trained again, one that does not fit into memory is halved, and one that another
sweep is training is left to it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    Executor,
    Future,
    wait,
)
from functools import partial

from grokcore.spec.base import GrokcoreError, short_repr
from grokcore.spec.run import RunSpec
from grokcore.sweeps import progress
from grokcore.sweeps.backlog import Backlog, SweepOptions
from grokcore.sweeps.executors import (
    NOTICE_AFTER,
    LocalProcesses,
    UserExecutor,
    error_of,
    future_of,
    is_broken,
    log,
    result_in,
    workers,
)
from grokcore.sweeps.grouping import cpu_groups, gpu_groups
from grokcore.sweeps.locks import Reservations
from grokcore.sweeps.progress import ProgressReporter
from grokcore.sweeps.worker import CODE, Job, Result, require_code, train_job


class DeviceError(GrokcoreError, RuntimeError):
    """A device that a machine does not have; the message says which there are."""

    exit_code = 2


class TrainingError(GrokcoreError, RuntimeError):
    """Runs that failed; the message names them with the reason. All others were trained and saved."""


def device_of(device: object) -> str:
    """Return the device that a name or a `torch.device` stands for.

    Args:
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", or a `torch.device`.

    Returns:
        "cpu" or a CUDA device.

    Raises:
        DeviceError: If this machine does not have it, or nothing is trained on its kind.

    Example:
        >>> device_of("cpu:0")
        'cpu'
    """
    import torch

    device = str(device)
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise DeviceError(f"device {device!r} was asked for, but torch sees no GPU here: use 'cpu' or 'auto'")
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError):
        raise DeviceError(f"torch has no device {short_repr(device)} here: use 'cpu', 'cuda' or 'auto'") from None
    kind = torch.device(device).type
    if kind not in ("cpu", "cuda"):
        raise DeviceError(f"nothing is trained on device {short_repr(device)}: use 'cpu', 'cuda' or 'auto'")
    return "cpu" if kind == "cpu" else device


def device_for(executor: Executor | None, device: str) -> str:
    """Return the device that a name stands for where the processes of an executor are: one of them answers for all.

    Args:
        executor: The executor; None for this process.
        device: As for `device_of`.

    Returns:
        "cpu" or a CUDA device.

    Raises:
        DeviceError: If it is not there.
        CodeError: If the process has another text of this package.
        ExecutorError: If there is no process.
    """
    return device_of(device) if executor is None else result_in(executor, _device_of_worker, device, CODE)


def _device_of_worker(device: str, code: str) -> str:
    require_code(code)
    return device_of(device)


def train_all(
    absent: Sequence[RunSpec],
    requested: Sequence[RunSpec],
    options: SweepOptions,
    reservations: Reservations,
    is_available: Callable[[RunSpec], bool],
) -> Iterator[Result]:
    """Train the absent runs of those requested, and yield each as it ends.

    Groups that have a checkpoint go on from it. Left out are groups that another sweep is training, and runs that are
    available when their turn comes.

    Args:
        absent: The runs to train.
        requested: All runs of the sweep.
        options: How they are trained.
        reservations: Those of this sweep.
        is_available: Tells whether a run need not be trained.

    Yields:
        Each record with the weights kept; also of runs that are not absent but belong to a group with a checkpoint.

    Raises:
        TrainingError: At the end, if there were runs that failed.
        ExecutorError: If an executor of the user's takes no more runs.
    """
    backlog = Backlog(
        absent=absent,
        requested=requested,
        options=options,
        reservations=reservations,
        is_available=is_available,
        group=partial(_groups, options),
    )
    reporter = ProgressReporter(absent, reservations.progress, options.watch)
    if options.executor is not None:
        yield from _in_processes(backlog, UserExecutor(options.executor, options.jobs), reporter)
    elif options.device != "cpu" or (n := min(workers(None, options.jobs), len(backlog.waiting))) == 1:
        yield from _in_this_process(backlog, reporter)
    else:
        yield from _in_processes(backlog, LocalProcesses(n), reporter)
    reporter.report(last=True)
    if backlog.failed:
        raise TrainingError(
            f"{len(backlog.failed)} runs failed, all others that were trained here are saved:\n"
            + "\n".join(backlog.failed)
        ) from backlog.cause


def _groups(options: SweepOptions, specs: Sequence[RunSpec]) -> list[list[RunSpec]]:
    """Return which runs train together; the memory of a GPU is measured where it is."""
    if options.device == "cpu":
        return cpu_groups(specs, workers(options.executor, options.jobs))
    if options.executor is None:
        return gpu_groups(specs, options.device, options.plain)
    return result_in(options.executor, gpu_groups, specs, options.device, options.plain)


def _in_this_process(backlog: Backlog, reporter: ProgressReporter) -> Iterator[Result]:
    import torch

    while backlog.waiting:
        if (job := backlog.begin(backlog.waiting.pop(0))) is None:
            continue
        done: set[str] = set()
        try:
            for result in train_job(job, reporter.report):
                reporter.done += backlog.count([result])
                done.add(result[0].spec.id)
                yield result
        except torch.OutOfMemoryError as error:
            if len(job.specs) > 1:
                backlog.halve(job, done)
                backlog.end(job)
            else:
                backlog.fail(job, error)
        except Exception as error:
            backlog.fail(job, error, done=done)
        else:
            backlog.end(job)
        torch.cuda.empty_cache()  # after the error, which holds what did not fit; does nothing without a GPU


def _in_processes(
    backlog: Backlog, processes: LocalProcesses | UserExecutor, reporter: ProgressReporter
) -> Iterator[Result]:
    """Train groups in other processes; if one fails the others go on."""
    answered = time.monotonic()
    running: dict[Future[list[Result]], Job] = {}
    try:
        while backlog.waiting or backlog.suspects or running:
            _hand_over(backlog, processes, running)
            ended, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            if ended:
                answered = time.monotonic()
            elif time.monotonic() - answered > NOTICE_AFTER and processes.is_deserted():
                answered = math.inf  # the line below is written once
                log.warning("no worker is left: waiting for one to join (with this version of grokcore)")
            if any(is_broken(error_of(future)) for future in ended):
                ended, _ = wait(running, return_when=ALL_COMPLETED)  # it breaks for all
            over = {future: job for future, job in running.items() if future in ended}
            yield from _results(backlog, over, reporter)
            running = {future: job for future, job in running.items() if future not in ended}
            errors = [(job, error) for future, job in over.items() if (error := error_of(future)) is not None]
            if broken := [(job, error) for job, error in errors if is_broken(error)]:
                processes.on_break(broken[0][1])
                backlog.put_back([job for job, _ in broken], broken[0][1])
            for job, error in errors:
                if not is_broken(error):
                    _retry_or_fail(backlog, job, error)
            reporter.report()
    finally:
        for future in running:
            future.cancel()
        processes.close()


def _hand_over(
    backlog: Backlog, processes: LocalProcesses | UserExecutor, running: dict[Future[list[Result]], Job]
) -> None:
    """Hand groups over, no more than two a process at a time, so that results do not pile up; suspects at the end."""
    while backlog.waiting and len(running) < processes.capacity:
        job = backlog.begin(backlog.waiting.pop(0))
        if job is not None:
            running[future_of(processes, job)] = job
    if backlog.suspects and not running:
        job = backlog.begin(backlog.suspects.pop(0))
        if job is not None:
            running[future_of(processes, job, alone=True)] = job


def _results(backlog: Backlog, ended: dict[Future[list[Result]], Job], reporter: ProgressReporter) -> Iterator[Result]:
    """Yield the results of the groups that were trained, and release each group after its results were taken."""
    for future, job in ended.items():
        if error_of(future) is None:
            results = future.result()
            reporter.done += backlog.count(results)
            yield from results
            for record, _ in results:
                progress.complete(job.progress, record.spec.id, record.curve)
            backlog.end(job)


def _retry_or_fail(backlog: Backlog, job: Job, error: BaseException) -> None:
    """Put a group that was not trained back, or give it up; not one whose pool of processes broke."""
    import torch

    if isinstance(error, torch.OutOfMemoryError) and len(job.specs) > 1:
        backlog.halve(job)
        backlog.end(job)
    elif type(error).__name__ == "KilledWorker" and job.path not in backlog.suspected:
        backlog.suspect(job)  # Dask has tried it again, and blames all groups that a dead worker had
    else:
        backlog.fail(job, error)
