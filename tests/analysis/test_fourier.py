"""Spectra and parts of logits against waves written out by hand, a clock made by hand, and records of measurements."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.recorded import record
from torch.nn import functional as F

from grokcore.analysis import fourier
from grokcore.engine import batches
from grokcore.nn import build as nn_build
from grokcore.nn.build import build_network
from grokcore.records import weight_tables
from grokcore.records.record import RecordError
from grokcore.records.store import Store
from grokcore.spec import schedule, tables
from grokcore.spec.base import SpecError
from grokcore.spec.presets import msu, pku_sum, power
from grokcore.spec.run import MODELS, RunSpec, replace
from grokcore.spec.task import MODULAR_OPERATIONS
from grokcore.sweeps.sweep import sweep

TINY: dict[str, Any] = {"p": 7, "d_model": 8, "d_mlp": 8, "n_heads": 2, "batch_size": 16, "steps": 12}
KEPT = [0, 4, 12]
ANSWERS = [f"{side}_{what}" for side in ("train", "val") for what in ("accuracy", "loss")]
PARTS = ("full", "restricted", "excluded")


def wave(n: int, k: int, shift: float = 0.0) -> np.ndarray:
    return np.cos(2 * np.pi * (k * np.arange(n) / n + shift))


def initial(spec: RunSpec) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in build_network(spec).named_parameters() for value in [value.detach()]}


def single(frame: pd.DataFrame, step: int) -> dict[str, float]:
    """Return the measures of one step that are one number each."""
    rows = frame.loc[(frame["step"] == step) & (frame["frequency"] == 0)]
    return dict(zip(rows["measure"], rows["value"], strict=True))


def count(frame: pd.DataFrame, measure: str) -> int:
    return frame["measure"].tolist().count(measure)


def keys(frame: pd.DataFrame) -> list[int]:
    return frame.loc[frame["measure"] == "key", "frequency"].tolist()


# steps


@pytest.mark.parametrize("budget", [1, 2, 30, 1800, 10_000, 100_000])
def test_weights_are_kept_at_about_20_evaluations_from_the_start_to_the_end(budget: int) -> None:
    kept = fourier.steps_kept(budget)
    assert kept[0] == 0 and kept[-1] == budget and set(kept) <= set(schedule.evaluation_steps(budget))
    assert len(kept) <= 20 and kept == sorted(kept)
    if budget >= 1800:
        late = np.array([step for step in kept if step >= 16])
        ratios = late[1:] / late[:-1]
        assert len(kept) >= 18 and late[0] < 0.05 * budget and ratios.min() > 1.1 and ratios.max() < 1.7


# orders


def test_primitive_roots_by_brute_force() -> None:
    for p in [p for p in range(2, 100) if all(p % d for d in range(2, p))]:
        cycles = {}
        for g in range(1, p):
            value, cycles[g] = g, 1
            while value != 1:
                value, cycles[g] = value * g % p, cycles[g] + 1
        assert fourier.primitive_root(p) == min(g for g, length in cycles.items() if length == p - 1)
    assert [fourier.primitive_root(p) for p in (7, 23, 41, 97, 191)] == [3, 5, 6, 5, 19]


@pytest.mark.parametrize("p", [1, 12, 91])
def test_a_number_that_is_not_prime_has_no_primitive_root_here(p: int) -> None:
    with pytest.raises(SpecError, match=f"p = {p} is not prime"):
        fourier.primitive_root(p)


@pytest.mark.parametrize("operation", fourier.SIGNS)
def test_in_its_order_the_operation_adds_or_subtracts(operation: str) -> None:
    p, sign = 11, fourier.SIGNS[operation]
    numbers = fourier.order(operation, p)
    first = 1 if operation in ("x*y", "x/y") else 0
    assert sorted(numbers) == list(range(first, p))
    tokens, labels = tables.table(power(operation, p=p).task)
    answer = {(int(x), int(y)): int(c) for (x, y), c in zip(tokens, labels, strict=True)}
    n = len(numbers)
    for a, x in enumerate(numbers):
        for b, y in enumerate(numbers):
            if (x, y) in answer:
                assert answer[x, y] == numbers[(a + sign * b) % n]


def test_either_order_can_be_asked_for_and_others_have_none() -> None:
    assert fourier.order("x*y", 7, logarithmic=False).tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert fourier.order("x+y", 7, logarithmic=True).tolist() == [1, 3, 2, 6, 4, 5]
    for operation in {*MODULAR_OPERATIONS, "custom"} - set(fourier.SIGNS):
        with pytest.raises(SpecError, match="the Fourier picture is that of x\\+y, x-y"):
            fourier.order(operation, 7)


# spectra


@pytest.mark.parametrize("n", [11, 12])
def test_the_spectrum_of_known_waves(n: int) -> None:
    """Power is squared amplitude: waves of amplitude 1 and 2 hold 1/5 and 4/5, whatever their phases and the mean."""
    rows = np.stack([wave(n, 2, 0.1), 2 * wave(n, 5, 0.3), np.full(n, 7.0)], axis=1)
    expected = np.zeros(n // 2)
    expected[[1, 4]] = 0.2, 0.8
    np.testing.assert_allclose(fourier.spectrum(rows), expected, atol=1e-12)


def test_the_spectrum_is_the_power_of_projections_on_waves() -> None:
    """Rows of noise against an orthonormal basis of cosines and sines, of which the frequency n/2 has no sine."""
    for n in (9, 10):
        rows = np.random.default_rng(n).normal(size=(n, 3))
        power = np.zeros(n // 2)
        for k in range(1, n // 2 + 1):
            for shift in (0.0, 0.25):
                basis = wave(n, k, shift)
                if (size := np.linalg.norm(basis)) > 1e-6:
                    power[k - 1] += ((basis / size @ rows) ** 2).sum()
        np.testing.assert_allclose(fourier.spectrum(rows), power / power.sum(), rtol=1e-12)
        assert fourier.spectrum(rows + 5.0) == pytest.approx(fourier.spectrum(rows))
        assert power.sum() == pytest.approx(((rows - rows.mean(0)) ** 2).sum())  # all of it, but for the mean


@pytest.mark.parametrize("n", [11, 12])
def test_numbers_without_any_likeness_have_equal_shares(n: int) -> None:
    """One-hot rows weigh all waves alike; at n/2 a cosine alone is counted, elsewhere cosine and sine."""
    shares = fourier.spectrum(np.eye(n))
    np.testing.assert_allclose(fourier.equal_shares(n), shares, rtol=1e-12)
    assert shares.sum() == pytest.approx(1) and (shares[-1] < 0.6 * shares[0]) == (n == 12)


def test_equal_rows_have_no_power_and_no_key_frequency() -> None:
    shares = fourier.spectrum(np.ones((8, 2)))
    assert shares.tolist() == [0, 0, 0, 0] and fourier.key_frequencies(shares, 8) == []


def test_a_frequency_is_key_from_three_equal_shares_on() -> None:
    """Of 97 numbers an equal share is 1/48; of 96 it is 2/95, and half of that at the frequency 48."""
    for n, equal in ((97, 1 / 48), (96, 2 / 95)):
        shares = np.full(48, 0.01)
        shares[[2, 9]] = 3.001 * equal, 2.999 * equal
        assert fourier.key_frequencies(shares, n) == [3]
    shares[47] = 3.001 / 95
    assert fourier.key_frequencies(shares, 96) == [3, 48]


# parts of logits


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("n", [9, 10])
def test_logits_are_split_into_the_waves_of_key_frequencies_and_the_rest(n: int, sign: int) -> None:
    a, b, c = np.meshgrid(np.arange(n), np.arange(n), np.arange(n + 2), indexing="ij")
    rng = np.random.default_rng(n + sign)

    def angle(k: int, number: np.ndarray) -> np.ndarray:
        return 2 * np.pi * k * number / n

    mean = rng.normal(size=n + 2)[c]
    key = (
        np.cos(angle(2, a + sign * b - c)) + 0.3 * np.sin(angle(2, a + sign * b)) + np.cos(angle(n // 2, a + sign * b))
    )
    other = 0.7 * np.cos(angle(3, a + sign * b - c)) + np.cos(angle(2, a)) + np.cos(angle(2, a - sign * b + c))
    restricted, excluded = fourier.split_logits(mean + key + other, [2, n // 2], sign)
    np.testing.assert_allclose(restricted, mean + key, atol=1e-12)
    np.testing.assert_allclose(excluded, mean + other, atol=1e-12)


def test_the_parts_add_up_and_without_a_key_nothing_is_split_off() -> None:
    logits = np.random.default_rng(0).normal(size=(8, 8, 5))
    mean = logits.mean((0, 1))
    restricted, excluded = fourier.split_logits(logits, [1, 4])
    np.testing.assert_allclose(restricted + excluded, logits + mean, atol=1e-12)
    again = fourier.split_logits(restricted, [1, 4])
    np.testing.assert_allclose(again[0], restricted, atol=1e-12)  # a projection
    restricted, excluded = fourier.split_logits(logits, [])
    np.testing.assert_allclose(restricted, np.broadcast_to(mean, logits.shape), atol=1e-12)
    np.testing.assert_array_equal(excluded, logits)


# a network


class Clock(torch.nn.Module):
    """Adds angles: rows of W_E are cosines and sines of waves, logits cos(w(a ± b - c)) by the addition theorems."""

    def __init__(self, p: int, rows: np.ndarray, sign: int) -> None:
        super().__init__()
        self.W_E = torch.nn.Parameter(torch.from_numpy(rows))
        self.p, self.sign = p, sign

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        (cos_x, sin_x), (cos_y, sin_y) = (self.W_E[tokens[:, i]].chunk(2, dim=1) for i in (0, 1))
        cos = cos_x * cos_y - self.sign * sin_x * sin_y
        sin = sin_x * cos_y + self.sign * cos_x * sin_y
        return torch.cat([cos, sin], dim=1) @ self.W_E[: self.p].T


def clock(spec: RunSpec, frequencies: list[int], p: int) -> Clock:
    """Return a clock for an operation modulo p; the row of a number that has no logarithm is zero."""
    sign = -1 if spec.task.operation in ("x-y", "x/y") else 1
    numbers = [pow(3, k, p) for k in range(p - 1)] if spec.task.operation in ("x*y", "x/y") else list(range(p))
    angles = 2 * np.pi * np.outer(np.arange(len(numbers)), frequencies) / len(numbers)
    rows = np.zeros((p, 2 * len(frequencies)))
    rows[numbers] = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    return Clock(p, rows, sign)


@pytest.mark.parametrize(
    ("operation", "y_min"), [("x+y", 0), ("x+y", 1), ("x-y", 0), ("x-y", 1), ("x*y", 0), ("x*y", 1), ("x/y", 1)]
)
def test_a_clock_made_by_hand_is_recognised(operation: str, y_min: int, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = power(operation, p=17, alpha=0.5, y_min=y_min)  # 3 is a primitive root of 17
    network = clock(spec, [2, 3], 17)
    monkeypatch.setattr(nn_build, "build_network", lambda _: network)
    right = network.W_E.detach().numpy().copy()
    wrong = np.random.default_rng(0).normal(size=right.shape)
    found = fourier.measure(spec, {5: {"W_E": wrong}, 10: {"W_E": right}})
    assert found.columns.tolist() == fourier.COLUMNS and set(found["run"]) == {spec.id}
    assert keys(found) == [2, 3] and set(found.loc[found["measure"] == "key", "step"]) == {10}
    start, end = single(found, 5), single(found, 10)
    assert set(end) == {"key_share", *(f"{part}_{answer}" for part in PARTS for answer in ANSWERS)}
    shares = found.loc[(found["measure"] == "share") & (found["step"] == 10)].set_index("frequency")["value"]
    np.testing.assert_allclose(shares.loc[[2, 3]], 0.5, rtol=1e-6)
    assert shares.index.tolist() == list(range(1, 9)) and start["key_share"] < 0.8
    assert end["key_share"] == pytest.approx(1)
    other = found.loc[(found["measure"] == "share_other") & (found["step"] == 10), "value"].to_numpy()
    assert len(other) == 8 and other.sum() == pytest.approx(1) and other.max() < 0.45  # in the wrong order all is mixed
    for side in ("train", "val"):
        assert end[f"full_{side}_accuracy"] == end[f"restricted_{side}_accuracy"] == 1 > start[f"full_{side}_accuracy"]
        assert end[f"restricted_{side}_loss"] == pytest.approx(end[f"full_{side}_loss"], rel=1e-6)
        assert end[f"excluded_{side}_accuracy"] < 0.2 and end[f"excluded_{side}_loss"] > 0.9 * np.log(16)


@pytest.mark.parametrize(
    "spec",
    [power("x+y", **TINY), power("x-y", **TINY), power("x*y", **TINY), power("x/y", **TINY), msu("x+y", **TINY)],
    ids=lambda spec: f"{spec.model.name} {spec.task.operation}",
)
def test_the_answers_are_those_of_the_network_on_its_training_and_validation_rows(spec: RunSpec) -> None:
    """Against torch's cross-entropy on the rows of the table; numbers without a logarithm are left out."""
    tokens, labels = (torch.from_numpy(part) for part in tables.table(spec.task))
    with torch.no_grad():
        logits = build_network(spec)(tokens).double()
    known = (tokens > 0).all(1) if spec.task.operation in ("x*y", "x/y") else torch.ones(len(tokens), dtype=torch.bool)
    found = single(fourier.measure(spec, {0: initial(spec)}), 0)
    for side, rows in zip(("train", "val"), batches.split(spec), strict=True):
        rows = torch.tensor([row for row in rows if known[row]])
        expected = F.cross_entropy(logits[rows], labels[rows])
        assert found[f"full_{side}_loss"] == pytest.approx(float(expected), rel=1e-6)
        right = (logits[rows].argmax(1) == labels[rows]).double().mean()
        assert found[f"full_{side}_accuracy"] == pytest.approx(float(right))


