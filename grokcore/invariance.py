"""Scale invariance of recorded networks: measured when they are recorded, so that judging it needs no torch."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from grokcore import measurements
from grokcore.architectures import PeriodicConfig
from grokcore.spec import RunSpec
from grokcore.store import Store

FILE = "invariance.csv"
COLUMNS = ["run", "parameter", "n_weights", "change", "scale_invariant"]


def recorded(store: Store) -> pd.DataFrame:
    """Return what is recorded of `measures.scale_invariance`, with the column `run`; raises RecordError if damaged."""
    path = store.records / FILE
    if not path.is_file():
        return pd.DataFrame(columns=pd.Index(COLUMNS))
    return measurements.read(path, usecols=COLUMNS, dtype={"run": str})


def record(store: Store, specs: Sequence[RunSpec]) -> None:
    """Measure the networks of the source `periodic` among these runs that are not recorded yet, and add them."""
    known = recorded(store)
    wanted = {spec.id: spec for spec in specs if isinstance(spec.model, PeriodicConfig)}
    new = [spec for run, spec in wanted.items() if run not in set(known["run"])]
    if not new:
        return
    from grokcore.measures import scale_invariance

    measured = pd.concat([scale_invariance(spec).assign(run=spec.id) for spec in new])
    both = pd.concat([known, measured], ignore_index=True) if len(known) else measured
    measurements.write(store.records / FILE, both.loc[:, COLUMNS], digits=9)
