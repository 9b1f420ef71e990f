"""Which runs train together: on a CPU those too small to be alone, on a GPU as many as its memory holds.

torch is loaded only when runs are grouped, so that a report is made from records without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grokcore.spec.run import RunSpec

SMALL_STEP, MOST_RUNS = 100_000_000, 16  # operations of a step worth launching, and runs that a CPU takes at once
TRIED = (2, 8)  # numbers of runs whose memory is measured on a GPU
LONGEST_INTERVAL = 400  # steps between two evaluations, whose batches are on the GPU together


def _programs(specs: Sequence[RunSpec]) -> list[list[RunSpec]]:
    from grokcore.engine.compatibility import program_key

    programs: dict[Any, list[RunSpec]] = {}
    for spec in specs:
        programs.setdefault(program_key(spec), []).append(spec)
    return list(programs.values())


def cpu_groups(specs: Sequence[RunSpec], jobs: int) -> list[list[RunSpec]]:
    """Group runs whose step is so small that launching it outweighs it; the others are alone."""
    groups: list[list[RunSpec]] = []
    for group in _programs(specs):
        size = max(1, min(runs_that_pay(group[0]), -(-len(group) // jobs)))
        groups += [group[i : i + size] for i in range(0, len(group), size)]
    place = {spec.id: i for i, spec in enumerate(specs)}
    return sorted(groups, key=lambda group: place[group[0].id])


def runs_that_pay(spec: RunSpec) -> int:
    """Return how many runs together make a step of `SMALL_STEP` operations, at most `MOST_RUNS`, on a CPU."""
    from grokcore.engine.stepping import COMPILE_FROM
    from grokcore.nn.build import build_network

    if spec.model.name == "user" or spec.steps < COMPILE_FROM:
        return 1  # the one may not be one that vmap lifts, the other is not compiled and ends soon
    n_weights = sum(weight.numel() for weight in build_network(spec).parameters())
    operations = 6 * n_weights * min(spec.batch_size, spec.n_train)  # forward, and twice as many backward
    return min(MOST_RUNS, max(1, SMALL_STEP // operations))


def gpu_groups(specs: Sequence[RunSpec], device: str, plain: bool) -> list[list[RunSpec]]:
    """Group runs by program, as many in a group as the free memory of the GPU holds."""
    groups: list[list[RunSpec]] = []
    for group in _programs(specs):
        size = _runs_that_fit(group, device, plain) if len(group) > TRIED[-1] else len(group)
        groups += [group[i : i + size] for i in range(0, len(group), size)]
    return groups


def _runs_that_fit(group: Sequence[RunSpec], device: str, plain: bool) -> int:
    """Return how many runs fit into four fifths of the free memory, from what two numbers of them take in training."""
    import torch

    from grokcore.engine.program import Program

    torch.cuda.init()
    free, taken = torch.cuda.mem_get_info(device)[0], list[int]()
    try:
        for n in TRIED:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_reserved(device)
            program = Program(group[:n], torch.device(device), plain=plain)
            program.advance(0, LONGEST_INTERVAL, 2 * LONGEST_INTERVAL)
            program.evaluate()
            taken.append(torch.cuda.max_memory_reserved(device) - before)
            del program
    except torch.OutOfMemoryError:
        return TRIED[0] if taken else 1  # the sweep empties the cache, and halves what does not fit
    torch.cuda.empty_cache()
    each = max((taken[1] - taken[0]) / (TRIED[1] - TRIED[0]), 1.0)
    return max(TRIED[0], int((0.8 * free - taken[0]) / each) + TRIED[0])
