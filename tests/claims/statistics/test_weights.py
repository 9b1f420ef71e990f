from typing import Any

import numpy as np
import pytest
from helpers.made_up import jump, made_up_curve, steps_of

from grokcore.claims.statistics import weights
from grokcore.spec.presets import msu

RUN = msu()
RULE_9 = {"norm": "weight_norm_sum", "start": 0.1, "visible": 0.01, "onset": 0.1, "near": 1.5, "fall": 0.1}
TRAIN = {0: 0.0, 1000: 1.0}  # at least 0.1 at step 100, at least 0.99 at step 1 000
# Grows with training, climbs to 120 at 4 000 with a dip at 2 500, falls by a third, half of it by step 4 500.
NORM = {0: 90.0, 100: 92.0, 1000: 100.0, 2400: 110.0, 2500: 105.0, 4000: 120.0, 5000: 80.0}
NAMES_9 = ("rises with training", "climbs to a maximum", "not monotonically", "maximum at the onset")
NAMES_9 += ("falls while validation rises",)


def course(norm, val=None):
    curve = made_up_curve(RUN, TRAIN, val or {0: 0, 3800: 0, 5000: 1}, weight_norm_sum=norm)
    return weights.norm_rise_and_fall({"main": curve}, **RULE_9)


def test_norm_rise_and_fall_as_the_source_says():
    parts, values = course(NORM)
    assert tuple(parts) == NAMES_9
    assert all(parts.values())
    assert (values["norm_start"], values["norm_train"], values["norm_max"], values["norm_low"]) == (92, 100, 120, 80)
    assert values["norm_max_at"] == 4000
    assert (values["onset_at"], values["val"]) == ((4000, 10_000), (5000, 10_000))
    assert values["norm_dip"] == 100  # from the fit to the onset it is least at the fit
    assert course(NORM | {2500: 95.0, 4500: 80.0})[1]["norm_dip"] == 95  # what comes after the onset is not asked


@pytest.mark.parametrize(
    "norm, val, no",
    [
        (NORM | {100: 99.5}, None, {0}),
        ({0: 90, 100: 92, 1000: 100, 10_000: 130}, None, {1, 2, 3, 4}),  # its maximum is the end
        ({k: v for k, v in NORM.items() if k != 2500}, None, {2}),
        (NORM, {0: 0, 6300: 0, 6400: 1}, {3}),  # onset at 6 400: 1.6 times 4 000
        (NORM, {0: 0, 2600: 0, 2700: 1}, {4}),  # within 1.5 of the maximum, but reached before it
        (NORM, jump(2600), {3, 4}),  # 4 000 / 2 600 is 1.54
        (NORM | {5000: 109.0}, None, {4}),
        (NORM | {5000: 120.0, 10_000: 60.0}, None, {4}),  # half of the fall takes longer than the climb of 3 000
        (NORM, {0: 0, 3800: 0, 5000: 0.98}, {4}),
        (NORM, {0: 0.0}, {3, 4}),
    ],
)
def test_each_part_of_the_norm_course_can_fail(norm, val, no):
    parts, _ = course(norm, val)
    assert {NAMES_9.index(name) for name, held in parts.items() if not held} == no


def test_norm_course_of_a_run_that_does_not_fit_fails():
    parts, values = weights.norm_rise_and_fall({"main": made_up_curve(RUN, {0: 0.5}, {0: 0})}, **RULE_9)
    assert not any(parts.values()) and np.isnan(values["norm_max"])


def optimizers(adam_norm: Any = None, adam_val: Any = None, decay_val: Any = 4000, no_decay_val: Any = None):
    def val(at):
        return {0: 0.0} if at is None else jump(at)

    grows = {0: 90.0, 10_000: 200.0} if adam_norm is None else adam_norm
    cells = {
        "decay": made_up_curve(RUN, jump(500), val(decay_val)),
        "adam": made_up_curve(RUN, jump(500), val(adam_val), weight_norm_sum=grows),
        "no_decay": made_up_curve(RUN, jump(500), val(no_decay_val)),
    }
    return weights.decay_is_the_key(cells, norm="weight_norm_sum", visible=0.01)


