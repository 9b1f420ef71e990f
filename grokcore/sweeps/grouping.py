"""Which runs train together: on a CPU those too small to be alone, on a GPU as many as its memory holds.

torch is imported only when runs are grouped, so that a report can be made from records without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grokcore.spec.run import RunSpec

SMALL_STEP = 100_000_000  # operations of a step that outweighs the cost of launching it
MOST_RUNS = 16  # that a CPU takes at once
MEASURED = (2, 8)  # numbers of runs whose memory is measured on a GPU
LONGEST_INTERVAL = 400  # steps between two evaluations, whose batches are on the GPU together


def _by_program(specs: Sequence[RunSpec]) -> list[list[RunSpec]]:
    """Return the runs divided by the program that trains them."""
    from grokcore.engine.compatibility import program_key

    programs: dict[Any, list[RunSpec]] = {}
    for spec in specs:
        programs.setdefault(program_key(spec), []).append(spec)
    return list(programs.values())


def cpu_groups(specs: Sequence[RunSpec], jobs: int) -> list[list[RunSpec]]:
    """Return the groups of runs that train together on a CPU.

    Args:
        specs: The runs.
        jobs: The number of processes over which they are spread.

    Returns:
        Groups of runs whose step is so small that launching it outweighs it; the others are alone. In the order of
        their first runs.
    """
    groups: list[list[RunSpec]] = []
    for group in _by_program(specs):
        size = max(1, min(runs_per_program(group[0]), -(-len(group) // jobs)))
        groups += [group[i : i + size] for i in range(0, len(group), size)]
    place = {spec.id: i for i, spec in enumerate(specs)}
    return sorted(groups, key=lambda group: place[group[0].id])


def runs_per_program(spec: RunSpec) -> int:
    """Return how many runs a CPU trains together: so many that a step has `SMALL_STEP` operations, at most `MOST_RUNS`.

    Example:
        >>> from grokcore import msu, pku_sum
        >>> runs_per_program(msu()), runs_per_program(pku_sum(4))
        (1, 9)
    """
    from grokcore.engine.stepping import COMPILE_FROM
    from grokcore.nn.build import build_network

    if spec.model.name == "user" or spec.steps < COMPILE_FROM:
        return 1  # vmap may not be able to lift the first; the second is not compiled and ends soon
    n_weights = sum(weight.numel() for weight in build_network(spec).parameters())
    operations = 6 * n_weights * min(spec.batch_size, spec.n_train)  # forward, and twice as many backward
    return min(MOST_RUNS, max(1, SMALL_STEP // operations))


def gpu_groups(specs: Sequence[RunSpec], device: str, plain: bool) -> list[list[RunSpec]]:
    """Return the groups of runs that train together on a GPU: by program, as many as its free memory holds.

    Args:
        specs: The runs.
        device: The CUDA device, on which memory is measured.
        plain: Whether they are trained without the engine's short cuts.

    Returns:
        The groups.
    """
    groups: list[list[RunSpec]] = []
    for group in _by_program(specs):
        size = _runs_that_fit(group, device, plain) if len(group) > MEASURED[-1] else len(group)
        groups += [group[i : i + size] for i in range(0, len(group), size)]
    return groups


def _runs_that_fit(group: Sequence[RunSpec], device: str, plain: bool) -> int:
    """Return how many runs fit into four fifths of the free memory, from what `MEASURED` runs take in training."""
    import torch

    from grokcore.engine.program import Program

    torch.cuda.init()
    free, peaks = torch.cuda.mem_get_info(device)[0], list[int]()
    try:
        for n in MEASURED:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_reserved(device)
            program = Program(group[:n], torch.device(device), plain=plain)
            program.advance(0, LONGEST_INTERVAL, 2 * LONGEST_INTERVAL)
            program.evaluate()
            peaks.append(torch.cuda.max_memory_reserved(device) - before)
            del program
    except torch.OutOfMemoryError:
        return MEASURED[0] if peaks else 1  # the sweep empties the cache, and halves what does not fit
    torch.cuda.empty_cache()
    per_run = max((peaks[1] - peaks[0]) / (MEASURED[1] - MEASURED[0]), 1.0)
    return max(MEASURED[0], int((0.8 * free - peaks[0]) / per_run) + MEASURED[0])
