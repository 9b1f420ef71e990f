from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.made_up import jump, made_up_curve

import grokcore as gc
from grokcore import claims
from grokcore.claims import wording
from grokcore.claims.statistics import grid

NEVER = {0: 0.0}
ALPHAS = (0.3, 0.5, 0.7, 0.9)
STEPS = {0.3: 6000, 0.5: 10_000, 0.7: 13_000, 0.9: 17_000}  # 1 000 epochs of 6, 10, 13 and 17 steps
RUNS = {alpha: gc.pku(alpha=alpha, epochs=1000) for alpha in ALPHAS}
SMALL = {alpha: gc.pku(alpha=alpha, epochs=1000, batch_size=64) for alpha in ALPHAS}  # 45, 74, 103, 133 steps an epoch


def said(parts):
    """Return what the parts say, in order; a verdict tells True, False and None by identity."""
    assert all(part is None or type(part) is bool for part in parts.values())
    return tuple(parts.values())


def row(name, *epochs, runs=RUNS, best=None):
    """Return the cells of a configuration by the epochs at which it converges at each fraction (None: never)."""
    cells = {}
    for k, (alpha, epoch) in enumerate(zip(ALPHAS, epochs, strict=True)):
        high = 1.0 if best is None else best[k]
        val = NEVER if epoch is None else jump(epoch * RUNS[alpha].steps_per_epoch, high=high)
        if epoch is not None and runs is SMALL:
            val = jump(epoch * SMALL[alpha].steps_per_epoch, high=high)
        cells[f"{name}, {alpha:g}"] = made_up_curve(runs[alpha], jump(500), val)
    return cells


def ended(curve, last, status):
    """Return a run as `claims.select` gives it that ended before its budget."""
    return curve.loc[curve["step"] <= last].assign(status=status)


def test_the_runs_have_the_budgets_of_the_claims():
    assert {alpha: run.steps for alpha, run in RUNS.items()} == STEPS
    for cell in ("adam", "adamw"):
        budgets = [claims.load()["pku-9"].cells[f"{cell}, {alpha:g}"]["budget"] for alpha in ALPHAS]
        assert budgets == list(STEPS.values())
    small = [claims.load()["pku-9"].cells[f"adam_small, {alpha:g}"]["budget"] for alpha in ALPHAS]
    assert small == [run.steps for run in SMALL.values()]


@pytest.mark.parametrize(
    "slow, fast, expected",
    [
        ((None,) * 4, (None,) * 4, (True, True)),
        ((None,) * 4, (None, None, None, 900), (True, False)),
        ((800, None, None, None), (None,) * 4, (False, True)),
        ((100,) * 4, (100,) * 4, (False, False)),
    ],
)
def test_converges_nowhere(slow, fast, expected):
    parts, values = grid.converges_nowhere({**row("sgd", *slow), **row("sgd_fast", *fast)})
    assert list(parts) == ["nowhere, sgd", "nowhere, sgd_fast"] and said(parts) == expected
    assert (values["sgd_best"], values["sgd_fast_best"]) == tuple(float(not part) for part in expected)
    assert (values["sgd_fitted"], values["sgd_train_least"], values["sgd_train"]) == (4, 1, 1)


def test_fitted_and_final_training_accuracy_are_of_all_fractions():
    cells = row("sgd", None, None, None, None)
    cells["sgd, 0.5"] = made_up_curve(RUNS[0.5], {0: 0, 1000: 1.0, 9000: 0.25}, {0: 0})  # fitted, and lost again
    cells["sgd, 0.9"] = made_up_curve(RUNS[0.9], {0: 0, 1000: 0.5}, {0: 0})
    _, values = grid.converges_nowhere(cells)
    assert (values["sgd_fitted"], values["sgd_train_least"], values["sgd_train"]) == (3, 0.25, 1)


@pytest.mark.parametrize("peak, expected", [(0.99, False), (0.9899, True)])
def test_to_converge_is_99_percent_at_one_evaluation(peak, expected):
    cells = row("sgd", None, None, None, None)
    cells["sgd, 0.5"] = made_up_curve(RUNS[0.5], {0: 0, 1000: 0.7}, {5900: 0.0, 6000: peak, 6100: 0.0})
    parts, values = grid.converges_nowhere(cells)
    assert parts == {"nowhere, sgd": expected} and values["sgd_best"] == peak and values["sgd_train"] == 1