def test_what_is_measured_of_a_trained_run_is_what_its_curve_says(store: Store) -> None:
    spec = power("x+y", **TINY)
    kept = fourier.steps_kept(spec.steps)
    curve = sweep([spec], store=store, keep_weights=kept, jobs=1)
    found = fourier.measured([spec], store)
    assert sorted(set(found["step"])) == kept
    for row in curve.loc[curve["step"].isin(kept)].to_dict("records"):
        for name in ANSWERS:
            assert single(found, row["step"])[f"full_{name}"] == pytest.approx(row[name], rel=1e-5)


def test_without_a_prime_there_is_no_other_order() -> None:
    spec = power("x+y", **TINY | {"p": 8})
    found = fourier.measure(spec, {0: initial(spec)})
    assert count(found, "share_other") == 0 and count(found, "share") == 4
    other = power("x-y", **TINY)
    assert count(fourier.measure(other, {0: initial(other)}), "share_other") == 3


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (power("x^2+y^2", p=7), "of x+y, x-y, x*y, x/y of two numbers; got 'x^2+y^2' of 2 numbers"),
        (pku_sum(3, p=7), "got 'x+y' of 3 numbers"),
        (power("x*y", p=12), "x*y is an addition of logarithms only modulo a prime, p = 12 is not prime"),
        (
            replace(power("x+y", p=7), model="mlp"),
            "the network 'mlp' has no embedding W_E; those that have: grokformer",
        ),
    ],
)
def test_a_run_without_a_fourier_picture_is_refused(spec: RunSpec, reason: str) -> None:
    with pytest.raises(SpecError) as refused:
        fourier.measure(spec, {0: {}})
    assert reason in str(refused.value)


