"""The steps at which a run is evaluated."""

from __future__ import annotations


def evaluation_steps(budget: int) -> list[int]:
    """Return the steps at which a run is evaluated, in ascending order.

    These are 0, the powers of √2 up to 512, every 100 steps up to 4 000, every 200 up to 20 000 and every 400 beyond,
    and the last step of the budget. All but the last depend on the step number alone, so a run with a longer budget is
    evaluated at the same steps.

    Args:
        budget: number of optimizer steps of the run.

    Example:
        >>> evaluation_steps(20)
        [0, 1, 2, 3, 4, 6, 8, 11, 16, 20]
    """
    early = {0} | {round(2 ** (k / 2)) for k in range(19)}
    regular = {*range(600, 4_000, 100), *range(4_000, 20_000, 200), *range(20_000, budget + 1, 400)}
    return sorted({step for step in early | regular if step <= budget} | {budget})
