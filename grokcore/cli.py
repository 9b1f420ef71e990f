"""The command `grokcore`: train one run, build the report, look after the recorded runs."""

from __future__ import annotations

import argparse
import ast
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grokcore import __version__, bench, fourier, invariance, manifest, plan, pool, report, terminal
from grokcore.architectures import MODELS
from grokcore.parts import OPERATIONS, OPTIMIZERS, SpecError, nearest
from grokcore.spec import RunSpec, msu, periodic, replace
from grokcore.store import Record, RecordError, Store
from grokcore.sweep import MissingRuns, frame, missing, sweep

SETTINGS = {"msu": msu, "periodic": periodic}
FLAGS = {"operation": str, "p": int, "alpha": float, "n_layers": int, "lr": float, "weight_decay": float}
FLAGS |= {"batch_size": int, "steps": int, "seed": int}
WRONG_USE = (SpecError, plan.NotebookError, pool.DeviceError)
WENT_WRONG = (RecordError, MissingRuns, manifest.ManifestError)

TRAIN = """examples:
  grokcore train
      x*y mod 97 on 40 % of the table, 10 000 steps (some minutes on one core)
  grokcore train --operation x+y --p 23 --steps 2000 --seed 3
  grokcore train --setting periodic --n-layers 1 --weight-decay 0
  grokcore train --optimizer adam --set betas=(0.9,0.999) --device cuda"""
REPORT = """examples:
  grokcore report
      the whole report from the recorded runs, into reports/
  grokcore report 02_alpha_sweep --set seeds=[0,1,2] --train
      one notebook with other parameters, trained where not recorded, into drafts/
  grokcore report --scale smoke --train --jobs 2 --out smoke-report
  grokcore report --zip report.zip
      the same, packed as one file to send or to host"""
BENCH = """examples:
  grokcore bench
      the engine against the source's own loop and against its matrix products (minutes)
  grokcore bench --full --json benchmarks/cpu.json
  grokcore bench --device cuda --json benchmarks/gpu.json"""
RUNS = """examples:
  grokcore runs list
  grokcore runs show 3f2a
      the run whose id begins with 3f2a
  grokcore runs export curves.csv
  grokcore runs record 01_reproduction
      pack the runs that the notebook names at paper scale into data/records/"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 1 if something went wrong, 2 for wrong use, 130 if
    interrupted."""
    given = parser().parse_args(arguments)
    try:
        code = given.run(given)
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
    except KeyboardInterrupt:
        print("\ninterrupted; what had ended is saved, the same command goes on from there", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(
        prog="grokcore", description="Train tiny networks on operation tables and report on grokking."
    )
    top.add_argument("--version", action="version", version=f"grokcore {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="train | report | runs | bench")
    _add_train(commands)
    _add_report(commands)
    _add_runs(commands)
    _add_bench(commands)
    return top


def _command(commands: Any, name: str, does: str, examples: str) -> argparse.ArgumentParser:
    layout = argparse.RawDescriptionHelpFormatter
    return commands.add_parser(name, help=does, description=does, epilog=examples, formatter_class=layout)


def _add_train(commands: Any) -> None:
    add = _command(commands, "train", "Train one run and say when it crossed which accuracy.", TRAIN)
    add.add_argument(
        "--setting",
        choices=SETTINGS,
        default="msu",
        help="the source whose settings it starts from (default: msu)",
    )
    add.add_argument("--operation", metavar="NAME", help=f"one of: {', '.join(OPERATIONS[:-1])}")
    add.add_argument("--p", type=int, help="modulus")
    add.add_argument("--alpha", type=float, help="fraction of the table trained on, between 0 and 1")
    add.add_argument("--model", metavar="NAME", help=f"one of: {', '.join(name for name in MODELS if name != 'user')}")
    add.add_argument("--n-layers", type=int)
    add.add_argument("--optimizer", metavar="NAME", help=f"one of: {', '.join(OPTIMIZERS)}")
    add.add_argument("--lr", type=float, help="learning rate")
    add.add_argument("--weight-decay", type=float)
    add.add_argument("--batch-size", type=int)
    add.add_argument("--steps", type=int, help="budget in optimizer steps")
    add.add_argument("--seed", type=int)
    _add_set(add, "any other field of the run, as --set momentum=0.9")
    add.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, … (default: auto)")
    add.add_argument("--fresh", action="store_true", help="train even if the run is recorded")
    add.add_argument("--plain", action="store_true", help="without the engine's short cuts, to compare")
    add.set_defaults(run=_train)


def _add_report(commands: Any) -> None:
    add = _command(commands, "report", "Execute the notebooks and write the report as HTML and PDF.", REPORT)
    add.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="names, or paths of .ipynb files (default: all)")
    add.add_argument(
        "--scale",
        choices=plan.SCALES,
        default="paper",
        help="the recorded runs, or the notebooks' own small ones",
    )
    _add_set(add, "a parameter of every notebook named, as --set seeds=[0,1]")
    add.add_argument("--device", default="auto", help="where missing runs are trained (default: a GPU if there is one)")
    add.add_argument(
        "--jobs",
        type=_positive,
        metavar="N",
        help="notebooks, or runs on the CPU, at once (default: one a core)",
    )
    add.add_argument("--train", action="store_true", help="train the runs that are not recorded")
    add.add_argument("--fresh", action="store_true", help="ignore the records: train all runs anew (with --train)")
    add.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="default: reports/, or drafts/ if it is not the published report",
    )
    add.add_argument("--zip", type=Path, metavar="FILE", help="pack the report as one zip file as well")
    add.set_defaults(run=_report)