def test_the_networks_that_are_measured_are_those_with_a_table_of_embeddings() -> None:
    tables = {name for name in MODELS if name != "user" and "W_E" in initial(replace(power("x+y", p=5), model=name))}
    assert tables == set(fourier.NETWORKS)


# records


@pytest.fixture
def measured_store(store: Store) -> tuple[Store, list[RunSpec]]:
    """A store with two runs whose weights were kept to the end; one made-up weight grows."""
    specs = [power("x+y", **TINY), power("x*y", **TINY)]
    for spec in specs:
        first = initial(spec)
        weights = {step: {**first, "W_E": first["W_E"] + np.float32(0.1) * step} for step in KEPT}
        store.save(record(spec), weights)
    return store, specs


def test_measurements_are_recorded_and_then_need_no_weights(measured_store: tuple[Store, list[RunSpec]]) -> None:
    store, specs = measured_store
    assert fourier.unmeasured(specs, store) == specs and not len(fourier.recorded(store))
    fresh = fourier.measured(specs, store)
    fourier.record(store, specs[:1])
    assert fourier.unmeasured(specs, store) == specs[1:]
    mixed = fourier.measured([*specs, *specs], store)  # one of either kind, each once
    fourier.record(store, specs)
    without = Store(store.cache.parent / "none", store.records)
    again = fourier.measured(specs, without)
    for frame in (mixed, again):
        pd.testing.assert_frame_equal(frame, fresh, rtol=1e-5, check_exact=False)
    assert fourier.unmeasured(specs, without) == [] and set(fresh["run"]) == {spec.id for spec in specs}
    assert fourier.measured(specs[1:], without)["run"].unique().tolist() == [specs[1].id]
    written = (store.records / fourier.FILE).read_bytes()
    fourier.record(store, specs)
    assert (store.records / fourier.FILE).read_bytes() == written
    assert [path.name for path in store.records.iterdir()] == [fourier.FILE]


