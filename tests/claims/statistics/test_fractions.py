from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.made_up import jump, made_up_curve

import grokcore as gc
from grokcore import claims
from grokcore.claims import wording
from grokcore.claims.statistics import fractions

NEVER = {0: 0.0}
RUN = gc.msu()  # 10 000 steps, evaluated every 100


def said(parts):
    """Return what the parts say, in order; a verdict tells True, False and None by identity."""
    assert all(part is None or type(part) is bool for part in parts.values())
    return tuple(parts.values())


def reaching(val, train: Any = 500, **columns):
    """Return a run whose accuracies jump at these steps (None: never)."""
    return made_up_curve(RUN, *(NEVER if at is None else jump(at) for at in (train, val)), **columns)


def ended(curve, last, status="nonfinite"):
    """Return a run as `claims.select` gives it that ended before its budget."""
    return curve.loc[curve["step"] <= last].assign(status=status)


@pytest.mark.parametrize(
    "curve, expected",
    [
        (reaching(None), True),  # memorises only
        (reaching(900), True),  # generalises without delay
        (reaching(1000), False),  # exactly twice as late
        (reaching(9500), False),
        (reaching(9600), True),  # for less than 500 steps
        (reaching(300), True),  # before training
        (reaching(None, train=None), None),
        (reaching(2000, train=None), None),
        (reaching(2000, train=9600), None),
        (ended(reaching(None), 8000), None),
        (ended(reaching(None), 0), None),
    ],
)
def test_no_grokking(curve, expected):
    parts, values = fractions.no_grokking_in_any({"sgd_04": curve, "adam_04": reaching(None)})
    assert list(parts) == ["no grokking, sgd_04", "no grokking, adam_04"] and said(parts) == (expected, True)
    assert values["adam_04_train"] == (500, 10_000) and values["adam_04_best"] == 0
    assert values["n_grokked"] == (expected is False)
    np.testing.assert_equal(values["adam_04_val"], (np.nan, 10_000))


@pytest.mark.parametrize(
    "little, much, expected",
    [
        (reaching(None), reaching(900), (True, True)),
        (reaching(None, train=None), reaching(900), (True, True)),  # not to fit is not to generalise
        (reaching(9500), reaching(900), (False, True)),
        (reaching(9600), reaching(900), (True, True)),  # not kept for 500 steps
        (reaching(None), reaching(1000), (True, False)),
        (reaching(None), reaching(None), (True, False)),
        (reaching(None), reaching(None, train=None), (True, False)),
        (reaching(2000), reaching(2000), (False, False)),
        (ended(reaching(None), 5000), reaching(900), (None, True)),
        (reaching(None), ended(reaching(900), 5000), (True, None)),
        (ended(reaching(None), 0), ended(reaching(900), 0), (None, None)),
    ],
)
def test_too_little_and_too_much(little, much, expected):
    parts, values = fractions.too_little_and_too_much({"little": little, "much": much})
    assert list(parts) == ["never generalises", "rise together"] and said(parts) == expected
    assert values["little_best"] == little["val_accuracy"].max()


def test_ratio_of_a_run_whose_accuracies_rise_together():
    _, values = fractions.too_little_and_too_much({"little": reaching(None), "much": reaching(900)})
    assert values["delay"] == 1.8 and values["much_val"] == (900, 10_000) and values["little_train"] == (500, 10_000)


def sooner(*division, product=(3000, 2000, 1000)):
    times = {"division": division, "product": product}
    names = {table: [f"{table}, {alpha}" for alpha in (0.4, 0.5, 0.6)] for table in times}
    cells = {name: reaching(at) for table in times for name, at in zip(names[table], times[table], strict=True)}
    return fractions.sooner_in_every_table(cells, names)


