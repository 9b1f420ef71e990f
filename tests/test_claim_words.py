from typing import Any

import numpy as np
import pytest

from grokcore import claim_words, claims


@pytest.mark.parametrize(
    "values, budgets, kind, words",
    [
        ([3400.0], None, "step", "step 3 400"),
        ([np.nan], None, "step", "no step"),
        ([np.nan], [10_000.0], "step", "no step up to 10 000"),
        ([np.nan, np.nan], [9.0, 10.0], "step", "no step up to 10"),
        ([166.7], [4000.0], "epoch", "epoch 167"),
        ([2500.0], [4000.0], "epoch", "epoch 2 500"),
        ([np.nan], [4000.0], "epoch", "no epoch up to 4 000"),
        ([30.0, 10.0, 20.0], [4000.0] * 3, "epoch", "epoch 20 [10, ∞)"),
        ([20.0, 20.0, 20.0], [4000.0] * 3, "epoch", "epoch 20"),
        ([10.0, np.nan, np.nan], [300.0] * 3, "epoch", "no epoch up to 300 [10, ∞) (2 of 3 not by 300)"),
        ([90.0, *[np.nan] * 29], [100.0] * 30, "epoch", "no epoch up to 100 [> 100, ∞) (29 of 30 not by 100)"),
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
        ([100.0, np.nan, np.nan], [1000.0] * 3, "step", "no step up to 1 000 [100, ∞) (2 of 3 not by 1 000)"),
    ],
)
def test_numbers_in_words(values, budgets, kind, words):
    shown: Any = claim_words.Shown(values, budgets)
    assert format(shown, kind).replace("\N{NO-BREAK SPACE}", " ") == words


def test_numbers_have_four_kinds():
    with pytest.raises(ValueError, match="step, epoch, share or number, not 'percent'"):
        format(claim_words.Shown([1.0]), "percent")


def test_a_cell_is_described_by_what_tells_it_from_others():
    cells = claims.load()["periodic-6"].cells
    words = {name: claim_words.describe(cell).replace("\N{NO-BREAK SPACE}", " ") for name, cell in cells.items()}
    assert words["two_layers"] == "operation x+y, alpha 0.4, optimizer sgd, weight decay 0.001, 2 layers, 40 000 steps"
    assert "1 layer, no LayerNorm" in words["one_layer_control"]
    assert "layer" not in claim_words.describe(claims.load()["msu-1"].cells["main"])
