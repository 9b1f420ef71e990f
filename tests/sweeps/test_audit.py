"""The audit: honest records pass, records made otherwise are found, draws are fair, what is remembered is checked."""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from grokcore.cli.main import main
from grokcore.engine.train import train
from grokcore.nn.build import user_model
from grokcore.records.record import Record, RecordError, make_record
from grokcore.records.store import Store
from grokcore.spec import schedule
from grokcore.spec.presets import msu, periodic, pku, power
from grokcore.spec.run import RunSpec, replace
from grokcore.sweeps import audit, comparison

TINY: dict[str, Any] = {"p": 7, "d_model": 8, "d_mlp": 12, "n_heads": 2, "batch_size": 8}
SPEC = msu(**TINY, steps=100)
PROVENANCE = {"seconds": 1.0}
Change = Callable[[pd.DataFrame], None]


def trained_record(spec: RunSpec, claimed: RunSpec | None = None) -> Record:
    """Train a run and record it, if asked for as what it is not."""
    (run,) = train([spec])
    return make_record(claimed or spec, run.curve, run.status, dict(PROVENANCE))


def put(store: Store, *records: Record) -> None:
    for path in store.records.glob("one.*"):
        path.unlink()
    for record in records:
        store.save(record)
    store.pack("one", [record.spec.id for record in records])


@pytest.fixture(scope="module")
def honest() -> Record:
    return trained_record(SPEC)


HONEST = [
    replace(SPEC, warmup=0, seed=3),
    replace(SPEC, optimizer="adam"),
    replace(SPEC, precision="float64"),
    msu("x+y", **TINY, steps=100, weight_noise=0.01),
    periodic(1, **TINY, steps=100),
    periodic(2, **TINY, steps=100, lr=0.03),  # at 0.1 so small a network is at the edge of divergence
    power(**TINY, steps=100),
    *(pku(name, p=7, batch_size=8, steps=100, d_model=8) for name in ("encoder", "lstm")),
    pku("mlp", p=7, batch_size=8, steps=100),
    replace(SPEC, steps=23),
    replace(SPEC, steps=64),
]


@pytest.mark.parametrize("spec", HONEST, ids=[f"{spec.model.name}-{spec.optimizer.name}-{spec.id}" for spec in HONEST])
def test_an_honest_record_agrees_far_within_the_tolerance(spec: RunSpec, store: Store) -> None:
    """Recorded with first-token sharing, trained again without."""
    put(store, trained_record(spec))
    (compared,) = audit.audit(store, 1).runs
    assert compared.agreed and compared.share < 0.5 and (compared.run, compared.problem) == (spec.id, "")
    steps, curve = [step for step in schedule.evaluation_steps(spec.steps) if step <= 64], store.load(spec.id).curve
    learnt = [step for step in curve["step"][curve["train_accuracy"] >= 0.5] if step > 16]
    compared_steps = [step for step in steps if step < min(learnt, default=65)]
    assert compared.steps == steps[-1] and compared.n_values == len(compared_steps) * (len(curve.columns) - 1) > 0


def test_the_engines_short_cuts_are_left_out(honest: Record) -> None:
    """So that they are checked as well: the record was made with first-token sharing, which rounds otherwise."""
    assert 0 < comparison.compare(honest, *audit.trained_again(SPEC)).share < 0.5


OTHERWISE: dict[str, dict[str, Any]] = {
    "learning rate": {"lr": 0.001 * 1.01},
    **{name: {name: 1} for name in ("seed", "batch_seed", "init_seed", "split_seed")},
    "no warm-up": {"warmup": 0},
    "no weight decay": {"weight_decay": 0.0},
    "operation": {"operation": "x+y"},
}


@pytest.mark.parametrize("change", OTHERWISE.values(), ids=OTHERWISE.keys())
@pytest.mark.parametrize("with_rates", [True, False], ids=["", "rates-left-out"])
def test_a_record_made_otherwise_is_found(change: dict[str, Any], with_rates: bool, store: Store) -> None:
    """Checksums fit. Also without the effective learning rates, which tell a learning rate at once."""
    forged = trained_record(replace(SPEC, **change), SPEC)
    left_out = [] if with_rates else [name for name in forged.curve if name.startswith("effective_lr")]
    put(store, dataclasses.replace(forged, curve=forged.curve.drop(columns=left_out)))
    result = audit.audit(store, 1)
    assert result.disagreeing == list(result.runs) and result.runs[0].share > 1
    assert f"NOT what was recorded: 1 of 1 ({SPEC.id})" in result.result


