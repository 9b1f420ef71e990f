"""What the benchmark times: the engine, the reference loop and the matmul bound.

Each is timed in windows of steps, in processes with a stated number of threads.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Literal

from grokcore.spec.run import RunSpec, replace
from grokcore.sweeps.worker import ENVIRONMENT

INTERVAL = 100  # steps between two evaluations in the long part of a run's schedule
Kind = Literal["engine", "evaluation", "reference", "matmul bound", "product rate", "bandwidth", "operations", "bytes"]
Timer = Callable[[int], float]  # from a number of steps to the seconds that they take, or to the number of a side
Programs = dict[tuple[RunSpec, int, str], Any]  # by specification, R and device


@dataclass(frozen=True)
class Side:
    """One thing to measure for a run, or for R runs that differ in their seed alone and are trained as one program.

    Attributes:
        kind: what is measured. `engine`, `reference` and `matmul bound` are timed in steps, the engine's in whole
            intervals. (The reference evaluates after its epochs; the engine's `evaluation` is timed apart.) The others
            are numbers: `product rate` in operations a second of one large product, `bandwidth` in bytes a second of
            a large copy, `operations` and `bytes` of the matrix products of one step.
        spec: the run; its seed is not used.
        R: how many runs are trained as one program.
        device: where it runs: `cpu`, `cuda`, …
    """

    kind: Kind
    spec: RunSpec
    R: int = 1
    device: str = "cpu"


class Processes:
    """Worker processes that measure sides, one alone or several at once. A context manager: its end ends them.

    Args:
        threads: how many threads each process has.
    """

    def __init__(self, threads: Sequence[int]) -> None:
        context = multiprocessing.get_context("spawn")
        self.links: list[Connection] = []
        self.processes: list[Any] = []
        for n in threads:
            here, there = context.Pipe()
            self.processes.append(context.Process(target=_serve, args=(there, n), daemon=True))
            self.links.append(here)
            with _environment({name: value for name, value in ENVIRONMENT.items() if name.startswith("MALLOC")}):
                self.processes[-1].start()

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: Any) -> None:
        for process in self.processes:
            process.terminate()
            process.join()

    def time(self, side: Side, n_steps: int, indices: Sequence[int] = (0,)) -> float:
        """Time a side in one process, or in several at once.

        Args:
            side: what is timed; one that is built on the first use and warmed up before it counts.
            n_steps: how many steps each process takes (of an `evaluation`: how many evaluations it makes).
            indices: which processes take them.

        Returns:
            Seconds from the start to the end of the process that takes longest.

        Raises:
            RuntimeError: the side failed in its process.
        """
        self._answers(side, 0, indices)  # built and warm
        return max(self._answers(side, n_steps, indices))

    def value(self, side: Side, index: int = 0) -> float:
        """Return the value of a side that is a number, measured in one process; raises RuntimeError if it failed."""
        return self._answers(side, 1, (index,))[0]

    def _answers(self, side: Side, n_steps: int, indices: Sequence[int]) -> list[float]:
        for index in indices:
            self.links[index].send((side, n_steps))
        answers = [self.links[index].recv() for index in indices]
        for answer in answers:
            if isinstance(answer, str):
                raise RuntimeError(f"the benchmark failed in {answer}")
        return answers


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables for the processes started in the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(link: Connection, threads: int) -> None:
    """Answer each (side, number of steps) of the benchmark with a number, or with an error as text."""
    import torch

    torch.set_num_threads(threads)
    timers: dict[Side, Timer] = {}
    programs: Programs = {}
    while True:
        side, n_steps = link.recv()
        try:
            if side not in timers:
                if side.device != "cpu":
                    _make_room(side, timers, programs)
                timers[side] = _timer(side, programs)
            link.send(timers[side](n_steps))
        except Exception as error:
            link.send(f"{side.kind}: {type(error).__name__}: {error}")


def _make_room(side: Side, timers: dict[Side, Timer], programs: Programs) -> None:
    """Drop what was built for other runs than those of this side: a GPU does not hold all of them."""
    import torch

    for other in [other for other in timers if (other.spec, other.R) != (side.spec, side.R)]:
        del timers[other]
    for key in [key for key in programs if key[:2] != (side.spec, side.R)]:
        del programs[key]
    gc.collect()
    torch.cuda.empty_cache()


def _timer(side: Side, programs: Programs) -> Timer:
    """Return the timer of a side that is timed, warmed up; for a side that is a number, a function that returns it."""
    import torch

    from grokcore.bench import matmul_bound
    from grokcore.bench.plain_loop import train_plainly
    from grokcore.engine.program import Program

    device = torch.device(side.device)
    if side.kind == "product rate":
        return lambda _: matmul_bound.product_rate(device, getattr(torch, side.spec.precision))
    if side.kind == "bandwidth":
        return lambda _: matmul_bound.bandwidth(device)
    endless = replace(side.spec, steps=1_000_000)
    if side.kind == "reference":
        return _timed(device, _steps_of(train_plainly(endless, side.device)))
    key = (side.spec, side.R, side.device)
    if key not in programs:
        programs[key] = Program([replace(endless, seed=seed) for seed in range(side.R)], device)
    if side.kind == "engine":
        return _timed(device, _steps_of_engine(programs[key]))
    if side.kind == "evaluation":
        return _timed(device, _evaluations(programs[key]))
    bound = matmul_bound.MatmulBound(programs[key])
    if side.kind in ("operations", "bytes"):
        number = float(bound.flops if side.kind == "operations" else bound.bytes)
        return lambda _: number
    return _timed(device, bound.steps)


def _timed(device: Any, take: Callable[[int], None]) -> Timer:
    """Return a timer of a function that takes n steps, after three untimed ones."""
    from grokcore.bench.matmul_bound import synchronize

    take(3)

    def seconds(n_steps: int) -> float:
        synchronize(device)
        start = time.perf_counter()
        take(n_steps)
        synchronize(device)
        return time.perf_counter() - start

    return seconds


def _steps_of(loop: Iterator[Any]) -> Callable[[int], None]:
    def take(n_steps: int) -> None:
        for _ in range(n_steps):
            next(loop)

    return take


def _steps_of_engine(program: Any) -> Callable[[int], None]:
    taken = 0

    def take(n_steps: int) -> None:
        nonlocal taken
        size = min(INTERVAL, n_steps)
        for _ in range(0, n_steps, size or 1):
            program.advance(taken, taken + size, taken + 2 * size)
            program.meter.read()
            taken += size

    return take


def _evaluations(program: Any) -> Callable[[int], None]:
    def make(n_evaluations: int) -> None:
        for _ in range(n_evaluations):
            program.evaluate()

    return make
