"""Work out what `same.py` compares with the package of the tree that this runs in, and print it as JSON.

`python same_probe.py CHECKPOINT write|read`: the tree of the older commit writes the checkpoint half-way through a
training and goes on; the other one reads it and trains the rest. Names of modules that have changed stand behind one
another, the newest first, so that older commits can be compared too.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# An editable install answers for each module of grokcore that this tree lacks, with that of another tree.
sys.meta_path[:] = [finder for finder in sys.meta_path if "__editable__" not in getattr(finder, "__module__", "")]

import numpy as np  # noqa: E402

import grokcore as gc  # noqa: E402

SMALL: dict[str, Any] = {"p": 23, "alpha": 0.6, "d_model": 16, "d_mlp": 32, "n_heads": 2, "batch_size": 64}
HALF = 200  # the step after which the checkpoint is written


def first(name: str, *modules: str) -> Any:
    """Return an object by name from the first of these modules that has it."""
    for module in modules:
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue
    raise ImportError(f"no {name} in {', '.join(modules)}")


train = first("train", "grokcore.engine.train", "grokcore.train")
try:
    planned_notebooks = first("planned_notebooks", "grokcore.report.plan")
except ImportError:
    planned_notebooks = first("make_plan", "grokcore.report.plan", "grokcore.report.build", "grokcore.report")
evidence = first("evidence", "grokcore.report.evidence", "grokcore.report.front_page", "grokcore.front")
claims_json = first("claims_json", "grokcore.report.evidence", "grokcore.report.front_page", "grokcore.front")
read_checkpoint = first("read", "grokcore.sweeps.checkpoint", "grokcore.checkpoint")
write_checkpoint = first("write", "grokcore.sweeps.checkpoint", "grokcore.checkpoint")


def checkpoint_options(**options: Any) -> dict[str, Any]:
    """Return the arguments of `train` for `resume` or `save`; older commits took both by themselves."""
    try:
        return {"checkpoints": first("Checkpoints", "grokcore.engine.snapshot")(**options)}
    except ImportError:
        return {{"save": "checkpoint"}.get(name, name): value for name, value in options.items()}


def digest(arrays: dict[str, np.ndarray]) -> str:
    """Return the SHA-256 of arrays with their names and types, to the last bit."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {values.dtype} {values.shape}".encode() + values.tobytes())
    return total.hexdigest()


def runs_of(*scales: str) -> dict[str, Any]:
    """Return ids and kept steps of the runs of every notebook, by notebook and scale."""
    return {
        f"{one.path.stem}, {scale}": [[spec.id for spec in one.specs], list(one.kept)]
        for scale in scales
        for one in planned_notebooks(None, scale)
    }


def records(store: gc.Store) -> dict[str, str]:
    """Return the checksum of every recorded run, by id."""
    runs = list(store.recorded())
    return {run: record.checksum for run, record in zip(runs, store.load_all(runs), strict=True)}


def verdicts(store: gc.Store) -> dict[str, Any]:
    """Return the verdict on every claim, judged from the records, as claims.json holds it."""
    rows = json.loads(claims_json(evidence(store, list(store.recorded())), "cpu"))
    return {row["id"]: row for row in rows}


def outcome(specs: Sequence[gc.RunSpec], **options: Any) -> dict[str, str]:
    """Return the digest of curve, status and last weights of each of these runs, trained together."""
    last = specs[0].steps
    ended = {}
    for run in train(specs, "cpu", keep_weights=[last], **options):
        weights = {f"weights/{name}": value for name, value in run.weights.get(last, {}).items()}
        ended[run.spec.id] = f"{run.status} {run.engine} {digest({**run.curve, **weights})}"
    return ended


def trainings() -> dict[str, str]:
    """Return the outcomes of three small trainings."""
    compiled = [gc.msu("x*y", **SMALL, steps=5000, early_stop=500)]
    noisy = [gc.power("x/y", **{**SMALL, "alpha": 0.7}, dropout=0.1, update_noise=0.01, weight_noise=0.01, steps=400)]
    together = gc.grid(gc.periodic(1, **SMALL, steps=400, clip_grad_norm=1.0), seed=range(3))
    groups = {"compiled": compiled, "with noise": noisy, "three at once": together}
    return {f"{name}, run {run}": found for name, specs in groups.items() for run, found in outcome(specs).items()}


def resumed(file: Path, writes: bool) -> dict[str, str]:
    """Return how a training ends that writes a checkpoint half-way, or that goes on from it."""
    specs = gc.grid(gc.power("x-y", **SMALL, dropout=0.1, steps=600), seed=range(2))
    if not writes:
        return outcome(specs, **checkpoint_options(resume=read_checkpoint(file)))

    def save(take: Callable[[], Any]) -> None:
        if not file.is_file() and (snapshot := take()).step >= HALF:
            write_checkpoint(file, snapshot, {})

    return outcome(specs, **checkpoint_options(save=save))


def modules_of_other_trees() -> list[str]:
    """Return the files of the modules of grokcore that were not loaded from this tree."""
    files = [module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "grokcore"]
    return [file for file in files if file and Path.cwd().resolve() not in Path(file).resolve().parents]


def main() -> None:
    """Print all that is compared as JSON."""
    checkpoint, role = Path(sys.argv[1]), sys.argv[2]
    with tempfile.TemporaryDirectory() as folder:
        store = gc.Store(cache=folder, records=Path("data/records"))
        found = {"plans": runs_of("cpu", "full"), "smoke scale": runs_of("smoke")}
        found |= {"records": records(store), "verdicts": verdicts(store)}
        found |= {"trainings": trainings(), "checkpoint": resumed(checkpoint, role == "write")}
    if strangers := modules_of_other_trees():
        raise SystemExit(f"not the package of this tree: {', '.join(strangers)}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
