"""Random numbers as a pure function of a key and a place, the same in any batch, order and device.

Each is a hash of its position: a mixing function of 32 bits (C. Wellons and TheIronBorn, "hash-prospector": multipliers
0x21f0aaad and 0x735a2d97, shifts 16, 15, 15), computed in 64 bits, whose products do not overflow.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Drop = Callable[[Tensor], Tensor]
BITS = 0xFFFFFFFF


def _mix(x: Tensor) -> Tensor:
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) & BITS
    x = ((x ^ (x >> 15)) * 0x735A2D97) & BITS
    return x ^ (x >> 15)


def uniform(key: Tensor, place: int, shape: tuple[int, ...]) -> Tensor:
    """Return numbers in [0, 1) of a shape, in steps of 2^-24: a function of key (int64, 0 to 2^32 - 1) and place."""
    positions = torch.arange(math.prod(shape), device=key.device)
    stream = _mix((key + place * 0x9E3779B9) & BITS)
    return ((_mix(_mix(positions) ^ stream) >> 8).to(torch.float32) * 2.0**-24).view(shape)


def normal(key: Tensor, place: int, shape: tuple[int, ...]) -> Tensor:
    """Return standard normal numbers of a shape, from two uniform ones each (Box and Muller 1958)."""
    radius = torch.sqrt(-2 * torch.log1p(-uniform(key, 2 * place, shape)))
    return radius * torch.cos(2 * math.pi * uniform(key, 2 * place + 1, shape))


def keep(x: Tensor) -> Tensor:
    """Return x: no dropout."""
    return x


class Dropout:
    """Inverted dropout (Srivastava et al. 2014): each number is 0 with probability `rate`, else divided by 1 - rate.

    Which ones is a function of the key and of how many calls came before.
    """

    def __init__(self, key: Tensor, rate: float) -> None:
        self.key, self.rate, self.calls = key, rate, 0

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += 1
        kept = uniform(self.key, self.calls, tuple(x.shape)) >= self.rate
        return x * kept / (1 - self.rate)


def dropout(key: Tensor | None, rate: float) -> Drop:
    """Return dropout at a rate with a key, or nothing if there is neither."""
    return keep if key is None or rate == 0 else Dropout(key, rate)
