"""Scale invariance of recorded networks: measured when they are recorded, so that judging it needs no torch."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from grokcore.records import weight_tables
from grokcore.records.store import Store
from grokcore.spec import tables
from grokcore.spec.networks import PeriodicConfig
from grokcore.spec.run import RunSpec

FILE = "invariance.csv"
COLUMNS = ["run", "parameter", "n_weights", "change", "scale_invariant"]


def recorded(store: Store) -> pd.DataFrame:
    """Return what is recorded of `scale_invariance`, with the column `run`; raises RecordError if damaged."""
    path = store.records / FILE
    if not path.is_file():
        return pd.DataFrame(columns=pd.Index(COLUMNS))
    return weight_tables.read(path, usecols=COLUMNS, dtype={"run": str})


def record(store: Store, specs: Sequence[RunSpec]) -> None:
    """Measure and record the networks of the source `periodic` among these runs that are not recorded yet."""
    before = recorded(store)
    by_id = {spec.id: spec for spec in specs if isinstance(spec.model, PeriodicConfig)}
    new = [spec for run, spec in by_id.items() if run not in set(before["run"])]
    if not new:
        return
    measured = pd.concat([scale_invariance(spec).assign(run=spec.id) for spec in new])
    everything = pd.concat([before, measured], ignore_index=True) if len(before) else measured
    weight_tables.write(store.records / FILE, everything.loc[:, COLUMNS], digits=9)


def scale_invariance(spec: RunSpec, factor: float = 2.0) -> pd.DataFrame:
    """Measure how far log p(y|x) moves when weights are multiplied by a factor, at initialisation, in float64.

    Source: `periodic`, section 1.

    Args:
        spec: the run whose network is measured.
        factor: by which the weights are multiplied.

    Returns:
        A row for each weight tensor, and the rows "scale-invariant subset" (if the network declares one) and "all
        weights". Columns: `parameter`; `n_weights`; `change`, the largest absolute change of a log-probability over
        the whole table, in nats; `scale_invariant`, whether the weights are in the declared subset. LayerNorm's eps
        alone causes a change of about 1e-5.
    """
    import torch
    from torch.func import functional_call

    from grokcore.nn.build import build_network

    model = build_network(spec.model_copy(update={"precision": "float64"}))
    tokens = torch.from_numpy(tables.table(spec.task)[0])
    weights = dict(model.named_parameters())
    subset: set[str] = set(getattr(model, "scale_invariant", ()))
    reference = model(tokens).log_softmax(-1).detach()
    groups = {name: {name} for name in weights}
    if subset:
        groups["scale-invariant subset"] = subset
    groups["all weights"] = set(weights)
    rows = []
    for name, scaled in groups.items():
        changed = {key: value * factor if key in scaled else value for key, value in weights.items()}
        with torch.no_grad():
            change = functional_call(model, changed, (tokens,)).log_softmax(-1) - reference
        rows.append(
            {
                "parameter": name,
                "n_weights": sum(weights[key].numel() for key in scaled),
                "change": change.abs().max().item(),
                "scale_invariant": scaled <= subset,
            }
        )
    return pd.DataFrame(rows)
