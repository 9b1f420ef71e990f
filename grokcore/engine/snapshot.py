"""A group of runs between two evaluations, from which its training goes on bit for bit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


@dataclass
class Snapshot:
    """A group of runs between two evaluations: all that its further training depends on, and what it gave so far.

    `left` are the runs still in training, which have been together since step `since` (None: this one); `ended` says
    of the others how they ended (status, seconds, engine).
    """

    runs: list[str]  # ids, in the order of the group
    left: list[str]
    step: int = 0
    since: int | None = None
    seconds: float = 0.0  # wall time
    ended: dict[str, dict[str, Any]] = field(default_factory=dict)
    curves: dict[str, Arrays] = field(default_factory=dict)  # by run and measure, an entry an evaluation
    weights: dict[str, dict[int, Arrays]] = field(default_factory=dict)  # those kept, by run, step and name
    state: Arrays = field(default_factory=dict)  # of the program
