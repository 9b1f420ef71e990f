"""What each command does. Modules are imported by the command that uses them, so that no other has to wait for them.

A command takes the parsed arguments and returns an exit code.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import secrets
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from grokcore.cli import terminal
from grokcore.cli.arguments import PRESETS
from grokcore.report.durations import duration
from grokcore.report.scales import PLANS
from grokcore.spec.base import suggestion
from grokcore.spec.run import RunSpec, replace

if TYPE_CHECKING:
    from concurrent.futures import Executor

SPEC_OPTIONS = (
    "model",
    "optimizer",
    "operation",
    "p",
    "alpha",
    "n_layers",
    "lr",
    "weight_decay",
    "batch_size",
    "steps",
    "seed",
)


def spec_of(options: argparse.Namespace) -> RunSpec:
    """Return the run that the options of `grokcore train` describe.

    Raises:
        SpecError: It cannot be trained.
    """
    changes = {name: getattr(options, name) for name in SPEC_OPTIONS if getattr(options, name) is not None}
    changes |= dict(options.set)
    depth = {"n_layers": changes.pop("n_layers")} if {"model", "n_layers"} <= changes.keys() else {}
    return replace(PRESETS[options.setting](**changes), **depth)  # the depth is that of the model named


def _cluster(address: str | None) -> contextlib.AbstractContextManager[Executor | None]:
    """Give the executor of a Dask cluster, or none."""
    from grokcore.sweeps import dask

    return contextlib.nullcontext() if address is None else dask.connected(address, terminal.say)


def _train(options: argparse.Namespace) -> int:
    from grokcore.records.store import Store
    from grokcore.sweeps.sweep import missing, sweep

    spec, store = spec_of(options), Store()
    trains = options.fresh or bool(missing([spec], store))
    task = f"{spec.task.operation} mod {spec.task.p}, α = {spec.alpha:g}"
    print(f"run {spec.id}: {task}, {spec.steps:,} steps, seed {spec.seed}")
    with _cluster(options.cluster) as executor, terminal.training_bar() as watch:
        curves = sweep(
            [spec],
            store=store,
            device=options.device,
            fresh=options.fresh,
            plain=options.plain,
            watch=watch,
            executor=executor,
        )
    print("trained and saved" if trains else "available already; --fresh trains it again")
    print(terminal.summary_text(curves))
    return 0


def _report(options: argparse.Namespace) -> int:
    from grokcore.report import manifest
    from grokcore.report.build import build_report
    from grokcore.report.options import ReportOptions

    began = time.monotonic()
    report_options = ReportOptions(
        notebooks=options.notebooks,
        scale=options.scale,
        settings=dict(options.set),
        device=options.device,
        jobs=options.jobs,
        train=options.train,
        fresh=options.fresh,
        out=options.out,
    )
    with _cluster(options.cluster) as executor, terminal.training_bar() as watch:
        report = build_report(report_options, executor=executor, say=terminal.say, watch=watch)
    also = f" and {report.folder / manifest.PDF}" if report.pdf else ""
    print(f"wrote {report.folder / 'index.html'}{also} in {duration(time.monotonic() - began)}")
    if options.zip is not None:
        print(f"packed {manifest.pack(report.folder, options.zip)} files into {options.zip}")
    for notebook in report.failed:
        print(f"grokcore report: {notebook.source.name} {notebook.failure}", file=sys.stderr)
    if report.audit is not None and report.audit.disagreeing:
        print(f"grokcore report: {report.audit.result}", file=sys.stderr)
        return 1
    return 1 if report.failed else 0


def _list(options: argparse.Namespace) -> int:
    from grokcore.records.store import Store

    print(terminal.runs_table(Store().listing()))
    return 0


def _show(options: argparse.Namespace) -> int:
    from grokcore.records.store import Store
    from grokcore.sweeps.sweep import frame

    store = Store()
    record = store.load(_whole_id(options.id, store.ids()))
    shown = {"run": record.spec.id, "spec": record.spec.to_dict(), "provenance": record.provenance}
    print(json.dumps(shown, indent=1))
    print(terminal.summary_text(frame([record])))
    return 0


def _export(options: argparse.Namespace) -> int:
    from grokcore.cli.spreadsheets import without_formulas
    from grokcore.records.record import RecordError
    from grokcore.records.store import Store
    from grokcore.sweeps.sweep import frame

    store = Store()
    ids = store.ids()
    records = store.load_all([_whole_id(run, ids) for run in options.ids] or ids)
    if not records:
        raise RecordError("there are no runs to export yet; train some with `grokcore train`")
    try:
        without_formulas(frame(records)).to_csv(options.file, index=False, errors="backslashreplace")
    except (OSError, ValueError) as error:  # a name with NUL is a ValueError
        raise RecordError(f"{options.file} cannot be written: {error}") from None
    print(f"wrote {len(records)} runs to {options.file}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from grokcore.records.store import Store
    from grokcore.records.verify import verify

    n_runs, damages = verify(Store())
    for damage in damages:
        print(damage, file=sys.stderr)
    print(f"{n_runs} runs checked, " + (f"{len(damages)} things wrong" if damages else "nothing wrong"))
    return 1 if damages else 0


def _record(options: argparse.Namespace) -> int:
    from grokcore.records.record import RecordError
    from grokcore.records.store import Store
    from grokcore.report.missing_runs import measure_weights
    from grokcore.report.plan import planned_notebooks
    from grokcore.sweeps.sweep import missing

    store = Store()
    (notebook,) = planned_notebooks([options.notebook])
    name, absent = notebook.path.stem, {spec.id for spec in missing(notebook.specs, store)}
    available = [spec for spec in notebook.specs if spec.id not in absent]
    if not available:
        raise RecordError(
            f"none of the {len(notebook.specs)} runs of {name} is trained yet; train them first: "
            f"grokcore report {name} --train"
        )
    packed = store.pack(name, [spec.id for spec in available])
    measure_weights(available, store)
    print(f"recorded {len(packed)} runs in {store.records / name}.parquet")
    if absent:
        print(f"{len(absent)} of {len(notebook.specs)} are not trained yet: grokcore report {name} --train")
    return 0


def _plan(options: argparse.Namespace) -> int:
    from grokcore.records.store import Store
    from grokcore.report.plan import cost

    for scale in [options.scale] if options.scale else PLANS:
        print(terminal.cost_table(scale, cost(scale, Store(), options.jobs)))
    return 0


def _audit(options: argparse.Namespace) -> int:
    from grokcore.records.store import Store
    from grokcore.sweeps import audit
    from grokcore.sweeps.pool import device_of

    n_runs = audit.RUNS if options.n is None else options.n
    seed = secrets.randbits(32) if options.seed is None else options.seed
    compared = audit.audit(Store(), n_runs, seed, device_of(options.device), terminal.say)
    print(terminal.audit_table(compared))
    return 1 if compared.disagreeing else 0


def _bench(options: argparse.Namespace) -> int:
    from grokcore.bench import benchmark
    from grokcore.records.record import RecordError
    from grokcore.sweeps.pool import device_of

    if options.json is not None and not options.json.parent.is_dir():
        raise RecordError(f"{options.json} cannot be written: there is no folder {options.json.parent}; make it first")
    rows = benchmark.run(device_of(options.device), options.full, options.rounds, terminal.say, options.cases)
    print(terminal.bench_table(rows))
    if options.json is not None:
        try:
            options.json.write_text(json.dumps(rows, indent=1) + "\n")
        except (OSError, ValueError) as error:
            raise RecordError(f"{options.json} cannot be written: {error}") from None
        print(f"wrote {len(rows)} rows to {options.json}")
    return 0


def _whole_id(beginning: str, ids: Sequence[str]) -> str:
    """Return the only one of these ids that begins so; raises RecordError if none or several do."""
    from grokcore.records.record import RecordError

    matching = [run for run in ids if run.startswith(beginning)]
    if not matching:
        raise RecordError(f"no run's id begins with {beginning!r}; {suggestion(beginning, ids)}")
    if len(matching) > 1:
        raise RecordError(f"{len(matching)} runs begin with {beginning!r}: {', '.join(matching)}; give more of the id")
    return matching[0]


COMMANDS = {
    "train": _train,
    "report": _report,
    "list": _list,
    "show": _show,
    "export": _export,
    "verify": _verify,
    "record": _record,
    "plan": _plan,
    "audit": _audit,
    "bench": _bench,
}