def test_a_run_that_is_neither_recorded_nor_has_weights_is_named(store: Store) -> None:
    spec = power("x+y", **TINY)
    with pytest.raises(RecordError, match=f"no weights were kept of run {spec.id}"):
        fourier.measured([spec], store)
    assert fourier.measured([], store).columns.tolist() == fourier.COLUMNS


def test_only_runs_that_can_be_measured_at_their_end_are_recorded(store: Store) -> None:
    specs = [
        power("x^2+y^2", **TINY),  # no addition
        power("x+y", **TINY, seed=1),  # no weights
        power("x+y", **TINY, seed=2),  # weights of the start alone
        power("x*y", **TINY | {"p": 6}),  # no logarithms
    ]
    for spec, steps in zip(specs, ([12], [], [0], [12]), strict=True):
        store.save(record(spec), {step: initial(spec) for step in steps})
    fourier.record(store, specs)
    assert not (store.records / fourier.FILE).exists()
    good = power("x-y", **TINY)
    store.save(record(good), {12: initial(good)})
    fourier.record(store, [*specs, good, good])
    assert set(fourier.recorded(store)["run"]) == {good.id}
    assert count(fourier.recorded(store), "key_share") == 1


def test_an_id_of_digits_stays_as_it_is(measured_store: tuple[Store, list[RunSpec]]) -> None:
    store, specs = measured_store
    fourier.record(store, specs[:1])
    for name in ("0012345678901234", "12345678901234e5"):
        weight_tables.write(store.records / fourier.FILE, fourier.recorded(store).assign(run=name), digits=6)
        assert set(fourier.recorded(store)["run"]) == {name}