@pytest.mark.parametrize(
    "division, expected",
    [
        ((3000, 2000, 1000), (True, True)),
        ((3000, 3000, 1000), (True, True)),  # as late is not later
        ((None, None, 1000), (True, None)),  # one is reached
        ((None, 2000, 1000), (True, True)),
        ((2000, 3000, 1000), (True, False)),
        ((2000, None, 1000), (True, False)),
        ((2000, 2000, 2000), (False, True)),
        ((2000, 2000, 2100), (False, False)),  # the next bracket
        ((2000, 1000, None), (False, False)),
        ((None, 1000, None), (False, None)),
        ((None, None, None), (False, None)),
    ],
)
def test_sooner_in_every_table(division, expected):
    parts, values = sooner(*division)
    assert list(parts) == [
        "ends sooner, division",
        "never later, division",
        "ends sooner, product",
        "never later, product",
    ]
    assert said(parts) == (*expected, True, True)
    first, last = (np.nan if at is None else at for at in (division[0], division[-1]))
    np.testing.assert_equal((values["division_least"], values["division_most"]), ((first, 10_000), (last, 10_000)))
    assert said(sooner(3000, 2000, 1000, product=division)[0]) == (True, True, *expected)


def test_what_one_percent_of_the_table_costs():
    # 8 000, 4 000 and 2 000 steps: twice for ten percent less, and the tenth root of it for one.
    values: Any = sooner(8000, 4000, 2000, product=(None, 10_000, None))[1]
    assert values["division_cost"] == pytest.approx(2 ** (1 / 10) - 1)
    assert values["product_cost"] == 0  # not reached counts as the budget
    assert sooner(2000, 4000, 8000)[1]["division_cost"] == pytest.approx(2 ** (-1 / 10) - 1)


def test_a_run_that_overflowed_after_it_had_generalised_is_reached():
    names = {"t": ["t, 0.4", "t, 0.5", "t, 0.6"]}
    cells = dict(zip(names["t"], (reaching(3000), reaching(2000), ended(reaching(1000), 1500)), strict=True))
    assert said(fractions.sooner_in_every_table(cells, names)[0]) == (True, True)
    cells["t, 0.6"] = ended(reaching(1000), 1400)  # before it had stayed for 500 steps
    assert said(fractions.sooner_in_every_table(cells, names)[0]) == (False, False)


SIDES = {"symmetric": ["s1", "s2", "s3"], "asymmetric": ["a1", "a2", "a3", "a4", "a5"]}
NAMES = [*SIDES["symmetric"], *SIDES["asymmetric"], "never", "other"]
SAME = (2000,) * 8 + (None, 2000)


def differ(least=SAME, most=SAME):
    """Judge ten operations by the steps at which they are reached at alpha 0.4 and 0.7."""
    cells = {}
    for k, name in enumerate(NAMES):
        cells |= {f"{name}, 0.4": reaching(least[k]), f"{name}, 0.7": reaching(most[k])}
    return fractions.operations_differ(cells, **SIDES, never="never", alike=["a1", "a2"], factor=2.0)


def changed(times=SAME, **steps):
    return tuple(steps.get(name, at) for name, at in zip(NAMES, times, strict=True))


def test_operations_differ():
    parts, values = differ(changed(s1=1000, s2=1500, s3=None))
    assert list(parts) == ["differ", "symmetric sooner", "never", "alike"] and said(parts) == (True,) * 4
    assert (values["symmetric_median"], values["asymmetric_median"]) == ((1500, 10_000), (2000, 10_000))
    assert (values["n_least"], values["n_most"], values["never_best"]) == (8, 9, 0)
    _, values = differ(changed(a1=1000, a2=None), changed(a1=500, a2=700))
    assert (values["alike_1_least"], values["alike_1_most"]) == ((1000, 10_000), (500, 10_000))
    np.testing.assert_equal((values["alike_2_least"], values["alike_2_most"]), ((np.nan, 10_000), (700, 10_000)))


NONE = (None,) * 10
ALL = (2000,) * 10


