"""Build the report: plan, train what is missing, execute the notebooks, render the pages, print the PDF,
publish."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grokcore import __version__
from grokcore.analysis import fourier, invariance, predictions
from grokcore.records.store import Store, repository
from grokcore.report import execution_cache, front_page, manifest, pages, pdf, plan
from grokcore.report.execute import Executed, execute, require_kernel
from grokcore.spec.run import RunSpec
from grokcore.sweeps.audit import Audit, audit_of_records
from grokcore.sweeps.executors import workers
from grokcore.sweeps.progress import Watch
from grokcore.sweeps.sweep import MissingRuns, estimate, missing, sweep

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """One notebook to execute: its parameters, checked, and the runs it will ask for."""

    path: Path
    parameters: dict[str, Any]
    specs: list[RunSpec]
    kept: list[int]  # steps at which it wants the weights of its runs


@dataclass(frozen=True)
class Report:
    """A report that was built: its folder, the notebooks as executed, whether it has a PDF, and its audit if any."""

    folder: Path
    notebooks: list[Executed]
    pdf: bool
    audit: Audit | None = None

    @property
    def failed(self) -> list[Executed]:
        """The notebooks that failed; their pages say how."""
        return [notebook for notebook in self.notebooks if notebook.failure is not None]


def make_plan(
    notebooks: Sequence[str | Path] | None = None,
    scale: str = "cpu",
    settings: Mapping[str, Any] | None = None,
) -> list[Plan]:
    """Return what the notebooks named (default: all) will run; raises NotebookError before anything is
    executed."""
    plans = []
    for path in plan.find(notebooks):
        parameters = plan.settings(path, scale, dict(settings or {}))
        plans.append(Plan(path, parameters, *plan.planned_runs(path, parameters)))
    return plans


@dataclass(frozen=True)
class Cost:
    """What a notebook's runs take in one plan: run-steps of all, and hours on this machine of all and of the rest."""

    notebook: str
    n_runs: int
    n_missing: int
    run_steps: int
    hours: float
    hours_missing: float


def cost(scale: str, store: Store, jobs: int | None = None) -> list[Cost]:
    """Return what each notebook's runs take at a scale, on a CPU with `jobs` processes (default: one a core).

    A run that several notebooks ask for is counted with the first. The hours are estimates (`sweep.estimate`): runs
    that stop early count as if they did not.
    """
    rows, seen = [], set()
    for one in make_plan(None, scale):
        specs = [spec for run, spec in {spec.id: spec for spec in one.specs}.items() if run not in seen]
        seen |= {spec.id for spec in specs}
        absent = missing(specs, store)
        hours = (estimate(some, store, jobs) for some in (specs, absent))
        rows.append(Cost(one.path.stem, len(specs), len(absent), sum(spec.steps for spec in specs), *hours))
    return [row for row in rows if row.n_runs]


def default_folder(
    notebooks: Sequence[str | Path] | None, scale: str, settings: Mapping[str, Any] | None, store: Store
) -> Path:
    """Return where a report goes: `reports/` if it is the published one (all notebooks from the committed records),
    else `drafts/`."""
    committed = store.records.resolve() == (repository() / "data" / "records").resolve()
    published = not notebooks and scale == "cpu" and not settings and committed
    return repository() / ("reports" if published else "drafts")


