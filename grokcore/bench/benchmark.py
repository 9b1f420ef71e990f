"""The benchmark: the engine against the plain loop of the source, and against its own matrix products.

All sides are timed in turns within one call, in windows of steps, for several rounds. A ratio is taken within a round,
so that a machine that is slow for a while is slow for both sides. Rows hold medians over the rounds, and in `spread`
the smallest and the largest value.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from grokcore.bench.cases import CASES, ROUNDS
from grokcore.bench.timing import Processes, Side
from grokcore.spec import schedule
from grokcore.spec.run import RunSpec, replace
from grokcore.sweeps.executors import cores
from grokcore.sweeps.grouping import runs_per_program

WINDOW = 200  # steps of a window
EVALUATIONS = 4  # evaluations of a window
SHARP = 0.9  # smallest rate, as a share of that of a large product, at which the matmul bound counts as sharp
GROWTH: dict[str, tuple[str, Sequence[int]]] = {
    "p": ("p", (23, 47, 97, 197, 397)),
    "depth": ("n_layers", (1, 2, 4, 8)),
}
R_CPU = (1, 2, 4, 8)
R_GPU = (1, 4, 16, 64, 256, 1024)
Row = dict[str, Any]
Say = Callable[[str], None]


def run(
    device: str = "cpu", full: bool = False, rounds: int = ROUNDS, say: Say = print, cases: Sequence[str] = ()
) -> list[Row]:
    """Time cases on a device.

    On a CPU the engine has one process a core, with one thread each, and trains several runs at once where their step
    is small (`R`). On a GPU there is a row for each R.

    Args:
        device: where all sides run: `cpu`, `cuda`, …
        full: also time how a step grows with p and depth, and on a CPU with R and the number of processes.
        rounds: how many times every side is timed.
        say: called with a line of progress.
        cases: names of `CASES`; all of them if there are none.

    Returns:
        One row a case, or on a GPU one for each case and R. Times are in milliseconds a run-step and include the
        evaluations, unless the column's name begins with `step` or `matmul_bound`.

    Raises:
        RuntimeError: a side failed in its process; the message names the side and its error.
    """
    n_cores = cores()
    rows: list[Row] = []
    with Processes([*[1] * n_cores, n_cores]) as processes:
        origin = {"device": device, "machine": _machine(device), **_versions()}
        for name in cases or CASES:
            spec = CASES[name]
            say(f"{name}: {rounds} rounds")
            if device == "cpu":
                case_rows = _cpu_case(processes, spec, n_cores, rounds)
            else:
                case_rows = _gpu_case(processes, spec, device, rounds)
            rows += [{"case": name, **origin, "steps": spec.steps, **row} for row in case_rows]
        for row in _growth(processes, device, n_cores, rounds) if full else ():
            say(f"growth with {row['grows_with']}: {row['at']}")
            rows.append({"case": "growth", **origin, **row})
    return rows


def evaluations_per_step(spec: RunSpec) -> float:
    """Return how many evaluations the schedule of a run makes for every step."""
    return len(schedule.evaluation_steps(spec.steps)) / spec.steps


def whole_epochs(spec: RunSpec) -> int:
    """Return the steps of a window of the reference, which evaluates the validation set after each of its epochs.

    Example:
        >>> spec = CASES["sum-2"]
        >>> spec.steps_per_epoch, whole_epochs(spec)  # the first multiple that is at least WINDOW
        (162, 324)
    """
    return -(-WINDOW // spec.steps_per_epoch) * spec.steps_per_epoch


def _machine(device: str) -> str:
    import torch

    if device == "cpu":
        return f"CPU {torch.backends.cpu.get_cpu_capability()}, {cores()} cores"
    return torch.cuda.get_device_name(device)


def _versions() -> Row:
    import torch

    from grokcore import __version__

    return {"grokcore": __version__, "torch": torch.__version__}


def _cpu_case(processes: Processes, spec: RunSpec, n_cores: int, rounds: int) -> Iterator[Row]:
    """Time one network on a CPU; the engine trains as many runs at once as it would take of this kind."""
    R = runs_per_program(spec)
    operations = processes.value(Side("operations", spec, R)) / R
    summary = _summary([_cpu_round(processes, spec, R, n_cores, operations) for _ in range(rounds)])
    yield {
        **summary,
        "R": R,
        "processes": n_cores,
        "threads": 1,
        "reference_threads": n_cores,
        "operations": operations,
    }


def _cpu_round(processes: Processes, spec: RunSpec, R: int, n_cores: int, operations: float) -> Row:
    """Time the engine and its matrix products in one process and in one a core; the reference on all threads, and as
    many references at once as there are cores.
    """
    engine, bound, evaluation = (Side(kind, spec, R) for kind in ("engine", "matmul bound", "evaluation"))
    reference = Side("reference", spec)
    each_core, threaded = range(n_cores), (n_cores,)
    window, share = whole_epochs(spec), evaluations_per_step(spec)
    step = processes.time(engine, WINDOW) / WINDOW / R
    products = processes.time(bound, WINDOW) / WINDOW / R
    step_all = processes.time(engine, WINDOW, each_core) / WINDOW / R / n_cores
    products_all = processes.time(bound, WINDOW, each_core) / WINDOW / R / n_cores
    evaluate = processes.time(evaluation, EVALUATIONS) / EVALUATIONS / R
    evaluate_all = processes.time(evaluation, EVALUATIONS, each_core) / EVALUATIONS / R / n_cores
    plain = processes.time(reference, window, threaded) / window
    plain_all = processes.time(reference, window, each_core) / window / n_cores
    largest_rate = processes.value(Side("product rate", spec))
    alone = processes.time(Side("engine", spec), WINDOW) / WINDOW if R > 1 else step
    whole = step_all + share * evaluate_all
    return {
        "reference_ms_per_run_step": 1e3 * plain,
        "two_references_ms_per_run_step": 1e3 * plain_all,
        "ms_per_run_step": 1e3 * whole,
        "step_ms_one_process": 1e3 * step,
        "matmul_bound_ms_one_process": 1e3 * products,
        "job_speedup": plain / whole,
        "job_speedup_vs_two_references": plain_all / whole,
        "matmul_bound_ratio": step / products,
        "evaluation_share": share * evaluate / (step + share * evaluate),
        "gain_of_processes": step / step_all,
        "gain_of_processes_matmul_bound": products / products_all,
        "matmul_bound_gflops": operations / products / 1e9,
        "matmul_bound_rate_share": operations / products / largest_rate,
        "gain_of_runs": alone / step,
    }


def _gpu_case(processes: Processes, spec: RunSpec, device: str, rounds: int) -> Iterator[Row]:
    """Time R runs as one program against the reference on the same GPU, for each R that fits into its memory."""
    for R in R_GPU:
        try:
            operations = processes.value(Side("operations", spec, R, device)) / R
            summary = _summary([_gpu_round(processes, spec, R, device, operations) for _ in range(rounds)])
        except RuntimeError as error:
            if "OutOfMemoryError" not in str(error):
                raise
            return  # more runs do not fit either
        yield {**summary, "R": R, "processes": 1, "threads": 1, "operations": operations}


def _gpu_round(processes: Processes, spec: RunSpec, R: int, device: str, operations: float) -> Row:
    """Time the engine, its matrix products and the reference on a GPU, one after the other."""
    engine, bound, evaluation = (Side(kind, spec, R, device) for kind in ("engine", "matmul bound", "evaluation"))
    window, share = whole_epochs(spec), evaluations_per_step(spec)
    step = processes.time(engine, WINDOW) / WINDOW / R
    whole = step + share * processes.time(evaluation, EVALUATIONS) / EVALUATIONS / R
    products = processes.time(bound, WINDOW) / WINDOW / R
    plain = processes.time(Side("reference", spec, R, device), window) / window
    moved = processes.value(Side("bytes", spec, R, device)) / R
    largest_rate = processes.value(Side("product rate", spec, R, device))
    bandwidth = processes.value(Side("bandwidth", spec, R, device))
    return {
        "reference_ms_per_run_step": 1e3 * plain,
        "ms_per_run_step": 1e3 * whole,
        "run_steps_per_second": 1 / whole,
        "job_speedup": plain / whole,
        "matmul_bound_ratio": step / products,
        "evaluation_share": 1 - step / whole,
        "bytes_ratio": step * bandwidth / moved,
        "matmul_bound_gflops": operations / products / 1e9,
        "matmul_bound_rate_share": operations / products / largest_rate,
    }


@dataclass(frozen=True)
class _Point:
    """One place on a curve of growth: runs of `spec`, R in a program, in the first processes of one thread."""

    grows_with: str
    at: int
    spec: RunSpec
    R: int = 1
    n_processes: int = 1


def _growth(processes: Processes, device: str, n_cores: int, rounds: int) -> Iterator[Row]:
    """Time one step of `msu`, and its products, as p, depth and on a CPU R and the number of processes grow."""
    base = CASES["msu"]
    points = [
        _Point(name, value, replace(base, **{field: value}))
        for name, (field, values) in GROWTH.items()
        for value in values
    ]
    if device == "cpu":  # a GPU has a row for each R already, and one process
        points += [_Point("R", R, base, R=R) for R in R_CPU]
        points += [_Point("processes", n, base, n_processes=n) for n in range(1, n_cores + 1)]
    for point in points:
        summary = _summary([_growth_round(processes, point, device) for _ in range(rounds)])
        yield {
            **summary,
            "grows_with": point.grows_with,
            "at": point.at,
            "R": point.R,
            "processes": point.n_processes,
            "threads": 1,
        }


def _growth_round(processes: Processes, point: _Point, device: str) -> Row:
    engine, bound = (Side(kind, point.spec, point.R, device) for kind in ("engine", "matmul bound"))
    workers, runs, window = range(point.n_processes), point.R * point.n_processes, max(20, WINDOW // (2 * point.R))
    step = processes.time(engine, window, workers) / window / runs
    products = processes.time(bound, window, workers) / window / runs
    return {
        "step_ms_per_run_step": 1e3 * step,
        "matmul_bound_ms_per_run_step": 1e3 * products,
        "matmul_bound_ratio": step / products,
    }


def _summary(rounds: list[Row]) -> Row:
    """Return the median of every column over the rounds, and its smallest and largest value in `spread`."""
    columns = {name: [row[name] for row in rounds] for name in rounds[0]}
    spread = {name: [min(values), max(values)] for name, values in columns.items()}
    medians = {name: statistics.median(values) for name, values in columns.items()}
    return {**medians, "spread": spread, "rounds": len(rounds)}
