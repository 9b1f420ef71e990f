"""The floor under a training step: the matrix products that it makes, timed alone with the same shapes and layouts."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from grokcore.engine.program import Program

aten = torch.ops.aten
MATRICES = {aten.mm.default: 0, aten.bmm.default: 0, aten.addmm.default: 1, aten.baddbmm.default: 1}


@dataclass(frozen=True)
class Product:
    """One product of matrices `[..., m, k]` and `[..., k, n]` as a step makes it: sizes and strides of both."""

    sizes: tuple[tuple[int, ...], tuple[int, ...]]
    strides: tuple[tuple[int, ...], tuple[int, ...]]

    @property
    def flops(self) -> int:
        """A multiplication and an addition for every term."""
        return 2 * math.prod(self.sizes[0]) * self.sizes[1][-1]


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.products: list[Product] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in MATRICES:
            a, b = args[MATRICES[func] : MATRICES[func] + 2]
            self.products.append(Product((tuple(a.shape), tuple(b.shape)), (a.stride(), b.stride())))
        return func(*args, **(kwargs or {}))


def products(program: Program, step: int = 0) -> list[Product]:
    """Return the matrix products of one step of a program, in order; the step is taken.

    Raises RuntimeError if their operations are not as many as torch's own counter sees in the same step.
    """
    inputs = program.inputs(step, step + 1)
    recorder, counter = _Recorder(), FlopCounterMode(display=False)
    with counter, recorder:
        program.step(*inputs.at(0, None if program.captures else inputs.widths[0]))
    counted, own = counter.get_total_flops(), sum(product.flops for product in recorder.products)
    if counted != own:
        raise RuntimeError(f"the floor's products make {own:,} operations, the step makes {counted:,}: they must agree")
    return recorder.products


class MatmulBound:
    """The products of a program's steps with operands and results at hand, to be made again and again.

    The last batch of an epoch is smaller and has its share; a captured step has full batches only.
    """

    def __init__(self, program: Program) -> None:
        self.device, dtype = program.device, program.theta.dtype
        per_epoch = program.specs[0].steps_per_epoch
        shares = (
            {0: 1.0} if program.captures or per_epoch == 1 else {0: 1 - 1 / per_epoch, per_epoch - 1: 1 / per_epoch}
        )
        made = [(share, products(program, step)) for step, share in shares.items()]
        self.flops = sum(share * product.flops for share, each in made for product in each)
        self.operands = [(share, self._operands(product, dtype)) for share, each in made for product in each]
        sizes = [(share, x.element_size() * x.numel()) for share, each in self.operands for x in each]
        self.bytes = sum(share * size for share, size in sizes)
        self.graph = self._captured() if self.device.type == "cuda" else None

    def _operands(self, product: Product, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        a, b = (
            torch.empty_strided(size, stride, dtype=dtype, device=self.device).normal_()
            for size, stride in zip(product.sizes, product.strides, strict=True)
        )
        return a, b, torch.empty(*a.shape[:-1], b.shape[-1], dtype=dtype, device=self.device)

    def _captured(self) -> torch.cuda.CUDAGraph:
        """Return the products of one step as a CUDA graph, so that they are launched as fast as those of the engine."""
        with torch.cuda.device(self.device):
            graph = torch.cuda.CUDAGraph()
            self._make(1)
            torch.cuda.synchronize()
            with torch.cuda.graph(graph):
                self._make(1)
        return graph

    def _make(self, n: int) -> None:
        for share, (a, b, out) in self.operands:
            for _ in range(round(n * share)):
                torch.matmul(a, b, out=out)

    def steps(self, n: int) -> None:
        """Make the products of `n` steps; on a CPU each product in a row, so that its operands stay in the cache."""
        if self.graph is None:
            self._make(n)
            return
        for _ in range(n):
            self.graph.replay()


def product_rate(device: torch.device, dtype: torch.dtype, size: int = 2048, times: int = 3) -> float:
    """Return the operations a second of one large square product: what the machine can do at best."""
    a, b, out = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(3))
    seconds = []
    for _ in range(times):
        synchronize(device)
        start = time.perf_counter()
        torch.matmul(a, b, out=out)
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def bandwidth(device: torch.device, size: int = 2**28, times: int = 3) -> float:
    """Return the bytes a second, read and written, of a large copy."""
    a = torch.zeros(size, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    seconds = []
    for _ in range(times):
        synchronize(device)
        start = time.perf_counter()
        b.copy_(a)
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return 2 * size / min(seconds)


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was given; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
