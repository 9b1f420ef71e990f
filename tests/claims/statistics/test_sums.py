from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.made_up import jump, made_up_curve

import grokcore as gc
from grokcore import claims
from grokcore.claims import wording
from grokcore.claims.statistics import epochs

NEVER = {0: 0.0}
RUN = gc.pku("mlp", alpha=0.5, epochs=1000)  # 10 steps an epoch, 10 000 steps
SUMS = {k: gc.pku_sum(k) for k in (2, 3, 4)}  # 162, 343 and 408 steps an epoch, 300 epochs each


def said(parts):
    """Return what the parts say, in order; a verdict tells True, False and None by identity."""
    assert all(part is None or type(part) is bool for part in parts.values())
    return tuple(parts.values())


def reaching(spec, train, val):
    """Return a run whose accuracies jump at these steps (None: never)."""
    return made_up_curve(spec, *(NEVER if at is None else jump(at) for at in (train, val)))


def sums(k2, k3, k4, above=(500, 4000)):
    """Judge runs given by the steps of training and validation; that above has ratio 8."""
    cells = {f"K{k}": reaching(SUMS[k], *at) for k, at in zip(SUMS, (k2, k3, k4), strict=True)}
    cells["above"] = reaching(RUN, *above)
    return epochs.grokking_with_operands(cells, sums=["K2", "K3", "K4"], above="above")


# Epochs of training 9.9, 17.5 and 29.4, of validation 49.4, 70.0 and 88.2; ratios 5, 4 and 3.
K2, K3, K4 = (1600, 8000), (6000, 24_000), (12_000, 36_000)


def test_grokking_with_operands():
    parts, values = sums(K2, K3, K4)
    names = ["groks, K2", "groks, K3", "groks, K4", "weaker", "later in steps", "later in epochs"]
    assert list(parts) == names and said(parts) == (True,) * 6
    assert [values[f"{name}_delay"] for name in ("K2", "K3", "K4", "above")] == [5, 4, 3, 8]
    assert values["K2_train"] == (1600, 48_600) and values["K4_val"] == (36_000, 122_400)
    assert values["K3_train_epoch"] == (pytest.approx(6000 / 343), 300)
    assert values["K4_val_epoch"] == (pytest.approx(36_000 / 408), 300)
    assert (values["K2_best"], values["K2_gain"]) == (1, 0)


def test_the_last_gain_is_between_the_last_two_tenths():
    rising = made_up_curve(gc.msu(), jump(500), {8000: 0.25, 8001: 0.5, 9000: 0.5, 9001: 0.75})
    assert epochs.last_gain(rising) == pytest.approx(0.25)
    assert np.isnan(epochs.last_gain(rising.loc[rising["step"] == 10_000]))


@pytest.mark.parametrize(
    "k2, k3, k4, above, expected",
    [
        ((1600, 3100), K3, K4, (500, 4000), (False, True, True, True, True, True)),  # under twice as late
        (K2, (6000, 12_000), (12_000, 36_000), (500, 4000), (True, True, True, True, True, False)),  # epoch 35.0
        (K2, (3000, 24_000), K4, (500, 4000), (True, True, True, False, True, False)),  # ratio 8, epoch 8.7
        (K2, K3, (12_000, 24_100), (500, 4000), (True, True, True, True, True, False)),  # brackets touch
        (K2, K3, (12_000, 24_000), (500, 4000), (True, True, True, True, False, False)),
        (K2, K3, (6000, 36_000), (500, 4000), (True, True, True, True, False, False)),  # training as soon
        ((1000, 9000), K3, K4, (500, 4000), (True, True, True, False, True, True)),  # one ratio is larger
        (K2, K3, (12_000, None), (500, 4000), (True, True, False, None, True, True)),
        (K2, K3, (None, None), (500, 4000), (True, True, False, None, True, True)),
        (K2, (6000, None), K4, (500, 4000), (True, False, True, None, False, False)),
        ((1600, None), K3, K4, (500, 4000), (False, True, True, None, False, False)),
        (K2, K3, K4, (500, None), (True, True, True, None, True, True)),
        (K2, K3, K4, (None, None), (True, True, True, None, True, True)),
        ((None, None),) * 3 + ((500, 4000), (False, False, False, None, False, False)),
    ],
)
def test_each_part_of_grokking_with_operands_can_fail(k2, k3, k4, above, expected):
    assert said(sums(k2, k3, k4, above)[0]) == expected


