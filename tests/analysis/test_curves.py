import numpy as np
import pandas as pd
import pytest
from helpers.made_up import jump, made_up_curve

from grokcore.analysis.collapse import collapses, deepest_fall
from grokcore.analysis.crossings import HOLD, Crossing, crossing, point_1, point_2
from grokcore.analysis.curves import LAG, Outcome, summary
from grokcore.spec.presets import msu

STEPS = [0, 100, 200, 400, 700, 900]
SHORT = msu(steps=3000)


def test_crossing_is_the_bracket_of_two_evaluations():
    assert crossing(STEPS, [0, 0.2, 0.5, 0.99, 1, 1], 0.99) == Crossing(after=200, at=400)


def test_first_and_sustained_crossing_differ_when_a_curve_falls_back():
    values = [0, 0.99, 0.5, 0.99, 1, 1]
    assert crossing(STEPS, values, 0.99) == Crossing(0, 100)
    assert crossing(STEPS, values, 0.99, hold=500) == Crossing(200, 400)


def test_hold_includes_its_last_step_and_needs_the_curve_to_last():
    assert crossing(STEPS, [0, 0, 0, 1, 1, 0], 0.5, hold=500) is None  # falls at 900, exactly 500 steps after 400
    assert crossing(STEPS, [0, 0, 0, 1, 1, 0], 0.5, hold=499) == Crossing(200, 400)
    assert crossing(STEPS, [0, 0, 0, 0, 1, 1], 0.5, hold=200) == Crossing(400, 700)
    assert crossing(STEPS, [0, 0, 0, 0, 1, 1], 0.5, hold=201) is None  # the curve ends 200 steps after 700


def test_never_crossing_is_censored_and_nan_is_below_any_threshold():
    assert crossing(STEPS, [0, 0, 0.4, 0.4, 0.4, 0.4], 0.5) is None
    assert crossing(STEPS, [0, np.nan, 1, 1, 1, 1], 0.5) == Crossing(100, 200)
    assert crossing(STEPS, [1] * 6, 0.5) == Crossing(0, 0)


@pytest.mark.parametrize("steps, values", [([0, 2, 1], [0, 0, 1]), ([0, 1], [1]), ([0, 0], [1, 1])])
def test_crossing_refuses_what_is_not_one_curve(steps, values):
    with pytest.raises(ValueError, match="the curve of one run, sorted by step"):
        crossing(steps, values, 0.5)


def test_summary_of_a_run_that_groks():
    # Training passes 0.99 between 900 and 1 000 (0.9 + 0.1 at 1 000); validation between 2 200 and 2 300.
    curve = made_up_curve(SHORT, train={0: 0, 1000: 1}, val=jump(2300), weight_norm={0: 30, 1500: 40, 3000: 20})
    row = summary(curve).to_dict("records")[0]
    assert row["run"] == SHORT.id and row["alpha"] == 0.4 and row["operation"] == "x*y" and row["steps"] == 3000
    assert (row["train_99_first_after"], row["train_99_first"]) == (900, 1000)
    assert (row["val_99_sustained_after"], row["val_99_sustained"]) == (2200, 2300)
    assert (row["train_100_first"], row["val_100_sustained"]) == (1000, 2300)
    assert row["outcome"] == "GROKKED" and row["grok_delay"] == 2.3
    assert (row["point_1"], row["point_2"]) == (1000, 2300)
    assert (row["final_train_accuracy"], row["final_val_accuracy"], row["late_rise"]) == (1, 1, 1)
    assert (row["weight_norm_max"], row["weight_norm_max_step"], row["weight_norm_final"]) == (40, 1500, 20)


def test_summary_keeps_a_run_that_got_nowhere_and_marks_it_censored():
    good = made_up_curve(SHORT, train=jump(100), val=jump(500))
    bad = made_up_curve(msu(steps=3000, seed=1), train={0: 0.1}, val={0: 0.01})
    rows = summary(pd.concat([bad, good], ignore_index=True))
    assert list(rows["seed"]) == [1, 0]  # in the order of the frame
    missing = rows.filter(regex="^(train|val)_(99|100)_").isna()
    assert missing.iloc[0].all() and not missing.iloc[1].any()
    first = rows.to_dict("records")[0]
    assert np.isnan([first["grok_delay"], first["point_1"], first["late_rise"]]).all()
    assert first["best_val_accuracy"] == pytest.approx(0.01)


def test_accuracy_of_exactly_one_in_single_precision_is_100_percent():
    almost = made_up_curve(SHORT, train={0: 1}, val={0: float(np.float32(1) - np.float32(6e-8))})
    one_wrong = made_up_curve(SHORT, train={0: 1}, val={0: 1 - 1 / 5588})
    assert point_2(almost) == 0 and point_2(one_wrong) is None and point_1(one_wrong) == 0


@pytest.mark.parametrize(
    "train, val, status, outcome",
    [
        (jump(500), jump(500 * LAG), "finished", Outcome.GROKKED),
        (jump(500), jump(500 * LAG - 100), "finished", Outcome.GENERALISED_AT_ONCE),
        (jump(500), jump(500, high=0.98), "finished", Outcome.MEMORISED_ONLY),
        (jump(500), jump(3000 - HOLD + 100), "finished", Outcome.MEMORISED_ONLY),  # seen too late to be sustained
        (jump(500, high=0.98), jump(1000), "finished", Outcome.NOT_FITTED),
        (jump(500), jump(1000), "nonfinite", Outcome.NONFINITE),
    ],
)
def test_outcome(train, val, status, outcome):
    found = summary(made_up_curve(SHORT, train, val, status=status)).to_dict("records")[0]["outcome"]
    assert found == outcome.value == outcome
    assert outcome.rule and outcome.message


