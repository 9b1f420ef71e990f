"""What networks answer on every row of their table: recorded with the runs, so that showing it needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from grokcore.records import weight_tables
from grokcore.records.store import Store
from grokcore.spec import tables
from grokcore.spec.run import RunSpec
from grokcore.sweeps.worker import one_thread

FILE = "answers.csv"  # a line a run and step, its answers in the order of the rows, separated by spaces
COLUMNS = ["run", "step", "row", "answer"]
MOST_ROWS = 1000  # of a table whose answers are recorded


def measure(spec: RunSpec, weights: Mapping[int, Mapping[str, np.ndarray]]) -> pd.DataFrame:
    """Return the answer of a run's network, the token with the largest logit, on every row at every step of `weights`.

    The frame has the columns of `COLUMNS`; rows are numbered as in `tasks.table`. An answer of p or more is a token
    that stands for no number.
    """
    import torch
    from torch.func import functional_call

    from grokcore.nn.build import build_network

    tokens, network, parts = torch.from_numpy(tables.table(spec.task)[0]), build_network(spec), []
    with one_thread(), torch.no_grad():
        for step, named in weights.items():
            state = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in named.items()}
            found = functional_call(network, state, (tokens,)).argmax(1).numpy()
            parts.append(_tidy(spec.id, step, found))
    return pd.concat(parts, ignore_index=True)


def measured(specs: Sequence[RunSpec], store: Store | None = None) -> pd.DataFrame:
    """Return the answers of runs: recorded, else of the weights that `grokcore.sweep(…, keep_weights=…)` kept.

    Raises RecordError for a run that has neither.
    """
    store = store or Store()
    known, wanted = recorded(store), {spec.id: spec for spec in specs}
    at_hand = set(known["run"])
    parts = [known.loc[known["run"].isin(list(wanted))]]
    parts += [measure(spec, store.weights(run)) for run, spec in wanted.items() if run not in at_hand]
    return pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)


def unmeasured(specs: Sequence[RunSpec], store: Store | None = None) -> list[RunSpec]:
    """Return the runs whose answers are not recorded: those whose weights have to be kept."""
    known = set(recorded(store or Store())["run"])
    return [spec for spec in specs if spec.id not in known]


def recorded(store: Store) -> pd.DataFrame:
    """Return what is recorded, a line an answer; raises RecordError if the file is damaged."""
    path = store.records / FILE
    if not path.is_file():
        return pd.DataFrame(columns=pd.Index(COLUMNS))
    lines = weight_tables.read(path, usecols=["run", "step", "answers"], dtype={"run": str, "answers": str})
    found = [np.array(text.split(), dtype=np.int64) for text in lines["answers"]]
    parts = zip(lines["run"], lines["step"], found, strict=True)
    return pd.concat([_tidy(run, step, one) for run, step, one in parts], ignore_index=True)


def record(store: Store, specs: Sequence[RunSpec]) -> None:
    """Add the answers of the runs among these whose weights were kept and that are not recorded yet.

    Tables of more than `MOST_ROWS` rows are left out.
    """
    kept = [spec for spec in unmeasured(specs, store) if store.has_weights(spec.id)]
    new = [spec for spec in kept if spec.task.n_rows <= MOST_ROWS]
    if not new:
        return
    known = recorded(store)
    both = pd.concat([*([known] if len(known) else []), measured(new, store)], ignore_index=True)
    lines = both.groupby(["run", "step"], sort=False)["answer"].agg(lambda found: " ".join(map(str, found)))
    weight_tables.write(store.records / FILE, lines.to_frame("answers").reset_index(), digits=9)


def _tidy(run: str, step: int, found: np.ndarray) -> pd.DataFrame:
    """Return the answers `[n_rows]` at one step as lines of the frame."""
    values = {"run": run, "step": step, "row": np.arange(len(found)), "answer": found}
    return pd.DataFrame(values, columns=pd.Index(COLUMNS))
