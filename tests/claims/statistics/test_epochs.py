from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.made_up import jump, made_up_curve

import grokcore as gc
from grokcore.claims.statistics import epochs

RUN = gc.pku(alpha=0.5, epochs=1000)  # 4 704 training rows, batches of 512: 10 steps an epoch, 10 000 steps
NEVER = {0: 0.0}
FIT = jump(500)


def said(parts):
    """Return what the parts say, in order; a verdict tells True, False and None by identity."""
    assert all(part is None or type(part) is bool for part in parts.values())
    return tuple(parts.values())


def at(step):
    return NEVER if step is None else jump(step)


def overflowed(curve: pd.DataFrame, after: int) -> pd.DataFrame:
    """Return a run as `claims.select` gives it whose numbers overflowed after an evaluation."""
    return curve.loc[curve["step"] <= after].assign(status="nonfinite")


@pytest.mark.parametrize(
    "spec, expected",
    [
        (gc.pku(alpha=0.3), 6),  # 2 822 rows in batches of 512
        (gc.pku(alpha=0.4), 8),  # 3 763
        (gc.pku("mlp", alpha=0.6), 12),  # 5 645
        (gc.pku("mlp", alpha=0.5, p=23, steps=1000), 1),  # 264, less than a batch
        (gc.pku_sum(2), 162),  # 324 in batches of 2
        (gc.pku_sum(3), 343),  # 2 743 in batches of 8
        (gc.pku_sum(4), 408),  # 13 032 in batches of 32
    ],
)
def test_steps_per_epoch_count_the_smaller_last_batch(spec, expected):
    curve = made_up_curve(spec, FIT, NEVER)
    assert epochs.steps_per_epoch(curve) == expected
    assert epochs.steps_per_epoch(curve.head(1)) == expected  # a run that overflowed at once


SAID = {"train": 100.0, "rise": 200.0, "val": 400.0}
RISES = {0: 0, 1900: 0, 2000: 0.1, 3900: 0.1, 4000: 1}  # by exactly ten points at step 2 000


def events(train, val, **change):
    parameters: dict[str, Any] = {"said": {"a": SAID}, "factor": 2.0, "rise": 0.1, "groks": {"a": True}, **change}
    parts, values = epochs.events_at_epochs({"a": made_up_curve(RUN, train, val)}, **parameters)
    return said(parts), values


def test_events_at_the_epochs_said():
    parts, values = events(jump(1000), RISES)
    assert parts == (True, True, True, True)
    assert (values["a_train"], values["a_rise"], values["a_val"]) == ((100, 1000), (200, 1000), (400, 1000))
    assert values["a_delay"] == 4


@pytest.mark.parametrize(
    "train, val, expected",
    [
        (jump(500), RISES, (True, True, True)),  # half of epoch 100
        (jump(400), RISES, (False, True, True)),
        (jump(2000), {**RISES, 2000: 0.0, 2100: 0.1}, (True, True, True)),  # twice epoch 100
        (jump(2100), {**RISES, 2100: 0.0, 2200: 0.1}, (False, True, True)),
        (FIT, {900: 0, 1000: 0.1, 3900: 0.1, 4000: 1}, (True, True, True)),  # half of epoch 200
        (FIT, {800: 0, 900: 0.1, 3900: 0.1, 4000: 1}, (True, False, True)),
        (FIT, {3900: 0, 4000: 0.1, 7900: 0.1, 8000: 1}, (True, True, True)),  # twice epochs 200 and 400
        (FIT, {4000: 0, 4100: 0.1, 8000: 0.1, 8100: 1}, (True, False, False)),
        (FIT, {900: 0, 1000: 0.1, 1900: 0.1, 2000: 1}, (True, True, True)),  # half of epoch 400
        (FIT, {900: 0, 1000: 0.1, 1800: 0.1, 1900: 1}, (True, True, False)),
        (FIT, {0: 0.02, 1000: 0.02, 1100: 0.119, 7900: 0.119, 8000: 1}, (True, False, True)),  # gains less than ten
        (jump(1000), {1000: 0, 1100: 0.1, 4000: 0.1, 4100: 1}, (True, True, True)),  # more than at the fit
        (jump(1000), {**RISES, 4100: 0.5, 8900: 0.5, 9000: 1}, (True, True, True)),  # the first time, though not kept
        ({900: 0, 1000: 1, 1100: 0.5, 2900: 0.5, 3000: 1}, RISES, (True, True, True)),
        (FIT, NEVER, (True, False, False)),
        (NEVER, jump(4000), (False, False, True)),
        (NEVER, NEVER, (False, False, False)),
        (jump(0), jump(0), (False, False, False)),
    ],
)
def test_each_event_can_fail(train, val, expected):
    assert events(train, val)[0][:3] == expected


def test_only_events_that_are_said_are_judged():
    parts, values = events(FIT, jump(4000), said={"a": {"val": 400}})
    assert parts == (True, True) and set(values) == {"a_val", "a_delay"}