def build_report(
    notebooks: Sequence[str | Path] | None = None,
    scale: str = "cpu",
    settings: Mapping[str, Any] | None = None,
    device: str = "auto",
    jobs: int | None = None,
    train: bool = False,
    fresh: bool = False,
    out: Path | None = None,
    *,
    store: Store | None = None,
    kernel: str = "python3",
    executor: Executor | None = None,
    say: Say = print,
    watch: Watch | None = None,
) -> Report:
    """Build the report and return it; pages are moved to `out` only when all are made, and some runs are audited.

    `scale` is "cpu", "full" or "smoke", `settings` change parameters of every notebook named, `train` allows missing
    runs to be trained on `device` (or by `executor`, see `sweep`), `fresh` trains all anew, beside the records. `jobs`
    notebooks (or runs on a CPU) go at once, by default one a core. If none is named, notebooks whose runs are missing
    wait, as the front page says.
    Raises NotebookError for a bad plan or missing kernel, MissingRuns without `train`; a page says if it failed.
    """
    plans = make_plan(notebooks, scale, settings)
    require_kernel(kernel)
    at_once = workers(None, jobs)
    store = _fresh_store() if fresh else store or Store()
    out = default_folder(notebooks, scale, settings, store) if out is None else out
    plans, waiting = (plans, []) if notebooks or train or fresh else _ready(plans, store, jobs, say)
    ensure(plans, store, device, jobs, train, fresh, say, watch, executor)
    if fresh:  # `runs record` does this for the records
        for kind in (invariance, fourier, predictions):
            kind.record(store, [spec for one in plans for spec in one.specs])
    _make_folder(out)
    with tempfile.TemporaryDirectory(prefix=".report-", dir=out if out.is_dir() else out.parent) as folder:
        work, site = Path(folder) / "work", Path(folder) / "site"
        work.mkdir()
        site.mkdir()
        executed, audited = _execute(plans, work, store, at_once, kernel, say), audit_of_records(store, say)
        about = {"scale": scale, "settings": dict(settings or {}), **_about(plans, executed, waiting)}
        book = _pages(plans, executed, waiting, audited, scale, store, site)
        before, now = manifest.printed(out, about), pages.write_book(book, work)
        made = before != now and _print(work / pages.BOOK, site, say)
        kept = before is not None and not made
        pages.write(book, site, pdf=made or kept)
        manifest.publish(site, out, {**about, "book": now if made else before}, keep_pdf=kept)
    return Report(out, executed, made or kept, audited)


def _about(plans: list[Plan], executed: list[Executed], waiting: list[front_page.Waiting]) -> dict[str, Any]:
    """Return what the manifest of a report says of it."""
    return {
        "grokcore": __version__,
        "notebooks": [one.path.stem for one in plans],
        "failed": [one.source.stem for one in executed if one.failure is not None],
        "waiting": [one.name for one in waiting],
        "inputs": manifest.inputs(),
    }


def _make_folder(out: Path) -> None:
    """Make the folder above that of a report; raises ManifestError, before anything is executed, if neither can be."""
    try:
        there = out.is_dir()
        out.mkdir(parents=True, exist_ok=True)
        if not there:
            out.rmdir()
    except (OSError, ValueError) as error:  # a name with NUL is a ValueError
        raise manifest.ManifestError(f"{out} cannot be written: {error}; name another folder with --out") from None


def _ready(plans: list[Plan], store: Store, jobs: int | None, say: Say) -> tuple[list[Plan], list[front_page.Waiting]]:
    """Return the notebooks whose runs are all at hand and, after saying so, those that wait; all if none is ready."""
    absent = {one.path: missing(one.specs, store) for one in plans}
    ready = [one for one in plans if not absent[one.path]]
    if not any(one.specs for one in ready):
        return plans, []
    recorded, waiting = store.recorded(), []
    for one in plans:
        if left := absent[one.path]:
            takes = duration(estimate(left, store, jobs) * 3600)
            say(f"{one.path.stem}: left out, {len(left)} of its runs are not recorded (training takes about {takes})")
            runs = {spec.id: spec for spec in one.specs}
            rest = [spec for run, spec in runs.items() if run not in recorded]  # the page does not know of the cache
            takes = duration(estimate(rest, store, jobs) * 3600)
            waiting.append(front_page.Waiting(one.path.stem, len(runs), len(runs) - len(rest), takes))
    return ready, waiting


def _fresh_store() -> Store:
    cache = Store().cache / "fresh"
    return Store(cache=cache, records=cache / "no-records")


