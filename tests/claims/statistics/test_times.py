from typing import Any

import numpy as np
import pytest
from helpers.made_up import jump, made_up_curve

from grokcore.claims.statistics import times
from grokcore.spec.presets import msu

RUN = msu()  # 10 000 steps, evaluated every 100
NEVER = {0: 0.0}
ALPHAS = {"a04": 0.4, "a05": 0.5, "a06": 0.6, "a07": 0.7, "a08": 0.8}


def reaching(val, train=500, **columns):
    """Return a run whose training accuracy jumps at `train` and validation accuracy at `val` (None: never)."""
    return made_up_curve(RUN, jump(train), NEVER if val is None else jump(val), **columns)


def test_delayed_generalisation_from_chance_to_exactly_one():
    parts, values = times.delayed_generalisation({"main": reaching(4000)}, chance=0.05)
    assert parts == {"groks": True, "from chance": True, "to 100 %": True}
    assert values["train"] == (500, 10_000) and values["val"] == (4000, 10_000)
    assert values["delay"] == 8 and values["val_at_train"] == 0


@pytest.mark.parametrize(
    "val, no",
    [
        (jump(900), {"groks"}),  # before twice the training step, 500
        (jump(4000, low=0.06), {"from chance"}),
        (jump(4000, high=0.995), {"to 100 %"}),
        (NEVER, {"groks", "to 100 %"}),
    ],
)
def test_each_part_of_delayed_generalisation_can_fail(val, no):
    parts, _ = times.delayed_generalisation({"main": made_up_curve(RUN, jump(500), val)}, chance=0.05)
    assert {name for name, held in parts.items() if not held} == no


def test_delayed_generalisation_of_a_run_that_does_not_fit():
    parts, values = times.delayed_generalisation({"main": made_up_curve(RUN, NEVER, NEVER)}, chance=0.05)
    assert not any(parts.values()) and np.isnan(values["val_at_train"])


@pytest.mark.parametrize(
    "val, expected, wait, rise",
    [
        ({3000: 0.0, 3400: 1.0}, (True, True), 2600, 300),  # 10 % at 3 100 (0.25), 90 % at 3 400
        ({500: 0.0, 4500: 1.0}, (True, False), 400, 3200),  # from the fit on, evenly: 10 % at 900, 90 % at 4 100
        ({600: 0.0, 650: 1.0}, (False, True), 200, 0),  # at once: 99 % at 700, before twice the fit
        ({3000: 0.0, 3400: 0.85}, (False, None), 2600, np.nan),  # stays under 90 %
        (NEVER, (False, None), np.nan, np.nan),
    ],
)
def test_sudden_generalisation(val, expected, wait, rise):
    parts, values = times.sudden_generalisation({"main": made_up_curve(RUN, jump(500), val)}, low=0.1, high=0.9)
    assert parts == dict(zip(("long after overfitting", "suddenly"), expected, strict=True))
    np.testing.assert_equal((values["wait"], values["rise"]), (wait, rise))


def test_sudden_generalisation_of_a_run_that_does_not_fit():
    parts, _ = times.sudden_generalisation({"main": made_up_curve(RUN, NEVER, jump(500))}, low=0.1, high=0.9)
    assert parts == {"long after overfitting": False, "suddenly": None}


def test_groks_in_every_cell_judges_each_cell():
    cells = {"early": reaching(600), "late": reaching(3000)}
    parts, values = times.groks_in_every_cell(cells)
    assert parts == {"early": False, "late": True}
    assert values["early_val"] == (600, 10_000) and values["late_best"] == 1


@pytest.mark.parametrize(
    "symmetric, asymmetric, expected",
    [
        (2000, None, (True, True)),
        (2000, 2100, (True, False)),
        (2000, 2000, (False, False)),  # brackets overlap: neither is first
        (None, 2000, (False, False)),
        (None, None, (False, True)),
    ],
)
def test_symmetric_before_asymmetric(symmetric, asymmetric, expected):
    cells = {"symmetric": reaching(symmetric), "asymmetric": reaching(asymmetric)}
    assert tuple(times.symmetric_before_asymmetric(cells)[0].values()) == expected