def test_weight_decay_of_sgd_is_found_as_well(store: Store) -> None:
    spec = periodic(1, **TINY, steps=100)
    put(store, trained_record(replace(spec, weight_decay=0.0), spec))
    assert audit.audit(store, 1).disagreeing


def test_exchanged_curves_are_found(store: Store, honest: Record) -> None:
    other = trained_record(replace(SPEC, seed=1))
    put(store, dataclasses.replace(honest, curve=other.curve), dataclasses.replace(other, curve=honest.curve))
    assert {compared.run for compared in audit.audit(store, 2).disagreeing} == {honest.spec.id, other.spec.id}


@pytest.mark.parametrize("measure", ["train_loss", "val_loss", "batch_loss_mean", "weight_norm", "effective_lr_max"])
@pytest.mark.parametrize("start", [0, 45, 64])
def test_a_measure_scaled_from_some_step_on_is_found_there(honest: Record, measure: str, start: int) -> None:
    again, status = audit.trained_again(SPEC)
    curve = honest.curve.copy()
    curve.loc[curve["step"] >= start, measure] *= 1.01
    compared = comparison.compare(dataclasses.replace(honest, curve=curve), again, status)
    assert not compared.agreed and compared.measure == measure and compared.at >= start
    scaled = curve["step"] > 64
    curve = honest.curve.copy()
    curve.loc[scaled, measure] *= 1.01  # of which nothing is trained again
    assert comparison.compare(dataclasses.replace(honest, curve=curve), again, status).agreed


def test_nothing_is_compared_from_where_half_of_the_rows_are_learnt(honest: Record) -> None:
    again, status = audit.trained_again(SPEC)
    for accuracy, differs in ((0.49, True), (0.5, False)):
        curve = honest.curve.copy()
        curve["train_accuracy"] = again_accuracy = np.where(curve["step"] >= 45, accuracy, 0.0)
        curve.loc[curve["step"] >= 45, "train_loss"] *= 1.01
        other = again.assign(train_accuracy=again_accuracy[: len(again)])
        assert comparison.compare(dataclasses.replace(honest, curve=curve), other, status).agreed != differs
    claimed = honest.curve.assign(train_accuracy=honest.curve["train_accuracy"].where(honest.curve["step"] < 45, 1.0))
    assert not comparison.compare(dataclasses.replace(honest, curve=claimed), again, status).agreed  # by the record
    curve["train_accuracy"] = again_accuracy = np.full(len(curve), 1.0)  # the first steps are compared in any case
    curve["train_loss"] = honest.curve["train_loss"].where(honest.curve["step"] < 16, 9.0)
    other = again.assign(train_accuracy=again_accuracy[: len(again)])
    assert comparison.compare(dataclasses.replace(honest, curve=curve), other, status).at == 16


def curves(**columns: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"step": np.arange(len(next(iter(columns.values())))), **columns})


# A record of 42 rows, 16 of them trained on in batches of 8; what is recorded, what comes, and the share of tolerance.
VALUES = [
    ("val_loss", [2.0, 2.0], [2.0, 2.004], 0.004 / (0.005 * 2.004)),
    ("norm:W_U", [0.5, 4.0], [0.5, 3.999], 0.001 / 0.02),
    ("weight_norm", [10.0, 10.0], [10.001, 10.0], 0.001 / (2e-4 * 10.001)),
    ("effective_lr_mean", [1e-5, 1e-5], [1e-5, 1.01e-5], 1e-7 / (2e-4 * 1.01e-5)),
    ("grad_norm_max", [3.0, 3.0], [3.0, 3.3], 0.3 / (0.05 * 3.3)),
    ("norm:a.bias", [0.0, 0.5], [0.0, 0.4], 0.1 / (0.2 * 0.5)),
    ("val_loss", [5.0, 0.0], [5.0, 1e-5], 1e-5 / (0.005 * 0.05)),  # the floor: 1 % of 5
    ("val_accuracy", [3 / 26, 4 / 26], [3 / 26, 6 / 26], 2 / 3),  # 2 rows of the 3 that may differ
    ("train_accuracy", [3 / 16, 4 / 16], [3 / 16, 8 / 16], 4 / 3),
    ("batch_accuracy_min", [3 / 8, 3 / 8], [3 / 8, 1 / 8], 2 / 3),
    ("answers_kept_val", [0.0, 1.0], [0.0, 1.0], 0.0),
    ("grad_norm_si_max", [np.nan, np.inf], [np.nan, np.inf], 0.0),
    ("val_loss", [2.0, np.nan], [2.0, 2.0], np.inf),
    ("val_loss", [2.0, np.inf], [2.0, 2.0], np.inf),
]


