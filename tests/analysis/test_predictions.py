"""Answers of networks: those of the weights kept, the same from the records, and what is recorded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from grokcore.analysis import predictions
from grokcore.engine import batches
from grokcore.nn.build import build_network
from grokcore.records.record import RecordError
from grokcore.records.store import Store
from grokcore.spec import tables
from grokcore.spec.presets import power
from grokcore.spec.run import RunSpec, replace
from grokcore.sweeps.sweep import sweep

TINY: dict[str, Any] = {"p": 5, "d_model": 8, "d_mlp": 8, "n_heads": 2, "steps": 40, "lr": 0.01}
SPECS = [power("x-y", seed=seed, **TINY) for seed in (0, 1)]


def weights(spec: RunSpec, steps: tuple[int, ...] = (0, 40)) -> dict[int, dict[str, np.ndarray]]:
    """The weights that other seeds begin with, in the place of trained ones."""
    networks = {step: build_network(replace(spec, init_seed=step)) for step in steps}
    return {step: {k: v.detach().numpy() for k, v in one.named_parameters()} for step, one in networks.items()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("trained")
    store = Store(folder / "cache", folder / "records")
    curves = sweep(SPECS, store=store, jobs=1, device="cpu", keep_weights=[0, 32, 40])
    store.pack("one", [spec.id for spec in SPECS])
    return store, curves


def test_answers_are_those_of_the_network() -> None:
    spec, state = SPECS[0], weights(SPECS[0])
    found = predictions.measure(spec, state)
    assert list(found) == predictions.COLUMNS and set(found["run"]) == {spec.id}
    for step, group in found.groupby("step"):
        network = build_network(replace(spec, init_seed=int(str(step))))
        with torch.no_grad():
            logits = network(torch.from_numpy(tables.table(spec.task)[0]))
        assert list(group["row"]) == list(range(25))
        assert list(group["answer"]) == logits.argmax(1).tolist()


def test_share_of_right_answers_is_the_accuracy_of_the_curve(trained: tuple[Store, pd.DataFrame]) -> None:
    store, curves = trained
    found = predictions.measured(SPECS, store)
    assert len(found) == 2 * 3 * 25
    for spec in SPECS:
        right = tables.table(spec.task)[1][found["row"]] == found["answer"]
        train, val = batches.split(spec)
        for name, rows in (("train_accuracy", train), ("val_accuracy", val)):
            share = right[(found["run"] == spec.id) & found["row"].isin(rows.tolist())].groupby(found["step"]).mean()
            curve = curves[curves["run"] == spec.id].set_index("step")[name]
            np.testing.assert_allclose(share, curve[share.index], atol=1e-6)  # the curve is float32


def test_what_is_recorded_is_what_was_measured(trained: tuple[Store, pd.DataFrame], tmp_path: Path) -> None:
    store, _ = trained
    first = predictions.measured(SPECS, store)
    assert predictions.unmeasured(SPECS, store) == SPECS
    predictions.record(store, SPECS[:1])
    assert predictions.unmeasured(SPECS, store) == SPECS[1:]
    predictions.record(store, SPECS)
    text = (store.records / predictions.FILE).read_text()
    assert len(text.splitlines()) == 2 + 2 * 3 and text.splitlines()[1] == "run,step,answers"
    assert [path.name for path in store.records.glob(".*")] == []
    alone = Store(tmp_path, store.records)  # without the weights
    assert predictions.unmeasured(SPECS, alone) == []
    pd.testing.assert_frame_equal(predictions.measured(SPECS, alone), first, check_dtype=False)
    assert len(predictions.measured([SPECS[1], SPECS[1]], alone)) == 3 * 25
    predictions.record(store, SPECS)
    assert (store.records / predictions.FILE).read_text() == text


def test_only_small_tables_of_runs_with_weights_are_recorded(store: Store, trained: tuple[Store, pd.DataFrame]) -> None:
    small, large = (power("x-y", **TINY | {"p": p}) for p in (31, 37))  # 961 and 1 369 rows
    without = power("x-y", seed=9, **TINY)
    record = trained[0].load(SPECS[0].id)
    for spec in (small, large):
        store.save(type(record)(spec, record.curve, record.status, record.provenance), weights(spec))
    store.records.mkdir()
    predictions.record(store, [large, without])
    assert not (store.records / predictions.FILE).exists()
    predictions.record(store, [large, without, small, small])
    assert predictions.recorded(store).groupby("run").size().to_dict() == {small.id: 2 * 961}
    with pytest.raises(RecordError, match=f"no weights were kept of run {without.id}"):
        predictions.measured([small, without], store)


def test_nothing_is_known_of_no_runs(store: Store) -> None:
    assert list(predictions.measured([], store)) == predictions.COLUMNS and predictions.measured([], store).empty


@pytest.mark.parametrize("damage", [lambda text: "", lambda text: text[:-9], lambda text: text.replace(" 1", " 2", 1)])
def test_a_damaged_file_is_named(
    trained: tuple[Store, pd.DataFrame], tmp_path: Path, damage: Callable[[str], str]
) -> None:
    store = Store(trained[0].cache, tmp_path)
    predictions.record(store, SPECS)
    path = store.records / predictions.FILE
    text = path.read_text()
    path.write_text(damage(text))
    assert path.read_text() != text
    with pytest.raises(RecordError, match=r"answers\.csv cannot be read .*restore it from version control"):
        predictions.recorded(store)


def test_the_puzzle_is_the_table_that_its_claim_names() -> None:
    from grokcore import claims
    from grokcore.report import notebook_files, parameters, plan

    (path,) = notebook_files.find(["14_puzzle"])
    cell = claims.load()["power-7"].cells["main"]
    for scale in ("cpu", "smoke"):
        for spec in plan.planned_runs(path, parameters.parameter_values(path, scale))[0]:
            columns = spec.columns()
            assert columns["operation"] == cell["operation"] == "custom:dd3caf"
            if scale == "cpu":
                assert all(columns.get(name, spec.steps) == value for name, value in cell.items())