@pytest.mark.parametrize(
    "reached_at, expected",
    [
        ((5000, 4000, 3000, 2000, 1500), (True, True)),
        ((5000, 4000, 4000, 2000, 1500), (True, True)),  # as soon as is not later
        ((5000, 4000, 3000, 1000, 1500), (True, False)),
        ((None, None, 3000, 2000, 1500), (True, True)),  # not within the budget is later than any step
        ((3000, None, 2000, 2000, 1500), (True, False)),
        ((2000, 2000, 2000, 2000, 2000), (False, True)),
        ((1000, 2000, 3000, 4000, None), (False, False)),
        ((None, None, None, None, 2000), (True, None)),
        ((None, None, None, None, None), (False, None)),
    ],
)
def test_sooner_with_alpha(reached_at, expected):
    cells = {name: reaching(at) for name, at in zip(ALPHAS, reached_at, strict=True)}
    assert tuple(times.sooner_with_alpha(cells, ALPHAS)[0].values()) == expected


def test_slope_over_alpha_counts_a_censored_run_as_its_budget():
    # 10 000 (censored), 10^3.9, ...: a fall by 10^0.1 for each 0.1 of alpha would be a slope of -1.
    reached_at = [None, *(round(10 ** (4 - k / 10) / 100) * 100 for k in range(1, 5))]
    cells = {name: reaching(at) for name, at in zip(ALPHAS, reached_at, strict=True)}
    values: dict[str, Any] = times.sooner_with_alpha(cells, ALPHAS)[1]
    assert values["slope"] == pytest.approx(-1, abs=0.02)  # steps are rounded to the evaluations
    assert values["slope_low"] <= values["slope"] <= values["slope_high"]
    assert values["a04"][1] == 10_000 and np.isnan(values["a04"][0])


@pytest.mark.parametrize(
    "largest, expected",
    [
        ({0: 0, 1000: 1}, (False, False)),
        ({0: 0, 1000: 1, 8000: 1, 8100: 0.98}, (True, False)),
        ({0: 0, 1000: 1, 3000: 1, 3100: 0.9, 3200: 1}, (False, True)),
        ({0: 0, 1000: 1, 3000: 1, 3100: 0.9}, (True, True)),
        ({0: 0, 1000: 1, 7900: 1, 7901: 0, 7999: 0, 8000: 1}, (False, False)),  # between two evaluations: not seen
    ],
)
def test_worse_than_neighbour(largest, expected):
    cells = {
        "neighbour": made_up_curve(RUN, jump(500), {0: 0, 1000: 1}),
        "largest": made_up_curve(RUN, jump(500), largest),
    }
    parts, _ = times.worse_than_neighbour(cells, last_steps=2000, lower=0.01, deeper=0.05)
    assert tuple(parts.values()) == expected


def test_the_last_steps_are_those_after_the_budget_minus_them():
    # Evaluations 8 100 to 10 000: twenty of them, one at 0.8.
    curve = made_up_curve(RUN, jump(500), {0: 1, 8000: 0.5, 8100: 0.8, 8200: 1})
    _, values = times.worse_than_neighbour({"neighbour": curve, "largest": curve}, 2000, 0.01, 0.05)
    assert values["largest_end"] == pytest.approx(0.99) and values["largest_fall"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    "reached_at, expected",
    [
        ((2000, 4000, 1000, 900), (True, True)),
        ((2000, 4100, 1000, 900), (True, False)),
        ((4100, 2000, 1000, 900), (True, False)),
        ((2000, None, 1000, 900), (False, True)),
        ((None, None, 1000, 900), (True, True)),
        ((None, None, None, None), (True, None)),
        ((2000, None, None, 900), (False, None)),
    ],
)
def test_same_result(reached_at, expected):
    names = ("p4", "q4", "p5", "q5")
    cells = {name: reaching(at) for name, at in zip(names, reached_at, strict=True)}
    parts, _ = times.same_result(cells, pairs=[["p4", "q4"], ["p5", "q5"]], factor=2.0)
    assert tuple(parts.values()) == expected