@pytest.mark.parametrize(
    "least, most, expected",
    [
        (SAME, SAME, (True, False, True, True)),  # medians are equal
        (ALL, ALL, (False, False, False, True)),
        (changed(ALL, other=4000), ALL, (False, False, False, True)),  # by the factor, not more
        (changed(ALL, other=4100), ALL, (True, False, False, True)),
        (ALL, changed(ALL, other=900), (True, False, False, True)),  # at one of the alphas
        (ALL, changed(ALL, other=None), (True, False, False, True)),
        (NONE, NONE, (False, None, True, None)),
        (NONE, ALL, (False, None, False, True)),
        (changed(NONE, s1=100, s2=100), SAME, (True, True, True, True)),  # asymmetric ones at none
        (changed(NONE, s1=100), SAME, (True, None, True, True)),  # neither median is reached
        (changed(NONE, a1=100, a2=100, a3=100), SAME, (True, False, True, True)),
        (changed(s1=1900, s2=1900), SAME, (True, True, True, True)),
        (changed(s1=1000), SAME, (True, False, True, True)),
        (changed(s1=None, s2=None), SAME, (True, False, True, True)),
        (SAME, changed(s1=1000, s2=1000), (True, False, True, True)),  # not at the larger alpha
        (changed(never=9000), SAME, (True, False, False, True)),
        (SAME, changed(never=9000), (True, False, False, True)),
        (changed(never=9600), SAME, (True, False, True, True)),  # not kept
        (changed(a1=4000), SAME, (True, False, True, True)),
        (changed(a1=4100), SAME, (True, False, True, False)),
        (SAME, changed(a2=4100), (True, False, True, False)),
        (changed(a1=None), SAME, (True, False, True, False)),
        (changed(a1=None, a2=None), SAME, (True, False, True, True)),
        (changed(a1=None, a2=None), changed(a1=None, a2=None), (True, False, True, None)),
        (changed(a1=None, a2=None), changed(a2=None), (True, False, True, False)),
    ],
)
def test_each_part_of_operations_can_fail(least, most, expected):
    parts, values = differ(least, most)
    assert said(parts) == expected
    assert values["n_least"] == sum(at is not None and at < 9600 for at in least)


def test_medians_of_operations_that_are_not_reached():
    np.testing.assert_equal(differ(changed(NONE, a1=100))[1]["asymmetric_median"], (np.nan, 10_000))


def saves(least, most):
    """Judge decay, adam and noise by the steps at which they are reached at alpha 0.4 and 0.5."""
    cells = {}
    for name, a, b in zip(("adam", "decay", "noise"), least, most, strict=True):
        cells |= {f"{name}, 0.4": reaching(a), f"{name}, 0.5": reaching(b)}
    return fractions.weight_decay_saves_data(cells, decay="decay", factor=2.0)


def test_weight_decay_saves_data():
    parts, values = saves((None, 3000, None), (None, 1000, 5000))
    assert list(parts) == ["matters", "least data", "soonest there"] and said(parts) == (True,) * 3
    assert (values["least"], values["n_least"], values["decay_least"], values["noise_least"]) == (0.4, 1, 0.4, 0.5)
    assert (values["decay_val"], values["decay_there"]) == ((1000, 10_000), (3000, 10_000))
    np.testing.assert_equal(values["noise_there"], (np.nan, 10_000))
    assert saves((None,) * 3, (500, 1000, 2000))[1]["noise_there"] == (2000, 10_000)  # at 0.5, the smallest reached
    np.testing.assert_equal(saves((None,) * 3, (None,) * 3)[1]["decay_there"], (np.nan, 10_000))
    np.testing.assert_equal((values["adam_least"], values["adam_val"]), (np.nan, (np.nan, 10_000)))


@pytest.mark.parametrize(
    "least, most, expected",
    [
        ((None,) * 3, (None,) * 3, (None, None, None)),
        ((2000,) * 3, (2000,) * 3, (False, True, True)),  # all alike
        ((2000, 1000, 2000), (2000,) * 3, (False, True, True)),  # later by the factor, not more
        ((2100, 1000, 2000), (2000,) * 3, (True, True, True)),
        ((2000,) * 3, (2000, 900, 2000), (True, True, True)),
        ((2000,) * 3, (2000, 2000, None), (True, True, True)),
        ((None,) * 3, (2000,) * 3, (False, True, True)),  # 0.5 is the least
        ((None,) * 3, (2000, 2100, None), (True, True, False)),
        ((None,) * 3, (2000, None, None), (True, False, False)),
        ((9000, None, None), (9000, 100, None), (True, False, False)),  # another one needs less
        ((1900, 2000, None), (None, 100, None), (True, True, False)),  # another one is sooner there
        ((2000, 2000, None), (100, 2000, 100), (True, True, True)),  # sooner elsewhere
        ((None, 2000, 9600), (None, 2000, None), (True, True, True)),
    ],
)
def test_each_part_of_saving_data_can_fail(least, most, expected):
    parts, values = saves(least, most)
    assert said(parts) == expected
    there = [at is not None and at < 9600 for at in (least if any(least) else most)]
    assert values["n_least"] == sum(there)


