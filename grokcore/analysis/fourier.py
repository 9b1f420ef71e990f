"""The Fourier picture of a network that adds: spectra of its embedding, and its accuracy by key frequencies alone.

Addition modulo n is multiplication of waves: exp(2πika/n)·exp(2πikb/n) = exp(2πik(a+b)/n) for every frequency k. A
network that uses this has an embedding whose rows, as a function of the number, consist of few frequencies (Nanda et
al. 2023). Multiplication modulo a prime p is addition modulo p - 1 of discrete logarithms, so the same is measured with
the numbers 1 to p - 1 in the order of the powers of a primitive root.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from grokcore.engine import batches
from grokcore.records import weight_tables
from grokcore.records.store import Store
from grokcore.spec import schedule
from grokcore.spec.base import SpecError
from grokcore.spec.run import RunSpec
from grokcore.spec.task import is_prime

FILE = "fourier.csv"
TYPES: dict[Any, Any] = {"run": str, "step": int, "measure": str, "frequency": int, "value": float}
COLUMNS = list(TYPES)
KEY = 3.0  # a key frequency holds at least this many times its equal share of the power
SIGNS = {"x+y": 1, "x-y": -1, "x*y": 1, "x/y": -1}
LOGARITHMIC = ("x*y", "x/y")
NETWORKS = ("grokformer", "periodic", "decoder")  # whose weights hold the embedding as the table W_E
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def steps_kept(budget: int) -> list[int]:
    """Return some 20 evaluations of a run at which to keep its weights: 0, then by factors of about 1.3 to its end.

    Example:
        >>> steps_kept(10_000)[:3], steps_kept(10_000)[-3:]
        ([0, 64, 91], [5800, 7600, 10000])
    """
    evaluated = np.array(schedule.evaluation_steps(budget)[1:])
    targets = budget / 2.0 ** (0.4 * np.arange(19))
    return sorted({0, *(int(evaluated[np.argmin(np.abs(np.log(evaluated / step)))]) for step in targets)})


def primitive_root(p: int) -> int:
    """Return the smallest g whose powers are all of 1 to p - 1 modulo the prime p.

    Raises:
        SpecError: p is not prime.

    Example:
        >>> primitive_root(7), [3**k % 7 for k in range(6)]
        (3, [1, 3, 2, 6, 4, 5])
    """
    if not is_prime(p):
        raise SpecError(f"only a prime has a primitive root of this kind, p = {p} is not prime: choose a prime")
    return next(g for g in range(1, p) if len({pow(g, k, p) for k in range(p - 1)}) == p - 1)


def order(operation: str, p: int, logarithmic: bool | None = None) -> Ints:
    """Return the numbers in the order in which an operation is addition modulo n.

    Args:
        operation: one of `SIGNS`.
        p: the modulus.
        logarithmic: whether to take the powers of a primitive root (default: for x*y and x/y), or 0 to p - 1.

    Returns:
        Numbers `[n]`, where n is p, or p - 1 if logarithmic.

    Raises:
        SpecError: an operation that is no addition in either order, or logarithms modulo a number that is not prime.

    Example:
        >>> order("x*y", 7).tolist()
        [1, 3, 2, 6, 4, 5]
    """
    if operation not in SIGNS:
        raise SpecError(f"the Fourier picture is that of {', '.join(SIGNS)}; got {operation!r}")
    if logarithmic is None:
        logarithmic = operation in LOGARITHMIC
    if not logarithmic:
        return np.arange(p)
    g = primitive_root(p)
    return np.array([pow(g, k, p) for k in range(p - 1)], dtype=np.int64)


def spectrum(rows: Floats) -> Floats:
    """Return the share of each frequency in the power of rows, without their mean.

    Args:
        rows: `[n, D]`, such as an embedding in the order of the operation.

    Returns:
        Shares `[n // 2]` of the frequencies k = 1 … n // 2, with sum 1. Rows that are all the same have no power, and
        every share is 0.

    Example:
        >>> wave = np.cos(2 * np.pi * 2 * np.arange(9) / 9)
        >>> spectrum(wave[:, None]).round(6).tolist()
        [0.0, 1.0, 0.0, 0.0]
    """
    n = len(rows)
    power = (np.abs(np.fft.rfft(np.asarray(rows, dtype=np.float64), axis=0)) ** 2).sum(1)[1:]
    power[: (n - 1) // 2] *= 2  # every frequency but n/2 stands for itself and its mirror image
    return power / max(power.sum(), np.finfo(np.float64).tiny)


def equal_shares(n: int) -> Floats:
    """Return the shares `[n // 2]` of rows in which all waves have equal power.

    A frequency has two waves, cosine and sine; the frequency n/2 has a cosine alone.
    """
    waves = np.where(2 * np.arange(1, n // 2 + 1) == n, 1.0, 2.0)
    return waves / (n - 1)


def key_frequencies(shares: Floats, n: int) -> list[int]:
    """Return the frequencies that hold at least `KEY` times their equal share of the power.

    Args:
        shares: what `spectrum` returns, `[n // 2]`.
        n: number of rows that the spectrum is of.

    Example:
        >>> key_frequencies(np.array([0.02, 0.9, 0.02, 0.02, 0.04]), 11)
        [2]
    """
    return [int(k) + 1 for k in np.flatnonzero(shares >= KEY * equal_shares(n))]


def split_logits(logits: Floats, keys: Sequence[int], sign: int = 1) -> tuple[Floats, Floats]:
    """Split logits into what consists of waves in a + sign·b of the key frequencies, and the rest.

    Args:
        logits: `[n, n, V]`, of the pairs (a, b).
        keys: the key frequencies.
        sign: 1 for an addition, -1 for a subtraction.

    Returns:
        Two parts `[n, n, V]`: *restricted*, the waves and the mean over the table; *excluded*, all but the waves.
    """
    n = len(logits)
    a, b = np.meshgrid(np.arange(n), np.arange(n), indexing="ij")
    total = (a + sign * b) % n
    by_total = np.stack([logits[total == s].mean(0) for s in range(n)])  # [n, V]
    transformed = np.fft.fft(by_total, axis=0)
    kept = np.zeros(n, dtype=bool)
    kept[[k % n for key in keys for k in (key, -key)]] = True
    waves = np.fft.ifft(np.where(kept[:, None], transformed, 0), axis=0).real[total]
    return waves + logits.mean((0, 1)), logits - waves


def measure(spec: RunSpec, weights: Mapping[int, Mapping[str, np.ndarray]]) -> pd.DataFrame:
    """Return what the weights of a run show, step by step.

    Args:
        spec: the run.
        weights: by step, the network's weights by name.

    Returns:
        A frame with the columns `COLUMNS` and these measures:

        * `share`: the spectrum of the embedding in the order of the operation, by frequency;
        * `share_other`: the same in the other order (for x+y the logarithmic one), where p is prime;
        * `key`: a row for each key frequency of the last step;
        * `key_share`: the share of the power that the key frequencies hold;
        * `{full,restricted,excluded}_{train,val}_{accuracy,loss}`: of the logits and of the two parts of
          `split_logits`, on the rows whose numbers are in the order (for x*y those without 0); losses in nats.

    Raises:
        SpecError: the operation is no addition, or the network has no table `W_E`.
    """
    from grokcore.nn.build import build_network

    if obstacle := _obstacle(spec):
        raise SpecError(obstacle)
    task = spec.task
    numbers, sign = order(task.operation, task.p), SIGNS[task.operation]
    n, natural = len(numbers), task.operation not in LOGARITHMIC
    orders = {"share": numbers}
    if is_prime(task.p):
        orders["share_other"] = order(task.operation, task.p, logarithmic=natural)
    tokens, labels, sides = _pairs(spec, numbers, sign)
    network, last = build_network(spec), max(weights)
    keys = key_frequencies(spectrum(weights[last]["W_E"][numbers]), n)
    rows: list[tuple[int, str, int, float]] = [(last, "key", k, 1.0) for k in keys]
    for step, named in weights.items():
        shares = {name: spectrum(named["W_E"][ordered]) for name, ordered in orders.items()}
        rows += [(step, name, k, float(share)) for name in shares for k, share in enumerate(shares[name], start=1)]
        rows.append((step, "key_share", 0, float(sum(shares["share"][k - 1] for k in keys))))
        logits = _logits(network, named, tokens)
        restricted, excluded = split_logits(logits.reshape(n, n, -1), keys, sign)
        for name, part in {"full": logits, "restricted": restricted, "excluded": excluded}.items():
            results = _accuracy_and_loss(part.reshape(n * n, -1), labels, sides)
            rows += [(step, f"{name}_{result}", 0, value) for result, value in results.items()]
    frame = pd.DataFrame(rows, columns=pd.Index(COLUMNS[1:]))
    frame.insert(0, "run", spec.id)
    return frame


def measured(specs: Sequence[RunSpec], store: Store | None = None) -> pd.DataFrame:
    """Return the measurements of runs, as `measure` does.

    Args:
        specs: the runs.
        store: where they are (default: the store of the repository).

    Returns:
        What is recorded; the other runs are measured on the weights that `grokcore.sweep(…, keep_weights=…)` kept.

    Raises:
        RecordError: a run has neither, or the file is damaged.
    """
    store = store or Store()
    before, by_id = recorded(store), {spec.id: spec for spec in specs}
    frames = [before.loc[before["run"].isin(by_id)]]
    frames += [measure(spec, store.weights(spec.id)) for spec in unmeasured(by_id.values(), store)]
    return pd.concat([frame for frame in frames if len(frame)] or frames, ignore_index=True)


def unmeasured(specs: Iterable[RunSpec], store: Store | None = None) -> list[RunSpec]:
    """Return the runs of which no measurement is recorded: those whose weights have to be kept."""
    recorded_runs = set(recorded(store or Store())["run"])
    return [spec for spec in specs if spec.id not in recorded_runs]


def recorded(store: Store) -> pd.DataFrame:
    """Return what is recorded, as `measure` does; raises RecordError if the file is damaged."""
    path = store.records / FILE
    if not path.is_file():
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in TYPES.items()})
    return weight_tables.read(path, usecols=COLUMNS, dtype=TYPES)


def record(store: Store, specs: Sequence[RunSpec]) -> None:
    """Measure and record the runs among these whose weights were kept to the end and that are not recorded yet."""
    candidates = {spec.id: spec for spec in unmeasured(specs, store) if store.has_weights(spec.id)}
    new = [spec for spec in candidates.values() if not _obstacle(spec) and spec.steps in store.weights(spec.id)]
    if not new:
        return
    frames = [frame for frame in (recorded(store), measured(new, store)) if len(frame)]
    everything = pd.concat(frames, ignore_index=True)
    weight_tables.write(store.records / FILE, everything.loc[:, COLUMNS], digits=6)


def _obstacle(spec: RunSpec) -> str:
    """Return why a run cannot be measured, empty if it can."""
    task = spec.task
    if task.operation not in SIGNS or task.n_operands != 2:
        operation = f"{task.operation!r} of {task.n_operands} numbers"
        return f"the Fourier picture is that of {', '.join(SIGNS)} of two numbers; got {operation}"
    if task.operation in LOGARITHMIC and not is_prime(task.p):
        return f"{task.operation} is an addition of logarithms only modulo a prime, p = {task.p} is not prime"
    if spec.model.name not in NETWORKS:
        return f"the network {spec.model.name!r} has no embedding W_E; those that have: {', '.join(NETWORKS)}"
    return ""


def _pairs(spec: RunSpec, numbers: Ints, sign: int) -> tuple[Ints, Ints, dict[str, Bools]]:
    """Return tokens `[n², 2]` and labels `[n²]` of all pairs of numbers, and which of them `[n²]` are of either set.

    A pair that the table of the task leaves out (y below `y_min`) is in neither set.
    """
    task, n = spec.task, len(numbers)
    a, b = (axis.ravel() for axis in np.meshgrid(np.arange(n), np.arange(n), indexing="ij"))
    x, y = numbers[a], numbers[b]
    in_table = y >= task.y_min
    row = np.where(in_table, x * (task.p - task.y_min) + y - task.y_min, 0)
    trained = np.zeros(task.n_rows, dtype=bool)
    trained[batches.split(spec)[0]] = True
    sides = {"train": in_table & trained[row], "val": in_table & ~trained[row]}
    return np.stack([x, y], axis=1), numbers[(a + sign * b) % n], sides


def _logits(network: Any, weights: Mapping[str, np.ndarray], tokens: Ints) -> Floats:
    """Return the logits `[N, V]` of a network with these weights for tokens `[N, 2]`."""
    import torch
    from torch.func import functional_call

    state = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in weights.items()}
    with torch.no_grad():
        return functional_call(network, state, (torch.from_numpy(tokens),)).numpy().astype(np.float64)


def _accuracy_and_loss(logits: Floats, labels: Ints, sides: Mapping[str, Bools]) -> dict[str, float]:
    """Return accuracy and mean loss in nats of logits `[N, V]` on the rows `[N]` of the training and validation set."""
    peak = logits.max(1)
    loss = peak + np.log(np.exp(logits - peak[:, None]).sum(1)) - logits[np.arange(len(labels)), labels]
    correct = logits.argmax(1) == labels
    return {
        f"{side}_{name}": float(values[rows].mean())
        for side, rows in sides.items()
        for name, values in (("accuracy", correct), ("loss", loss))
    }