def rising(train, val):
    parts, values = epochs.validation_falls_while_training_rises(
        {"a": made_up_curve(RUN, train, val)}, rising=0.3, about_zero=0.02
    )
    return parts["falls, a"], values["a_least"], values["a_earlier"]


RISES = {900: 0.2, 1000: 0.3, 2000: 0.9, 2900: 0.9, 3000: 0.99}


@pytest.mark.parametrize(
    "train, val, expected",
    [
        (RISES, {0: 0.05, 1400: 0.05, 1500: 0.02, 1600: 0.06}, (True, 0.02, 0.05)),
        (RISES, {0: 0.05, 1400: 0.05, 1500: 0.021, 1600: 0.06}, (False, 0.021, 0.05)),
        (RISES, {0: 0.05, 900: 0.05, 1000: 0.01, 1100: 0.04}, (True, 0.01, 0.05)),  # at 30 %
        (RISES, {0: 0.05, 2900: 0.05, 3000: 0.01}, (True, 0.01, 0.05)),  # at 99 %
        (RISES, {0: 0.05, 3000: 0.05, 3100: 0.0}, (False, 0.05, 0.05)),  # after it
        (RISES, {0: 0.05, 500: 0.0, 900: 0.0, 1000: 0.05}, (False, 0.05, 0.05)),  # before it
        (RISES, {0: 0.0, 500: 0.05, 1400: 0.05, 1500: 0.01, 1600: 0.06}, (True, 0.01, 0.05)),
        (RISES, {0: 0.01}, (False, 0.01, 0.01)),  # no lower than before
        (RISES, {0: 0.01, 1000: 0.01, 1100: 0.009}, (True, 0.009, 0.01)),
        ({0: 0.29}, {0: 0.05, 1000: 0.0}, (None, np.nan, np.nan)),
        (NEVER, NEVER, (None, np.nan, np.nan)),
        (jump(1000), {0: 0.05, 900: 0.05, 1000: 0.0, 1100: 0.5}, (True, 0.0, 0.05)),  # at one evaluation
        (jump(1000), {0: 0.05, 1000: 0.05, 1100: 0.0}, (False, 0.05, 0.05)),
        (jump(0), {0: 0.05, 100: 0.0}, (False, 0.05, 0.05)),
        (RISES, {0: 0.01, 900: 0.01, 1000: 0.05, 1100: 0.01}, (True, 0.01, 0.05)),  # from where it begins to rise
        # Training accuracy is under 30 % again while it rises, and validation is lowest then.
        (RISES | {1400: 0.6, 1500: 0.2, 1600: 0.6}, {0: 0.05, 1400: 0.05, 1500: 0.0, 1600: 0.05}, (True, 0.0, 0.05)),
    ],
)
def test_validation_falls_while_training_rises(train, val, expected):
    np.testing.assert_equal(rising(train, val), expected)


PRIMES = {p: gc.pku("mlp", alpha=0.5, p=p, steps=20_000) for p in (23, 47, 97)}  # 1, 3 and 10 steps an epoch


@pytest.mark.parametrize(
    "p23, p47, p97, expected",
    [
        (1000, 4500, 16_000, (True, True)),  # epochs 1 000, 1 500 and 1 600
        (1900, 5800, None, (True, True)),  # 5 700 steps before it are epoch 1 900
        (2000, 6000, None, (True, False)),  # 5 900 are before epoch 2 000
        (1000, 4500, 15_000, (True, False)),  # 14 900 are before epoch 1 500
        (1000, 1100, 19_000, (True, False)),
        (1000, 1000, 19_000, (False, False)),
        (4000, 3000, 19_000, (False, False)),
        (1000, 6000, None, (True, True)),  # not up to epoch 2 000, where p = 47 has it
        (1000, 6100, None, (True, False)),  # p = 97 was not trained for as many epochs
        (7000, None, None, (False, False)),
        (None, 6000, 16_000, (False, False)),
        (None, None, None, (False, False)),
    ],
)
def test_harder_with_p(p23, p47, p97, expected):
    cells = {f"p{p}": reaching(PRIMES[p], 500, val) for p, val in zip(PRIMES, (p23, p47, p97), strict=True)}
    parts, values = epochs.harder_with_p(cells)
    assert list(parts) == ["later in steps", "later in epochs"] and said(parts) == expected
    shown = np.nan if p47 is None else p47
    np.testing.assert_equal(values["p47_val"], (shown, 20_000))
    np.testing.assert_allclose(values["p47_val_epoch"], (shown / 3, 20_000 / 3))
    assert values["p97_best"] == (p97 is not None)