def test_decay_is_the_key():
    parts, values = optimizers()
    assert tuple(parts.values()) == (True, True, True)
    assert (values["adam_start"], values["adam_end"], values["adam_fall"]) == (90, 200, 0)
    assert tuple(optimizers(adam_norm={0: 90, 5000: 100, 5100: 99.1, 10_000: 200})[0].values()) == (True, True, True)
    assert tuple(optimizers(adam_norm={0: 90, 5000: 100, 5100: 98.9, 10_000: 200})[0].values()) == (False, True, True)
    assert tuple(optimizers(adam_norm={0: 90})[0].values()) == (False, True, True)
    assert tuple(optimizers(adam_val=9000)[0].values()) == (True, False, True)
    assert tuple(optimizers(no_decay_val=9000)[0].values()) == (True, True, False)
    assert tuple(optimizers(decay_val=None)[0].values()) == (True, True, False)
    assert tuple(optimizers(decay_val=600)[0].values()) == (True, True, False)  # generalises at once: not grokking


def loss(points, train=None):
    curve = made_up_curve(RUN, train or jump(1000), {0: 0}, val_loss=points)
    return weights.validation_loss_shape({"main": curve}, rise=1.1)


def test_shape_of_the_validation_loss():
    parts, values = loss({0: 70, 200: 4, 1000: 5, 3000: 9, 6000: 0.1})
    assert tuple(parts.values()) == (True, True)
    assert (values["first_low"], values["peak"], values["rise"]) == (4, 9, 2.25)
    assert (values["first_low_at"], values["peak_at"], values["second_low_at"]) == (200, 3000, 6000)
    assert values["second_low"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    "points, expected",
    [
        ({0: 70, 200: 4, 3000: 9}, (True, False)),
        ({0: 70, 200: 4, 3000: 9, 6000: 4.1}, (True, False)),
        ({0: 70, 200: 4, 3000: 4.3, 6000: 1}, (False, True)),  # a rise of 7.5 %
        ({0: 70, 10_000: 1}, (False, False)),  # only ever falls: no peak, so no second descent
        ({0: 4, 200: 3, 3000: 9, 6000: 1, 6100: 20}, (True, False)),  # the peak is the end
    ],
)
def test_each_part_of_the_loss_shape_can_fail(points, expected):
    assert tuple(loss(points)[0].values()) == expected


def test_the_first_minimum_is_sought_until_training_accuracy_is_there():
    _, values = loss({0: 70, 500: 5, 1000: 6, 2000: 9, 6000: 1}, train=jump(1000))
    assert values["first_low_at"] == 500  # not the lower value at 6 000


def ray(norm: Any, cosine: Any = 1.0, kept: Any = 1.0, train: Any = None):
    curve = made_up_curve(
        RUN, train or jump(500), jump(3000), weight_norm=norm, weight_cosine=cosine, answers_kept=kept
    )
    return weights.descent_along_a_ray({"main": curve}, smaller=0.1, kept=0.99, cosine=0.99, radial=0.5)


SHRINKS = {0: 80.0, 2000: 40.0, 4000: 20.0}  # the norm at the start is above the maximum after fitting


def test_descent_along_a_ray():
    parts, values = ray(SHRINKS | {500: 30.0})
    assert all(parts.values())
    assert (values["norm_max"], values["norm_max_at"], values["norm_low"], values["radial"]) == (40, 2000, 20, 1)


def test_only_the_way_down_is_judged():
    steps = steps_of(RUN)
    kept = np.where((steps > 2000) & (steps <= 4000), 1.0, 0.0)  # answers change before and after, not on the way
    parts, values = ray(SHRINKS | {500: 30.0}, cosine=kept, kept=kept)
    assert all(parts.values()) and values["kept_least"] == 1
    parts, _ = ray(SHRINKS | {500: 30.0}, cosine=1 - kept, kept=1 - kept)
    assert tuple(parts.values()) == (True, False, False, False)


