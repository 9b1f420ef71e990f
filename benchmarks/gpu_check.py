"""Check a GPU against the CPU, benchmark it, train a small sweep on it, and print one table (`make gpu-check`).

Exit code 1 if a check fails, or if there is no GPU: then nothing was checked.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import mannwhitneyu

import grokcore as gc
from grokcore.bench import benchmark
from grokcore.cli import terminal
from grokcore.engine.train import Trained, train
from grokcore.records.store import Store
from grokcore.spec.run import RunSpec
from grokcore.sweeps.pool import device_of

LARGE = {"msu": gc.msu(steps=128), "periodic": gc.periodic(2, steps=128)}
SMALL = gc.msu(p=23, alpha=0.8, d_model=64, d_mlp=256, lr=0.003, steps=2000)  # as in notebook 1
CASES = ("msu", "periodic-1", "periodic-2")  # of the benchmark; `grokcore bench --device cuda` times all


class Check(NamedTuple):
    """One check: what was compared, the result in words, and whether it is as it must be."""

    what: str
    result: str
    passed: bool


def trained(specs: Sequence[RunSpec], device: str, plain: bool = False) -> dict[str, Trained]:
    """Train runs as one program, without the compiled or captured step if `plain`, and return them by id."""
    return {run.spec.id: run for run in train(specs, device, plain=plain)}


def difference(a: dict[str, Trained], b: dict[str, Trained]) -> float:
    """Return the largest relative difference between the curves of the same runs, infinite if they do not compare."""
    largest = 0.0
    for run in b:
        for name in ("train_loss", "val_loss", "batch_loss_mean", "weight_norm"):
            first, second = (runs[run].curve[name][1:] for runs in (a, b))  # there are no means over steps at step 0
            relative = np.max(np.abs(first - second) / np.abs(second)) if first.shape == second.shape else np.inf
            largest = max(largest, float(relative) if np.isfinite(relative) else np.inf)
    return largest


def agreement(device: str, bases: dict[str, RunSpec] = LARGE) -> list[Check]:
    """Compare the device with the CPU, the captured step with the plain one, and runs together with runs alone."""
    checks: list[Check] = []

    def compare(what: str, a: dict[str, Trained], b: dict[str, Trained], allowed: float) -> None:
        largest = difference(a, b)
        result = f"largest relative difference {largest:.1e}, allowed {allowed:.0e}"
        checks.append(Check(what, result, largest <= allowed))

    for name, base in bases.items():
        for precision, allowed in (("float64", 1e-8), ("float32", 1e-2)):
            spec = gc.replace(base, precision=precision)
            specs = gc.grid(spec, alpha=[0.3, 0.5], seed=[0, 1])
            on_device = trained(specs, device)
            compare(f"{name}, {precision}: GPU and CPU", on_device, trained(specs, "cpu"), allowed)
            plain = trained(specs, device, plain=True)
            compare(f"{name}, {precision}: CUDA graph and plain", on_device, plain, allowed)
            alone = trained(specs[:1], device)
            compare(f"{name}, {precision}: together and alone", {specs[0].id: on_device[specs[0].id]}, alone, allowed)
    base = gc.replace(bases["msu"], precision="float64")
    overflowing, others = gc.replace(base, lr=1e30), gc.grid(base, seed=[1, 2])
    on_device = trained([overflowing, *others], device)
    last = {run: int(on_device[run].curve["step"][-1]) for run in on_device}
    left = last[overflowing.id] < base.steps and {last[spec.id] for spec in others} == {base.steps}
    checks.append(Check("a run that overflows leaves the batch", f"ended at steps {sorted(last.values())}", left))
    rest = {spec.id: on_device[spec.id] for spec in others}
    compare("the others go on as if nothing had happened", rest, trained(others, device, plain=True), 1e-8)
    return checks


def tf32(device: str, n: int = 32, small: RunSpec = SMALL) -> list[Check]:
    """Compare grokking times under TF32 with those in full float32, over `n` seeds each (Mann and Whitney's test)."""
    times: dict[str, list[float]] = {}
    for precision in ("highest", "high"):
        torch.set_float32_matmul_precision(precision)
        runs = trained([gc.replace(small, seed=seed) for seed in range(n)], device)
        reached = [(run.curve["step"], run.curve["val_accuracy"] >= 0.99) for run in runs.values()]
        times[precision] = [float(step[at].min()) if at.any() else np.inf for step, at in reached]
    torch.set_float32_matmul_precision("highest")
    p = float(mannwhitneyu(times["highest"], times["high"]).pvalue)
    medians = " and ".join(f"{np.median(values):,.0f}" for values in times.values())
    result = f"median steps {medians}, p = {p:.2f}, allowed 0.01"
    return [Check("grokking times in float32 and TF32", result, p > 0.01)]


def small_sweep(device: str, n: int = 64, small: RunSpec = SMALL) -> list[Check]:
    """Train a sweep through the store as a user would, and load it again."""
    specs = [gc.replace(small, seed=seed) for seed in range(n)]
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "cache", Path(folder) / "records")
        start = time.perf_counter()
        curves = gc.sweep(specs, store=store, device=device)
        seconds = time.perf_counter() - start
        again = gc.sweep(specs, store=store, device=device, train=False)
    fitted = int(np.isfinite(gc.summary(curves)["train_99_first"].to_numpy(dtype=float)).sum())
    result = f"{n * small.steps / seconds:,.0f} run-steps a second, {fitted} of {n} runs fitted"
    return [Check(f"sweep of {n} runs", result, curves.equals(again) and fitted >= 0.9 * n)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all checks and the benchmark, print the results, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/gpu.json"), help="where the benchmark's rows go")
    json_file: Path = parser.parse_args(arguments).json
    if device_of("auto") == "cpu":
        print("gpu-check: not run, torch sees no GPU here", file=sys.stderr)
        return 1
    device = "cuda"
    groups: list[Callable[[str], list[Check]]] = [agreement, tf32, small_sweep]
    checks = [check for group in groups for check in group(device)]
    for check in checks:
        print(f"{'ok' if check.passed else 'FAILED':8}{check.what:44}{check.result}", flush=True)
    torch.cuda.empty_cache()  # the benchmark is a process of its own
    rows = benchmark.run(device, full=True, cases=CASES)
    json_file.write_text(json.dumps(rows, indent=1) + "\n")
    print(terminal.bench_table(rows))
    return 0 if all(check.passed for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
