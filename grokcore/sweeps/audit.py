"""Recorded runs trained again: some drawn by chance, their first steps, every measure held against the record.

That a record is whole (`verification`) does not say that its specification gives these numbers; this does. The steps
are taken plainly, without the engine's short cuts, so that these are checked too.

Found is what changes a measure within these steps by more than its tolerance (`agreement`): another learning rate (by
1 %: its own measure tells it at once), seed, split or order of batches, a warm-up or weight decay left out. Not found
is what comes later in a run, a bound on the gradient that no step meets by then, and a weight decay d left out that
takes less than 2e-4 off the weights by then (AdamW: the sum of lr·d over the steps, as in `pku`'s sums). And a network
whose loss jumps from step to step, at the edge of divergence, enlarges rounding faster than this allows for: of such a
run a difference proves nothing.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from grokcore.records.atomic import atomic_write
from grokcore.records.record import RecordError, make_record
from grokcore.records.store import Store
from grokcore.spec.base import GrokcoreError
from grokcore.spec.run import RunSpec
from grokcore.sweeps import worker
from grokcore.sweeps.comparison import STEPS, Compared, compare

RUNS = 3  # of an audit, if nobody says another number


class AuditError(GrokcoreError, ValueError):
    """A number of runs that cannot be drawn; the message says how many can."""

    exit_code = 2


class _Enough(Exception):
    """The last step to be compared has been evaluated."""


@dataclass(frozen=True)
class Audit:
    """Recorded runs trained again: drawn of how many, left out of the draw how many, when, and with what."""

    seed: int
    n_recorded: int
    n_left_out: int
    runs: tuple[Compared, ...]
    versions: dict[str, Any]
    date: str

    @property
    def disagreeing(self) -> list[Compared]:
        """The runs that are not what was recorded."""
        return [one for one in self.runs if not one.agreed]

    @property
    def draw(self) -> str:
        """What was drawn, in words."""
        of = f"{len(self.runs)} of {self.n_recorded} recorded runs, drawn by chance with seed {self.seed}"
        return f"{of}{f'; left out of the draw: {self.n_left_out} of users’ own networks' if self.n_left_out else ''}"

    @property
    def result(self) -> str:
        """What came out, in words."""
        if not self.disagreeing:
            return f"agreeing with its record, within the tolerance: {len(self.runs)} of {len(self.runs)}"
        named = ", ".join(one.run for one in self.disagreeing)
        return f"NOT what was recorded: {len(self.disagreeing)} of {len(self.runs)} ({named})"


def _recorded(store: Store) -> dict[str, tuple[str, str]]:
    """Return the model and the checksum of every recorded run; raises RecordError if the records do not say."""
    found = {}
    for experiment in store.experiments():
        for run, header in store.headers(experiment).items():
            try:
                found[run] = header["spec"]["model"]["name"], header["sha256"]
            except (KeyError, TypeError) as error:
                advice = "restore the file from version control"
                raise RecordError(f"{experiment}.json: run {run} cannot be read ({error!r}): {advice}") from None
    return dict(sorted(found.items()))


def candidates(store: Store) -> tuple[list[str], int]:
    """Return the recorded runs that can be trained again, and how many cannot: those of a user's network."""
    models = {run: model for run, (model, _) in _recorded(store).items()}
    known = [run for run, model in models.items() if model != "user"]
    return known, len(models) - len(known)


def drawn(store: Store, n: int, seed: int) -> list[str]:
    """Return n recorded runs, drawn by chance without replacement; the same for the same seed and records.

    Raises RecordError if nothing is recorded, AuditError if so many cannot be drawn.
    """
    known, left_out = candidates(store)
    if not known:
        also = f"; the {left_out} recorded are of networks of one's own" if left_out else ""
        raise RecordError(f"there is no recorded run to train again{also}: `grokcore runs record NOTEBOOK` packs runs")
    if not 1 <= n <= len(known):
        raise AuditError(f"{n} runs were asked for; from 1 to {len(known)} recorded runs can be trained again")
    return [known[place] for place in np.random.default_rng(seed).choice(len(known), n, replace=False)]


def audit(
    store: Store, n: int = RUNS, seed: int = 0, device: str = "cpu", say: Callable[[str], None] | None = None
) -> Audit:
    """Train the first steps of n recorded runs again and compare; `say` is told of each. Raises as `drawn`."""
    known, left_out = candidates(store)
    done = []
    for run in drawn(store, n, seed):
        record = store.load(run)
        with worker.one_thread(device):
            done.append(compare(record, *trained_again(record.spec, device)))
        if say is not None:
            say(str(done[-1]))
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Audit(seed, len(known) + left_out, left_out, tuple(done), worker.versions(device), date)


def trained_again(spec: RunSpec, device: str = "cpu") -> tuple[pd.DataFrame, str | None]:
    """Return a run's curve up to `STEPS`, as a record would hold it, and its status if it has ended until then."""
    from grokcore.engine.train import train

    rows: list[dict[str, float]] = []
    status = None

    def note(step: int, evaluated: dict[str, dict[str, float]]) -> None:
        rows.append(evaluated[spec.id])
        if STEPS <= step < spec.steps:
            raise _Enough

    with contextlib.suppress(_Enough):
        for run in train([spec], device, plain=True, watch=note):
            status = run.status
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return make_record(spec, columns, "", {}).curve, status


def of_records(store: Store, say: Callable[[str], None]) -> Audit | None:
    """Return an audit of `RUNS` recorded runs on this CPU, drawn by a seed that nobody picks; None if there are none.

    The seed comes from the ids and checksums of the records. An audit in which all runs agree is remembered in the
    cache and stands until the records, the package, versions or processor change.
    """
    known, _ = candidates(store)
    if not known:
        return None
    checksums = [(run, checksum) for run, (_, checksum) in _recorded(store).items()]
    records = hashlib.sha256(json.dumps(checksums).encode()).hexdigest()
    file = store.cache / "executed" / "audit.json"
    try:
        key = _key(records)
        made = _remembered(file, key)
        if made is None:
            n = min(RUNS, len(known))
            say(f"training the first {STEPS} steps of {n} recorded runs again")
            made = audit(store, n, int(records[:8], 16), say=say)
            if not made.disagreeing:
                told = asdict(made)
                with atomic_write(file) as path:
                    path.write_text(json.dumps({"sha256": _sum(key, told), "audit": told}, indent=1) + "\n")
        return made
    except ImportError as error:  # a report is made from records without torch as well
        say(f"no recorded run is trained again: {error}")
        return None


def _key(records: str) -> str:
    """Return what an audit hangs on, as a SHA-256; torch is asked for its version without being loaded."""
    machine = [version("torch"), version("numpy"), platform.python_version(), platform.machine(), platform.processor()]
    return hashlib.sha256(json.dumps([records, machine, worker.CODE]).encode()).hexdigest()


def _sum(key: str, told: dict[str, Any]) -> str:
    """Return the checksum of an audit that is remembered under a key."""
    return hashlib.sha256(json.dumps([key, told], sort_keys=True).encode()).hexdigest()


def _remembered(file: Path, key: str) -> Audit | None:
    """Return the audit that is remembered under this key; None if there is none, or not as it was written."""
    try:
        kept = json.loads(file.read_text())
        told = kept["audit"]
        if kept["sha256"] != _sum(key, told):
            return None
        return Audit(**{**told, "runs": tuple(Compared(**one) for one in told["runs"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
