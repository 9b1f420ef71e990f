"""A group of runs between two evaluations, from which its training continues bit for bit.

`train` takes snapshots and resumes from them; `grokcore.sweeps.checkpoint` writes them to files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


@dataclass
class Snapshot:
    """A group of runs between two evaluations: all that its further training depends on, and its results so far.

    Attributes:
        runs: ids of all runs, in the order of the group.
        left: ids of the runs still in training.
        step: steps taken.
        since: the step since which the runs in `left` are trained together, or None if it is this one.
        seconds: wall time of the training so far.
        ended: status, seconds and engine of every run that has ended, by id.
        curves: curves by id and measure, an entry for each evaluation.
        weights: weights kept, by id, step and name.
        state: state of the program, by name.
    """

    runs: list[str]
    left: list[str]
    step: int = 0
    since: int | None = None
    seconds: float = 0.0
    ended: dict[str, dict[str, Any]] = field(default_factory=dict)
    curves: dict[str, Arrays] = field(default_factory=dict)
    weights: dict[str, dict[int, Arrays]] = field(default_factory=dict)
    state: Arrays = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoints:
    """How a training is interrupted and resumed.

    Attributes:
        resume: the snapshot from which training continues, or None to begin at step 0.
        save: called between evaluations with a function that returns the snapshot of this moment; taking one copies
            all weights to the host, so it is taken only if it is wanted.
    """

    resume: Snapshot | None = None
    save: Callable[[Callable[[], Snapshot]], None] | None = None
