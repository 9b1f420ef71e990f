"""What will be run: the notebooks with their parameters, the runs they need, and what these cost."""

from __future__ import annotations

import contextlib
import io
import linecache
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grokcore.records.store import Store
from grokcore.report import notebook_files, parameters
from grokcore.report.notebook_files import NotebookError, read, tagged
from grokcore.spec.base import SpecError, short_repr
from grokcore.spec.run import RunSpec
from grokcore.sweeps.sweep import estimate, missing


@dataclass(frozen=True)
class PlannedNotebook:
    """One notebook to execute.

    Attributes:
        path: The notebook.
        parameters: The parameters to execute it with, checked.
        specs: The runs it will ask for.
        kept: The steps at which it needs the weights of its runs.
    """

    path: Path
    parameters: dict[str, Any]
    specs: list[RunSpec]
    kept: list[int]


def planned_notebooks(
    names: Sequence[str | Path] | None = None,
    scale: str = "cpu",
    settings: Mapping[str, Any] | None = None,
) -> list[PlannedNotebook]:
    """Return notebooks with their parameters and the runs they need, before any of them is executed.

    Args:
        names: Names or paths of notebooks (default: all of the repository).
        scale: "cpu", "full" or "smoke".
        settings: Parameters that replace those of the scale, in every notebook.

    Raises:
        NotebookError: A notebook, a scale or a parameter that does not exist, a value of the wrong type, or a notebook
            whose cells do not give a list of runs.
    """
    planned = []
    for path in notebook_files.find(names):
        values = parameters.parameter_values(path, scale, settings)
        specs, kept = planned_runs(path, values)
        planned.append(PlannedNotebook(path, values, specs, kept))
    return planned


def planned_runs(path: Path, values: Mapping[str, Any]) -> tuple[list[RunSpec], list[int]]:
    """Return the runs that a notebook will ask for, and the steps at which it needs their weights.

    Its code cells up to the one tagged `specs` are executed in this process, with `values` in place of the defaults
    after the `parameters` cell. They leave a list `specs`, and a list `kept` if weights are needed. Nothing is trained.

    Args:
        path: The notebook.
        values: Its parameters, checked.

    Raises:
        NotebookError: A cell fails, or leaves no list of RunSpec named `specs`, or `kept` is no list of steps.
    """
    notebook = read(path)
    last, injected = tagged(notebook, "specs"), tagged(notebook, "parameters")
    if last is None:
        raise NotebookError(f"{path.name} has no code cell tagged 'specs'; tag the one that builds the list `specs`")
    main = types.ModuleType("__main__")
    with contextlib.chdir(path.parent), _in_place_of_main(main, path.name):  # where it will be executed
        for index, cell in enumerate(notebook.cells[: last + 1]):
            if cell.cell_type == "code":
                _run_cell(path, index, cell.source, vars(main))
            if index == injected:
                vars(main).update(values)
    names = vars(main)
    specs = names.get("specs")
    if not isinstance(specs, list) or not all(isinstance(spec, RunSpec) for spec in specs):
        raise NotebookError(
            f"{path.name}, cell {last + 1}: `specs` must be a list of RunSpec, it is {type(specs).__name__}"
        )
    kept = names.get("kept", [])
    if not isinstance(kept, (list, tuple)) or not all(type(step) is int and step >= 0 for step in kept):
        raise NotebookError(f"{path.name}, cell {last + 1}: `kept` must be a list of steps, it is {short_repr(kept)}")
    return specs, list(kept)


@contextlib.contextmanager
def _in_place_of_main(module: types.ModuleType, name: str) -> Iterator[None]:
    """Let `module` be `__main__`, its source in linecache, as in a kernel: a user's network is known by its source."""
    module.__file__ = f"<{name}>"
    linecache.cache[module.__file__] = (0, None, [], module.__file__)
    before = sys.modules["__main__"]
    sys.modules["__main__"] = module
    try:
        yield
    finally:
        sys.modules["__main__"] = before


def _run_cell(path: Path, index: int, source: str, names: dict[str, Any]) -> None:
    """Execute a cell in a namespace, its lines after those of the cells before it."""
    parameters.parsed(path, index, source)
    file, lines = names["__file__"], linecache.getlines(names["__file__"])
    code = compile("\n" * len(lines) + source, file, "exec")
    lines += f"{source}\n".splitlines(keepends=True)
    linecache.cache[file] = (sum(map(len, lines)), None, lines, file)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(code, names)
    except SpecError as error:
        raise NotebookError(f"{path.name}, cell {index + 1}: {error}") from None
    except (Exception, SystemExit) as error:
        raise NotebookError(f"{path.name}, cell {index + 1} failed: {type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class Cost:
    """What the runs of one notebook take in a plan.

    Attributes:
        notebook: Its name.
        n_runs: How many runs it needs that no notebook before it needs.
        n_missing: How many of them are neither recorded nor in the cache.
        run_steps: The sum of their budgets, in optimizer steps.
        hours: About how long all of them take on this machine's processors.
        hours_missing: About how long the missing ones take.
    """

    notebook: str
    n_runs: int
    n_missing: int
    run_steps: int
    hours: float
    hours_missing: float


def cost(scale: str, store: Store, jobs: int | None = None) -> list[Cost]:
    """Return what the runs of each notebook take.

    A run that several notebooks need is counted with the first. Hours are estimates (`sweep.estimate`): a run that
    stops early counts as if it did not.

    Args:
        scale: "cpu", "full" or "smoke".
        store: Where runs are looked up.
        jobs: Number of processes that would train on the CPU (default: one a core).

    Returns:
        One cost for each notebook that needs a run.
    """
    costs = []
    counted: set[str] = set()
    for notebook in planned_notebooks(None, scale):
        specs = [spec for run, spec in {spec.id: spec for spec in notebook.specs}.items() if run not in counted]
        counted |= {spec.id for spec in specs}
        absent = missing(specs, store)
        if specs:
            costs.append(
                Cost(
                    notebook=notebook.path.stem,
                    n_runs=len(specs),
                    n_missing=len(absent),
                    run_steps=sum(spec.steps for spec in specs),
                    hours=estimate(specs, store, jobs),
                    hours_missing=estimate(absent, store, jobs),
                )
            )
    return costs