@pytest.mark.parametrize(
    "columns, no",
    [
        ({"norm": {0: 40.0, 4000: 37.0}}, {"smaller norm"}),
        ({"kept": 0.98}, {"same answers"}),
        ({"cosine": 0.995}, {"along the ray"}),
        ({"cosine": 0.9}, {"direction kept", "along the ray"}),
    ],
)
def test_each_part_of_the_descent_can_fail(columns, no):
    parts, _ = ray(**{"norm": {0: 40.0, 4000: 20.0}, **columns})
    assert {name for name, held in parts.items() if not held} == no


def test_descent_cannot_be_judged_without_one():
    grows, unfit = ray({0: 40.0, 10_000: 50.0}), ray(SHRINKS, train={0: 0.5})
    assert tuple(grows[0].values()) == (False, None, None, None)
    assert set(unfit[0].values()) == {None}


def test_radial_share_by_vectors():
    rng = np.random.default_rng(0)
    w = rng.normal(size=(6, 4))
    norm = np.linalg.norm(w, axis=1)
    cosine = (w[1:] * w[:-1]).sum(1) / (norm[1:] * norm[:-1])
    expected = [(norm[k + 1] - norm[k]) ** 2 / ((w[k + 1] - w[k]) ** 2).sum() for k in range(5)]
    assert weights.radial_share(norm, cosine) == pytest.approx(expected)
    found: Any = weights.radial_share(np.array([2.0, 1.0, 1.0, 1.0]), np.array([1.0, 1.0, 0.9]))
    assert found.tolist() == [1, 1, 0]  # along the ray, no movement, around it


def waves(key_share=0.75, alone=1.0, without=0.05, val: Any = 4000, **change):
    """Judge a run by its Fourier measures at steps 0 and 10 000."""
    curve = made_up_curve(RUN, jump(500), {0: 0.0} if val is None else jump(val))
    at = {0: (0.1, 0.02, 0.01), 10_000: (key_share, alone, without)} if not change else change["at"]
    for k, name in enumerate(("key_share", "restricted_val_accuracy", "excluded_val_accuracy")):
        curve[f"fourier:{name}"] = [at[step][k] if step in at else np.nan for step in curve["step"]]
    curve["fourier:n_keys"] = [5.0 if step in at else np.nan for step in curve["step"]]
    parts, values = weights.few_frequencies({"main": curve}, share=0.5, enough=0.99, needed=0.1)
    assert list(parts) == ["few hold the embedding", "they are enough", "they are needed"]
    assert all(part is None or type(part) is bool for part in parts.values())
    return tuple(parts.values()), values


def test_few_frequencies():
    parts, values = waves()
    assert parts == (True, True, True)
    assert values == {
        "key_share": 0.75,
        "restricted_val_accuracy": 1,
        "excluded_val_accuracy": 0.05,
        "key_share_start": 0.1,
        "n_keys": 5,
    }


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"key_share": 0.5, "alone": 0.99, "without": 0.1}, (True, True, True)),
        ({"key_share": 0.49}, (False, True, True)),
        ({"alone": 0.989}, (True, False, True)),
        ({"without": 0.11}, (True, True, False)),
        ({"key_share": 0.0, "alone": 0.01, "without": 1.0}, (False, False, False)),  # no key frequency
        ({"val": None}, (None, None, None)),
        ({"val": 9600}, (None, None, None)),  # not kept for 500 steps
        ({"at": {0: (0.75, 1.0, 0.05)}}, (None, None, None)),  # the weights at the end were not kept
        ({"at": {}}, (None, None, None)),
    ],
)
def test_each_part_of_few_frequencies_can_fail(change, expected):
    parts, values = waves(**change)
    assert parts == expected
    assert (expected == (None, None, None)) == all(np.isnan(float(np.asarray(value))) for value in values.values())


def test_without_fourier_measures_nothing_is_judged():
    parts, _ = weights.few_frequencies({"main": made_up_curve(RUN, jump(500), jump(4000))}, 0.5, 0.99, 0.1)
    assert set(parts.values()) == {None}
