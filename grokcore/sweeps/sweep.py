"""Sweeps: load the runs that are at hand, train the rest, save each as it ends, and give one tidy frame."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np
import pandas as pd

from grokcore.records.atomic import uninterrupted
from grokcore.records.record import Record, RecordError
from grokcore.records.store import Store
from grokcore.spec.base import GrokcoreError, SpecError, short_repr
from grokcore.spec.run import RunSpec
from grokcore.sweeps import checkpoint
from grokcore.sweeps.backlog import Options
from grokcore.sweeps.executors import cores, log, workers
from grokcore.sweeps.locks import Reservations
from grokcore.sweeps.pool import device_in, train_all
from grokcore.sweeps.progress import Watch

POLL_INTERVAL = 1.0  # seconds between two looks at what another sweep is doing
SECONDS_PER_FLOP = 1 / 30e9  # of one CPU thread, for an estimate where nothing like the run is recorded


class MissingRuns(GrokcoreError, RuntimeError):
    """Runs that are not recorded while training was not asked for: `specs`, and `hours`, about what they take."""

    def __init__(self, specs: Sequence[RunSpec], hours: float) -> None:
        self.specs, self.hours = list(specs), hours
        super().__init__(
            f"{len(specs)} runs are not recorded, training them takes about {hours:.2g} hours here: "
            "ask for it (--train on the command line, train=True in Python) or name recorded runs"
        )


def sweep(
    specs: Sequence[RunSpec],
    *,
    store: Store | None = None,
    device: str = "auto",
    jobs: int | None = None,
    train: bool = True,
    fresh: bool = False,
    keep_weights: Sequence[int] = (),
    watch: Watch | None = None,
    plain: bool = False,
    checkpoint_every: float = 60.0,
    executor: Executor | None = None,
) -> pd.DataFrame:
    """Return the curves of all runs as one tidy frame, a row a (run, evaluation), training what is not at hand.

    `device` is "auto" (a GPU if there is one), "cpu" or "cuda"; `jobs` processes train on a CPU (default: one
    a core); `fresh` trains all runs anew; `keep_weights` are steps at which weights are kept (`Store.weights`);
    `watch(progress)` is called about once a second; `plain` trains without the engine's short cuts (first-token
    sharing, compilation, CUDA graph), for comparison. Runs are saved as they end, and those under way about every
    `checkpoint_every` seconds: started again after an interruption, a sweep goes on where it was. A group of runs that
    were under way together stays together, and its curves are the same to the last bit. Runs that another sweep on the
    same store is at are waited for.

    `executor` trains in the processes of any `concurrent.futures.Executor` instead of local ones, on machines that have
    the same grokcore; `jobs` is then how many groups it is given at once (default: two for each of its `workers`, or
    for each core of this machine if it does not say how many it has). It is not shut down. Processes that see the
    store's folder write their checkpoints there.

    Raises MissingRuns with `train=False`, RecordError for a damaged record, SpecError for a run that cannot be
    trained, TrainingError for runs that failed after all others are saved, StoreError where nothing can be written,
    CodeError and ExecutorError for an executor with another version or without processes.
    """
    store = store or Store()
    unique = _by_id(specs)
    found = {} if fresh else store.find(unique.values())
    absent = [spec for run, spec in unique.items() if run not in found or not _kept(store, run, keep_weights)]
    if absent and not train:
        raise MissingRuns(absent, estimate(absent, store, workers(executor, jobs)))
    if absent:
        how = (tuple(keep_weights), plain, store.checkpoints, checkpoint_every, executor)
        options = Options(device_in(executor, device), jobs, *how)
        found |= _trained(absent, list(unique.values()), store, options, fresh, watch)
    return frame([found[run] for run in unique])


def _trained(
    absent: list[RunSpec], asked: list[RunSpec], store: Store, options: Options, fresh: bool, watch: Watch | None
) -> dict[str, Record]:
    """Train runs and save each as it ends; return the records by run id, also those that another sweep made."""
    found, said = dict[str, Record](), False

    def at_hand(spec: RunSpec) -> bool:
        return not fresh and store.saved_at(spec.id) is not None and _kept(store, spec.id, options.keep)

    store.clear_leftovers()
    checkpoint.clear(store, [spec.id for spec in asked] if fresh else [])
    try:
        with Reservations(store.cache / "sweeps") as reservations:
            while left := [spec for spec in absent if spec.id not in found]:
                wanted = {spec.id for spec in left}
                for record, weights in train_all(left, asked, options, reservations, at_hand, watch):
                    if record.spec.id in wanted:  # others only belong to a group on its way
                        with uninterrupted():
                            store.save(record, weights)
                            found[record.spec.id] = record
                while others := [spec for spec in left if spec.id not in found]:
                    found |= {spec.id: store.load(spec.id) for spec in others if at_hand(spec)}
                    if not reservations.busy(spec.id for spec in others):
                        break
                    if not said:
                        log.warning(f"{len(others)} runs are left to another sweep on this store: waiting for it")
                    said = True
                    time.sleep(POLL_INTERVAL)
    except KeyboardInterrupt as error:
        n = len(list(store.checkpoints.glob("*.safetensors")))
        error.add_note(f"{len(found)} of {len(absent)} runs are saved, and there are {n} checkpoints to go on from")
        raise
    return found


def frame(records: Sequence[Record]) -> pd.DataFrame:
    """Return records as one tidy frame: columns of the specification, status, sizes of the sets, then the curve."""
    parts = []
    for record in records:
        spec = record.spec
        sizes = {"n_train": spec.n_train, "n_val": spec.task.n_rows - spec.n_train}
        fixed = {**spec.columns(), "status": record.status, **sizes}
        repeated = pd.DataFrame({name: [value] * len(record.curve) for name, value in fixed.items()})
        parts.append(pd.concat([repeated, record.curve.reset_index(drop=True)], axis=1))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def missing(specs: Sequence[RunSpec], store: Store | None = None) -> list[RunSpec]:
    """Return the specifications that are neither recorded nor in the cache, each once."""
    unique = _by_id(specs)
    found = (store or Store()).find(unique.values())
    return [spec for run, spec in unique.items() if run not in found]


def _by_id(specs: Iterable[RunSpec]) -> dict[str, RunSpec]:
    """Return specifications by id; raises SpecError if they are none, or one that stands alone."""
    given = [specs] if isinstance(specs, RunSpec) else list(specs)
    for spec in given:
        if isinstance(specs, RunSpec) or not isinstance(spec, RunSpec):
            raise SpecError(
                f"a list of RunSpec is expected, as [grokcore.msu()]; {short_repr(spec)} was given in its place"
            )
    return {spec.id: spec for spec in given}


def estimate(specs: Sequence[RunSpec], store: Store | None = None, jobs: int | None = None) -> float:
    """Return about how many hours runs take on this CPU, from what is recorded of their like, else from their size.

    `jobs` is the number of processes (default: one a core).
    """
    store = store or Store()
    rates: dict[Any, list[float]] = {}
    for experiment in store.experiments():
        for run, header in store.headers(experiment).items():
            try:
                spec = RunSpec.model_validate(header["spec"])
                seconds = float(header["provenance"]["seconds"])
                if not 0 <= seconds < np.inf:
                    raise ValueError(f"its time is {seconds} s")
                rates.setdefault(_like(spec), []).append(seconds / spec.steps)
            except (KeyError, TypeError, ValueError) as error:
                what = f"{experiment}.json: run {short_repr(run)} has no specification and time ({error!r})"
                raise RecordError(f"{what}: restore the file from version control") from None
    seconds = sum(spec.steps * float(np.median(rates.get(_like(spec), [_guess(spec)]))) for spec in specs)
    return seconds / 3600 / max(1, min(jobs or cores(), len(specs)))


def _like(spec: RunSpec) -> Any:
    """Return what a step's time depends on."""
    return spec.model.model_dump_json(), spec.task.p, spec.batch_size, spec.precision


def _guess(spec: RunSpec) -> float:
    sizes = (("n_layers", 2), ("d_model", 128), ("d_mlp", 512))
    layers, width, hidden = (getattr(spec.model, name, usual) for name, usual in sizes)
    flops = 6 * min(spec.batch_size, spec.n_train) * layers * (4 * width * width + 2 * width * hidden)
    return 2e-3 + flops * SECONDS_PER_FLOP


def _kept(store: Store, run: str, steps: Sequence[int]) -> bool:
    """Tell whether the weights of a run at hand were kept at all these steps, as far as it got there."""
    wanted = {step for step in steps if step <= store.load(run).curve["step"].iloc[-1]} if steps else set()
    return not wanted or (store.has_weights(run) and wanted <= set(store.weights(run)))
