"""Sweeps: load the runs that are available, train the rest, save each as it ends, and return one tidy frame."""

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
from grokcore.sweeps.backlog import SweepOptions
from grokcore.sweeps.executors import cores, log, workers
from grokcore.sweeps.locks import Reservations
from grokcore.sweeps.pool import device_for, train_all
from grokcore.sweeps.progress import Watch

POLL_INTERVAL = 1.0  # seconds between two looks at the runs of another sweep
SECONDS_PER_FLOP = 1 / 30e9  # of one CPU thread, for an estimate where no similar run is recorded


class MissingRuns(GrokcoreError, RuntimeError):
    """Runs that are not recorded while training was not asked for.

    Attributes:
        specs: The runs.
        hours: About how long they take to train on this machine.
    """

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
    """Return the curves of all runs as one tidy frame, training the runs that are not available.

    Runs are saved as they end. Started again after an interruption, a sweep goes on from its checkpoints. A group of
    runs that trained together stays together, and its curves are the same to the last bit. Runs that another sweep on
    the same store is training are waited for.

    Args:
        specs: The runs; a run given twice is trained once.
        store: Where runs are loaded from and saved to; default: `Store()`.
        device: "auto" (a GPU if there is one), "cpu" or "cuda".
        jobs: How many processes train on a CPU; default: one a core. With `executor` how many groups of runs it is
            given at once; default: two for each of its `workers`, or for each core of this machine if it has no such
            attribute.
        train: Whether runs that are not available are trained.
        fresh: Whether available runs are trained again.
        keep_weights: Steps at which weights are kept, for `Store.weights`.
        watch: Called with a `Progress` about once a second.
        plain: Whether the engine's short cuts (first-token sharing, compilation, CUDA graph) are left out, for
            comparison.
        checkpoint_every: Seconds between two checkpoints of runs that are being trained.
        executor: Any `concurrent.futures.Executor` whose processes, on machines that have the same grokcore, train
            instead of local ones. It is not shut down. Processes that see the store's folder write checkpoints there.

    Returns:
        One row per run and evaluation, in the order of `specs`: the columns of the specification, `status`, `n_train`,
        `n_val`, `step`, then the measures.

    Raises:
        MissingRuns: If runs are not available and `train` is False.
        RecordError: If a record is damaged.
        SpecError: If a run cannot be trained, or `specs` is no list of them.
        DeviceError: If the device is not there.
        TrainingError: If runs failed, after all others are saved.
        StoreError: If a file cannot be written.
        CodeError: If a process of the executor has another version of grokcore.
        ExecutorError: If the executor has no processes.

    Example:
        >>> from grokcore import msu
        >>> curves = sweep([msu()], train=False)  # a recorded run: nothing is trained
        >>> len(curves), curves["status"].unique().tolist()
        (84, ['finished'])
    """
    store = store or Store()
    requested = _by_id(specs)
    records = {} if fresh else store.find(requested.values())
    absent = [s for run, s in requested.items() if run not in records or not _has_weights(store, run, keep_weights)]
    if absent and not train:
        raise MissingRuns(absent, estimate(absent, store, workers(executor, jobs)))
    if absent:
        options = SweepOptions(
            device=device_for(executor, device),
            jobs=jobs,
            keep_weights=tuple(keep_weights),
            plain=plain,
            fresh=fresh,
            checkpoints=store.checkpoints,
            checkpoint_every=checkpoint_every,
            executor=executor,
            watch=watch,
        )
        records |= _trained(absent, list(requested.values()), store, options)
    return frame([records[run] for run in requested])


def _trained(absent: list[RunSpec], requested: list[RunSpec], store: Store, options: SweepOptions) -> dict[str, Record]:
    """Train runs and save each as it ends; return the records by run id, also those that another sweep made."""
    records, noticed = dict[str, Record](), False

    def is_available(spec: RunSpec) -> bool:
        saved = not options.fresh and store.saved_at(spec.id) is not None
        return saved and _has_weights(store, spec.id, options.keep_weights)

    store.clear_leftovers()
    checkpoint.clear(store, [spec.id for spec in requested] if options.fresh else [])
    try:
        with Reservations(store.cache / "sweeps") as reservations:
            while left := [spec for spec in absent if spec.id not in records]:
                ids = {spec.id for spec in left}
                for record, weights in train_all(left, requested, options, reservations, is_available):
                    if record.spec.id in ids:  # others only belong to a group with a checkpoint
                        with uninterrupted():
                            store.save(record, weights)
                            records[record.spec.id] = record
                while others := [spec for spec in left if spec.id not in records]:
                    records |= {spec.id: store.load(spec.id) for spec in others if is_available(spec)}
                    if not reservations.busy(spec.id for spec in others):
                        break
                    if not noticed:
                        log.warning(f"{len(others)} runs are left to another sweep on this store: waiting for it")
                    noticed = True
                    time.sleep(POLL_INTERVAL)
    except KeyboardInterrupt as error:
        n = len(list(store.checkpoints.glob("*.safetensors")))
        error.add_note(f"{len(records)} of {len(absent)} runs are saved, and there are {n} checkpoints to go on from")
        raise
    return records