def ensure(
    plans: Sequence[Plan],
    store: Store,
    device: str,
    jobs: int | None,
    train: bool,
    fresh: bool,
    say: Say,
    watch: Watch | None,
    executor: Executor | None = None,
) -> None:
    """Train the runs that are not in the store (all of them with `fresh`), after saying how many and how
    long.

    Raises MissingRuns if there are any and `train` is not given.
    """
    specs = list({spec.id: spec for one in plans for spec in one.specs}.values())
    absent = specs if fresh else missing(specs, store)
    if not absent:
        return
    hours = estimate(
        absent, Store() if fresh else store, workers(executor, jobs)
    )  # from what is recorded of their like
    if not train:
        raise MissingRuns(absent, hours)
    say(f"training {len(absent)} runs, about {duration(hours * 3600)}")
    keep = {spec.id: one.kept for one in plans if one.kept for spec in one.specs}
    for steps in {tuple(keep.get(spec.id, ())) for spec in absent}:
        chosen = [spec for spec in absent if tuple(keep.get(spec.id, ())) == steps]
        where = {"device": device, "jobs": jobs, "executor": executor}
        sweep(chosen, store=store, fresh=fresh, keep_weights=steps, watch=watch, **where)


def duration(seconds: float) -> str:
    """Return a time as a person says it: `40 s`, `12 min`, `3 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _execute(plans: list[Plan], work: Path, store: Store, jobs: int, kernel: str, say: Say) -> list[Executed]:
    """Execute the notebooks whose last execution does not stand any more, and return all."""

    def told(one: Executed) -> None:
        say(f"{one.source.stem}: {one.failure or f'executed in {one.seconds:.0f} s'}")

    common = execution_cache.common_digest()
    keys = {
        one.path: execution_cache.key(one.path, one.parameters, one.specs, store, f"{common} {kernel}") for one in plans
    }
    kept = {one.path: execution_cache.find(one.path, one.parameters, keys[one.path], store) for one in plans}
    wanted = {one.path: one.parameters for one in plans if kept[one.path] is None}
    unchanged = f"; {len(plans) - len(wanted)} unchanged" if len(wanted) < len(plans) else ""
    say(f"executing {len(wanted)} notebook{'' if len(wanted) == 1 else 's'}{unchanged}")
    environment = {
        "GROKCORE_CACHE": str(store.cache.resolve()),
        "GROKCORE_RECORDS": str(store.records.resolve()),
    }
    made = execute(wanted, work, jobs=jobs, kernel=kernel, environment=environment, watch=told)
    for one in made:
        execution_cache.keep(one, keys[one.source], store)
    anew = {one.source: one for one in made}
    return [kept[one.path] or anew[one.path] for one in plans]


def _pages(
    plans: list[Plan],
    executed: list[Executed],
    waiting: list[front_page.Waiting],
    audited: Audit | None,
    scale: str,
    store: Store,
    site: Path,
) -> list[pages.Page]:
    """Return all pages, the front page first, and write its figure and the verdicts into the site."""
    both = zip(executed, plans, strict=True)
    made = [pages.notebook_page(one, planned.specs, scale, __version__) for one, planned in both]
    runs = dict.fromkeys([*store.recorded(), *(spec.id for planned in plans for spec in planned.specs)])
    found = front_page.evidence(store, list(runs))
    (site / "claims.json").write_text(front_page.claims_json(found, scale), encoding="utf-8")
    figure = front_page.grokking_figure(found.curves)
    if figure is not None:
        (site / "grokking.svg").write_text(figure[0] + "\n", encoding="utf-8")
    return pages.linked([front_page.front_page(found, made, waiting, figure, __version__, audited), *made])


def _print(book: Path, site: Path, say: Say) -> bool:
    """Print all pages as one PDF into the site; return whether that went well, and say why if not."""
    try:
        pdf.print_pdf(book, site / manifest.PDF)
    except pdf.PdfError as error:
        say(str(error))
        return False
    return True
