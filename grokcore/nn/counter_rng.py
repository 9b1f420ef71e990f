"""Random numbers as a pure function of a key and a stream, the same in any batch, order and device.

Dropout and noise draw from here: `grokcore.engine.batches` gives each step its key, and each call of dropout and each
kind of noise has a stream of its own.

A number is the hash of its position, with a mixing function of 32 bits (C. Wellons and TheIronBorn, "hash-prospector":
multipliers 0x21f0aaad and 0x735a2d97, shifts 16, 15, 15). It is computed in 64 bits, in which the products do not
overflow.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Drop = Callable[[Tensor], Tensor]
MASK_32 = 0xFFFFFFFF


def _mix(x: Tensor) -> Tensor:
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) & MASK_32
    x = ((x ^ (x >> 15)) * 0x735A2D97) & MASK_32
    return x ^ (x >> 15)


def uniform(key: Tensor, stream: int, shape: tuple[int, ...]) -> Tensor:
    """Return uniform random numbers in [0, 1), in steps of 2^-24.

    Args:
        key: scalar int64 tensor, 0 to 2^32 - 1; on its device the numbers are drawn.
        stream: number of the stream; streams of one key are independent of each other.
        shape: shape of the result. A number depends on its position in row-major order alone, so that the first rows
            are the same whatever comes after them.

    Returns:
        A float32 tensor of this shape.

    Example:
        >>> uniform(torch.tensor(7), 1, (3,)).equal(uniform(torch.tensor(7), 1, (5,))[:3])
        True
    """
    positions = torch.arange(math.prod(shape), device=key.device)
    start = _mix((key + stream * 0x9E3779B9) & MASK_32)
    return ((_mix(_mix(positions) ^ start) >> 8).to(torch.float32) * 2.0**-24).view(shape)


def normal(key: Tensor, stream: int, shape: tuple[int, ...]) -> Tensor:
    """Return standard normal random numbers, from two uniform ones each (Box and Muller 1958).

    Args:
        key: scalar int64 tensor, 0 to 2^32 - 1.
        stream: number of the stream; it takes the streams 2·stream and 2·stream + 1 of `uniform`.
        shape: shape of the result.

    Returns:
        A float32 tensor of this shape.
    """
    radius = torch.sqrt(-2 * torch.log1p(-uniform(key, 2 * stream, shape)))
    return radius * torch.cos(2 * math.pi * uniform(key, 2 * stream + 1, shape))


def no_dropout(x: Tensor) -> Tensor:
    """Return x as it is."""
    return x


class Dropout:
    """Inverted dropout (Srivastava et al. 2014): a number is 0 with probability `rate`, else divided by 1 - rate.

    Which numbers are dropped is a function of the key and of the number of calls before: call i draws from stream i.

    Args:
        key: scalar int64 tensor, 0 to 2^32 - 1.
        rate: probability, 0 < rate < 1.
    """

    def __init__(self, key: Tensor, rate: float) -> None:
        self.key, self.rate, self.calls = key, rate, 0

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += 1
        kept = uniform(self.key, self.calls, tuple(x.shape)) >= self.rate
        return x * kept / (1 - self.rate)


def dropout(key: Tensor | None, rate: float) -> Drop:
    """Return the dropout of one forward pass.

    Args:
        key: key of the step, a scalar int64 tensor; None in evaluations.
        rate: probability that a number is dropped, 0 ≤ rate < 1.

    Returns:
        `Dropout`, or the identity without a key or at rate 0.
    """
    return no_dropout if key is None or rate == 0 else Dropout(key, rate)