@pytest.mark.parametrize(("name", "recorded", "again", "share"), VALUES)
def test_a_difference_is_a_share_of_its_tolerance(
    name: str, recorded: list[float], again: list[float], share: float
) -> None:
    record = Record(SPEC, curves(**{name: recorded}), "finished", {})
    compared = comparison.compare(record, curves(**{name: again}), None)
    assert SPEC.n_train == 16 and compared.share == pytest.approx(share) and compared.n_values == 2
    assert compared.agreed == (share <= 1)


def test_rows_are_a_fiftieth_where_there_are_many() -> None:
    spec = msu()
    val, train = spec.task.n_rows - spec.n_train, spec.n_train
    assert comparison._rows(spec, "val_accuracy") == val == 5588 and comparison._rows(spec, "answers_kept") == train
    assert comparison._rows(spec, "batch_accuracy_max") == train - 7 * 512  # the last batch of an epoch
    compared = comparison.compare(
        *(Record(spec, curves(val_accuracy=[0.5]), "finished", {}), curves(val_accuracy=[0.52]), None)
    )
    assert compared.share == pytest.approx(1.0)


def test_a_run_that_diverges_agrees_with_its_record_and_not_with_another(store: Store) -> None:
    spec = replace(periodic(1, **TINY, steps=100), lr=1e6)
    record = trained_record(spec)
    assert record.status == "nonfinite" and record.curve["step"].iloc[-1] < 64
    put(store, record)
    (compared,) = audit.audit(store, 1).runs
    assert compared.agreed and compared.steps == record.curve["step"].iloc[-1]
    tamed = trained_record(replace(spec, lr=0.1), spec)
    again = audit.trained_again(spec)
    assert again[1] == "nonfinite" and "trained again at" in comparison.compare(tamed, *again).problem
    short = Record(spec, tamed.curve.head(len(record.curve)), "finished", {})
    compared = comparison.compare(short, *again)
    assert compared.share == np.inf and compared.largest == "a number in one, none in the other"
    assert compared.problem == "recorded as finished, trained again it is nonfinite"


@pytest.mark.parametrize("rows", [0, 5])
def test_a_record_that_breaks_off_is_found(honest: Record, rows: int) -> None:
    compared = comparison.compare(
        dataclasses.replace(honest, curve=honest.curve.head(rows)), *audit.trained_again(SPEC)
    )
    assert not compared.agreed and compared.n_values == 0
    assert compared.problem == f"recorded at {'5 steps to 4' if rows else 'no step'}, trained again at 13 steps to 64"


def test_a_record_without_measures_does_not_agree(honest: Record) -> None:
    compared = comparison.compare(dataclasses.replace(honest, curve=honest.curve[["step"]]), *audit.trained_again(SPEC))
    assert not compared.agreed and compared.problem == "no measure in common"


def test_draws_are_fair_without_replacement_and_the_same_for_a_seed(packed: Store) -> None:
    trainable, left_out = audit.candidates(packed)
    assert set(trainable) == set(packed.recorded()) and len(trainable) == 3 and left_out == 0
    assert all(set(audit.drawn_runs(packed, 3, seed)) == set(trainable) for seed in range(9))
    assert all(audit.drawn_runs(packed, 2, seed) == audit.drawn_runs(packed, 2, seed) for seed in range(9))
    counts = Counter(audit.drawn_runs(packed, 1, seed)[0] for seed in range(300))
    assert set(counts) == set(trainable) and min(counts.values()) > 70  # 100 are expected, with a deviation of 8


