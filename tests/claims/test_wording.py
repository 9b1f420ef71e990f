from typing import Any

import numpy as np
import pytest

from grokcore import claims
from grokcore.claims import wording


@pytest.mark.parametrize(
    "values, budgets, kind, words",
    [
        ([3400.0], None, "step", "step 3 400"),
        ([np.nan], None, "step", "no step"),
        ([np.nan], [10_000.0], "step", "not within 10 000 steps"),
        ([np.nan, np.nan], [9.0, 10.0], "step", "not within 10 steps"),
        ([166.7], [4000.0], "epoch", "epoch 167"),
        ([2500.0], [4000.0], "epoch", "epoch 2 500"),
        ([np.nan], [4000.0], "epoch", "not within 4 000 epochs"),
        ([30.0, 10.0, 20.0], [4000.0] * 3, "epoch", "epoch 20 [10, ∞)"),
        ([20.0, 20.0, 20.0], [4000.0] * 3, "epoch", "epoch 20"),
        ([10.0, np.nan, np.nan], [300.0] * 3, "epoch", "epoch 10 on 1 of 3 seeds, not within 300 epochs on the others"),
        (
            [10.0, 30.0] + [np.nan] * 3,
            [99.0] * 5,
            "at step",
            "at step 10 to 30 on 2 of 5 seeds, not within 99 steps on the others",
        ),
        ([10.0, np.nan, 20.0], [99.0] * 3, "epoch", "epoch 20 [10, ∞) (1 of 3 not within 99 epochs)"),
        ([10.0, 30.0, 20.0], [99.0] * 3, "at epoch", "at epoch 20 [10, ∞)"),
        ([np.nan, np.nan], [99.0] * 2, "at step", "not within 99 steps"),
        ([20.0, 20.0], [99.0] * 2, "at step", "at step 20"),
        ([np.nan], None, "epoch", "n/a"),
        ([0.123456], None, "share", "12.3 %"),
        ([1234.5678], None, "number", "1 235"),
        ([-0.0123456], None, "number", "−0.0123"),
        ([-1234.5678], None, "number", "−1 235"),
        ([6.0, 6.0, 6.0], None, "number", "6"),
        ([np.nan], None, "number", "n/a"),
        ([3.0, 1.0, 2.0, np.nan], None, "number", "2 [1, 3] (on 3 of 4 seeds)"),
        ([2.0, np.nan, 2.0], None, "share", "200 % [200 %, 200 %] (on 2 of 3 seeds)"),
        ([300.0, 100.0, 200.0], [1000.0] * 3, "step", "step 200 [100, ∞)"),
        (
            [100.0, np.nan, np.nan],
            [1000.0] * 3,
            "step",
            "step 100 on 1 of 3 seeds, not within 1 000 steps on the others",
        ),
    ],
)
def test_numbers_in_words(values, budgets, kind, words):
    shown: Any = wording.Shown(values, budgets)
    assert format(shown, kind).replace("\N{NO-BREAK SPACE}", " ") == words


@pytest.mark.parametrize(
    "values, words",
    [
        ([30.0, 10.0, 20.0], "step 20 [10, 30]"),
        ([10.0, np.nan, 20.0], "step 20 [10, > 99] (1 of 3 not within 99 steps)"),
    ],
)
def test_brackets_may_hold_the_range_over_the_seeds(values, words):
    shown: Any = wording.Shown(values, [99.0] * 3, ranges=True)
    assert format(shown, "step").replace("\N{NO-BREAK SPACE}", " ") == words


def test_an_unknown_kind_of_number_is_refused():
    with pytest.raises(ValueError, match="step, epoch, at step, at epoch, share, points, number, not 'percent'"):
        format(wording.Shown([1.0]), "percent")


@pytest.mark.parametrize(
    "enough, lacking", [(2, []), (3, ["seed 2 of two_layers_control"]), (4, ["seed 7 of", "seed 2, 7 of"])]
)
def test_missing_runs_are_those_of_the_seeds_nearest_to_complete(enough, lacking):
    wanted = claims.load()["periodic-6"].cells
    cells: dict[str, dict[int, Any]] = {name: dict.fromkeys((0, 1, 2), "") for name in wanted}
    cells["one_layer"] = dict.fromkeys((7, 2, 1, 0), "")  # another claim needed a run with seed 7
    cells["two_layers_control"] = dict.fromkeys((0, 1), "")
    said = wording.gaps(cells, wanted, enough)
    assert all(words in said for words in lacking) and bool(said) is bool(lacking)
    assert ("7" in said) is (enough == 4)


def test_a_cell_is_described_by_what_tells_it_from_others():
    cells = claims.load()["periodic-6"].cells
    words = {name: wording.describe(cell).replace("\N{NO-BREAK SPACE}", " ") for name, cell in cells.items()}
    clipped = "gradient clipped at 10, 40 000 steps"
    assert words["two_layers"] == f"operation x+y, alpha 0.4, optimizer sgd, weight decay 0.001, 2 layers, {clipped}"
    assert words["one_layer_control"].endswith(f"1 layer, no LayerNorm, {clipped}")
    assert "clipped" not in wording.describe(claims.load()["periodic-5"].cells["one_layer"])
    assert "layer" not in wording.describe(claims.load()["msu-1"].cells["main"])