def frame(records: Sequence[Record]) -> pd.DataFrame:
    """Return records as one tidy frame.

    Args:
        records: The records, in the order of the rows.

    Returns:
        One row per run and evaluation: the columns of the specification, `status`, the sizes `n_train` and `n_val` of
        the sets, then the curve.
    """
    frames = []
    for record in records:
        spec = record.spec
        sizes = {"n_train": spec.n_train, "n_val": spec.task.n_rows - spec.n_train}
        fixed = {**spec.columns(), "status": record.status, **sizes}
        repeated = pd.DataFrame({name: [value] * len(record.curve) for name, value in fixed.items()})
        frames.append(pd.concat([repeated, record.curve.reset_index(drop=True)], axis=1))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def missing(specs: Sequence[RunSpec], store: Store | None = None) -> list[RunSpec]:
    """Return the specifications that are neither recorded nor in the cache, each once.

    Args:
        specs: The runs.
        store: Where they are looked for; default: `Store()`.

    Returns:
        Those that are not there.

    Raises:
        SpecError: If `specs` is no list of specifications.
        RecordError: If a record is damaged.

    Example:
        >>> from grokcore import grid, msu
        >>> [spec.seed for spec in missing(grid(msu(), seed=[0, 10**6]))]
        [1000000]
    """
    requested = _by_id(specs)
    records = (store or Store()).find(requested.values())
    return [spec for run, spec in requested.items() if run not in records]


def _by_id(specs: Iterable[RunSpec]) -> dict[str, RunSpec]:
    """Return specifications by id; raises SpecError if they are none, or one that stands alone."""
    values = [specs] if isinstance(specs, RunSpec) else list(specs)
    for spec in values:
        if isinstance(specs, RunSpec) or not isinstance(spec, RunSpec):
            raise SpecError(
                f"a list of RunSpec is expected, as [grokcore.msu()]; {short_repr(spec)} was given in its place"
            )
    return {spec.id: spec for spec in values}


def estimate(specs: Sequence[RunSpec], store: Store | None = None, jobs: int | None = None) -> float:
    """Return about how long runs take to train on this CPU, from recorded runs of their kind, else from their size.

    Args:
        specs: The runs.
        store: Whose recorded runs are asked for their time; default: `Store()`.
        jobs: The number of processes; default: one a core.

    Returns:
        Hours.

    Raises:
        RecordError: If the header of a recorded run is damaged.
    """
    store = store or Store()
    rates: dict[Any, list[float]] = {}  # seconds per step
    for experiment in store.experiments():
        for run, header in store.headers(experiment).items():
            try:
                spec = RunSpec.model_validate(header["spec"])
                seconds = float(header["provenance"]["seconds"])
                if not 0 <= seconds < np.inf:
                    raise ValueError(f"its time is {seconds} s")
                rates.setdefault(_cost_key(spec), []).append(seconds / spec.steps)
            except (KeyError, TypeError, ValueError) as error:
                message = f"{experiment}.json: run {short_repr(run)} has no specification and time ({error!r})"
                raise RecordError(f"{message}: restore the file from version control") from None
    medians = {key: float(np.median(values)) for key, values in rates.items()}
    seconds = sum(spec.steps * medians.get(_cost_key(spec), _seconds_per_step(spec)) for spec in specs)
    return seconds / 3600 / max(1, min(jobs or cores(), len(specs)))


def _cost_key(spec: RunSpec) -> Any:
    """Return what a step's time depends on."""
    return spec.model.model_dump_json(), spec.task.p, spec.batch_size, spec.precision


def _seconds_per_step(spec: RunSpec) -> float:
    """Return about how long a step takes, from the size of the network."""
    layers = getattr(spec.model, "n_layers", 2)
    width = getattr(spec.model, "d_model", 128)
    hidden = getattr(spec.model, "d_mlp", 512)
    flops = 6 * min(spec.batch_size, spec.n_train) * layers * (4 * width * width + 2 * width * hidden)
    return 2e-3 + flops * SECONDS_PER_FLOP


def _has_weights(store: Store, run: str, steps: Sequence[int]) -> bool:
    """Tell whether the weights of an available run were kept at all these steps, as far as the run got."""
    reached = {step for step in steps if step <= store.load(run).curve["step"].iloc[-1]} if steps else set()
    return not reached or (store.has_weights(run) and reached <= set(store.weights(run)))