class OneLayer(nn.Module):
    """A user's network."""

    def __init__(self, n_tokens: int, n_operands: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(n_tokens, 4)
        self.out = nn.Linear(4 * n_operands, n_tokens)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.out(self.embed(tokens).flatten(1))


def test_runs_of_a_users_network_are_left_out_and_counted(store: Store, honest: Record) -> None:
    own = trained_record(msu(p=7, batch_size=8, steps=4, model=user_model(OneLayer, n_tokens=7, n_operands=2)))
    put(store, own)
    with pytest.raises(
        RecordError, match="no recorded run to train again; the 1 recorded are of networks of one's own"
    ):
        audit.audit(store, 1)
    put(store, own, honest)
    result = audit.audit(store, 1)
    assert [compared.run for compared in result.runs] == [SPEC.id] and (result.n_recorded, result.n_left_out) == (2, 1)
    assert "1 of 2 recorded runs" in result.draw and "left out of the draw: 1 of users" in result.draw


def test_numbers_that_cannot_be_drawn_are_refused(packed: Store, store: Store) -> None:
    for n in (0, 4):
        with pytest.raises(audit.AuditError, match=f"{n} runs were asked for; from 1 to 3 recorded runs"):
            audit.drawn_runs(packed, n, 0)
    with pytest.raises(RecordError, match="no recorded run to train again: `grokcore runs record"):
        audit.drawn_runs(Store(store.cache, store.cache / "none"), 1, 0)


def test_threads_are_as_they_were(store: Store, honest: Record) -> None:
    put(store, honest)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        audit.audit(store, 1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds of the audits that were made."""
    seeds: list[int] = []

    def counting(store: Store, n: int, seed: int, **options: Any) -> audit.Audit:
        seeds.append(seed)
        return real(store, n, seed, **options)

    real = audit.audit
    monkeypatch.setattr(audit, "audit", counting)
    return seeds


def test_an_audit_of_the_records_is_remembered_until_something_changes(
    store: Store, honest: Record, counted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert audit.audit_of_records(store, print) is None and not counted
    put(store, honest)
    lines: list[str] = []
    first = audit.audit_of_records(store, lines.append)
    assert first is not None and not first.disagreeing and len(lines) == 2 and "of 1 recorded runs again" in lines[0]
    assert audit.audit_of_records(store, lines.append) == first and len(counted) == 1 and len(lines) == 2
    with monkeypatch.context() as patch:
        patch.setattr(audit, "version", lambda name: "another")
        audit.audit_of_records(store, print)
    assert len(counted) == 2 and counted[0] == counted[1]
    put(store, honest, trained_record(replace(SPEC, seed=1)))
    audit.audit_of_records(store, print)
    assert len(counted) == 3 and counted[2] != counted[1]


@pytest.mark.parametrize("damage", ["{", "[]", '{"audit": {}}', None])
def test_a_memory_that_is_damaged_is_not_believed(
    store: Store, honest: Record, counted: list[int], damage: str | None
) -> None:
    put(store, honest)
    audit.audit_of_records(store, print)
    file = store.cache / "executed" / "audit.json"
    stored = json.loads(file.read_text())
    stored["audit"]["runs"][0]["share"] = 1e-9  # nicer than it was
    file.write_text(json.dumps(stored) if damage is None else damage)
    audit.audit_of_records(store, print)
    assert len(counted) == 2


def test_a_disagreement_is_not_remembered(store: Store, counted: list[int]) -> None:
    put(store, trained_record(replace(SPEC, seed=1), SPEC))
    for _ in range(2):
        result = audit.audit_of_records(store, print)
        assert result is not None and result.disagreeing
    assert len(counted) == 2


def test_without_torch_there_is_no_audit_and_that_is_said(
    store: Store, honest: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        raise ModuleNotFoundError(f"no {name}")

    put(store, honest)
    monkeypatch.setattr(audit, "version", version)
    lines: list[str] = []
    assert audit.audit_of_records(store, lines.append) is None and lines == [
        "no recorded run is trained again: no torch"
    ]


def test_the_command_prints_a_table_and_fails_for_what_differs(
    store: Store, honest: Record, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("grokcore.records.store.Store", lambda: store)
    assert main(["audit"]) == 1 and "there is no recorded run to train again" in capsys.readouterr().err
    put(store, honest)
    assert main(["audit", "-n", "2"]) == 2 and "2 runs were asked for; from 1 to 1" in capsys.readouterr().err
    assert main(["audit", "-n", "1"]) == 0
    output = capsys.readouterr().out
    assert (
        "x·y mod 7, grokformer, AdamW, weight decay 1, α = 0.4, seed 0" in output and "1 of 1 recorded runs" in output
    )
    assert "by 0.02 % of the larger value, losses" in output and "agreeing with its record" in output
    seed = output.split("with seed ")[1].split(";")[0]
    assert main(["audit", "-n", "1", "--seed", seed]) == 0 and f"with seed {seed};" in capsys.readouterr().out
    put(store, trained_record(replace(SPEC, seed=1), SPEC))
    assert main(["audit", "-n", "1", "--seed", "4"]) == 1
    output = capsys.readouterr().out
    assert "DIFFERS" in output and "times the tolerance" in output and "NOT what was recorded: 1 of 1" in output


def test_recorded_runs_of_the_repository_agree(tmp_path: Path) -> None:
    """Two sums, and one run of each of two sources; `grokcore audit -n 500` takes all."""
    store = Store(cache=tmp_path)
    runs = [run for run, name in store.recorded().items() if name == "08_k_operand_sums"]
    records = sorted(store.load_all(runs), key=lambda record: record.spec.task.n_operands)[:2]
    records += store.find([msu(), periodic(1)]).values()
    assert len(records) == 4
    for record in records:
        assert comparison.compare(record, *audit.trained_again(record.spec)).agreed, record.spec
