from typing import Any

import numpy as np
import pytest
from helpers.made_up import jump, made_up_curve, steps_of

from grokcore.claims.statistics import cycles
from grokcore.spec.presets import periodic

RUN = periodic(2, steps=20_000)
FIT = jump(500)


def drops_at(*steps: float) -> dict[float, float]:
    """Points of training accuracy that is 1 from 500 on, but 0.3 at each of these evaluations."""
    points = dict(FIT)
    for at in steps:
        points |= {at - 100: 1.0, at: 0.3, at + 100: 1.0}
    return points


def two(one_layer, two_layers=None, **more):
    return {"one_layer": one_layer, "two_layers": one_layer if two_layers is None else two_layers, **more}


def judged(train, val):
    run = made_up_curve(RUN, train, val)
    steady = made_up_curve(RUN, drops_at(5000, 9000), {0: 0, 5000: 0, 5100: 0.4, 9000: 0.4, 9100: 0.9})
    parts, values = cycles.drops_with_jumps(two(run, steady), at_least=2, room=0.95, gain=0.05)
    assert parts["drops recur, two_layers"] and parts["validation jumps, two_layers"]
    return (parts["drops recur, one_layer"], parts["validation jumps, one_layer"]), values


def test_drops_with_jumps():
    rises = {0: 0, 5000: 0, 5100: 0.5, 9000: 0.5, 9100: 1.0}
    parts, values = judged(drops_at(5000, 9000, 15_000), rises)
    assert parts == (True, True)
    assert (values["one_layer_drops"], values["one_layer_open"], values["one_layer_jumps"]) == (3, 2, 2)
    assert values["one_layer_first"] == (4900, 20_000)
    assert (values["one_layer_gap_min"], values["one_layer_gap_max"]) == (4000, 6000)


@pytest.mark.parametrize(
    "train, val, expected",
    [
        (FIT, {0: 0}, (False, None)),
        (drops_at(5000), {0: 0, 5000: 0, 5100: 0.5}, (False, True)),
        (drops_at(5000, 9000), {0: 0, 5000: 0, 5100: 0.5}, (True, False)),  # nothing at the second
        (drops_at(5000, 9000), {0: 0, 5000: 0, 5100: 0.5, 9000: 0.5, 9100: 0.54}, (True, False)),
        (drops_at(5000, 9000), {0: 0.95}, (True, None)),  # no room to rise
        (drops_at(5000) | {19_900: 1.0, 20_000: 0.5}, {0: 0, 5000: 0, 5100: 0.5}, (True, True)),  # second not over
    ],
)
def test_each_part_of_drops_with_jumps_can_fail(train, val, expected):
    assert judged(train, val)[0] == expected


RULE_3 = {"tooth": 0.05, "teeth": 2, "asymmetry": 3.0, "jump": 5.0, "before": 2000}
# The effective learning rate doubles from one drop to the next and halves at it.
SAW = {500: 1.0, 4900: 2.0, 5000: 1.0, 8900: 2.0, 9000: 1.0, 20_000: 2.0}


def sawed(lr, gradient=None, train=None):
    spikes = {0: 1.0, 4900: 1, 5000: 8, 5100: 1, 8900: 1, 9000: 6, 9100: 1} if gradient is None else gradient
    columns = {"effective_lr_mean": lr, "effective_grad_mean": spikes}
    curve = made_up_curve(RUN, drops_at(5000, 9000) if train is None else train, {0: 0}, **columns)
    return cycles.saw_tooth({"main": curve}, **RULE_3)


def test_saw_tooth():
    parts, values = sawed(SAW)
    assert tuple(parts.values()) == (True, True, True)
    assert (values["teeth"], values["drops"], values["grad_jump"]) == (2, 2, 6)
    assert (values["lr_jumps"], values["grad_jumps"]) == (2, 2)
    assert values["asymmetry"] == pytest.approx((44 + 39) / 2)  # rises of 4 400 and 3 900 steps, falls of 100


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"lr": {500: 1.0, 4900: 2.0, 5000: 1.0, 20_000: 1.04}}, (False, False, True)),  # one tooth, one jump
        ({"lr": {500: 1, 2700: 2, 4900: 1, 6900: 2, 8900: 1}}, (False, False, True)),  # as slow down as up
        ({"lr": {500: 1, 5000: 2, 5100: 1, 8900: 2, 9000: 1, 20_000: 2}}, (True, True, True)),  # at the drop's end
        ({"lr": {500: 1, 5100: 2, 5200: 1, 8900: 2, 9000: 1, 20_000: 2}}, (True, True, True)),  # one past it
        ({"lr": {500: 1, 5200: 2, 5300: 1, 8900: 2, 9000: 1, 20_000: 2}}, (True, False, True)),  # too late for it
        ({"lr": {500: 1.0, 20_000: 1.0}}, (False, False, True)),
        ({"gradient": {0: 1.0, 4900: 1, 5000: 8, 5100: 1, 8900: 1, 9000: 4.9, 9100: 1}}, (True, True, False)),
        ({"gradient": {0: 1.0, 4900: 1, 5000: 8, 5100: 1, 6900: 1, 7000: 2, 8900: 2, 9000: 9}}, (True, True, False)),
        ({"train": FIT}, (True, None, None)),
    ],
)
def test_each_part_of_the_saw_tooth_can_fail(change, expected):
    assert tuple(sawed(**{"lr": SAW, **change})[0].values()) == expected