def test_configurations_that_overflow_are_not_reached():
    cells = {"decay, 0.4": reaching(2000), "lr_high, 0.4": ended(reaching(1000), 900)}
    parts, values = fractions.weight_decay_saves_data(cells, decay="decay", factor=2.0)
    assert said(parts) == (True, True, True) and values["n_least"] == 1


@pytest.mark.parametrize("id", ["power-2", "power-3", "power-4"])
def test_parameters_name_cells_of_the_claim(id):
    claim = claims.load()[id]
    known = {name.rsplit(", ", 1)[0] for name in claim.cells} | set(claim.cells)
    named = [value for value in claim.parameters.values() if not isinstance(value, float)]
    named = [list(value.values()) if isinstance(value, dict) else value for value in named]
    assert set(np.hstack([np.ravel(value) for value in named])) <= known


def power_runs(seed):
    """Return the runs of the paper's network that the claims are about, written out by hand."""
    shared = {"batch_size": 512, "early_stop": 1000, "seed": seed}
    adam = {"optimizer": gc.Adam()}
    varied: list[dict[str, Any]] = [adam, adam | {"batch_size": 9312}, {}, {"decay_to_init": True}]
    varied += [adam | {"dropout": 0.1}, {"optimizer": gc.Adam(update_noise=1.0)}, adam | {"weight_noise": 0.01}]
    varied += [{"optimizer": gc.Adam(lr=lr)} for lr in (0.0003, 0.003)]
    runs = [gc.power(alpha=0.6, steps=10_000, **shared)]
    runs += [gc.power(alpha=alpha, steps=10_000, **(shared | change)) for change in varied for alpha in (0.4, 0.5)]
    runs += [gc.power("s5:xy", alpha=alpha, steps=20_000, **shared) for alpha in (0.5, 0.6)]
    names = ["x+y", "x-y", "x/y", "x/y if y odd else x-y", "x^2+y^2", "x^2+xy+y^2", "x^2+xy+y^2+x", "x^3+xy"]
    names += ["x^3+xy^2+y", "s5:xy", "s5:xyx^-1", "s5:xyx"]
    return runs + [gc.power(name, alpha=alpha, steps=20_000, **shared) for name in names for alpha in (0.4, 0.7)]


def other_runs(seed):
    """Return the runs without a regulariser, and those at a small and a large fraction."""
    runs = [gc.periodic(1, alpha=alpha, weight_decay=0.0, seed=seed) for alpha in (0.4, 0.6, 0.8)]
    adam = gc.Adam(warmup=10)
    runs += [gc.msu(optimizer=adam, alpha=alpha, seed=seed) for alpha in (0.4, 0.7, 0.9)]
    runs += [gc.periodic(1, alpha=0.2, seed=seed), gc.periodic(1, alpha=0.9, steps=10_000, seed=seed)]
    return [*runs, gc.periodic(1, seed=seed), gc.periodic(1, operator_tokens=True, seed=seed)]


def test_every_claim_finds_its_runs_among_all_and_says_what_it_measured():
    stopped = [made_up_curve(spec, jump(500), jump(3000)) for spec in power_runs(seed=3)]
    noise = {"batch_loss_min": 0.5, "batch_loss_max": 1.0}
    frame = [ended(curve, 4000, "stopped early") for curve in stopped]
    frame += [made_up_curve(spec, jump(500), jump(3000), **noise) for spec in other_runs(seed=3)]
    curves, used = pd.concat(frame, ignore_index=True), set()
    for id in ("power-2", "power-3", "power-4", "periodic-8", "periodic-9", "periodic-10"):
        found = claims.evaluate(id, curves)
        assert "Missing" not in found.reason and found.n_seeds == 1, id
        assert found.measured and "{" not in found.measured and "nan" not in found.measured
        parts = [name.removeprefix(wording.PART) for name in found.values if name.startswith(wording.PART)]
        assert sorted(parts) == sorted(claims.load()[id].parts)
        used |= set(found.run_ids)
    # Of two budgets the longer is taken, cut: weight decay on x/y at 0.4.
    short = {spec.id for spec in power_runs(3) if spec.task.operation == "x/y" and spec.steps == 10_000}
    unused = set(curves["run"]) - used
    assert len(unused) == 1 and unused <= short
    assert claims.evaluate("power-4", curves.assign(seed=2)).n_runs == 0  # the rule counts from seed 3 on