def test_a_run_that_overflowed_has_converged_only_before():
    cells = row("sgd_fast", None, 400, None, None)
    assert said(grid.converges_nowhere(cells)[0]) == (False,)
    for last, expected in ((3900, True), (4000, False), (0, True)):
        cells["sgd_fast, 0.5"] = ended(row("sgd_fast", None, 400, None, None)["sgd_fast, 0.5"], last, "nonfinite")
        assert said(grid.converges_nowhere(cells)[0]) == (expected,)


def only_from(rms, adam, small=(None, None, 100, 100)):
    cells = {**row("rmsprop", *rms), **row("adam", *adam), **row("adam_small", *small, runs=SMALL)}
    return grid.converges_only_from(cells, alpha=0.7, fewer=["adam", "adam_small"], than="rmsprop")


LATE = (None, None, 500, 400)
SOON = (None, None, 200, 100)


def test_converges_only_from():
    parts, values = only_from(LATE, SOON)
    names = ["only from there, rmsprop", "only from there, adam", "only from there, adam_small"]
    assert list(parts) == [*names, "fewer epochs, adam", "fewer epochs, adam_small"]
    assert said(parts) == (True,) * 5
    assert [values[f"{name}_least"] for name in ("rmsprop", "adam", "adam_small")] == [0.7] * 3
    assert (values["rmsprop_70"], values["rmsprop_90"]) == ((500, 1000), (400, 1000))
    assert values["adam_small_90"] == (100, 1000)  # 13 300 steps of 133 an epoch
    np.testing.assert_equal(values["adam_50"], (np.nan, 1000))


@pytest.mark.parametrize(
    "rms, adam, small, expected",
    [
        ((900, None, 500, 400), SOON, SOON, (False, True, True, True, True)),  # at too small a fraction
        (LATE, (None, 900, 200, 100), SOON, (True, False, True, True, True)),
        ((None, None, 500, None), SOON, SOON, (False, True, True, True, True)),  # later than the budget
        ((None, None, None, 400), (None, None, None, 100), SOON, (False, False, True, None, True)),  # neither at 0.7
        ((None,) * 4, (None,) * 4, (None,) * 4, (False, False, False, None, None)),
        ((None,) * 4, SOON, (None,) * 4, (False, True, False, True, None)),
        (LATE, (None, None, 200, None), SOON, (True, False, True, False, True)),
        (LATE, (None, None, 200, 500), SOON, (True, True, True, False, True)),  # one of two is no less
        (LATE, LATE, SOON, (True, True, True, False, True)),  # the same bracket
        ((100,) * 4, (50,) * 4, (50,) * 4, (False, False, False, True, True)),
    ],
)
def test_each_part_of_converging_only_from_a_fraction_can_fail(rms, adam, small, expected):
    assert said(only_from(rms, adam, small)[0]) == expected


def test_fewer_is_of_epochs_and_by_brackets():
    # At 0.9 13 300 small steps are 100 epochs, and 1 700 and 1 800 steps of 17 lie around that.
    for rms, expected in ((100, False), (111, True)):
        parts, _ = only_from((None, None, 500, rms), SOON)
        assert parts["fewer epochs, adam_small"] is expected
    # 1 700 is seen in (1 600, 1 700] and 1 800 in (1 700, 1 800]: they touch and do not overlap.
    cells = only_from((None, None, 500, 1800 / 17), (None, None, 200, 100))
    assert cells[0]["fewer epochs, adam"] is True


def below(adam, adamw):
    cells = {**row("adam_dropout", *adam), **row("adamw_strong", *adamw)}
    return grid.converges_below(cells, alpha=0.7, down_to={"adamw_strong": 0.3})