@pytest.mark.parametrize(
    "highs, expected",
    [
        ((0.02, 0.3, 0.5), (True, True)),
        ((0.02, 0.3, 1.0), (True, False)),
        ((0.02, 0.05, 0.09), (False, True)),
        ((0.60, 0.3, 0.5), (False, True)),  # no more than at the smaller alpha
    ],
)
def test_beginnings_only(highs, expected):
    cells = {f"a{k}": made_up_curve(RUN, jump(500), jump(4000, high=high)) for k, high in enumerate(highs)}
    parts, _ = times.beginnings_only(cells, smaller="a0", larger=["a1", "a2"], rise=0.1)
    assert tuple(parts.values()) == expected


def test_beginnings_do_not_count_before_the_training_set_is_fitted():
    early = made_up_curve(RUN, jump(5000), jump(4000, high=0.5))
    unfit = made_up_curve(RUN, NEVER, jump(4000, high=0.5))
    for curve in (early, unfit):
        parts, _ = times.beginnings_only({"a0": early, "a1": curve}, smaller="a0", larger=["a1"], rise=0.1)
        assert parts == {"beginnings": False, "not reached": True}


def sine(train, val, beyond=None):
    """Judge four runs: training and validation steps at 0.4 and 0.5, validation beyond."""
    cells = {name: reaching(v, t) for name, t, v in zip(("a", "b"), train, val, strict=True)}
    cells |= {"c": reaching(None), "d": reaching(beyond)}
    parts, _ = times.worsens_with_alpha(cells, {"now": ["a", "b", "c", "d"]})
    return parts["less distinct, now"], parts["training struggles, now"], parts["not reached beyond, now"]


def test_worsens_with_alpha():
    assert sine(train=(500, 1000), val=(4000, 4000)) == (True, True, True)  # delay 8, then 4
    assert sine(train=(1000, 500), val=(4000, 4000)) == (False, False, True)
    assert sine(train=(500, 500), val=(4000, None), beyond=7000) == (True, False, False)
    assert sine(train=(500, 500), val=(None, 4000)) == (False, False, True)
    assert sine(train=(500, 500), val=(None, None)) == (False, False, True)  # the same best accuracy: not lower
    cells = {"a": reaching(4000, 500), "b": reaching(None, 500)}
    _, values = times.worsens_with_alpha(cells, {"now": ["a", "b"]})
    np.testing.assert_equal((values["a_ratio"], values["b_ratio"]), (8.0, np.nan))


def test_later_needs_brackets_that_do_not_overlap():
    def run(at, after):
        return {"t": at, "t_after": after}

    assert times.later(run(300, 200), run(200, 100), "t")
    assert not times.later(run(300, 100), run(200, 100), "t")
    assert not times.later(run(200, 100), run(300, 200), "t")
    assert times.later(run(np.nan, np.nan), run(200, 100), "t")
    assert not times.later(run(np.nan, np.nan), run(np.nan, np.nan), "t")


@pytest.mark.parametrize(
    "curve, filled, at",
    [
        (reaching(3000), True, 3000),
        (reaching(10_000), True, 10_000),  # at one evaluation, though not kept
        (made_up_curve(RUN, jump(500), {2900: 0, 3000: 1, 3100: 0}), True, 3000),
        (made_up_curve(RUN, NEVER, jump(3000)), True, 3000),
        (made_up_curve(RUN, jump(500), jump(3000, high=1 - 6e-8)), True, 3000),  # 1 in single precision
        (made_up_curve(RUN, jump(500), jump(3000, high=105 / 106)), False, np.nan),  # one of 106 is wrong
        (reaching(None), False, np.nan),
        (reaching(3000).head(35).assign(status="nonfinite"), True, 3000),
        (reaching(3000).head(30).assign(status="nonfinite"), False, np.nan),  # ends at 2 900
    ],
)
def test_fills_in(curve, filled, at):
    parts, values = times.fills_in({"main": curve})
    assert list(parts) == ["every hidden entry"] and parts["every hidden entry"] is filled
    np.testing.assert_equal(values["all"], (at, 10_000))
    assert values["best"] == curve["val_accuracy"].max()
