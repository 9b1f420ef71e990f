"""Build the report, stage by stage: plan, train, measure, execute, audit, render, print, publish."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grokcore import __version__
from grokcore.records.store import Store, repository
from grokcore.report import execution_cache, manifest, pages, pdf, site
from grokcore.report.evidence import claims_json, evidence
from grokcore.report.execute import Executed, execute, require_kernel
from grokcore.report.front_figure import grokking_figure
from grokcore.report.front_page import FrontPage, front_page
from grokcore.report.missing_runs import Waiting, fresh_store, measure_weights, ready_and_waiting, train_missing
from grokcore.report.options import ReportOptions
from grokcore.report.plan import PlannedNotebook, planned_notebooks
from grokcore.sweeps.audit import Audit, audit_of_records
from grokcore.sweeps.executors import workers
from grokcore.sweeps.progress import Watch

Say = Callable[[str], None]


@dataclass(frozen=True)
class Report:
    """A report that was built.

    Attributes:
        folder: Where it was published.
        notebooks: The notebooks as executed.
        pdf: Whether it has a PDF.
        audit: Recorded runs trained again, if any are recorded.
    """

    folder: Path
    notebooks: list[Executed]
    pdf: bool
    audit: Audit | None = None

    @property
    def failed(self) -> list[Executed]:
        """The notebooks that failed; their pages say how."""
        return [notebook for notebook in self.notebooks if notebook.failure is not None]


@dataclass(frozen=True)
class Folders:
    """Where a report is made before it is published: `work` for what is thrown away, `site` for its files."""

    work: Path
    site: Path


@dataclass(frozen=True)
class Content:
    """What the pages show: notebooks as planned and as executed, those that wait for their runs, and the audit."""

    planned: list[PlannedNotebook]
    executed: list[Executed]
    waiting: list[Waiting]
    audit: Audit | None


@dataclass(frozen=True)
class Printed:
    """The PDF of a report.

    Attributes:
        book: The SHA-256 of the book that it was printed from; None if there is no PDF.
        kept: Whether it is the PDF of the report that is being replaced.
    """

    book: str | None
    kept: bool = False


def build_report(
    options: ReportOptions | None = None,
    *,
    store: Store | None = None,
    executor: Executor | None = None,
    say: Say = print,
    watch: Watch | None = None,
) -> Report:
    """Build the report, publish it, and return it.

    Pages are moved into place only when all are made. A notebook that fails has a page that says how. Some recorded
    runs are trained again and compared.

    Args:
        options: What it shows, and how it is made (default: the published report).
        store: Where runs are looked up and saved (default: the repository's); `fresh` uses one of its own.
        executor: Trains in its processes instead of local ones (see `sweep`).
        say: Called with a line at each stage.
        watch: Called with the progress of training about once a second.

    Raises:
        NotebookError: The plan is impossible, or the Jupyter kernel is not installed.
        MissingRuns: Runs are missing, and `options.train` is false.
        ManifestError: The report cannot be written where it should go.
    """
    options = options or ReportOptions()
    planned = planned_notebooks(options.notebooks, options.scale, options.settings)
    require_kernel(options.kernel)
    at_once = workers(None, options.jobs)
    store = fresh_store() if options.fresh else store or Store()
    out = output_folder(options, store)
    waiting: list[Waiting] = []
    if not (options.notebooks or options.train or options.fresh):
        planned, waiting = ready_and_waiting(planned, store, options.jobs, say)
    train_missing(planned, store, options, say=say, watch=watch, executor=executor)
    if options.fresh:  # `grokcore runs record` does this for the records
        measure_weights([spec for notebook in planned for spec in notebook.specs], store)
    with _working_folders(out) as folders:
        executed = _execute(planned, store, folders.work, at_once, options.kernel, say)
        content = Content(planned, executed, waiting, audit=audit_of_records(store, say))
        book = _render(content, options.scale, store, folders.site)
        about = _about(content, options)
        printed = _print(book, folders, manifest.printed_book(out, about), say)
        site.write_site(book, folders.site, pdf=printed.book is not None)
        manifest.publish(folders.site, out, {**about, "book": printed.book}, keep_pdf=printed.kept)
    return Report(out, executed, printed.book is not None, content.audit)


def output_folder(options: ReportOptions, store: Store) -> Path:
    """Return the folder that a report goes to.

    Args:
        options: What the report shows.
        store: Where its runs are looked up.

    Returns:
        The folder that was given, else `reports/` if it is the published report (all notebooks, plan cpu, from the
        committed records), else `drafts/`.
    """
    if options.out is not None:
        return options.out
    from_committed_records = store.records.resolve() == (repository() / "data" / "records").resolve()
    changed = options.notebooks or options.settings or options.scale != "cpu"
    return repository() / ("reports" if from_committed_records and not changed else "drafts")


@contextlib.contextmanager
def _working_folders(out: Path) -> Iterator[Folders]:
    """Make two folders on the disk of `out`, so that files can be moved there at once, and remove them at the end.

    Raises ManifestError, before anything is executed, if neither `out` nor the folder above it can be made.
    """
    try:
        existed = out.is_dir()
        out.mkdir(parents=True, exist_ok=True)
        if not existed:
            out.rmdir()
    except (OSError, ValueError) as error:  # a name with NUL is a ValueError
        raise manifest.ManifestError(f"{out} cannot be written: {error}; name another folder with --out") from None
    with tempfile.TemporaryDirectory(prefix=".report-", dir=out if out.is_dir() else out.parent) as parent:
        folders = Folders(work=Path(parent) / "work", site=Path(parent) / "site")
        folders.work.mkdir()
        folders.site.mkdir()
        yield folders


def _execute(
    planned: list[PlannedNotebook], store: Store, work: Path, at_once: int, kernel: str, say: Say
) -> list[Executed]:
    """Execute the notebooks whose last execution is not valid any more, and return all."""

    def say_outcome(executed: Executed) -> None:
        say(f"{executed.source.stem}: {executed.failure or f'executed in {executed.seconds:.0f} s'}")

    common = f"{execution_cache.common_digest()} {kernel}"
    keys = {
        notebook.path: execution_cache.key(notebook.path, notebook.parameters, notebook.specs, store, common)
        for notebook in planned
    }
    unchanged = {
        notebook.path: executed
        for notebook in planned
        if (executed := execution_cache.find(notebook.path, notebook.parameters, keys[notebook.path], store))
        is not None
    }
    changed = {notebook.path: notebook.parameters for notebook in planned if notebook.path not in unchanged}
    also = f"; {len(unchanged)} unchanged" if unchanged else ""
    say(f"executing {len(changed)} notebook{'' if len(changed) == 1 else 's'}{also}")
    environment = {
        "GROKCORE_CACHE": str(store.cache.resolve()),
        "GROKCORE_RECORDS": str(store.records.resolve()),
    }
    new = execute(changed, work, jobs=at_once, kernel=kernel, environment=environment, watch=say_outcome)
    for executed in new:
        execution_cache.keep(executed, keys[executed.source], store)
    by_path = unchanged | {executed.source: executed for executed in new}
    return [by_path[notebook.path] for notebook in planned]


def _render(content: Content, scale: str, store: Store, folder: Path) -> list[pages.Page]:
    """Return all pages, the front page first; write the front page's figure and the verdicts into a folder."""
    others = [
        pages.notebook_page(executed, notebook.specs, scale, __version__)
        for notebook, executed in zip(content.planned, content.executed, strict=True)
    ]
    runs = dict.fromkeys([*store.recorded(), *(spec.id for notebook in content.planned for spec in notebook.specs)])
    judged = evidence(store, list(runs))
    (folder / "claims.json").write_text(claims_json(judged, scale), encoding="utf-8")
    figure = grokking_figure(judged.curves)
    if figure is not None:
        (folder / "grokking.svg").write_text(figure[0] + "\n", encoding="utf-8")
    front = FrontPage(judged, others, content.waiting, figure, content.audit, __version__)
    return pages.linked([front_page(front), *others])


def _about(content: Content, options: ReportOptions) -> dict[str, Any]:
    """Return what the manifest says of how a report was made."""
    return {
        "scale": options.scale,
        "settings": dict(options.settings),
        "grokcore": __version__,
        "notebooks": [notebook.path.stem for notebook in content.planned],
        "failed": [executed.source.stem for executed in content.executed if executed.failure is not None],
        "waiting": [notebook.name for notebook in content.waiting],
        "inputs": manifest.inputs(),
    }


def _print(book: Sequence[pages.Page], folders: Folders, printed_before: str | None, say: Say) -> Printed:
    """Print all pages as one PDF into the site, unless the PDF of the report before shows the same.

    That PDF is kept too where printing fails, after saying why.
    """
    now = site.write_book(book, folders.work)
    if now != printed_before:
        try:
            pdf.print_pdf(folders.work / site.BOOK, folders.site / manifest.PDF)
            return Printed(now)
        except pdf.PdfError as error:
            say(str(error))
    return Printed(printed_before, kept=printed_before is not None)