@pytest.mark.parametrize(
    "adam, adamw, expected",
    [
        ((None, 500, 300, 300), (500, 300, 300, 300), (True, True, True)),
        ((None, None, 300, 300), (500, 300, 300, 300), (False, True, True)),  # 0.7 is not below
        ((500, None, None, None), (None, 300, 300, 300), (True, True, False)),  # not at 0.3
        ((None,) * 4, (None,) * 4, (False, False, False)),
        ((9,) * 4, (999, None, None, None), (True, True, True)),
    ],
)
def test_converges_below(adam, adamw, expected):
    parts, values = below(adam, adamw)
    assert list(parts) == ["below, adam_dropout", "below, adamw_strong", "even there, adamw_strong"]
    assert said(parts) == expected
    there = [alpha for alpha, epoch in zip(ALPHAS, adam, strict=True) if epoch is not None]
    np.testing.assert_equal(values["adam_dropout_least"], min(there, default=np.nan))


@pytest.mark.parametrize(
    "epochs, is_u",
    [
        ((500, 200, 300, 400), True),
        ((500, 400, 300, 400), True),
        ((None, 200, 300, None), True),  # not to converge is late
        ((None, 200, None, 400), True),
        ((500, 400, 300, 200), False),
        ((None, 400, 300, 200), False),
        ((200, 300, 400, 500), False),
        ((300, 500, 500, 300), False),  # the other way up
        ((200, 300, 300, 200), False),
        ((None, None, 300, 200), False),
        ((None, None, 999, None), None),
        ((None, 200, None, None), None),
        ((None, None, None, 200), None),
        ((None,) * 4, None),
        ((200, None, None, 200), False),
        ((None, 400, 100, 1200 / 17), False),  # steps grow, epochs fall: an epoch has more steps
        ((50, 400 / 10, 500 / 13, 600 / 17), False),
    ],
)
def test_u_shaped(epochs, is_u):
    cells = {**row("adam", *epochs), **row("adamw", *epochs)}
    parts, values = grid.u_shaped(cells, exception="adamw")
    assert list(parts) == ["U, adam", "no U, adamw"]
    assert said(parts) == ((None, None) if is_u is None else (is_u, not is_u))
    assert (values["n_u"], values["n_judged"]) == (is_u is True, is_u is not None)  # the exception is not counted
    known = {alpha: at for alpha, at in zip(ALPHAS, epochs, strict=True) if at is not None}
    least = min(known, key=lambda alpha: known[alpha]) if len(known) > 1 else np.nan
    np.testing.assert_equal(values["adam_bottom"], least)


def test_an_end_in_the_bracket_of_the_least_makes_no_u():
    # At 0.5 seen in epochs (190, 200]; at 0.3 within (183.3, 200], or in (200, 216.7].
    for first, is_u in ((1200, False), (1300, True)):
        parts, _ = grid.u_shaped(row("adam", first / 6, 200, 300, 400), exception="")
        assert parts == {"U, adam": is_u}


def test_a_run_that_stopped_early_or_overflowed_is_late_only_if_it_had_not_converged():
    cells = row("adam", 500, 200, 300, 400)
    cells["adam, 0.5"] = ended(cells["adam, 0.5"], 3000, "stopped early")
    parts, values = grid.u_shaped(cells, exception="")
    assert parts == {"U, adam": True} and values["adam_90"] == (400, 1000)
    cells["adam, 0.9"] = ended(cells["adam, 0.9"], 100, "nonfinite")
    parts, values = grid.u_shaped(cells, exception="")
    assert parts == {"U, adam": True}
    np.testing.assert_equal(values["adam_90"], (np.nan, 1000))


def rising(*bests):
    """Judge configurations given by their best validation accuracies."""
    cells = {}
    for k, best in enumerate(bests):
        cells |= row(f"c{k}", 100, 100, 100, 100, best=best)
    return grid.rises_exponentially(cells, enough=0.99, drop=0.02, r_squared=0.8)


FALLS = (0.0, 0.9, 0.99, 0.999)  # errors 1, 0.1, 0.01, 0.001


def test_rises_exponentially():
    parts, values = rising(FALLS, FALLS)
    assert list(parts) == ["to 100 %", "rises", "exponentially"] and said(parts) == (True,) * 3
    assert values["worst_fit"] == pytest.approx(1) and values["c1_fit"] == pytest.approx(1)
    assert (values["c0_first"], values["c0_last"]) == (0, 0.999)


