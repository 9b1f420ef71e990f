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
    """Measure the networks of the source `periodic` among these runs that are not recorded yet, and add them."""
    known = recorded(store)
    wanted = {spec.id: spec for spec in specs if isinstance(spec.model, PeriodicConfig)}
    new = [spec for run, spec in wanted.items() if run not in set(known["run"])]
    if not new:
        return
    measured = pd.concat([scale_invariance(spec).assign(run=spec.id) for spec in new])
    both = pd.concat([known, measured], ignore_index=True) if len(known) else measured
    weight_tables.write(store.records / FILE, both.loc[:, COLUMNS], digits=9)


def scale_invariance(spec: RunSpec, factor: float = 2.0) -> pd.DataFrame:
    """Measure how far log p(y|x) moves when weights are multiplied by `factor`, at initialisation, in float64.

    Returns a row a weight tensor, and the rows "scale-invariant subset" and "all weights": columns `parameter`,
    `n_weights`, `change` (largest absolute change of a log-probability over the whole table) and `scale_invariant`
    (in the declared subset). A change is relative to none (0): LayerNorm's eps alone leaves about 1e-5. Source:
    `periodic`, section 1.
    """
    import torch
    from torch.func import functional_call

    from grokcore.nn.build import build_network

    model = build_network(spec.model_copy(update={"precision": "float64"}))
    tokens = torch.from_numpy(tables.table(spec.task)[0])
    weights = dict(model.named_parameters())
    subset = set(getattr(model, "scale_invariant", ()))
    reference = model(tokens).log_softmax(-1).detach()
    groups = (
        {name: {name} for name in weights}
        | ({"scale-invariant subset": subset} if subset else {})
        | {"all weights": set(weights)}
    )
    rows = []
    for name, scaled in groups.items():
        changed = {key: value * factor if key in scaled else value for key, value in weights.items()}
        with torch.no_grad():
            moved = functional_call(model, changed, (tokens,)).log_softmax(-1) - reference
        size = sum(weights[key].numel() for key in scaled)
        rows.append(
            {
                "parameter": name,
                "n_weights": size,
                "change": moved.abs().max().item(),
                "scale_invariant": scaled <= subset,
            }
        )
    return pd.DataFrame(rows)
