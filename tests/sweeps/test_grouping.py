"""Which runs train together on a CPU."""

from torch import Tensor, nn

from grokcore.nn.build import user_model
from grokcore.spec.presets import msu, pku_sum
from grokcore.spec.run import RunSpec, grid, replace
from grokcore.sweeps import grouping


class Bag(nn.Module):
    """A network of a user."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(19, 19)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.table(tokens).sum(1)


def sizes(specs: list[RunSpec], jobs: int) -> list[int]:
    return [len(group) for group in grouping.cpu_groups(specs, jobs)]


def test_small_steps_are_taken_together_and_spread_over_the_processes() -> None:
    small = grid(pku_sum(2), seed=range(10))
    assert sizes(small, 2) == [5, 5] and sizes(small, 1) == [10] and sizes(small, 4) == [3, 3, 3, 1]
    assert sizes(grid(pku_sum(2), seed=range(40)), 2) == [16, 16, 8]
    # K = 4: about 56 000 weights, 32 examples, 6 operations each: 1.1e7 of the 1e8 that make a step worth launching
    assert sizes(grid(pku_sum(4), seed=range(40)), 1)[0] == 9


def test_large_steps_short_runs_and_users_networks_are_alone() -> None:
    assert sizes(grid(msu(), seed=range(3)), 2) == [1, 1, 1]
    assert sizes(grid(pku_sum(2, steps=4_999), seed=range(3)), 2) == [1, 1, 1]
    own = replace(pku_sum(2), model=user_model(Bag))
    assert sizes(grid(own, seed=range(3)), 2) == [1, 1, 1]


def test_groups_share_a_program_and_keep_the_order() -> None:
    a, b = grid(pku_sum(2), seed=range(2)), grid(pku_sum(3), seed=range(2))
    mixed = [b[0], a[0], msu(), a[1], b[1]]
    assert grouping.cpu_groups(mixed, 1) == [[b[0], b[1]], [a[0], a[1]], [msu()]]
