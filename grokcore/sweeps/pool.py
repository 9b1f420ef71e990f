"""Groups of runs in this process (a GPU takes many runs at once), in processes of this machine, or in an executor.

A group whose process was killed is trained again, one that does not fit into memory is halved, and one that another
sweep is at is left to it.
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
from grokcore.sweeps.backlog import RETRIES, Backlog, Options
from grokcore.sweeps.executors import NOTICE_AFTER, Given, Local, ask, error_of, is_broken, log, submit, workers
from grokcore.sweeps.grouping import cpu_groups, gpu_groups
from grokcore.sweeps.locks import Reservations
from grokcore.sweeps.progress import ProgressReporter, Watch
from grokcore.sweeps.worker import CODE, Job, Result, require_code, train_job


class DeviceError(GrokcoreError, RuntimeError):
    """A device that a machine does not have; the message says which there are."""

    exit_code = 2


class TrainingError(GrokcoreError, RuntimeError):
    """Runs that failed; the message names them with the reason. All others were trained and saved."""


def device_of(device: object) -> str:
    """Return the device meant, "cpu" or a CUDA device: "auto" is a GPU if there is one.

    Raises DeviceError for one that is not there, or of another kind.
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


def device_in(executor: Executor | None, device: str) -> str:
    """Return the device meant, as `device_of`, where the executor's processes are: a worker is asked for all of them.

    Raises CodeError if it has another text of this package, ExecutorError if there is none to ask.
    """
    return device_of(device) if executor is None else ask(executor, _survey, device, CODE)


def _survey(device: str, code: str) -> str:
    require_code(code)
    return device_of(device)


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
    when their turn comes. Raises TrainingError at the end if there were runs that failed, ExecutorError if an executor
    that was given takes no more.
    """
    work = Backlog(absent, asked, options, reservations, at_hand, partial(_groups, options))
    meter = ProgressReporter(absent, reservations.progress, watch)
    if options.executor is not None:
        yield from _in_processes(work, Given(options.executor, options.jobs), meter)
    elif options.device != "cpu" or (n := min(workers(None, options.jobs), len(work.waiting))) == 1:
        yield from _in_this_process(work, meter)
    else:
        yield from _in_processes(work, Local(n), meter)
    meter.report(last=True)
    if work.failed:
        raise TrainingError(
            f"{len(work.failed)} runs failed, all others that were trained here are saved:\n" + "\n".join(work.failed)
        ) from work.cause


def _groups(options: Options, specs: Sequence[RunSpec]) -> list[list[RunSpec]]:
    """Return which runs train together; the memory of a GPU is measured where it is."""
    if options.device == "cpu":
        return cpu_groups(specs, workers(options.executor, options.jobs))
    if options.executor is None:
        return gpu_groups(specs, options.device, options.plain)
    return ask(options.executor, gpu_groups, specs, options.device, options.plain)


def _in_this_process(work: Backlog, meter: ProgressReporter) -> Iterator[Result]:
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
        except torch.OutOfMemoryError as error:
            if len(job.specs) > 1:
                work.halve(job, done)
                work.end(job)
            else:
                work.fail(job, error)
        except Exception as error:
            work.fail(job, error, done=done)
        else:
            work.end(job)
        torch.cuda.empty_cache()  # after the error, which holds what did not fit; does nothing without a GPU


def _in_processes(work: Backlog, pool: Local | Given, meter: ProgressReporter) -> Iterator[Result]:
    """Train groups in other processes; if one fails the others go on.

    No more than two groups a process are handed over at a time, so that results do not pile up. What a process that
    was killed was at is tried again, the last time with no other group beside it.
    """
    alone, latest = list[Job](), time.monotonic()
    running: dict[Future[list[Result]], Job] = {}
    try:
        while work.waiting or alone or running:
            while (work.waiting or (alone and not running)) and len(running) < pool.room:
                job = work.begin(work.waiting.pop(0) if work.waiting else alone.pop(0))
                if job is not None:
                    running[submit(pool, job)] = job
            ended, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            if ended:
                latest = time.monotonic()
            elif time.monotonic() - latest > NOTICE_AFTER and pool.deserted():
                latest = math.inf  # said once
                log.warning("no worker is left: waiting for one to join (with this version of grokcore)")
            if any(is_broken(error_of(future)) for future in ended):
                ended, _ = wait(running, return_when=ALL_COMPLETED)  # it breaks for all
            over = {future: job for future, job in running.items() if future in ended}
            yield from _good(work, over, meter)
            lost = [(job, error) for future, job in over.items() if (error := error_of(future)) is not None]
            running = {future: job for future, job in running.items() if future not in ended}
            if broken := [error for _, error in lost if is_broken(error)]:
                work.killed([job for job, error in lost if is_broken(error)])
                pool.broken(broken[0])
            for job, error in lost:
                _again_or_failed(work, job, error, alone)
            meter.report()
    finally:
        for future in running:
            future.cancel()
        pool.close()


def _good(work: Backlog, ended: dict[Future[list[Result]], Job], meter: ProgressReporter) -> Iterator[Result]:
    for future, job in ended.items():
        if error_of(future) is None:
            results = future.result()
            meter.done += work.count(results)
            yield from results
            for record, _ in results:
                progress.complete(job.progress, record.spec.id, record.curve)
            work.end(job)


def _again_or_failed(work: Backlog, job: Job, error: BaseException, alone: list[Job]) -> None:
    """Put a group that was not trained back, or give it up."""
    import torch

    if isinstance(error, torch.OutOfMemoryError) and len(job.specs) > 1:
        work.halve(job)
        work.end(job)
    elif type(error).__name__ == "KilledWorker" and job.path not in work.tries:
        work.tries[job.path] = RETRIES  # Dask has tried it again, and blames all groups that a dead worker had
        alone.append(job)
    elif not is_broken(error):
        work.fail(job, error)
    elif work.tries.get(job.path, 0) > RETRIES:
        work.fail(job, error, f"its process was killed {RETRIES + 1} times (out of memory?): {error}")
    else:
        last = work.tries.get(job.path, 0) == RETRIES
        (alone if last else work.waiting).append(job)