def _add_runs(commands: Any) -> None:
    add = _command(commands, "runs", "List, show, export and record runs.", RUNS)
    what = add.add_subparsers(dest="what", required=True, metavar="list | show | export | record")
    what.add_parser("list", help="one line a run").set_defaults(run=_list)
    show = what.add_parser("show", help="specification, origin and outcome of one run")
    show.add_argument("id", help="run id, or how it begins")
    show.set_defaults(run=_show)
    export = what.add_parser("export", help="curves as CSV, one row an evaluation")
    export.add_argument("file", type=Path)
    export.add_argument("ids", nargs="*", metavar="id", help="run ids, or how they begin (default: all)")
    export.set_defaults(run=_export)
    record = what.add_parser("record", help="pack the runs of a notebook's paper scale into data/records/")
    record.add_argument("notebook")
    record.set_defaults(run=_record)


def _add_bench(commands: Any) -> None:
    add = _command(commands, "bench", "Time the engine, the loop it is compared with, and the floor under it.", BENCH)
    add.add_argument("--device", default="cpu", help="cpu, cuda, … (default: cpu)")
    add.add_argument("--full", action="store_true", help="also how a step grows with p, depth, R and processes")
    add.add_argument("--rounds", type=_positive, default=bench.ROUNDS, metavar="N", help="default: %(default)s")
    add.add_argument("--json", type=Path, metavar="FILE", help="write the rows, for a script or benchmarks/")
    add.set_defaults(run=_bench)


def _add_set(add: argparse.ArgumentParser, does: str) -> None:
    add.add_argument("--set", dest="set", type=_setting, action="append", default=[], metavar="NAME=VALUE", help=does)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} was given; it must be a whole number from 1 on")
    return int(text)


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} was given; write NAME=VALUE, for instance seed=3")
    words = {"true": True, "false": False, "none": None, "null": None}
    if value.lower() in words:
        return name, words[value.lower()]
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _spec(given: argparse.Namespace) -> RunSpec:
    base = SETTINGS[given.setting]()
    parts = {name: getattr(given, name) for name in ("model", "optimizer") if getattr(given, name) is not None}
    changes = {name: getattr(given, name) for name in FLAGS if getattr(given, name) is not None}
    return replace(replace(base, **parts), **{**changes, **dict(given.set)})


