"""The benchmark: the engine against the plain loop of the source and against its own matrix products.

All sides take turns in one call, in windows of steps, for several rounds; a ratio is taken within a round, so that a
machine that is slower for a while is slower for both. Rows hold medians over the rounds, and in `spread` the smallest
and the largest.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from grokcore.bench.timing import Processes, Side
from grokcore.spec import schedule
from grokcore.spec.presets import msu, periodic, pku, pku_sum, power
from grokcore.spec.run import RunSpec, replace
from grokcore.sweeps.executors import cores
from grokcore.sweeps.grouping import runs_per_program

WINDOW = 200  # steps of a window
EVALUATIONS = 4  # evaluations of a window
ROUNDS = 3
SHARP = 0.9  # of the rate of a large product: below, the floor would be one that could be lower
CASES: dict[str, RunSpec] = {
    **{"msu": msu(), "periodic-1": periodic(1), "periodic-2": periodic(2), "decoder": power()},
    **{name: pku(name) for name in ("encoder", "mlp", "lstm")},
    **{f"sum-{k}": pku_sum(k) for k in (2, 3, 4)},
}
GROWTH: dict[str, tuple[str, Sequence[int]]] = {
    "p": ("p", (23, 47, 97, 197, 397)),
    "depth": ("n_layers", (1, 2, 4, 8)),
}
R_CPU, R_GPU = (1, 2, 4, 8), (1, 4, 16, 64, 256, 1024)
Row = dict[str, Any]
Say = Callable[[str], None]


def run(
    device: str = "cpu", full: bool = False, rounds: int = ROUNDS, say: Say = print, cases: Sequence[str] = ()
) -> list[Row]:
    """Time cases (default: all) on a device and return a row each; with `full` also growth with p, depth, R, processes.

    Times are in milliseconds a run-step, evaluation included unless the name says `step`. On a CPU the engine has one
    process a core, with one thread, and trains several runs at once where their step is small (`R`); on a GPU there is
    a row for each R.
    """
    n = cores()
    rows: list[Row] = []
    with Processes([*[1] * n, n]) as processes:
        about = {"device": device, "machine": _machine(device), **_versions()}
        for name in cases or CASES:
            spec = CASES[name]
            say(f"{name}: {rounds} rounds")
            case = (
                _cpu_case(processes, spec, n, rounds) if device == "cpu" else _gpu_case(processes, spec, device, rounds)
            )
            rows += [{"case": name, **about, "steps": spec.steps, **row} for row in case]
        for row in _growth(processes, device, n, rounds) if full else ():
            say(f"growth with {row['grows_with']}: {row['at']}")
            rows.append({"case": "growth", **about, **row})
    return rows


def evaluations_per_step(spec: RunSpec) -> float:
    """Return how many evaluations the schedule of a run makes for every step."""
    return len(schedule.evaluation_steps(spec.steps)) / spec.steps


def whole_epochs(spec: RunSpec) -> int:
    """Return the steps of a window of the reference: it looks at the validation set after each of its epochs."""
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


def _cpu_case(processes: Processes, spec: RunSpec, n: int, rounds: int) -> Iterator[Row]:
    """Time the engine and its products in one process and in one a core; the reference on all threads and one each.

    The engine trains as many runs at once as it would take of this kind.
    """
    R, window = runs_per_program(spec), whole_epochs(spec)
    engine, evaluation, products = (Side(kind, spec, R) for kind in ("engine", "evaluation", "floor"))
    alone, reference = Side("engine", spec), Side("reference", spec)
    every, threaded, share = range(n), (n,), evaluations_per_step(spec)
    operations = processes.value(Side("operations", spec, R)) / R
    measured: list[Row] = []
    for _ in range(rounds):
        step, floor = (processes.time(side, WINDOW) / WINDOW / R for side in (engine, products))
        step_all, floor_all = (processes.time(side, WINDOW, every) / WINDOW / R / n for side in (engine, products))
        evaluate = processes.time(evaluation, EVALUATIONS) / EVALUATIONS / R
        evaluate_all = processes.time(evaluation, EVALUATIONS, every) / EVALUATIONS / R / n
        plain = processes.time(reference, window, threaded) / window
        plain_all = processes.time(reference, window, every) / window / n
        rate = processes.value(Side("product rate", spec))
        whole = step_all + share * evaluate_all
        row: Row = {"reference_ms_per_run_step": 1e3 * plain, "two_references_ms_per_run_step": 1e3 * plain_all}
        row |= {"ms_per_run_step": 1e3 * whole, "step_ms_one_process": 1e3 * step, "floor_ms_one_process": 1e3 * floor}
        row |= {"job_speedup": plain / whole, "job_speedup_vs_two_references": plain_all / whole}
        row |= {"floor_ratio": step / floor, "evaluation_share": share * evaluate / (step + share * evaluate)}
        row |= {"gain_of_processes": step / step_all, "gain_of_processes_floor": floor / floor_all}
        row |= {"floor_gflops": operations / floor / 1e9, "floor_rate_share": operations / floor / rate}
        row |= {"gain_of_runs": processes.time(alone, WINDOW) / WINDOW / step if R > 1 else 1.0}
        measured.append(row)
    yield _summary(measured) | {"R": R, "processes": n, "threads": 1, "reference_threads": n, "operations": operations}


def _gpu_case(processes: Processes, spec: RunSpec, device: str, rounds: int) -> Iterator[Row]:
    """Time R runs as one program against the reference on the same GPU, for each R."""
    share = evaluations_per_step(spec)
    for R in R_GPU:
        try:
            yield _gpu_row(processes, spec, R, device, rounds, share)
        except RuntimeError as error:
            if "OutOfMemoryError" not in str(error):
                raise
            return  # more runs do not fit either


def _gpu_row(processes: Processes, spec: RunSpec, R: int, device: str, rounds: int, share: float) -> Row:
    engine, evaluation, products = (Side(kind, spec, R, device) for kind in ("engine", "evaluation", "floor"))
    operations, moved = (processes.value(Side(kind, spec, R, device)) / R for kind in ("operations", "bytes"))
    window = whole_epochs(spec)
    measured: list[Row] = []
    for _ in range(rounds):
        step = processes.time(engine, WINDOW) / WINDOW / R
        whole = step + share * processes.time(evaluation, EVALUATIONS) / EVALUATIONS / R
        floor = processes.time(products, WINDOW) / WINDOW / R
        plain = processes.time(Side("reference", spec, R, device), window) / window
        rate, width = (processes.value(Side(kind, spec, R, device)) for kind in ("product rate", "bandwidth"))
        row: Row = {"reference_ms_per_run_step": 1e3 * plain, "ms_per_run_step": 1e3 * whole}
        row |= {"run_steps_per_second": 1 / whole, "job_speedup": plain / whole}
        row |= {"floor_ratio": step / floor, "evaluation_share": 1 - step / whole, "bytes_ratio": step * width / moved}
        row |= {"floor_gflops": operations / floor / 1e9, "floor_rate_share": operations / floor / rate}
        measured.append(row)
    return _summary(measured) | {"R": R, "processes": 1, "threads": 1, "operations": operations}


def _growth(processes: Processes, device: str, n: int, rounds: int) -> Iterator[Row]:
    """Time one step of `msu`, and its products, as p, depth and on a CPU R and the number of processes grow."""
    base = CASES["msu"]
    points: list[tuple[str, int, RunSpec, int, Sequence[int]]] = [
        (kind, value, replace(base, **{field: value}), 1, (0,))
        for kind, (field, values) in GROWTH.items()
        for value in values
    ]
    if device == "cpu":  # a GPU has a row for each R already, and one process
        points += [("R", R, base, R, (0,)) for R in R_CPU]
        points += [("processes", k, base, 1, range(k)) for k in range(1, n + 1)]
    for kind, at, spec, R, among in points:
        engine, products = (Side(which, spec, R, device) for which in ("engine", "floor"))
        runs, window = R * len(among), max(20, WINDOW // (2 * R))
        measured: list[Row] = []
        for _ in range(rounds):
            step, floor = (processes.time(side, window, among) / window / runs for side in (engine, products))
            row: Row = {"step_ms_per_run_step": 1e3 * step, "floor_ms_per_run_step": 1e3 * floor}
            measured.append(row | {"floor_ratio": step / floor})
        yield _summary(measured) | {"grows_with": kind, "at": at, "R": R, "processes": len(among), "threads": 1}


def _summary(measured: list[Row]) -> Row:
    """Return the median of every measure over the rounds, and its smallest and largest in `spread`."""
    columns = {name: [row[name] for row in measured] for name in measured[0]}
    spread = {name: [min(values), max(values)] for name, values in columns.items()}
    medians = {name: statistics.median(values) for name, values in columns.items()}
    return {**medians, "spread": spread, "rounds": len(measured)}
