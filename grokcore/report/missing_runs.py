"""The runs of a report that are missing: their notebooks are left out, or they are trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from grokcore.analysis import fourier, invariance, predictions
from grokcore.records.store import Store
from grokcore.report.durations import duration
from grokcore.report.options import ReportOptions
from grokcore.report.plan import PlannedNotebook
from grokcore.spec.run import RunSpec
from grokcore.sweeps.executors import workers
from grokcore.sweeps.progress import Watch
from grokcore.sweeps.sweep import MissingRuns, estimate, missing, sweep

Say = Callable[[str], None]


@dataclass(frozen=True)
class Waiting:
    """A notebook that is not in the report because some of its runs are missing.

    Attributes:
        name: Its name.
        n_runs: How many runs it needs.
        n_recorded: How many of them are recorded.
        duration: How long training the others takes, in words.
    """

    name: str
    n_runs: int
    n_recorded: int
    duration: str


def ready_and_waiting(
    planned: Sequence[PlannedNotebook], store: Store, jobs: int | None, say: Say
) -> tuple[list[PlannedNotebook], list[Waiting]]:
    """Return the notebooks all of whose runs are available, and those that wait for theirs.

    Args:
        planned: The notebooks.
        store: Where runs are looked up.
        jobs: Number of processes that would train (default: one a core), for the estimates.
        say: Called with a line for each notebook that waits.

    Returns:
        The notebooks that are ready, and the others. If no notebook with runs is ready, all count as
        ready: then the first missing run is an error, not a page that is left out.
    """
    absent = {notebook.path: missing(notebook.specs, store) for notebook in planned}
    ready = [notebook for notebook in planned if not absent[notebook.path]]
    if not any(notebook.specs for notebook in ready):
        return list(planned), []
    recorded, waiting = store.recorded(), []
    for notebook in planned:
        if left := absent[notebook.path]:
            name, takes = notebook.path.stem, duration(estimate(left, store, jobs) * 3600)
            say(f"{name}: left out, {len(left)} of its runs are not recorded (training takes about {takes})")
            runs = {spec.id: spec for spec in notebook.specs}
            rest = [spec for run, spec in runs.items() if run not in recorded]  # the page does not know of the cache
            takes = duration(estimate(rest, store, jobs) * 3600)
            waiting.append(Waiting(name, n_runs=len(runs), n_recorded=len(runs) - len(rest), duration=takes))
    return ready, waiting


def fresh_store() -> Store:
    """Return a store beside the usual one, without records, for runs that are trained anew."""
    cache = Store().cache / "fresh"
    return Store(cache=cache, records=cache / "no-records")


def train_missing(
    planned: Sequence[PlannedNotebook],
    store: Store,
    options: ReportOptions,
    *,
    say: Say = print,
    watch: Watch | None = None,
    executor: Executor | None = None,
) -> None:
    """Train the runs that are not in the store, or all of them with `options.fresh`.

    Args:
        planned: The notebooks whose runs are trained, with the weights that each of them needs.
        store: Where runs are looked up and saved.
        options: `device`, `jobs`, `train` and `fresh` are used.
        say: Called with a line that says how many runs are trained and about how long it takes.
        watch: Called with the progress about once a second.
        executor: Trains in its processes instead of local ones (see `sweep`).

    Raises:
        MissingRuns: Runs are missing, and `options.train` is false.
    """
    specs = list({spec.id: spec for notebook in planned for spec in notebook.specs}.values())
    absent = specs if options.fresh else missing(specs, store)
    if not absent:
        return
    recorded = Store() if options.fresh else store  # the estimate comes from recorded runs like these
    hours = estimate(absent, recorded, workers(executor, options.jobs))
    if not options.train:
        raise MissingRuns(absent, hours)
    say(f"training {len(absent)} runs, about {duration(hours * 3600)}")
    for kept, group in _by_kept_steps(absent, planned).items():
        sweep(
            group,
            store=store,
            device=options.device,
            jobs=options.jobs,
            fresh=options.fresh,
            keep_weights=kept,
            watch=watch,
            executor=executor,
        )


def _by_kept_steps(
    specs: Sequence[RunSpec], planned: Sequence[PlannedNotebook]
) -> dict[tuple[int, ...], list[RunSpec]]:
    """Return runs by the steps at which the last notebook that needs their weights needs them."""
    kept = {spec.id: tuple(notebook.kept) for notebook in planned if notebook.kept for spec in notebook.specs}
    groups: dict[tuple[int, ...], list[RunSpec]] = {}
    for spec in specs:
        groups.setdefault(kept.get(spec.id, ()), []).append(spec)
    return groups


def measure_weights(specs: Sequence[RunSpec], store: Store) -> None:
    """Write into the records what is measured from kept weights: invariance, Fourier spectra, predictions."""
    for measured in (invariance, fourier, predictions):
        measured.record(store, list(specs))
