"""The benchmark: the engine against the plain loop of the source and against its own matrix products.

All sides take turns in one call, in windows of steps, for several rounds; a ratio is taken within a round, so that a
machine which is slower for a while is slower for both. Reported are medians over the rounds with the smallest and the
largest.
"""

from __future__ import annotations

import platform
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from grokcore import tasks
from grokcore.pool import cores
from grokcore.spec import RunSpec, msu, periodic, replace
from grokcore.timing import Processes, Side

WINDOW = 200  # steps of a window
EVALUATIONS = 4  # evaluations of a window
CASES: dict[str, RunSpec] = {"msu": msu(), "periodic-1": periodic(1), "periodic-2": periodic(2)}
GROWTH: dict[str, tuple[str, Sequence[int]]] = {
    "p": ("p", (23, 47, 97, 197, 397)),
    "depth": ("n_layers", (1, 2, 4, 8)),
}
R_CPU, R_GPU = (1, 2, 4, 8), (1, 4, 16, 64, 256, 1024)
Row = dict[str, Any]
Say = Callable[[str], None]


def run(device: str = "cpu", full: bool = False, rounds: int = 3, say: Say = print) -> list[Row]:
    """Time every case on a device and return a row each; with `full` also the growth with p, depth, R and processes."""
    n = cores()
    rows: list[Row] = []
    with Processes([*[1] * n, n]) as processes:
        for name, spec in CASES.items():
            say(f"{name}: {rounds} rounds")
            case = _cpu_case if device == "cpu" else _gpu_case
            rows += [_about(name, spec, device) | row for row in case(processes, spec, device, n, rounds)]
        for row in _growth(processes, device, n) if full else ():
            say(f"growth with {row['grows_with']}: {row['at']}")
            rows.append(row)
    return rows


def evaluations_per_step(spec: RunSpec) -> float:
    """Return how many evaluations the schedule of a run makes for every step."""
    return len(tasks.evaluation_steps(spec.steps)) / spec.steps


def _about(name: str, spec: RunSpec, device: str) -> Row:
    import torch

    machine = platform.processor() or platform.machine()
    if device != "cpu":
        machine = torch.cuda.get_device_name(device)
    return {"case": name, "device": device, "machine": machine, "torch": torch.__version__, "steps": spec.steps}


def _cpu_case(processes: Processes, spec: RunSpec, device: str, n: int, rounds: int) -> Iterator[Row]:
    """Time one run a process on one thread, in one process and in all, the reference on all threads and one each."""
    engine, evaluation = Side("engine", spec), Side("evaluation", spec)
    reference, products = Side("reference", spec), Side("floor", spec)
    one, every, threaded = (0,), tuple(range(n)), (n,)
    share = evaluations_per_step(spec)
    measured: list[Row] = []
    for _ in range(rounds):
        step, floor = processes.time(engine, WINDOW, one) / WINDOW, processes.time(products, WINDOW, one) / WINDOW
        step_all = processes.time(engine, WINDOW, every) / WINDOW / n
        floor_all = processes.time(products, WINDOW, every) / WINDOW / n
        evaluate = processes.time(evaluation, EVALUATIONS, one) / EVALUATIONS
        evaluate_all = processes.time(evaluation, EVALUATIONS, every) / EVALUATIONS / n
        plain = processes.time(reference, WINDOW, threaded) / WINDOW
        plain_all = processes.time(reference, WINDOW, every) / WINDOW / n
        rate = processes.value(Side("product rate", spec))
        whole, whole_all = step + share * evaluate, step_all + share * evaluate_all
        measured.append(
            {
                "reference_ms_per_run_step": 1e3 * plain,
                "two_references_ms_per_run_step": 1e3 * plain_all,
                "ms_per_run_step": 1e3 * whole_all,
                "step_ms_one_process": 1e3 * step,
                "floor_ms_one_process": 1e3 * floor,
                "job_speedup": plain / whole_all,
                "job_speedup_vs_two_references": plain_all / whole_all,
                "floor_ratio": step / floor,
                "evaluation_share": share * evaluate / whole,
                "gain_of_processes": step / step_all,
                "gain_of_processes_floor": floor / floor_all,
                "floor_gflops": processes.value(Side("operations", spec)) / floor / 1e9,
                "floor_rate_share": processes.value(Side("operations", spec)) / floor / rate,
            }
        )
    yield {"processes": n, "threads": 1, "reference_threads": n, "R": 1, **_summary(measured)}


def _gpu_case(processes: Processes, spec: RunSpec, device: str, n: int, rounds: int) -> Iterator[Row]:
    """Time R runs as one program against the reference on the same GPU, for each R."""
    share = evaluations_per_step(spec)
    for R in R_GPU:
        measured: list[Row] = []
        for _ in range(rounds):
            engine, evaluation = (Side(kind, spec, R, device) for kind in ("engine", "evaluation"))
            step = processes.time(engine, WINDOW) / WINDOW / R
            evaluate = processes.time(evaluation, EVALUATIONS) / EVALUATIONS / R
            floor = processes.time(Side("floor", spec, R, device), WINDOW) / WINDOW / R
            plain = processes.time(Side("reference", spec, device=device), WINDOW) / WINDOW
            operations = processes.value(Side("operations", spec, R, device))
            moved = processes.value(Side("bytes", spec, R, device))
            whole = step + share * evaluate
            measured.append(
                {
                    "reference_ms_per_run_step": 1e3 * plain,
                    "ms_per_run_step": 1e3 * whole,
                    "run_steps_per_second": 1 / whole,
                    "job_speedup": plain / whole,
                    "floor_ratio": step / floor,
                    "evaluation_share": share * evaluate / whole,
                    "floor_tflops": operations / R / floor / 1e12,
                    "floor_bytes_per_second": moved / R / floor,
                }
            )
        yield {"processes": 1, "threads": n, "R": R, **_summary(measured)}


def _growth(processes: Processes, device: str, n: int) -> Iterator[Row]:
    """Time one step of `msu`, and its products, as p, depth, R and on a CPU the number of processes grow."""
    base = CASES["msu"]
    points: list[tuple[str, int, RunSpec, int, Sequence[int]]] = []
    for kind, (field, values) in GROWTH.items():
        points += [(kind, value, replace(base, **{field: value}), 1, (0,)) for value in values]
    points += [("R", R, base, R, (0,)) for R in (R_CPU if device == "cpu" else R_GPU)]
    if device == "cpu":
        points += [("processes", k, base, 1, tuple(range(k))) for k in range(1, n + 1)]
    for kind, at, spec, R, among in points:
        engine, products = (Side(which, spec, R, device) for which in ("engine", "floor"))
        runs, window = R * len(among), max(20, WINDOW // max(1, R // 2))
        rounds = [
            {
                "ms_per_run_step": 1e3 * processes.time(engine, window, among) / window / runs,
                "floor_ms_per_run_step": 1e3 * processes.time(products, window, among) / window / runs,
            }
            for _ in range(3)
        ]
        for row in rounds:
            row["floor_ratio"] = row["ms_per_run_step"] / row["floor_ms_per_run_step"]
        yield {"case": "growth", "device": device, "grows_with": kind, "at": at, "R": R, **_summary(rounds)}


def _summary(measured: list[Row]) -> Row:
    """Return the median of every measure over the rounds, and its smallest and largest in `spread`."""
    row: Row = {name: statistics.median(each[name] for each in measured) for name in measured[0]}
    row["spread"] = {
        name: [min(each[name] for each in measured), max(each[name] for each in measured)] for name in measured[0]
    }
    return row | {"rounds": len(measured)}
