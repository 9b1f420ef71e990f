"""The matmul bound of a training step: its matrix products alone, with the same shapes and memory layouts.

No step that makes these products can be faster, as long as their rate is near the machine's largest.
"""

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
    """One product of matrices `[..., m, k]` and `[..., k, n]` as a step makes it: sizes and strides of both.

    Example:
        >>> Product(sizes=((4, 2), (2, 3)), strides=((2, 1), (3, 1))).flops
        48
    """

    sizes: tuple[tuple[int, ...], tuple[int, ...]]
    strides: tuple[tuple[int, ...], tuple[int, ...]]

    @property
    def flops(self) -> int:
        """Its operations, 2·m·k·n: a multiplication and an addition for every term."""
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
    """Return the matrix products of one step of a program, in order.

    Args:
        program: the runs; the step is taken, so that their weights change.
        step: its number, which says how large the batch is.

    Raises:
        RuntimeError: their operations are not as many as torch's own counter sees in the same step.
    """
    inputs = program.inputs(step, step + 1)
    recorder, counter = _Recorder(), FlopCounterMode(display=False)
    with counter, recorder:
        program.step(*inputs.at(0, None if program.captures else inputs.widths[0]))
    recorded, counted = sum(product.flops for product in recorder.products), counter.get_total_flops()
    if recorded != counted:
        raise RuntimeError(
            f"the matmul bound's products make {recorded:,} operations, the step makes {counted:,}: they must agree"
        )
    return recorder.products


class MatmulBound:
    """The products of a program's steps, with operands and results allocated once, to be made again and again.

    The last batch of an epoch is smaller and counts with its share of the steps; a captured step has full batches only.

    Args:
        program: the runs. One step is taken for each size of a batch.

    Attributes:
        flops: operations of a step, on average over an epoch.
        bytes: sizes of operands and results of a step, on average over an epoch.
        operands: the share of the steps that make a product, and its two operands and its result, for each product.
    """

    def __init__(self, program: Program) -> None:
        self.device, dtype = program.device, program.theta.dtype
        per_epoch = program.specs[0].steps_per_epoch
        share_of_step = {0: 1.0}
        if not program.captures and per_epoch > 1:
            share_of_step = {0: 1 - 1 / per_epoch, per_epoch - 1: 1 / per_epoch}
        shared = [(share, product) for step, share in share_of_step.items() for product in products(program, step)]
        self.flops = sum(share * product.flops for share, product in shared)
        self.operands = [(share, self._operands(product, dtype)) for share, product in shared]
        sizes = [(share, x.element_size() * x.numel()) for share, tensors in self.operands for x in tensors]
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
            self._multiply(1)
            torch.cuda.synchronize()
            with torch.cuda.graph(graph):
                self._multiply(1)
        return graph

    def _multiply(self, n_steps: int) -> None:
        for share, (a, b, out) in self.operands:
            for _ in range(round(n_steps * share)):
                torch.matmul(a, b, out=out)

    def steps(self, n_steps: int) -> None:
        """Make the products of some steps.

        On a CPU each product is repeated before the next one begins, so that its operands stay in the cache.
        """
        if self.graph is None:
            self._multiply(n_steps)
            return
        for _ in range(n_steps):
            self.graph.replay()


def product_rate(device: torch.device, dtype: torch.dtype, size: int = 2048, times: int = 3) -> float:
    """Return the rate of one large product: the highest that a matrix product reaches on this device.

    Args:
        device: where it is made.
        dtype: the type of its numbers.
        size: rows and columns of both square matrices.
        times: how often it is made; the fastest counts.

    Returns:
        Operations a second.
    """
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
    """Return the rate of a large copy on a device.

    Args:
        device: where it is made.
        size: bytes that are copied.
        times: how often they are copied; the fastest counts.

    Returns:
        Bytes a second, those read and those written together.
    """
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
    """Wait until a GPU has finished the work queued on it; a CPU queues none."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