def test_less_in_steps_may_be_later_in_epochs():
    cells = {"a": reaching(PRIMES[97], 500, 6000), "b": reaching(PRIMES[47], 500, 3000)}
    assert said(epochs.harder_with_p(cells)[0]) == (False, True)  # epochs 600 and 1 000


@pytest.fixture(scope="module")
def source_runs():
    """Return the runs at the source's settings that the claims are about, written out by hand."""
    encoder = [gc.pku(alpha=alpha, epochs=n) for alpha, n in ((0.3, 4000), (0.4, 2000), (0.5, 1000))]
    mlp = [gc.pku("mlp", alpha, n) for alpha, n in ((0.4, 5000), (0.5, 2000), (0.6, 1000))]
    lstm = [gc.pku("lstm", alpha, n) for alpha, n in ((0.3, 9000), (0.4, 4000), (0.5, 2000))]
    primes = [gc.pku("mlp", alpha=0.5, p=p, steps=20_000) for p in (23, 47)]
    sums = [gc.pku_sum(k, epochs=1500) for k in SUMS]
    specs = [gc.replace(spec, seed=3) for spec in (*encoder, *mlp, *lstm, *primes, *sums)]  # pku-11 counts from 3
    return pd.concat([made_up_curve(spec, jump(1000), jump(4000)) for spec in specs], ignore_index=True)


IDS = [f"pku-{k}" for k in (1, 2, 3, 4, 5, 11, 12, 13, 14)]


def test_every_claim_of_the_source_finds_its_runs_and_says_what_it_measured(source_runs):
    used = set()
    for id in IDS:
        found = claims.evaluate(id, source_runs)
        assert "Missing" not in found.reason and found.n_seeds == 1, id
        assert found.measured and "{" not in found.measured and "nan" not in found.measured
        parts = [name for name in found.values if name.startswith(wording.PART)]
        assert len(parts) == len(claims.load()[id].parts)
        used |= set(found.run_ids)
    assert used == set(source_runs["run"])


def test_epochs_in_a_verdict_are_steps_divided_by_those_of_an_epoch(source_runs):
    measured = claims.evaluate("pku-1", source_runs).measured.replace("\N{NO-BREAK SPACE}", " ")
    # 1 000 steps at 6, 8 and 10 an epoch, 4 000 steps at 6 and 8.
    assert "first 99 % at epoch 167 (alpha 0.3), epoch 125 (0.4) and epoch 100 (0.5)" in measured
    assert "gained 10 points at epoch 667 (0.3) and epoch 500 (0.4)" in measured


def overflowed(curve: pd.DataFrame, after: int) -> pd.DataFrame:
    """Return a run as `claims.select` gives it whose numbers overflowed after an evaluation."""
    return curve.loc[curve["step"] <= after].assign(status="nonfinite")


def noisy(*depths, spread: Any = 2.0, val: Any = NEVER):
    """Return a run fitted at 500 whose training accuracy falls by these depths at 2 000, 3 000, ... and comes back.

    The largest batch loss of an interval is `spread` times the smallest.
    """
    points = jump(500)
    for k, depth in enumerate(depths, start=2):
        points |= {1000 * k - 100: 1.0, 1000 * k: 1 - depth, 1000 * k + 100: 1.0}
    curve = made_up_curve(RUN, points, val)
    return curve.assign(batch_loss_min=0.5, batch_loss_max=0.5 * np.broadcast_to(spread, len(curve)))


def quieter(two, four):
    parts, values = epochs.quieter({"two": two, "four": four})
    assert list(parts) == ["accuracies fall less", "losses scatter less"]
    return said(parts), values


LOUD = noisy(0.5, spread=100.0)