@pytest.mark.parametrize(
    "best, expected",
    [
        ((0.0, 0.9, 0.98, 0.989), (False, True, True)),
        ((0.5, 0.9, 0.88, 0.995), (True, True, True)),  # lower by the drop, not by more
        ((0.5, 0.9, 0.87, 0.995), (True, False, True)),
        ((0.0, 0.01, 0.02, 0.999), (True, True, False)),
        ((0.9, 0.5, 0.1, 0.01), (False, False, False)),  # linear, but the errors grow
        ((0.999, 0.99, 0.9, 0.0), (False, False, False)),
        ((0.99, 0.99, 0.99, 0.99), (True, True, True)),  # does not change: the other configuration decides
        ((1.0, 1.0, 1.0, 1.0), (True, True, True)),
        ((1.0, 1.0, 1.0, 1 - 6e-8), (True, True, True)),  # a rounding of 1
        ((0.0, 0.0, 0.0, 0.0), (False, True, True)),
    ],
)
def test_each_part_of_an_exponential_rise_can_fail(best, expected):
    assert said(rising(FALLS, best)[0]) == expected


@pytest.mark.parametrize("best", [1.0, 0.99, 0.0])
def test_errors_that_change_nowhere_say_nothing_of_the_form(best):
    parts, values = rising((best,) * 4, (best,) * 4)
    assert said(parts) == (best >= 0.99, True, None)
    assert np.isnan(float(np.asarray(values["worst_fit"])))


def test_no_wrong_answer_is_half_a_one():
    n_val = 9409 - RUNS[0.9].n_train
    slope = np.log(0.5 / n_val) / 3  # from 1 at alpha 0.3 down to half a row at 0.9
    best = [*(1 - np.exp(slope * k) for k in range(3)), 1.0]
    values: Any = rising(best)[1]
    assert n_val == 941 and values["c0_fit"] == pytest.approx(1)


def test_one_configuration_that_does_not_rise_decides():
    parts, values = rising(FALLS, (0.01, 0.012, 0.011, 0.01))
    assert said(parts) == (False, True, False)
    assert values["worst_fit"] == values["c1_fit"] == pytest.approx(0, abs=0.1)


def test_fractions_are_read_from_names():
    assert grid.fraction("x/y if y odd else x-y, 0.45") == 0.45


def source_runs():
    """Return the runs at the source's settings that the claims are about, written out by hand."""
    plain: dict[str, Any] = {"weight_decay": 0.0}
    changes: list[dict[str, Any]] = [
        *({"optimizer": gc.SGD(lr=lr, momentum=0.9, nesterov=True)} for lr in (1e-3, 0.1)),
        *({"optimizer": gc.RMSprop()}, {"optimizer": gc.Adam()}),
        *({"optimizer": gc.Adam(), "dropout": 0.1}, {"optimizer": gc.Adam(), "batch_size": 64}),
        *({}, {"dropout": 0.1}, {"weight_decay": 0.5}),
    ]
    known = [gc.pku(alpha=alpha, epochs=1000, early_stop=1000, **change) for change in changes for alpha in ALPHAS]
    others = [gc.pku("mlp", alpha=0.5, epochs=1000), gc.pku(alpha=0.5, epochs=1000, **plain), gc.pku(epochs=2000)]
    return known, others


def test_every_claim_finds_its_runs_though_they_stopped_early_and_says_what_it_measured():
    known, others = source_runs()
    curves = [ended(made_up_curve(spec, jump(500), jump(3000)), 4000, "stopped early") for spec in known]
    frame = pd.concat([*curves, *(made_up_curve(spec, jump(500), jump(3000)) for spec in others)], ignore_index=True)
    used = set()
    for id in (f"pku-{k}" for k in range(6, 11)):
        found = claims.evaluate(id, frame)
        assert "Missing" not in found.reason and found.n_seeds == 1, id
        assert found.measured and "{" not in found.measured and "nan" not in found.measured
        assert [f"{wording.PART}{name}" for name in claims.load()[id].parts] == [
            name for name in found.values if name.startswith(wording.PART)
        ]
        used |= set(found.run_ids)
    assert used == {spec.id for spec in known}
    measured = claims.evaluate("pku-7", frame).measured
    assert "0.9 at epoch 176, epoch 176 and epoch 23" in measured.replace(
        "\N{NO-BREAK SPACE}", " "
    )  # 3 000 / 17, / 133