def test_turning_points_pass_over_what_is_small():
    values = np.array([0.0, 3.0, 2.5, 4.0, 1.0, 1.4, 0.5, 2.0])
    assert cycles.turning_points(values, 1.0) == [0, 3, 6, 7]
    assert cycles.turning_points(values, 0.5) == [0, 1, 2, 3, 6, 7]
    assert cycles.turning_points(values, 5.0) == []
    assert cycles.turning_points(values[:0], 1.0) == []


def test_a_tooth_is_a_rise_and_the_fall_after_it():
    steps = np.array([0.0, 10.0, 40.0, 50.0, 80.0])
    falls_first = cycles.rise_to_fall(steps, np.array([2.0, 0.0, 2.0, 0.0, 2.0]), 1.0)
    assert falls_first.tolist() == [3]  # up from 10 to 40, down from 40 to 50; the last rise has no fall


def way(gradient, val=None):
    curve = made_up_curve(
        RUN, {0: 0, 900: 0, 1000: 1}, jump(11_000) if val is None else val, effective_grad_mean=gradient
    )
    rule = {"part": 0.2, "ratio": 0.8, "correlation": -0.3}
    return cycles.effective_gradient_falls({"main": curve}, **rule)


def test_effective_gradient_between_the_points():
    parts, values = way({1000: 10.0, 11_000: 0.0})
    assert tuple(parts.values()) == (True, True)
    assert (values["point_1"], values["point_2"]) == ((1000, 20_000), (11_000, 20_000))
    # 1 100 to 3 000 has the median 2 050, 9 100 to 11 000 has 10 050: 10 - 1.05 and 10 - 9.05.
    assert (values["early"], values["late"]) == (pytest.approx(8.95), pytest.approx(0.95))
    assert values["correlation"] == pytest.approx(-1)


@pytest.mark.parametrize(
    "gradient, val, expected",
    [
        ({0: 9.0, 1000: 1.0, 11_000: 2.0, 12_000: 0.0}, None, (False, False)),  # falls before and after only
        ({1000: 10.0, 11_000: 8.5}, None, (False, True)),
        ({3000: 10.0, 3100: 1.0, 9000: 9.0, 9100: 7.0}, None, (True, False)),
        ({1000: 10.0, 11_000: 0.0}, jump(11_000, high=0.999), (None, None)),
        ({1000: 10.0, 11_000: 0.0}, jump(1400), (None, None)),  # four evaluations between the points
        ({0: 1.0}, None, (None, None)),
    ],
)
def test_each_part_of_the_falling_gradient_can_fail(gradient, val, expected):
    assert tuple(way(gradient, val)[0].values()) == expected


# Shrinks between drops at 5 000 and 9 000 and grows over each.
SHRINKS = {500: 10.0, 4900: 8.0, 5100: 10.0, 8900: 8.0, 9100: 10.0}
GROWS = {0: 9.0, 20_000: 15.0}


def decay(
    norm: Any = SHRINKS,
    train: Any = None,
    control_norm: Any = GROWS,
    control_train: Any = FIT,
    control_status: str = "finished",
):
    run = made_up_curve(RUN, drops_at(5000, 9000) if train is None else train, {0: 0}, weight_norm=norm)
    control = made_up_curve(RUN, control_train, {0: 0}, weight_norm=control_norm, status=control_status)
    cells = two(run, one_layer_control=control, two_layers_control=control)
    parts, values = cycles.needs_weight_decay(cells, at_least=2, visible=0.01)
    by_layer = np.array(list(parts.values()), dtype=object).reshape(2, 3)
    assert list(by_layer[0]) == list(by_layer[1])  # both networks are judged, by the same curves here
    return tuple(by_layer[0]), values


def test_needs_weight_decay():
    parts, values = decay()
    assert parts == (True, True, True)
    assert (values["one_layer_drops"], values["one_layer_control_drops"]) == (2, 0)
    assert (values["one_layer_falls"], values["one_layer_rises"], values["one_layer_control_fall"]) == (1, 1, 0)


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"control_train": drops_at(5000, 9000)}, (False, True, True)),
        ({"control_train": drops_at(5000)}, (True, True, True)),
        ({"control_train": {0: 0.5}}, (None, True, None)),
        ({"control_status": "nonfinite"}, (None, True, True)),
        ({"train": FIT}, (None, None, True)),
        ({"norm": GROWS}, (True, False, True)),
        ({"norm": {0: 20.0, 20_000: 10.0}}, (True, False, True)),
        ({"control_norm": {0: 9.0, 8000: 10.0, 8100: 9.8}}, (True, True, False)),
        ({"control_norm": {0: 20.0, 400: 9.0, 20_000: 15.0}}, (True, True, True)),  # falls before it fits only
    ],
)
def test_each_part_of_needing_weight_decay_can_fail(change, expected):
    assert decay(**change)[0] == expected