@pytest.mark.parametrize(
    "two, four, expected",
    [
        (noisy(0.25, spread=10.0), LOUD, (True, True)),
        (noisy(0.25, spread=100.0), LOUD, (True, False)),
        (noisy(0.25, 0.25, spread=10.0), LOUD, (False, True)),  # as much in all
        (noisy(0.25, spread=10.0, val={2000: 0.5, 3000: 0.25}), LOUD, (False, True)),  # both accuracies together
        (LOUD, noisy(0.25, spread=10.0), (False, False)),
        (noisy(), noisy(), (False, False)),
        (reaching(RUN, None, 100).assign(batch_loss_min=1.0, batch_loss_max=1.0), LOUD, (None, None)),
        (noisy(), reaching(RUN, None, 100).assign(batch_loss_min=1.0, batch_loss_max=2.0), (None, None)),
        (overflowed(noisy(), after=400), LOUD, (None, None)),
        # The other overflowed at 2 500: what comes after that is not compared.
        (noisy(0.25, 1.0, spread=10.0), overflowed(LOUD, after=2500), (True, True)),
        (overflowed(noisy(0.25, spread=10.0), after=1500), LOUD, (False, True)),
    ],
)
def test_quieter(two, four, expected):
    assert quieter(two, four)[0] == expected


def test_what_is_said_of_noise():
    _, values = quieter(noisy(0.25, spread=10.0, val=jump(3000)), LOUD)
    assert (values["two_falls"], values["four_falls"]) == (0.25, 0.5)
    assert (values["two_train_falls"], values["two_val_falls"]) == (0.25, 0)
    assert (values["two_scatter"], values["four_scatter"]) == (pytest.approx(1), pytest.approx(2))
    np.testing.assert_equal((values["two_val"], values["four_val"]), ((3000, 10_000), (np.nan, 10_000)))


STEPS = np.arange(0, 10_001, 100)


def test_noise_is_measured_over_the_same_steps():
    # Fitted at 500 and at 6 000: between, the first falls and scatters, and that does not count.
    early = noisy(0.5, spread=np.where(STEPS <= 6000, 1000.0, 10.0))
    late = made_up_curve(RUN, jump(6000) | {8900: 1.0, 9000: 0.75, 9100: 1.0}, NEVER).assign(
        batch_loss_min=0.5, batch_loss_max=50.0
    )
    held, values = quieter(early, late)
    assert held == (True, True)
    assert (values["two_falls"], values["four_falls"]) == (0, 0.25)
    assert values["two_scatter"] == pytest.approx(1)
    assert quieter(late, early)[0] == (False, False)
    # The scatter is of the steps that both have: later the first scatters most.
    early = noisy(spread=np.where(STEPS > 3000, 1000.0, 10.0))
    assert quieter(early, overflowed(LOUD, after=2500))[0] == (True, True)


def test_falls_outside_collapses():
    train = jump(500) | {1900: 1.0, 2000: 0.5, 2100: 1.0, 2900: 1.0, 3000: 0.95, 3100: 1.0}
    val = {1900: 0.5, 2000: 0.25, 2100: 0.25, 4900: 0.25, 5000: 0.125}
    calm = made_up_curve(RUN, jump(500), {0: 0}).assign(batch_loss_min=1.0, batch_loss_max=2.0)
    rough = made_up_curve(RUN, train, val).assign(batch_loss_min=1.0, batch_loss_max=2.0)
    _, values = epochs.quieter({"two": calm, "four": rough})
    assert values["four_collapses"] == 1 and values["two_collapses"] == 0
    assert values["four_falls"] == pytest.approx(0.5 + 0.05 + 0.25 + 0.125)
    assert (values["four_train_falls"], values["four_val_falls"]) == (pytest.approx(0.55), pytest.approx(0.375))
    assert values["four_outside"] == pytest.approx(0.05 + 0.125)
    # One that is over before the step from which both are measured does not count.
    late = made_up_curve(RUN, jump(2500), {0: 0}).assign(batch_loss_min=1.0, batch_loss_max=2.0)
    assert epochs.quieter({"two": late, "four": rough})[1]["four_collapses"] == 0


def test_scatter():
    spread = np.where(STEPS > 500, 10.0, 1000.0)
    curve = noisy(spread=spread)
    assert epochs.scatter(curve, 500) == pytest.approx(1)  # the interval that ends at 500 is before the fit
    assert epochs.scatter(curve, -1) == pytest.approx(1)  # the median, not the mean
    assert np.isnan(epochs.scatter(curve, 10_000)) and np.isnan(epochs.scatter(curve, np.nan))
    gaps = curve.assign(batch_loss_min=np.where(STEPS > 9000, 0.0, 0.5))
    gaps.loc[gaps["step"] == 600, ["batch_loss_min", "batch_loss_max"]] = np.nan
    assert epochs.scatter(gaps, 500) == pytest.approx(1)
