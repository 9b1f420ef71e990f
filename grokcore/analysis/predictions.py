"""What networks predict on every row of their table: recorded with the runs, so that showing it needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from grokcore.records import weight_tables
from grokcore.records.store import Store
from grokcore.spec import tables
from grokcore.spec.run import RunSpec
from grokcore.sweeps.worker import one_thread

FILE = "answers.csv"  # one line for each run and step: the predictions in the order of the rows, separated by spaces
COLUMNS = ["run", "step", "row", "answer"]
MOST_ROWS = 1000  # of a table whose predictions are recorded


def measure(spec: RunSpec, weights: Mapping[int, Mapping[str, np.ndarray]]) -> pd.DataFrame:
    """Return what a run's network predicts on every row of its table: the token with the largest logit.

    Args:
        spec: the run.
        weights: by step, the network's weights by name.

    Returns:
        A frame with the columns `COLUMNS`, a line for each step and row; rows are numbered as in `spec.tables.table`,
        and `answer` is the token. A token of p or more stands for no number.
    """
    import torch
    from torch.func import functional_call

    from grokcore.nn.build import build_network

    tokens, network = torch.from_numpy(tables.table(spec.task)[0]), build_network(spec)
    frames = []
    with one_thread(), torch.no_grad():
        for step, named in weights.items():
            state = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in named.items()}
            predicted = functional_call(network, state, (tokens,)).argmax(1).numpy()
            frames.append(_tidy(spec.id, step, predicted))
    return pd.concat(frames, ignore_index=True)


def measured(specs: Sequence[RunSpec], store: Store | None = None) -> pd.DataFrame:
    """Return the predictions of runs, as `measure` does.

    Args:
        specs: the runs.
        store: where they are (default: the store of the repository).

    Returns:
        What is recorded; for the other runs, what the weights that `grokcore.sweep(…, keep_weights=…)` kept predict.

    Raises:
        RecordError: a run has neither, or the file is damaged.
    """
    store = store or Store()
    before, by_id = recorded(store), {spec.id: spec for spec in specs}
    recorded_runs = set(before["run"])
    frames = [before.loc[before["run"].isin(list(by_id))]]
    frames += [measure(spec, store.weights(run)) for run, spec in by_id.items() if run not in recorded_runs]
    return pd.concat([frame for frame in frames if len(frame)] or frames, ignore_index=True)


def unmeasured(specs: Sequence[RunSpec], store: Store | None = None) -> list[RunSpec]:
    """Return the runs whose predictions are not recorded: those whose weights have to be kept."""
    recorded_runs = set(recorded(store or Store())["run"])
    return [spec for spec in specs if spec.id not in recorded_runs]


def recorded(store: Store) -> pd.DataFrame:
    """Return what is recorded, as `measure` does; raises RecordError if the file is damaged."""
    path = store.records / FILE
    if not path.is_file():
        return pd.DataFrame(columns=pd.Index(COLUMNS))
    lines = weight_tables.read(path, usecols=["run", "step", "answers"], dtype={"run": str, "answers": str})
    predicted = [np.array(text.split(), dtype=np.int64) for text in lines["answers"]]
    by_step = zip(lines["run"], lines["step"], predicted, strict=True)
    return pd.concat([_tidy(run, step, tokens) for run, step, tokens in by_step], ignore_index=True)


def record(store: Store, specs: Sequence[RunSpec]) -> None:
    """Record what the networks of these runs predict, of those whose weights were kept and that are not recorded yet.

    Tables of more than `MOST_ROWS` rows are left out.
    """
    kept = [spec for spec in unmeasured(specs, store) if store.has_weights(spec.id)]
    new = [spec for spec in kept if spec.task.n_rows <= MOST_ROWS]
    if not new:
        return
    frames = [frame for frame in (recorded(store), measured(new, store)) if len(frame)]
    everything = pd.concat(frames, ignore_index=True)
    lines = everything.groupby(["run", "step"], sort=False)["answer"].agg(lambda tokens: " ".join(map(str, tokens)))
    weight_tables.write(store.records / FILE, lines.to_frame("answers").reset_index(), digits=9)


def _tidy(run: str, step: int, predicted: np.ndarray) -> pd.DataFrame:
    """Return the tokens `[n_rows]` predicted at one step as lines of the frame."""
    values = {"run": run, "step": step, "row": np.arange(len(predicted)), "answer": predicted}
    return pd.DataFrame(values, columns=pd.Index(COLUMNS))
