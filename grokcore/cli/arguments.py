"""The arguments of the command `grokcore`: its parser, with an example of each use.

What is imported here is loaded by every call, `--help` too: names alone, no module that trains, reads or draws.
"""

from __future__ import annotations

import argparse
import ast
from pathlib import Path
from typing import Any

from grokcore import __version__
from grokcore.bench.cases import CASES, ROUNDS
from grokcore.report.scales import PLANS, SCALES
from grokcore.spec.base import suggestion
from grokcore.spec.networks import MODELS
from grokcore.spec.optimizers import OPTIMIZERS
from grokcore.spec.presets import msu, periodic, pku, power
from grokcore.spec.task import OPERATIONS

PRESETS = {
    "msu": msu,
    "periodic": periodic,
    "power": power,
    "pku": pku,
}
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
  grokcore report --scale full --train --cluster tcp://node1:8786
      missing runs on the workers of a Dask cluster
  grokcore report --zip report.zip
      the same, packed as one file to send or to host"""
BENCH = """examples:
  grokcore bench
      the engine against the source's own loop and against its matrix products (minutes)
  grokcore bench lstm sum-2
  grokcore bench --full --json benchmarks/cpu.json
  grokcore bench --device cuda --json benchmarks/gpu.json"""
PLAN = """examples:
  grokcore plan
      both plans, a line a notebook
  grokcore plan cpu --jobs 8
      the plan for CPUs, with eight processes"""
RUNS = """examples:
  grokcore runs list
  grokcore runs show 3f2a
      the run whose id begins with 3f2a
  grokcore runs export curves.csv
  grokcore runs record 01_reproduction
      pack the runs that the notebook names in plan cpu into data/records/"""
AUDIT = """examples:
  grokcore audit
      the first steps of three recorded runs, drawn by chance, trained again and compared
  grokcore audit -n 20 --seed 7
      more of them; the same seed draws the same runs
  grokcore audit --device cuda"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line.

    Its result has the name of the command to run as `run` (see `grokcore.cli.commands`).

    Example:
        >>> parser().parse_args(["runs", "show", "3f2a"])
        Namespace(command='runs', what='show', id='3f2a', run='show')
    """
    top = argparse.ArgumentParser(
        prog="grokcore", description="Train tiny networks on operation tables and report on grokking."
    )
    top.add_argument("--version", action="version", version=f"grokcore {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="train | report | plan | runs | audit | bench")
    _add_train(commands)
    _add_report(commands)
    _add_plan(commands)
    _add_runs(commands)
    _add_audit(commands)
    _add_bench(commands)
    return top


def _command(commands: Any, name: str, description: str, examples: str) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=description,
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_train(commands: Any) -> None:
    add = _command(commands, "train", "Train one run and say when it crossed which accuracy.", TRAIN)
    add.add_argument(
        "--setting",
        choices=PRESETS,
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
    _add_cluster(add)
    add.add_argument("--fresh", action="store_true", help="train even if the run is recorded")
    add.add_argument("--plain", action="store_true", help="without the engine's optimisations, to compare")
    add.set_defaults(run="train")


def _add_report(commands: Any) -> None:
    add = _command(commands, "report", "Execute the notebooks and write the report as HTML and PDF.", REPORT)
    add.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="names, or paths of .ipynb files (default: all)")
    add.add_argument(
        "--scale",
        choices=SCALES,
        default="cpu",
        help="the plan whose runs it shows, or smoke: the notebooks' own small ones (default: cpu)",
    )
    _add_set(add, "a parameter of every notebook named, as --set seeds=[0,1]")
    add.add_argument("--device", default="auto", help="where missing runs are trained (default: a GPU if there is one)")
    _add_cluster(add)
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
    add.set_defaults(run="report")


def _add_plan(commands: Any) -> None:
    add = _command(commands, "plan", "Say how many runs a plan has, how many are missing, and what they take.", PLAN)
    add.add_argument("scale", nargs="?", choices=PLANS, help="default: both")
    add.add_argument("--jobs", type=_positive, metavar="N", help="processes that would train (default: one a core)")
    add.set_defaults(run="plan")


def _add_runs(commands: Any) -> None:
    add = _command(commands, "runs", "List, show, export, verify and record runs.", RUNS)
    what = add.add_subparsers(dest="what", required=True, metavar="list | show | export | verify | record")
    what.add_parser("list", help="one line a run").set_defaults(run="list")
    show = what.add_parser("show", help="specification, origin and outcome of one run")
    show.add_argument("id", help="run id, or how it begins")
    show.set_defaults(run="show")
    export = what.add_parser(
        "export",
        help="curves as CSV, one row an evaluation",
        description="Write curves as CSV, one row an evaluation. Text that a spreadsheet would take for a formula (it "
        "begins with = + - @, a tab or a line end) has a ' before it; numbers are as they are.",
    )
    export.add_argument("file", type=Path)
    export.add_argument("ids", nargs="*", metavar="id", help="run ids, or how they begin (default: all)")
    export.set_defaults(run="export")
    verify = what.add_parser("verify", help="check every run recorded or in the cache, and name what is damaged")
    verify.set_defaults(run="verify")
    record = what.add_parser("record", help="pack the runs of a notebook's plan cpu into data/records/")
    record.add_argument("notebook")
    record.set_defaults(run="record")


def _add_audit(commands: Any) -> None:
    add = _command(commands, "audit", "Train the first steps of recorded runs again, and compare.", AUDIT)
    add.add_argument("-n", type=_positive, metavar="N", help="how many runs (default: 3)")  # `audit.RUNS`
    add.add_argument("--seed", type=_not_negative, metavar="S", help="draws the runs (default: another one each time)")
    add.add_argument("--device", default="cpu", help="where they are trained: cpu, cuda, … (default: cpu)")
    add.set_defaults(run="audit")


def _add_bench(commands: Any) -> None:
    add = _command(
        commands, "bench", "Time the engine, the plain loop it is compared with, and its matrix products.", BENCH
    )
    add.add_argument("cases", type=_case, nargs="*", metavar="case", help=f"of {', '.join(CASES)} (default: all)")
    add.add_argument("--device", default="cpu", help="cpu, cuda, … (default: cpu)")
    add.add_argument("--full", action="store_true", help="also how a step grows with p, depth, R and processes")
    add.add_argument("--rounds", type=_positive, default=ROUNDS, metavar="N", help="default: %(default)s")
    add.add_argument("--json", type=Path, metavar="FILE", help="write the rows, for a script or benchmarks/")
    add.set_defaults(run="bench")


def _add_cluster(add: argparse.ArgumentParser) -> None:
    add.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="train on the workers of the Dask scheduler at this address, for instance tcp://host:8786",
    )


def _add_set(add: argparse.ArgumentParser, description: str) -> None:
    add.add_argument(
        "--set", dest="set", type=_setting, action="append", default=[], metavar="NAME=VALUE", help=description
    )


def _case(text: str) -> str:
    if text not in CASES:
        raise argparse.ArgumentTypeError(f"no case is called {text!r}; {suggestion(text, CASES)}")
    return text


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} was given; it must be a whole number from 1 on")
    return int(text)


def _not_negative(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} was given; it must be a whole number from 0 on")
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
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # what Python raises for no literal
        return name, value