@pytest.mark.parametrize(
    "train, val, status, groks",
    [
        (1000, 2000, "finished", True),  # exactly twice as late
        (1000, 1900, "finished", False),
        (1000, None, "finished", False),
        (None, 2000, "finished", False),
        (1000, 2000, "nonfinite", False),
    ],
)
def test_grokking_is_judged_as_claimed(train, val, status, groks):
    cells = {"a": made_up_curve(RUN, at(train), at(val), status=status)}
    for claimed, title in ((True, "groks, a"), (False, "no clear grokking, a")):
        parts, _ = epochs.events_at_epochs(cells, {}, factor=2.0, rise=0.1, groks={"a": claimed})
        assert parts == {title: groks == claimed}


def test_a_run_that_overflowed_before_its_first_evaluation_has_no_events():
    cells = {"a": overflowed(made_up_curve(RUN, FIT, NEVER), after=0)}
    parts, values = epochs.events_at_epochs(cells, {"a": SAID}, factor=2.0, rise=0.1, groks={"a": True})
    assert said(parts) == (False,) * 4
    found: Any = values["a_train"]
    assert np.isnan(found[0]) and found[1] == 1000


def dips_at(*steps: int, low: float = 0.9) -> dict[float, float]:
    """Points of training accuracy that is 1 from 500 on, but `low` at each of these evaluations."""
    points = dict(FIT)
    for step in steps:
        points |= {step - 100: 1.0, step: low, step + 100: 1.0}
    return points


def dipping(train, val: Any = FIT, **columns):
    """Judge a run beside one whose parts are all True."""
    cells = {"a": made_up_curve(RUN, train, val, **columns), "b": made_up_curve(RUN, dips_at(3000, 6000), FIT)}
    rule = {"low": 0.95, "at_least": 2, "epochs": 50, "unsteady": "a", "fall": 1 / 128}
    parts, values = epochs.brief_dips(cells, **rule)
    assert said(parts)[2:4] == (True, True) and (values["b_dips"], values["b_longest"]) == (2, 20)
    return (*said(parts)[:2], parts["validation unsteady"]), values


@pytest.mark.parametrize(
    "train, expected, longest",
    [
        (dips_at(3000, 6000), (True, True), 20),  # from 100 steps before to 100 after
        (dips_at(3000), (False, True), 20),
        (FIT, (False, None), np.nan),
        (NEVER, (False, None), np.nan),
        (jump(500, high=0.98) | {5000: 0.9}, (False, None), np.nan),  # never 99 %
        (dips_at(3000, 6000, low=0.95), (False, None), np.nan),  # not under it
        (dips_at(3000, 6000, low=0.949), (True, True), 20),
        (dips_at(3000) | {4900: 1, 5000: 0.9, 5300: 0.9, 5400: 1}, (True, True), 50),
        (dips_at(3000) | {4900: 1, 5000: 0.9, 5400: 0.9, 5500: 1}, (True, False), 60),
        (dips_at(3000, 3700), (True, True), 20),  # back at 3 100, 600 steps before the next
        (dips_at(3000, 3500), (False, False), 70),  # 400 steps before the next: one dip
    ],
)
def test_dips_recur_and_are_brief(train, expected, longest):
    parts, values = dipping(train)
    assert parts[:2] == expected
    np.testing.assert_equal(values["a_longest"], longest)


def test_a_dip_of_a_mini_batch_between_evaluations_counts():
    steps = np.arange(0, 10_001, 100)
    batch = np.where(np.isin(steps, (3000, 6000)), 0.9, 1.0)
    assert dipping(FIT, batch_accuracy_min=batch)[0][:2] == (True, True)


@pytest.mark.parametrize(
    "val, expected, fall",
    [
        ({1900: 0, 2000: 1, 5000: 1, 5100: 127 / 128, 5200: 1}, True, 1 / 128),
        ({1900: 0, 2000: 1, 5000: 1, 5100: 0.993, 5200: 1}, False, 0.007),
        ({1900: 0, 2000: 0.99, 4000: 1, 5000: 0.99}, True, 0.01),  # below the largest since
        ({0: 0, 1000: 0.9, 1500: 0.5, 2000: 1}, False, 0),  # before it was 99 % only
        (jump(10_000), False, 0),
        ({0: 0, 1000: 0.98, 1100: 0.5}, None, np.nan),
    ],
)
def test_validation_unsteady(val, expected, fall):
    parts, values = dipping(dips_at(3000, 6000), val)
    assert parts == (True, True, expected)
    assert values["fall"] == pytest.approx(fall, nan_ok=True)


def falling(*depths, val=NEVER):
    """Return a run fitted at 500 whose training accuracy falls by these depths at 2 000, 3 000, ... and comes back."""
    points = dict(FIT)
    for k, depth in enumerate(depths, start=2):
        points |= {1000 * k - 100: 1.0, 1000 * k: 1 - depth, 1000 * k + 100: 1.0}
    return made_up_curve(RUN, points, val)


