"""Verification: the committed records pass it, and every kind of damage is named with its file and its run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from grokcore.cli.main import main
from grokcore.records import weight_tables
from grokcore.records.record import Record
from grokcore.records.store import Store, repository
from grokcore.records.verify import verify
from grokcore.spec.presets import msu
from grokcore.sweeps.sweep import sweep

SPEC = msu(p=7, d_model=8, d_mlp=12, n_heads=2, batch_size=8, steps=23)


def test_the_committed_records_pass(tmp_path: Path) -> None:
    store = Store(cache=tmp_path)
    n, damage = verify(store)
    assert damage == [] and n == sum(len(store.headers(name)) for name in store.experiments()) > 150


def test_a_recorded_experiment_is_called_as_its_notebook() -> None:
    notebooks = {path.stem for path in (repository() / "notebooks").glob("*.ipynb")}
    assert set(Store().experiments()) <= notebooks


@pytest.fixture
def trained(store: Store) -> Store:
    """A store with one run and weights of it in the cache, and the same run recorded."""
    sweep([SPEC], store=store, device="cpu", jobs=1, keep_weights=[23])
    store.pack("one", [SPEC.id])
    return store


def put(column: str, value: float, row: int = 3) -> Callable[[pd.DataFrame], None]:
    def change(curve: pd.DataFrame) -> None:
        curve.loc[row, column] = value

    return change


def swap_steps(curve: pd.DataFrame) -> None:
    curve.loc[[2, 3], "step"] = curve.loc[[3, 2], "step"].to_numpy()


IMPOSSIBLE: list[tuple[Callable[[pd.DataFrame], None], str]] = [
    (swap_steps, "its steps do not increase"),
    (put("step", 22, row=9), "its steps are not those at which a run of 23 steps is evaluated"),
    (put("train_accuracy", 1.1), "train_accuracy is not between 0 and 1"),
    (put("batch_accuracy_max", 1.00001), "batch_accuracy_max is not between 0 and 1"),  # too much for a sum of 8
    (put("answers_kept", -0.1), "answers_kept is not between 0 and 1"),
    (put("val_accuracy", 0.4), "val_accuracy is no share of"),
    (put("train_loss", -0.1), "train_loss is not between 0 and inf"),
    (put("weight_norm", -1.0), "weight_norm is not between 0 and inf"),
    (put("weight_cosine", 1.1), "weight_cosine is not between -1 and 1"),
    (put("epoch", 3.0), "its epochs are not those of its steps"),
    (put("grad_norm_mean", 1e6), "the minimum, mean and maximum of grad_norm are not in this order"),
    (put("batch_loss_min", 1e6), "the minimum, mean and maximum of batch_loss are not in this order"),
]


@pytest.mark.parametrize(("change", "what"), IMPOSSIBLE, ids=[what for _, what in IMPOSSIBLE])
def test_numbers_that_cannot_be_true_are_named(
    trained: Store, change: Callable[[pd.DataFrame], None], what: str
) -> None:
    """The checksum fits, as if the run had been made wrongly."""
    assert verify(trained) == (2, [])
    record = trained.load_cached(SPEC.id)
    change(record.curve)
    trained.save(Record(SPEC, record.curve, record.status, record.provenance))
    n, damage = verify(trained)
    assert n == 2 and len(damage) >= 1
    assert {(entry.file, entry.run) for entry in damage} == {(f"{SPEC.id}.parquet", SPEC.id)}
    assert any(entry.what.startswith(what) for entry in damage)


@pytest.mark.parametrize(
    ("status", "rows"), [("finished", 5), ("stopped early", 10), ("nonfinite", 10), ("unheard of", 10), ("finished", 0)]
)
def test_a_run_that_did_not_end_as_it_says_is_named(trained: Store, status: Any, rows: int) -> None:
    record = trained.load_cached(SPEC.id)
    trained.save(Record(SPEC, record.curve.head(rows), status, record.provenance))
    (entry,) = verify(trained)[1]
    assert entry.run == SPEC.id and entry.what == (
        f"it is said to be {status!r}, which its curve is not" if rows else "it has no evaluations"
    )


def test_provenance_that_lacks_something_is_named(trained: Store) -> None:
    record = trained.load_cached(SPEC.id)
    del record.provenance["commit"]
    trained.save(record)
    (entry,) = verify(trained)[1]
    assert str(entry) == f"{SPEC.id}.parquet: run {SPEC.id}: its provenance lacks commit"


def test_damaged_files_are_named_and_the_command_fails(
    trained: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GROKCORE_CACHE", str(trained.cache))
    monkeypatch.setenv("GROKCORE_RECORDS", str(trained.records))
    assert main(["runs", "verify"]) == 0
    assert capsys.readouterr().out == "2 runs checked, nothing wrong\n"
    weights = trained.cache / f"{SPEC.id}.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    recorded = trained.records / "one.parquet"
    recorded.write_bytes(recorded.read_bytes()[:-9])
    (trained.records / "two.json").write_text("{")
    assert main(["runs", "verify"]) == 1
    output = capsys.readouterr()
    assert f"{weights.name}: run {SPEC.id}: " in output.err and "are not what was saved" in output.err
    assert f"one.parquet: run {SPEC.id}: " in output.err and "two.json: " in output.err
    assert "2 runs checked" in output.out and "things wrong" in output.out


def test_a_curve_without_a_header_is_named(trained: Store) -> None:
    sweep([msu(p=7, d_model=8, d_mlp=12, n_heads=2, batch_size=8, steps=4)], store=trained, device="cpu", jobs=1)
    other = next(run for run in trained.ids() if run != SPEC.id)
    trained.pack("two", [other])
    (trained.records / "two.json").write_text('{"runs": {}}')
    assert [str(entry) for entry in verify(trained)[1]] == [f"two.parquet: run {other}: has a curve but no header"]
    assert np.isfinite(trained.load(SPEC.id).curve["weight_norm"]).all()


def test_a_measurement_of_which_a_digit_has_changed_is_named(trained: Store) -> None:
    path = trained.records / "measured.csv"
    weight_tables.write(path, pd.DataFrame({"run": [SPEC.id], "value": [0.125]}), digits=6)
    assert verify(trained) == (2, [])
    path.write_text(path.read_text().replace("0.125", "0.126"))
    (entry,) = verify(trained)[1]
    assert entry.file == "measured.csv" and "its checksum differs): restore it from version control" in entry.what


def test_curves_without_their_list_and_weights_without_their_curve_are_checked(trained: Store) -> None:
    (trained.records / "one.json").unlink()
    (trained.cache / f"{SPEC.id}.parquet").unlink()
    weights = trained.cache / f"{SPEC.id}.safetensors"
    (entry,) = verify(trained)[1]
    assert entry.file == "one.parquet" and "one.json is missing" in entry.what
    weights.write_bytes(weights.read_bytes()[:-1])
    assert [damage.file for damage in verify(trained)[1]] == [weights.name, "one.parquet"]