@pytest.mark.parametrize(
    "train, control, expected",
    [
        (drops_at(5000, 9000), FIT, True),
        (drops_at(5000, 9000), drops_at(5000, 9000), False),
        (drops_at(5000), FIT, None),
        (drops_at(5000, 9000), {0: 0.5}, None),
        (drops_at(5000, 9000), FIT | {5000: 0.01}, None),  # it died
        (drops_at(5000, 9000), drops_at(5000), True),
    ],
)
def test_needs_normalisation(train, control, expected):
    run, other = made_up_curve(RUN, train, {0: 0}), made_up_curve(RUN, control, {0: 0})
    cells = two(run, one_layer_control=other, two_layers_control=other)
    assert set(cycles.needs_normalisation(cells, at_least=2)[0].values()) == {expected}


@pytest.mark.parametrize("control, expected", [(FIT, None), (drops_at(3000), None), (drops_at(2000, 3000), False)])
def test_a_control_that_overflowed_does_not_show_that_drops_stop(control, expected):
    run, other = made_up_curve(RUN, drops_at(5000, 9000), {0: 0}), made_up_curve(RUN, control, {0: 0})
    over = other[other["step"] <= 4000].assign(status="nonfinite")
    cells = two(run, one_layer_control=over, two_layers_control=other.assign(status="finished"))
    parts, values = cycles.needs_normalisation(cells, at_least=2)
    assert parts["gone without LayerNorm, one_layer"] is expected
    assert parts["gone without LayerNorm, two_layers"] is (expected is None)
    assert values["one_layer_control_overflow"] == (4000, 20_000)
    assert np.isnan(values["two_layers_control_overflow"]).tolist() == [True, False]


RULE_7 = {"tolerance": 0.05, "attention": "attn|attention|W_Q|W_K|W_V|W_O", "share": 0.5}


def scaled(changes: Any, together: Any = 3.0):
    """Judge tensors given as {name: (change of log p, norm)}."""
    columns: dict[str, Any] = {f"invariance:{name}": change for name, (change, _) in changes.items()}
    columns |= {f"norm:{name}": norm for name, (_, norm) in changes.items()}
    columns["invariance:all weights"] = together
    curve = made_up_curve(RUN, FIT, {0: 0}, **columns)
    curve["invariance:scale-invariant subset"] = 0.001  # a group, not a tensor
    curve["weight_norm_si"] = 6.0
    return cycles.partial_invariance({"main": curve}, **RULE_7)


def test_partial_invariance():
    parts, values = scaled({"W_E": (0.0, 3.0), "blocks.0.W_Q.weight": (2.0, 2.0), "blocks.0.W_in.weight": (0.05, 1.0)})
    assert tuple(parts.values()) == (True, True, True, True)
    assert values["norm_share"] == pytest.approx(10 / 14)
    assert (values["subset_change"], values["subset_share"]) == (0.001, pytest.approx(0.36))
    assert (values["n_tensors"], values["n_invariant"], values["n_attention"], values["n_other"]) == (3, 2, 1, 2)
    assert (values["n_attention_broken"], values["n_other_broken"], values["all_change"]) == (1, 0, 3)


@pytest.mark.parametrize(
    "changes, together, expected",
    [
        ({"W_E": (0.0, 3.0), "W_Q": (2.0, 2.0)}, 0.04, (False, True, True, True)),
        ({"W_E": (0.0, 2.0), "W_Q": (2.0, 3.0)}, 3.0, (True, False, True, True)),
        ({"W_E": (0.0, 3.0), "W_Q": (0.0, 2.0)}, 3.0, (True, True, False, True)),
        ({"W_E": (0.0, 3.0), "W_Q": (2.0, 2.0), "W_U": (2.0, 1.0)}, 3.0, (True, True, True, False)),
    ],
)
def test_each_part_of_partial_invariance_can_fail(changes, together, expected):
    assert tuple(scaled(changes, together)[0].values()) == expected


def test_invariance_is_undecided_where_it_was_not_measured():
    missing = cycles.partial_invariance({"main": made_up_curve(RUN, FIT, {0: 0})}, **RULE_7)
    empty = scaled({"W_E": (np.nan, 3.0)}, together=np.nan)
    assert set(missing[0].values()) == set(empty[0].values()) == {None}


def test_invariance_is_read_at_the_evaluation_that_has_it():
    first = np.where(steps_of(RUN) == 0, 2.0, np.nan)
    parts, values = scaled({"W_Q": (first, np.where(steps_of(RUN) == 0, 4.0, 100.0))}, together=first)
    assert parts["not fully"] and parts["attention breaks it"] and values["n_tensors"] == 1