def test_falls_are_those_of_both_accuracies_after_the_fit():
    val = {0: 0.9, 300: 0.2, 1000: 0.6, 1100: 0.5, 1200: 0.45, 9000: 0.95, 9100: 0.9}
    assert epochs.falls(falling(0.25, 0.125, val=val)) == pytest.approx(0.25 + 0.125 + 0.1 + 0.05 + 0.05)
    assert epochs.falls(made_up_curve(RUN, jump(10_000), {0: 1, 10_000: 0})) == 0  # fitted at the last evaluation
    assert np.isnan(epochs.falls(made_up_curve(RUN, NEVER, {0: 1, 10_000: 0})))
    assert not np.signbit(epochs.falls(falling()))  # shown as 0 %, not -0 %


UNFIT = made_up_curve(RUN, NEVER, {0: 1, 10_000: 0})


@pytest.mark.parametrize(
    "rough, smooth, expected",
    [
        (falling(0.5), falling(0.25), True),
        (falling(0.25), falling(0.5), False),
        (falling(0.5), falling(0.25, 0.25), False),  # as much in all
        (falling(0.5), falling(val={2000: 0.5, 3000: 0.25}), True),
        (falling(0.5), falling(0.25, val={2000: 0.5, 3000: 0.25}), False),  # both accuracies together
        (falling(), falling(), False),
        (falling(val={9900: 0.5, 10_000: 0}), falling(0.25), True),  # falls at the last evaluation count
        (falling(0.25), falling(val={9900: 0.5, 10_000: 0}), False),
        (UNFIT, falling(), None),
        (falling(0.5), UNFIT, None),
        (falling(0.25, 0.5), overflowed(falling(0.375), after=2500), False),  # until then 0.25
        (overflowed(falling(0.375), after=2500), falling(0.25, 0.5), True),
        (falling(0.5), overflowed(falling(), after=400), None),
    ],
)
def test_smoother(rough, smooth, expected):
    cells = {"e4": falling(0.5), "e5": rough, "m4": falling(0.25), "m5": smooth, "l4": UNFIT, "l5": falling(1, 1, 1)}
    networks = {"MLP": ["m4", "m5"], "LSTM": ["l4", "l5"]}
    parts, values = epochs.smoother(cells, rough=["e4", "e5"], smooth=networks)
    names = ["MLP smoother, m4", "MLP smoother, m5", "LSTM smoother, l4", "LSTM smoother, l5"]
    assert list(parts) == names and said(parts)[:3] == (True, expected, None)
    assert parts["LSTM smoother, l5"] is (None if rough is UNFIT else False)
    assert (values["e4_falls"], values["m4_falls"], values["l5_falls"]) == (0.5, 0.25, 3)


def unstable(small, larger, small_val=NEVER, cut=12_000):
    """Judge 12 000 steps of training accuracy `small` against 8 000 of `larger`."""
    cells = {
        "small": overflowed(made_up_curve(gc.pku(alpha=0.3, epochs=2000), small, small_val), cut),
        "larger": made_up_curve(gc.pku(alpha=0.4, epochs=1000), larger, jump(6000)),
    }
    parts, values = epochs.unstable_at_small_alpha(cells)
    return said(parts), values


@pytest.mark.parametrize(
    "small, larger, val, expected",
    [
        (dips_at(2000, 7900), dips_at(3000), NEVER, (True, True)),
        (dips_at(2000), dips_at(3000, low=0.8), NEVER, (False, True)),
        (dips_at(2000), dips_at(3000), NEVER, (False, True)),  # as much
        (dips_at(2000, 8000), dips_at(3000), NEVER, (True, True)),  # the last step that both have
        (dips_at(2000, 8100), dips_at(3000), NEVER, (False, True)),  # past the larger run's steps
        (dips_at(2000, 7900), dips_at(3000), jump(11_500), (True, False)),  # stays for 500 steps
        (dips_at(2000, 7900), dips_at(3000), jump(11_600), (True, True)),
        (NEVER, dips_at(3000), NEVER, (None, True)),
        (dips_at(2000), NEVER, NEVER, (None, True)),
        (NEVER, NEVER, jump(5000), (None, False)),
    ],
)
def test_unstable_at_small_alpha(small, larger, val, expected):
    assert unstable(small, larger, val)[0] == expected


def test_what_is_said_of_a_small_alpha():
    _, values = unstable(dips_at(2000, 7900), dips_at(3000), jump(9000, high=0.75))
    assert (values["small_falls"], values["larger_falls"]) == (pytest.approx(0.2), pytest.approx(0.1))
    np.testing.assert_equal((values["small_val"], values["larger_val"]), ((np.nan, 12_000), (6000, 8000)))
    assert values["small_best"] == 0.75


def test_a_run_that_overflowed_is_compared_over_its_own_steps():
    assert unstable(dips_at(2000), dips_at(3000, 5000), cut=2500)[0] == (True, True)
