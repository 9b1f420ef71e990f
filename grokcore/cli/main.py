"""The command `grokcore`: train one run, build the report, look after the recorded runs."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Executor

from grokcore.analysis import fourier, invariance, predictions
from grokcore.bench import benchmark
from grokcore.claims.wording import ClaimsError
from grokcore.cli import terminal
from grokcore.cli.arguments import SETTINGS, parser
from grokcore.records import verify
from grokcore.records.atomic import StoreError
from grokcore.records.record import RecordError
from grokcore.records.store import Store
from grokcore.report import build, manifest, plan
from grokcore.spec.base import SpecError, suggestion
from grokcore.spec.run import RunSpec, replace
from grokcore.sweeps import audit, dask, executors, pool
from grokcore.sweeps.sweep import MissingRuns, frame, missing, sweep
from grokcore.sweeps.worker import CodeError

FLAGS = (
    *("model", "optimizer", "operation", "p", "alpha", "n_layers"),
    *("lr", "weight_decay", "batch_size", "steps", "seed"),
)
WRONG_USE = (SpecError, plan.NotebookError, pool.DeviceError, audit.AuditError)
WENT_WRONG = (
    *(RecordError, StoreError, MissingRuns, manifest.ManifestError, ClaimsError),
    *(pool.TrainingError, executors.ExecutorError, CodeError),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 1 if something went wrong, 2 for wrong use, 130 if
    interrupted."""
    given = parser().parse_args(arguments)
    try:
        code = HANDLERS[given.run](given)
        sys.stdout.flush()
        return code
    except WRONG_USE as error:
        print(f"grokcore {given.command}: {error}", file=sys.stderr)
        return 2
    except WENT_WRONG as error:
        print(f"grokcore {given.command}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader has gone, as in `grokcore runs list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt as error:
        said = ["interrupted", *getattr(error, "__notes__", [])]
        if given.command in ("train", "report"):
            said.append("--fresh begins anew" if given.fresh else "the same command goes on from there")
        print("\n" + "; ".join(said), file=sys.stderr)
        return 130


def _spec(given: argparse.Namespace) -> RunSpec:
    changes = {name: getattr(given, name) for name in FLAGS if getattr(given, name) is not None} | dict(given.set)
    depth = {"n_layers": changes.pop("n_layers")} if {"model", "n_layers"} <= changes.keys() else {}
    return replace(SETTINGS[given.setting](**changes), **depth)  # the depth is that of the model named


def _cluster(given: argparse.Namespace) -> contextlib.AbstractContextManager[Executor | None]:
    """Give the executor of the Dask cluster named, or none."""
    return contextlib.nullcontext() if given.cluster is None else dask.connected(given.cluster, terminal.say)


def _train(given: argparse.Namespace) -> int:
    spec, store = _spec(given), Store()
    absent = given.fresh or bool(missing([spec], store))
    task = f"{spec.task.operation} mod {spec.task.p}, α = {spec.alpha:g}"
    print(f"run {spec.id}: {task}, {spec.steps:,} steps, seed {spec.seed}")
    with _cluster(given) as executor, terminal.training_bar() as watch:
        options = {"device": given.device, "fresh": given.fresh, "plain": given.plain}
        curves = sweep([spec], store=store, watch=watch, executor=executor, **options)
    print("trained and saved" if absent else "already at hand; --fresh trains it again")
    print(terminal.summary_text(curves))
    return 0


def _report(given: argparse.Namespace) -> int:
    began, settings = time.monotonic(), dict(given.set)
    where = (given.device, given.jobs, given.train, given.fresh, given.out)
    with _cluster(given) as executor, terminal.training_bar() as watch:
        options = {"executor": executor, "say": terminal.say, "watch": watch}
        made = build.build_report(given.notebooks, given.scale, settings, *where, **options)
    also = f" and {made.folder / manifest.PDF}" if made.pdf else ""
    print(f"wrote {made.folder / 'index.html'}{also} in {build.duration(time.monotonic() - began)}")
    if given.zip is not None:
        print(f"packed {manifest.pack(made.folder, given.zip)} files into {given.zip}")
    for one in made.failed:
        print(f"grokcore report: {one.source.name} {one.failure}", file=sys.stderr)
    if made.audit is not None and made.audit.disagreeing:
        print(f"grokcore report: {made.audit.result}", file=sys.stderr)
        return 1
    return 1 if made.failed else 0


def _list(given: argparse.Namespace) -> int:
    store = Store()
    print(terminal.table(store.load_all(store.ids()), store.recorded()))
    return 0


def _show(given: argparse.Namespace) -> int:
    store = Store()
    record = store.load(_whole_id(given.id, store.ids()))
    print(json.dumps({"run": record.spec.id, "spec": record.spec.to_dict(), "provenance": record.provenance}, indent=1))
    print(terminal.summary_text(frame([record])))
    return 0


def _export(given: argparse.Namespace) -> int:
    store = Store()
    ids = store.ids()
    records = store.load_all([_whole_id(run, ids) for run in given.ids] or ids)
    if not records:
        raise RecordError("there are no runs to export yet; train some with `grokcore train`")
    try:
        terminal.for_spreadsheets(frame(records)).to_csv(given.file, index=False, errors="backslashreplace")
    except (OSError, ValueError) as error:  # a name with NUL is a ValueError
        raise RecordError(f"{given.file} cannot be written: {error}") from None
    print(f"wrote {len(records)} runs to {given.file}")
    return 0


def _verify(given: argparse.Namespace) -> int:
    n, damage = verify.verify(Store())
    for one in damage:
        print(one, file=sys.stderr)
    print(f"{n} runs checked, " + (f"{len(damage)} things wrong" if damage else "nothing wrong"))
    return 1 if damage else 0


def _record(given: argparse.Namespace) -> int:
    store = Store()
    (planned,) = build.make_plan([given.notebook])
    name, absent = planned.path.stem, {spec.id for spec in missing(planned.specs, store)}
    at_hand = [spec for spec in planned.specs if spec.id not in absent]
    if not at_hand:
        raise RecordError(
            f"none of the {len(planned.specs)} runs of {name} is trained yet; train them first: "
            f"grokcore report {name} --train"
        )
    packed = store.pack(name, [spec.id for spec in at_hand])
    invariance.record(store, at_hand)
    fourier.record(store, at_hand)
    predictions.record(store, at_hand)
    print(f"recorded {len(packed)} runs in {store.records / name}.parquet")
    if absent:
        print(f"{len(absent)} of {len(planned.specs)} are not trained yet: grokcore report {name} --train")
    return 0


def _plan(given: argparse.Namespace) -> int:
    scales = [given.scale] if given.scale else list(plan.PLANS)
    for scale in scales:
        print(terminal.cost_table(scale, build.cost(scale, Store(), given.jobs)))
    return 0


def _audit(given: argparse.Namespace) -> int:
    seed = secrets.randbits(32) if given.seed is None else given.seed
    made = audit.audit(Store(), given.n, seed, pool.device_of(given.device), terminal.say)
    print(terminal.audit_table(made))
    return 1 if made.disagreeing else 0


def _bench(given: argparse.Namespace) -> int:
    if given.json is not None and not given.json.parent.is_dir():
        raise RecordError(f"{given.json} cannot be written: there is no folder {given.json.parent}; make it first")
    rows = benchmark.run(pool.device_of(given.device), given.full, given.rounds, terminal.say, given.cases)
    print(terminal.bench_table(rows))
    if given.json is not None:
        try:
            given.json.write_text(json.dumps(rows, indent=1) + "\n")
        except (OSError, ValueError) as error:
            raise RecordError(f"{given.json} cannot be written: {error}") from None
        print(f"wrote {len(rows)} rows to {given.json}")
    return 0


def _whole_id(beginning: str, ids: Sequence[str]) -> str:
    found = [run for run in ids if run.startswith(beginning)]
    if not found:
        raise RecordError(f"no run's id begins with {beginning!r}; {suggestion(beginning, ids)}")
    if len(found) > 1:
        raise RecordError(f"{len(found)} runs begin with {beginning!r}: {', '.join(found)}; give more of the id")
    return found[0]


HANDLERS = {
    **{"train": _train, "report": _report, "bench": _bench, "plan": _plan, "audit": _audit},
    **{"list": _list, "show": _show, "export": _export, "verify": _verify, "record": _record},
}

if __name__ == "__main__":
    sys.exit(main())
