"""Every record checked: its checksum, its specification against its id, and whether its numbers can be true."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from grokcore.records import weight_tables
from grokcore.records.record import Record, RecordError
from grokcore.records.store import Store
from grokcore.spec import schedule

ROUNDING = 1e-6  # relative, of single precision and of a mean of doubles
COSINE_ROUNDING = 1e-3  # of the cosine of two vectors of some 10^5 weights, summed in single precision
ADDITION = 2.0**-24  # relative, of each addition in single precision: a batch's accuracy is a sum over its rows
SHARES = ("accuracy", "answers_kept")  # in the names of measures that are a share of the rows
PROVENANCE = ("grokcore", "torch", "numpy", "python", "device", "commit", "seconds", "date")


@dataclass(frozen=True)
class Damage:
    """What is wrong with a record.

    Attributes:
        file: The name of the file.
        run: The id of the run; "" for the file as a whole.
        what: What is wrong, in words.
    """

    file: str
    run: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {f'run {self.run}: ' if self.run else ''}{self.what}"


def verify(store: Store) -> tuple[int, list[Damage]]:
    """Check all runs recorded or in the cache, the weights kept, and the tables measured on weights.

    Args:
        store: The store.

    Returns:
        How many runs were checked, and all that is wrong.
    """
    checks = list(_checks(store))
    damage: list[Damage] = []
    for file, run, load in checks:
        try:
            damage += [Damage(file, run, what) for what in problems(load())]
        except RecordError as error:
            damage.append(Damage(file, run, str(error)))
        except (KeyError, TypeError, ValueError) as error:
            damage.append(Damage(file, run, f"its curve is not one that training gives ({error!r})"))
    return len(checks), damage + _damaged_weights(store) + _damaged_lists(store) + _damaged_tables(store)


def _damaged_weights(store: Store) -> list[Damage]:
    damage = []
    for path in sorted(store.cache.glob("*.safetensors")):
        try:
            store.weights(path.stem)
        except RecordError as error:
            damage.append(Damage(path.name, path.stem, str(error)))
    return damage


def _damaged_lists(store: Store) -> list[Damage]:
    """Return what is wrong with the lists of runs beside the curves of the recorded experiments."""
    experiments = set(store.experiments())
    without_list = [path for path in store.records.glob("*.parquet") if path.stem not in experiments]
    damage = [
        Damage(path.name, "", f"has curves, but {path.stem}.json is missing, which says of which runs")
        for path in sorted(without_list)
    ]
    for experiment in sorted(experiments):
        try:
            headers, rows = set(store.headers(experiment)), store.runs_with_rows(experiment)
        except RecordError as error:
            damage.append(Damage(f"{experiment}.json", "", str(error)))
            continue
        damage += [Damage(f"{experiment}.parquet", run, "has a curve but no header") for run in sorted(rows - headers)]
    return damage


def _damaged_tables(store: Store) -> list[Damage]:
    damage = []
    for path in sorted(store.records.glob("*.csv")):
        try:
            weight_tables.read(path)
        except RecordError as error:
            damage.append(Damage(path.name, "", str(error)))
    return damage


def problems(record: Record) -> list[str]:
    """Return what in a record cannot be true.

    Args:
        record: A record that is as it was written.

    Returns:
        A line for each problem; none for an honest record.

    Example:
        >>> problems(Store().load("cb5bffd477ba4619"))
        []
    """
    spec, curve = record.spec, record.curve
    if curve.empty or "step" not in curve:
        return ["it has no evaluations"]
    steps, lines = curve["step"].to_numpy(), []
    expected = schedule.evaluation_steps(spec.steps)
    if not (np.diff(steps) > 0).all():
        lines.append("its steps do not increase")
    elif steps.tolist() != expected[: len(steps)]:
        lines.append(f"its steps are not those at which a run of {spec.steps} steps is evaluated")
    ended = {
        "finished": steps[-1] == spec.steps,
        "stopped early": spec.early_stop is not None and steps[-1] < spec.steps,
        "nonfinite": not np.isfinite(
            [curve[name].iloc[-1] for name in ("train_loss", "val_loss", "weight_norm")]
        ).all(),
    }
    if not ended.get(record.status, False):
        lines.append(f"it is said to be {record.status!r}, which its curve is not")
    lacking = [name for name in PROVENANCE if name not in record.provenance]
    if lacking:
        lines.append(f"its provenance lacks {', '.join(lacking)}")
    return lines + _out_of_range(record)


def _out_of_range(record: Record) -> list[str]:
    """Return a line for each measure with values that are impossible."""
    spec, curve = record.spec, record.curve
    sizes = {"train_accuracy": spec.n_train, "val_accuracy": spec.task.n_rows - spec.n_train}
    lines = []
    for name in curve.columns.drop("step"):
        values = curve[name].to_numpy(dtype=float)
        values = values[np.isfinite(values)]
        low, high, slack = 0.0, np.inf, 0.0
        if not name.startswith("norm:") and any(part in name for part in SHARES):
            high, slack = 1.0, ROUNDING
            if name.startswith("batch_"):
                slack = max(ROUNDING, min(spec.batch_size, spec.n_train) * ADDITION)
        elif name == "weight_cosine":
            low, high, slack = -1.0, 1.0, COSINE_ROUNDING
        if ((values < low - slack) | (values > high + slack)).any():
            lines.append(f"{name} is not between {low:g} and {high:g}")
        elif name in sizes and np.abs(values * sizes[name] - np.rint(values * sizes[name])).max(initial=0) > 0.05:
            lines.append(f"{name} is no share of {sizes[name]} rows")
    if not np.allclose(curve["epoch"] * spec.steps_per_epoch, curve["step"], rtol=ROUNDING):
        lines.append("its epochs are not those of its steps")
    return lines + _disordered(curve)


def _disordered(curve: pd.DataFrame) -> list[str]:
    """Return a line for each measure whose minimum, mean and maximum over steps are not in this order."""
    lines = []
    for name in [column.removesuffix("_mean") for column in curve.columns if column.endswith("_mean")]:
        low, mean, high = (curve[f"{name}_{kind}"].to_numpy(dtype=float) for kind in ("min", "mean", "max"))
        slack = ROUNDING * np.abs(mean)
        if ((low > mean + slack) | (mean > high + slack)).any():
            lines.append(f"the minimum, mean and maximum of {name} are not in this order")
    return lines


def _checks(store: Store) -> Iterator[tuple[str, str, Callable[[], Record]]]:
    """Yield file, run and a function that loads it, for every run recorded or in the cache."""
    for experiment in store.experiments():
        try:
            headers = store.headers(experiment)
        except RecordError:  # reported once, for the file as a whole
            continue
        for run, header in headers.items():
            yield f"{experiment}.parquet", run, partial(store.load_recorded, experiment, run, header)
    for path in sorted(store.cache.glob("*.parquet")):
        yield path.name, path.stem, partial(store.load_cached, path.stem)