def _train(given: argparse.Namespace) -> int:
    spec, store = _spec(given), Store()
    absent = given.fresh or bool(missing([spec], store))
    task = f"{spec.task.operation} mod {spec.task.p}, α = {spec.alpha:g}"
    print(f"run {spec.id}: {task}, {spec.steps:,} steps, seed {spec.seed}")
    with terminal.training_bar() as watch:
        options = {"device": given.device, "fresh": given.fresh, "plain": given.plain}
        curves = sweep([spec], store=store, watch=watch, **options)
    print("trained and saved" if absent else "already at hand; --fresh trains it again")
    print(terminal.summary_text(curves))
    return 0


def _report(given: argparse.Namespace) -> int:
    began, settings = time.monotonic(), dict(given.set)
    where = (given.device, given.jobs, given.train, given.fresh, given.out)
    with terminal.training_bar() as watch:
        made = report.build(given.notebooks, given.scale, settings, *where, say=terminal.say, watch=watch)
    also = f" and {made.folder / manifest.PDF}" if made.pdf else ""
    print(f"wrote {made.folder / 'index.html'}{also} in {report.duration(time.monotonic() - began)}")
    if given.zip is not None:
        print(f"packed {manifest.pack(made.folder, given.zip)} files into {given.zip}")
    for one in made.failed:
        print(f"grokcore report: {one.source.name} {one.failure}", file=sys.stderr)
    return 1 if made.failed else 0


def _list(given: argparse.Namespace) -> int:
    store = Store()
    print(terminal.table([store.load(run) for run in store.ids()], store.recorded()))
    return 0


def _show(given: argparse.Namespace) -> int:
    store = Store()
    record = _load(store, given.id)
    print(json.dumps({"run": record.spec.id, "spec": record.spec.to_dict(), "provenance": record.provenance}, indent=1))
    print(terminal.summary_text(frame([record])))
    return 0


def _export(given: argparse.Namespace) -> int:
    store = Store()
    records = [_load(store, run) for run in given.ids or store.ids()]
    if not records:
        raise RecordError("there are no runs to export yet; train some with `grokcore train`")
    try:
        frame(records).to_csv(given.file, index=False)
    except OSError as error:
        raise RecordError(f"{given.file} cannot be written: {error}") from None
    print(f"wrote {len(records)} runs to {given.file}")
    return 0


def _record(given: argparse.Namespace) -> int:
    store = Store()
    (planned,) = report.make_plan([given.notebook])
    absent = missing(planned.specs, store)
    if absent:
        raise RecordError(
            f"{len(absent)} of the {len(planned.specs)} runs of {planned.path.stem} are not trained yet; "
            f"train them first: grokcore report {planned.path.stem} --train"
        )
    packed = store.pack(planned.path.stem, [spec.id for spec in planned.specs])
    invariance.record(store, planned.specs)
    fourier.record(store, planned.specs)
    print(f"recorded {len(packed)} runs in {store.records / planned.path.stem}.parquet")
    return 0


def _bench(given: argparse.Namespace) -> int:
    rows = bench.run(pool.device_of(given.device), given.full, given.rounds, say=terminal.say)
    print(terminal.bench_table(rows))
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")
        print(f"wrote {len(rows)} rows to {given.json}")
    return 0


def _load(store: Store, beginning: str) -> Record:
    found = [run for run in store.ids() if run.startswith(beginning)]
    if not found:
        raise RecordError(f"no run's id begins with {beginning!r}; {nearest(beginning, store.ids())}")
    if len(found) > 1:
        raise RecordError(f"{len(found)} runs begin with {beginning!r}: {', '.join(found)}; give more of the id")
    return store.load(found[0])


if __name__ == "__main__":
    sys.exit(main())
