"""The floor under a training step: the matrix products that it makes, timed alone with the same shapes and layouts."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from grokcore.program import Program

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


def products(program: Program) -> list[Product]:
    """Return the matrix products of one step of a program with full batches, in order; the step is taken.

    Raises RuntimeError if their operations are not as many as torch's own counter sees in the same step.
    """
    inputs = program.inputs(0, 1)
    recorder, counter = _Recorder(), FlopCounterMode(display=False)
    with counter, recorder:
        program.step(*inputs.at(0, inputs.widths[0]))
    counted, own = counter.get_total_flops(), sum(product.flops for product in recorder.products)
    if counted != own:
        raise RuntimeError(f"the floor's products make {own:,} operations, the step makes {counted:,}: they must agree")
    return recorder.products


class Floor:
    """The products with their operands and results at hand, to be made again and again."""

    def __init__(self, made: Sequence[Product], device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.flops = device, sum(product.flops for product in made)
        self.operands = [self._operands(product, dtype) for product in made]
        self.bytes = sum(x.element_size() * x.numel() for each in self.operands for x in each)

    def _operands(self, product: Product, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        a, b = (
            torch.empty_strided(size, stride, dtype=dtype, device=self.device).normal_()
            for size, stride in zip(product.sizes, product.strides, strict=True)
        )
        return a, b, torch.empty(*a.shape[:-1], b.shape[-1], dtype=dtype, device=self.device)

    def steps(self, n: int) -> None:
        """Make the products of `n` steps, each product `n` times in a row: its operands stay in a CPU's cache."""
        for a, b, out in self.operands:
            for _ in range(n):
                torch.matmul(a, b, out=out)


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