def damage(path: Path, kind: str) -> None:
    lines = path.read_text().splitlines(keepends=True)
    damaged = {
        "empty": "",
        "cut in a row": "".join(lines)[: -len(lines[-1]) // 2 - 8],
        "cut after a row": "".join(lines[:-3]),
        "a row lost": "".join(lines[:40] + lines[41:]),
        "a word for a number": "".join(lines).replace(",0.", ",o.", 1),
        "another digit": "".join(lines).replace("1", "2", 1),
        "no checksum": "".join(lines[1:]),
        "a column lost": "".join(lines).replace("frequency", "frequenz", 1),
        "not text": None,
    }[kind]
    path.write_bytes(b"\xff\xfe\x00PAR1\x80" if damaged is None else damaged.encode())


@pytest.mark.parametrize(
    "kind",
    [
        "empty",
        "cut in a row",
        "cut after a row",
        "a row lost",
        "a word for a number",
        "another digit",
        "no checksum",
        "a column lost",
        "not text",
    ],
)
def test_a_damaged_file_is_refused(measured_store: tuple[Store, list[RunSpec]], kind: str) -> None:
    store, specs = measured_store
    fourier.record(store, specs)
    assert len(fourier.recorded(store)) > 100
    damage(store.records / fourier.FILE, kind)
    for call in (fourier.measured, fourier.unmeasured):
        with pytest.raises(RecordError, match="fourier.csv cannot be read .*: restore it from version control"):
            call(specs, store)
