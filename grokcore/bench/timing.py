"""What the benchmark times: the engine, the reference loop and the floor, each in processes with a stated number of
threads, in windows of steps.
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
Kind = Literal["engine", "evaluation", "reference", "floor", "product rate", "bandwidth", "operations", "bytes"]


@dataclass(frozen=True)
class Side:
    """One thing to time for a run, or for R runs that differ in their seed alone as one program.

    `engine`, `reference` and `floor` are timed in steps, the engine's in whole intervals (the reference evaluates
    after its epochs, the engine's `evaluation` is timed apart). The others are numbers: operations a second of a large
    product and bytes a second of a large copy; operations and bytes of the matrix products of one step.
    """

    kind: Kind
    spec: RunSpec
    R: int = 1
    device: str = "cpu"


class Processes:
    """Worker processes, `threads[i]` threads in the i-th; `time` lets one or several do a side at once."""

    def __init__(self, threads: Sequence[int]) -> None:
        context = multiprocessing.get_context("spawn")
        self.links: list[Connection] = []
        self.workers: list[Any] = []
        for n in threads:
            here, there = context.Pipe()
            self.workers.append(context.Process(target=_serve, args=(there, n), daemon=True))
            self.links.append(here)
            with _environment({name: value for name, value in ENVIRONMENT.items() if name.startswith("MALLOC")}):
                self.workers[-1].start()

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: Any) -> None:
        for worker in self.workers:
            worker.terminate()
            worker.join()

    def time(self, side: Side, n: int, among: Sequence[int] = (0,)) -> float:
        """Return the seconds from the start to the end of the last of the processes, each making `n` steps."""
        self._ask(among, side, 0)  # built and warm
        return max(self._ask(among, side, n))

    def value(self, side: Side, which: int = 0) -> float:
        """Return what a side that is a number says."""
        return self._ask((which,), side, 1)[0]

    def _ask(self, among: Sequence[int], side: Side, n: int) -> list[float]:
        for which in among:
            self.links[which].send((side, n))
        answers = [self.links[which].recv() for which in among]
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
    import torch

    torch.set_num_threads(threads)
    made: dict[Side, Callable[[int], float]] = {}
    programs: dict[tuple[Any, ...], Any] = {}
    while True:
        side, n = link.recv()
        try:
            if side not in made:
                if side.device != "cpu":
                    _make_room(side, made, programs)
                made[side] = _make(side, programs)
            link.send(made[side](n))
        except Exception as error:
            link.send(f"{side.kind}: {type(error).__name__}: {error}")


def _make_room(side: Side, made: dict[Side, Callable[[int], float]], programs: dict[tuple[Any, ...], Any]) -> None:
    """Drop what was made for other runs than those of this side: a GPU does not hold all of them."""
    import torch

    for other in [other for other in made if (other.spec, other.R) != (side.spec, side.R)]:
        del made[other]
    for key in [key for key in programs if key[:2] != (side.spec, side.R)]:
        del programs[key]
    gc.collect()
    torch.cuda.empty_cache()


def _make(side: Side, programs: dict[tuple[Any, ...], Any]) -> Callable[[int], float]:
    """Return a function of n that gives the seconds of n steps, after a few untimed ones; or the number of a side."""
    import torch

    from grokcore.bench import matmul_bound
    from grokcore.bench.plain_loop import train_plainly
    from grokcore.engine.program import Program

    device = torch.device(side.device)
    if side.kind == "product rate":
        return lambda n: matmul_bound.product_rate(device, getattr(torch, side.spec.precision))
    if side.kind == "bandwidth":
        return lambda n: matmul_bound.bandwidth(device)
    endless = replace(side.spec, steps=1_000_000)
    if side.kind == "reference":
        return _timed(device, _each(train_plainly(endless, side.device)))
    key = (side.spec, side.R, side.device)
    if key not in programs:
        programs[key] = Program([replace(endless, seed=seed) for seed in range(side.R)], device)
    if side.kind in ("engine", "evaluation"):
        return _timed(device, _engine(programs[key]) if side.kind == "engine" else _evaluation(programs[key]))
    products = matmul_bound.MatmulBound(programs[key])
    if side.kind in ("operations", "bytes"):
        number = float(products.flops if side.kind == "operations" else products.bytes)
        return lambda n: number
    return _timed(device, products.steps)


def _timed(device: Any, make: Callable[[int], None]) -> Callable[[int], float]:
    from grokcore.bench.matmul_bound import synchronize

    make(3)

    def seconds(n: int) -> float:
        synchronize(device)
        start = time.perf_counter()
        make(n)
        synchronize(device)
        return time.perf_counter() - start

    return seconds


def _each(steps: Any) -> Callable[[int], None]:
    def make(n: int) -> None:
        for _ in range(n):
            next(steps)

    return make


def _engine(program: Any) -> Callable[[int], None]:
    taken = 0

    def make(n: int) -> None:
        nonlocal taken
        size = min(INTERVAL, n)
        for _ in range(0, n, size or 1):
            program.advance(taken, taken + size, taken + 2 * size)
            program.meter.read()
            taken += size

    return make


def _evaluation(program: Any) -> Callable[[int], None]:
    def make(n: int) -> None:
        for _ in range(n):
            program.evaluate()

    return make