def test_the_delay_counts_from_the_first_training_step_not_the_sustained_one():
    # 0.99 is first seen at 500, lost at 600 and sustained from 900; validation at 1 000 is twice 500.
    train = {499: 0, 500: 1, 599: 1, 600: 0.5, 899: 0.5, 900: 1}
    assert list(summary(made_up_curve(SHORT, train, jump(1000)))["outcome"]) == ["GROKKED"]


def test_summary_names_missing_columns_and_refuses_an_empty_frame():
    curve = made_up_curve(SHORT, jump(500), jump(1000))
    with pytest.raises(ValueError, match="lack val_accuracy, weight_norm;"):
        summary(curve.drop(columns=["val_accuracy", "weight_norm"]))
    with pytest.raises(ValueError, match="no rows"):
        summary(curve.head(0))


def dip(at: float, low: float, width: float = 100, before: float = 1.0) -> dict[float, float]:
    """Points of a curve at `before` that stands at `low` only at evaluations from `at` to `at + width - 100`."""
    return {at - 100: before, at: low, at + width - 100: low, at + width: before}


def test_a_collapse_from_start_to_end():
    curve = made_up_curve(SHORT, train={100: 0, 200: 1, **dip(1000, 0.3, 300)}, val={0: 0.1, 1000: 0.1, 1300: 0.6})
    found = collapses(curve)
    assert found.to_dict("records") == [
        {
            "start": 900,
            "bottom": 1000,
            "end": 1300,
            "recovered": True,
            "depth": pytest.approx(0.7),
            "val_before": pytest.approx(0.1),
            "val_after": pytest.approx(0.6),
        }
    ]


def test_a_dip_between_two_evaluations_is_seen_by_the_mini_batches():
    lowest = np.ones(31)
    lowest[12] = 0.2
    curve = made_up_curve(SHORT, jump(200), {0: 0}, batch_accuracy_min=lowest)
    assert collapses(curve)[["start", "bottom", "end", "depth"]].to_numpy().tolist() == [[1100, 1200, 1200, 0.8]]
    # With 513 rows the last batch of an epoch has a single one: one error there is no collapse.
    assert collapses(curve.assign(n_train=513)).empty
    assert len(collapses(curve.assign(n_train=512 + 64))) == 1
    assert len(collapses(curve.assign(n_train=513, batch_accuracy_mean=lowest))) == 1


def test_no_collapse_before_the_training_set_was_fitted_nor_above_the_low_mark():
    assert collapses(made_up_curve(SHORT, {0: 0.95, 500: 0.2, 1000: 0.98}, {0: 0})).empty
    assert collapses(made_up_curve(SHORT, {0: 1, **dip(1000, 0.91)}, {0: 0})).empty
    assert len(collapses(made_up_curve(SHORT, {0: 1, **dip(1000, 0.91)}, {0: 0}), low=0.92)) == 1


def test_falls_close_together_are_one_collapse():
    def two(second):
        return collapses(made_up_curve(SHORT, {0: 1, **dip(1000, 0.5), **dip(second, 0.4)}, {0: 0}))

    # Back at 1 100: the next fall is within HOLD of that until 1 600.
    assert two(1600)[["start", "bottom", "end"]].to_numpy().tolist() == [[900, 1600, 1700]]
    assert two(1700)[["start", "bottom", "end"]].to_numpy().tolist() == [[900, 1000, 1100], [1600, 1700, 1800]]


def test_a_fall_that_does_not_come_back_up_to_the_high_mark_goes_on():
    train = {0: 1, 900: 1, 1000: 0.5, 1100: 0.95, 2000: 0.95, 2100: 0.5, 2200: 1}
    assert collapses(made_up_curve(SHORT, train, {0: 0}))[["start", "end"]].to_numpy().tolist() == [[900, 2200]]


def test_a_collapse_cut_short_by_the_end_is_kept():
    found = collapses(made_up_curve(SHORT, {0: 1, 2800: 1, 2900: 0.5}, {0: 0}))
    assert found[["start", "end", "recovered"]].to_numpy().tolist() == [[2800, 3000, False]]


def test_collapses_refuses_marks_out_of_order():
    with pytest.raises(ValueError, match="low 0.9 and high 0.8"):
        collapses(made_up_curve(SHORT, jump(100), jump(100)), high=0.8)


def test_points_1_and_2():
    curve = made_up_curve(SHORT, train={0: 0, 1000: 1, **dip(2000, 0.9)}, val=jump(2000))
    assert point_1(curve) == 1000
    assert point_2(curve) == 2100  # at 2 000 validation is at 1 but training is not
    assert point_2(made_up_curve(SHORT, jump(100), jump(100, high=0.999))) is None


def test_deepest_fall():
    assert deepest_fall([1, 4, 3, 5, 2, 6]) == 3
    assert deepest_fall([1, 4, 2, 5, 3, 6], relative=True) == 0.5  # 4 to 2 is half; 5 to 3 is less
    assert deepest_fall([1, 2, 3]) == 0
