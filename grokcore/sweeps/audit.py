"""Recorded runs trained again: some drawn by chance, their first steps, every measure compared with the record.

That a record is whole (`records.verify`) does not say that its specification gives these numbers; this does. The steps
are taken plainly, without the engine's short cuts, so that these are checked too.

An audit finds what changes a measure within these steps by more than its tolerance (`comparison`): another learning
rate (by 1 %: its own measure shows it at once), seed, split or order of batches, a warm-up or weight decay left out. It
does not find what comes later in a run, a bound on the gradient that no step reaches by then, or a weight decay d left
out that takes less than 2e-4 off the weights by then (AdamW: the sum of lr·d over the steps, as in `pku`'s sums). A
network whose loss jumps from step to step, at the edge of divergence, enlarges rounding by more than the tolerances
allow for: a difference of such a run proves nothing.
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
from grokcore.sweeps.comparison import STEPS, Comparison, compare

RUNS = 3  # of an audit, by default


class AuditError(GrokcoreError, ValueError):
    """A number of runs that cannot be drawn; the message says how many can."""

    exit_code = 2


class _LastStep(Exception):
    """The last step to be compared has been evaluated."""


@dataclass(frozen=True)
class Audit:
    """Recorded runs trained again.

    Attributes:
        seed: The seed of the draw.
        n_recorded: How many runs are recorded.
        n_left_out: How many of them could not be drawn: those of a user's network.
        runs: The runs drawn, each compared with its record.
        versions: Of the packages and the device, see `worker.versions`.
        date: When the audit was made, in ISO format.
    """

    seed: int
    n_recorded: int
    n_left_out: int
    runs: tuple[Comparison, ...]
    versions: dict[str, Any]
    date: str

    @property
    def disagreeing(self) -> list[Comparison]:
        """The runs that are not what was recorded."""
        return [run for run in self.runs if not run.agreed]

    @property
    def draw(self) -> str:
        """What was drawn, in words."""
        drawn = f"{len(self.runs)} of {self.n_recorded} recorded runs, drawn by chance with seed {self.seed}"
        left_out = f"; left out of the draw: {self.n_left_out} of users’ own networks" if self.n_left_out else ""
        return drawn + left_out

    @property
    def result(self) -> str:
        """What came out, in words."""
        if not self.disagreeing:
            return f"agreeing with its record, within the tolerance: {len(self.runs)} of {len(self.runs)}"
        ids = ", ".join(run.run for run in self.disagreeing)
        return f"NOT what was recorded: {len(self.disagreeing)} of {len(self.runs)} ({ids})"


def _recorded(store: Store) -> dict[str, tuple[str, str]]:
    """Return model and checksum of every recorded run, by id; raises RecordError if a header lacks them."""
    runs = {}
    for experiment in store.experiments():
        for run, header in store.headers(experiment).items():
            try:
                runs[run] = header["spec"]["model"]["name"], header["sha256"]
            except (KeyError, TypeError) as error:
                advice = "restore the file from version control"
                raise RecordError(f"{experiment}.json: run {run} cannot be read ({error!r}): {advice}") from None
    return dict(sorted(runs.items()))


def candidates(store: Store) -> tuple[list[str], int]:
    """Return the recorded runs that can be trained again, and how many cannot: those of a user's network.

    Args:
        store: Whose records are meant.

    Returns:
        The ids, sorted, and a number of runs.

    Raises:
        RecordError: If the list of an experiment is damaged.
    """
    models = {run: model for run, (model, _) in _recorded(store).items()}
    trainable = [run for run, model in models.items() if model != "user"]
    return trainable, len(models) - len(trainable)


def drawn_runs(store: Store, n: int, seed: int) -> list[str]:
    """Return recorded runs, drawn by chance without replacement; the same ones for the same seed and records.

    Args:
        store: Whose records are meant.
        n: How many runs are drawn.
        seed: The seed of the draw.

    Returns:
        Their ids.

    Raises:
        RecordError: If nothing is recorded.
        AuditError: If so many cannot be drawn.

    Example:
        >>> store = Store()
        >>> len(drawn_runs(store, 3, seed=0)), drawn_runs(store, 3, seed=0) == drawn_runs(store, 3, seed=0)
        (3, True)
    """
    trainable, n_left_out = candidates(store)
    if not trainable:
        reason = f"; the {n_left_out} recorded are of networks of one's own" if n_left_out else ""
        raise RecordError(
            f"there is no recorded run to train again{reason}: `grokcore runs record NOTEBOOK` packs runs"
        )
    if not 1 <= n <= len(trainable):
        raise AuditError(f"{n} runs were asked for; from 1 to {len(trainable)} recorded runs can be trained again")
    places = np.random.default_rng(seed).choice(len(trainable), n, replace=False)
    return [trainable[place] for place in places]


def audit(
    store: Store,
    n: int = RUNS,
    seed: int = 0,
    device: str = "cpu",
    say: Callable[[str], None] | None = None,
) -> Audit:
    """Train the first steps of some recorded runs again and compare them with their records.

    Args:
        store: Whose records are meant.
        n: How many runs are drawn.
        seed: The seed of the draw.
        device: Where they are trained, "cpu" or a CUDA device.
        say: Called with a line for each run.

    Returns:
        What was drawn, and how each run compares with its record.

    Raises:
        RecordError: If nothing is recorded, or a record is damaged.
        AuditError: If so many runs cannot be drawn.
    """
    trainable, n_left_out = candidates(store)
    comparisons = []
    for run in drawn_runs(store, n, seed):
        record = store.load(run)
        with worker.one_thread(device):
            comparisons.append(compare(record, *trained_again(record.spec, device)))
        if say is not None:
            say(str(comparisons[-1]))
    return Audit(
        seed=seed,
        n_recorded=len(trainable) + n_left_out,
        n_left_out=n_left_out,
        runs=tuple(comparisons),
        versions=worker.versions(device),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def trained_again(spec: RunSpec, device: str = "cpu") -> tuple[pd.DataFrame, str | None]:
    """Train the first steps of a run again.

    Args:
        spec: The run.
        device: Where it is trained, "cpu" or a CUDA device.

    Returns:
        Its curve up to `STEPS` as a record would hold it, one row per evaluation, and its status; None if it goes on.
    """
    from grokcore.engine.train import train

    rows: list[dict[str, float]] = []
    status = None

    def watch(step: int, evaluated: dict[str, dict[str, float]]) -> None:
        rows.append(evaluated[spec.id])
        if STEPS <= step < spec.steps:
            raise _LastStep

    with contextlib.suppress(_LastStep):
        for run in train([spec], device, plain=True, watch=watch):
            status = run.status
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return make_record(spec, columns, "", {}).curve, status


def audit_of_records(store: Store, say: Callable[[str], None]) -> Audit | None:
    """Return an audit of `RUNS` recorded runs on this CPU, drawn by a seed that nobody picks.

    The seed comes from the ids and checksums of the records. An audit in which all runs agree is stored in the cache
    and returned again until the records, the package, versions or processor change.

    Args:
        store: Whose records are meant.
        say: Called with a line before runs are trained, and for each of them.

    Returns:
        The audit; None if there is no run that can be trained again, or no torch.

    Raises:
        RecordError: If a record is damaged.
    """
    trainable, _ = candidates(store)
    if not trainable:
        return None
    checksums = [(run, checksum) for run, (_, checksum) in _recorded(store).items()]
    records = hashlib.sha256(json.dumps(checksums).encode()).hexdigest()
    file = store.cache / "executed" / "audit.json"
    try:
        key = _key(records)
        result = _stored_audit(file, key)
        if result is None:
            n = min(RUNS, len(trainable))
            say(f"training the first {STEPS} steps of {n} recorded runs again")
            result = audit(store, n, int(records[:8], 16), say=say)
            if not result.disagreeing:
                content = asdict(result)
                with atomic_write(file) as path:
                    path.write_text(json.dumps({"sha256": _sum(key, content), "audit": content}, indent=1) + "\n")
        return result
    except ImportError as error:  # a report is made from records without torch as well
        say(f"no recorded run is trained again: {error}")
        return None


def _key(records: str) -> str:
    """Return the SHA-256 of what an audit depends on; torch is asked for its version without being imported."""
    machine = [version("torch"), version("numpy"), platform.python_version(), platform.machine(), platform.processor()]
    return hashlib.sha256(json.dumps([records, machine, worker.CODE]).encode()).hexdigest()


def _sum(key: str, content: dict[str, Any]) -> str:
    """Return the checksum of an audit that is stored under a key."""
    return hashlib.sha256(json.dumps([key, content], sort_keys=True).encode()).hexdigest()


def _stored_audit(file: Path, key: str) -> Audit | None:
    """Return the audit that is stored under this key; None if there is none, or not as it was written."""
    try:
        stored = json.loads(file.read_text())
        content = stored["audit"]
        if stored["sha256"] != _sum(key, content):
            return None
        runs = tuple(Comparison(**run) for run in content.pop("runs"))
        return Audit(runs=runs, **content)
    except (OSError, ValueError, TypeError, KeyError):
        return None
