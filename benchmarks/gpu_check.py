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
Check = tuple[str, str, bool]  # what was checked, what came out, whether it is as it must be


def trained(specs: Sequence[RunSpec], device: str, plain: bool = False) -> dict[str, Trained]:
    """Train runs as one program and return them by id."""
    return {run.spec.id: run for run in train(specs, device, plain=plain)}


def difference(a: dict[str, Trained], b: dict[str, Trained]) -> float:
    """Return the largest difference between what was measured of the same runs, relative to its size."""
    worst = 0.0
    for run in b:
        for name in ("train_loss", "val_loss", "batch_loss_mean", "weight_norm"):
            one, other = (runs[run].curve[name][1:] for runs in (a, b))  # there are no means over steps at step 0
            found = float(np.max(np.abs(one - other) / np.abs(other))) if one.shape == other.shape else np.inf
            worst = max(worst, found if np.isfinite(found) else np.inf)
    return worst


def agreement(device: str, bases: dict[str, RunSpec] = LARGE) -> list[Check]:
    """Compare the device with the CPU, the captured step with the plain one, and runs together with runs alone."""
    checks: list[Check] = []

    def compare(what: str, a: dict[str, Trained], b: dict[str, Trained], most: float) -> None:
        found = difference(a, b)
        checks.append((what, f"largest relative difference {found:.1e}, allowed {most:.0e}", found <= most))

    for name, base in bases.items():
        for precision, most in (("float64", 1e-8), ("float32", 1e-2)):
            spec = gc.replace(base, precision=precision)
            specs = gc.grid(spec, alpha=[0.3, 0.5], seed=[0, 1])
            there = trained(specs, device)
            compare(f"{name}, {precision}: GPU and CPU", there, trained(specs, "cpu"), most)
            compare(f"{name}, {precision}: CUDA graph and plain", there, trained(specs, device, plain=True), most)
            alone = trained(specs[:1], device)
            compare(f"{name}, {precision}: together and alone", {specs[0].id: there[specs[0].id]}, alone, most)
    base = gc.replace(bases["msu"], precision="float64")
    lost, *kept = [gc.replace(base, lr=1e30), *gc.grid(base, seed=[1, 2])]
    there = trained([lost, *kept], device)
    steps = {run: int(there[run].curve["step"][-1]) for run in there}
    left = steps[lost.id] < base.steps and {steps[spec.id] for spec in kept} == {base.steps}
    checks.append(("a run that overflows leaves the batch", f"ended at steps {sorted(steps.values())}", left))
    after = {spec.id: there[spec.id] for spec in kept}
    compare("the others go on as if nothing had happened", after, trained(kept, device, plain=True), 1e-8)
    return checks


def tf32(device: str, n: int = 32, small: RunSpec = SMALL) -> list[Check]:
    """Compare grokking times under TF32 with those in full float32, over `n` seeds each."""
    times: dict[str, list[float]] = {}
    for precision in ("highest", "high"):
        torch.set_float32_matmul_precision(precision)
        runs = trained([gc.replace(small, seed=seed) for seed in range(n)], device)
        reached = [(run.curve["step"], run.curve["val_accuracy"] >= 0.99) for run in runs.values()]
        times[precision] = [float(step[at].min()) if at.any() else np.inf for step, at in reached]
    torch.set_float32_matmul_precision("highest")
    p = float(mannwhitneyu(times["highest"], times["high"]).pvalue)
    medians = " and ".join(f"{np.median(values):,.0f}" for values in times.values())
    return [("grokking times in float32 and TF32", f"median steps {medians}, p = {p:.2f}, allowed 0.01", p > 0.01)]


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
    said = f"{n * small.steps / seconds:,.0f} run-steps a second, {fitted} of {n} runs fitted"
    return [(f"sweep of {n} runs", said, curves.equals(again) and fitted >= 0.9 * n)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all checks and the benchmark, and print what came of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/gpu.json"), help="where the benchmark's rows go")
    given = parser.parse_args(arguments)
    if device_of("auto") == "cpu":
        print("gpu-check: not run, torch sees no GPU here", file=sys.stderr)
        return 1
    device = "cuda"
    parts: list[Callable[[str], list[Check]]] = [agreement, tf32, small_sweep]
    checks = [check for part in parts for check in part(device)]
    for what, found, good in checks:
        print(f"{'ok' if good else 'FAILED':8}{what:44}{found}", flush=True)
    torch.cuda.empty_cache()  # the benchmark is a process of its own
    rows = benchmark.run(device, full=True, cases=CASES)
    given.json.write_text(json.dumps(rows, indent=1) + "\n")
    print(terminal.bench_table(rows))
    return 0 if all(good for *_, good in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
