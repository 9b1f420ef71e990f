"""The Fourier picture of a network that adds: spectra of its embedding, and what its key frequencies answer alone.

Addition modulo n is multiplication of waves: exp(2πika/n)·exp(2πikb/n) = exp(2πik(a+b)/n) for every frequency k. A
network that uses this has an embedding whose rows, as a function of the number, are made of few frequencies (Nanda et
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
KEY = 3.0  # a key frequency holds at least so many times its equal share of the power
SIGNS = {"x+y": 1, "x-y": -1, "x*y": 1, "x/y": -1}
LOGARITHMIC = ("x*y", "x/y")
NETWORKS = ("grokformer", "periodic", "decoder")  # whose weights hold the embedding as the table W_E
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def steps_kept(budget: int) -> list[int]:
    """Return some 20 evaluations of a run at which to keep its weights: 0, then by factors of about 1.3 to its end."""
    evaluated = np.array(schedule.evaluation_steps(budget)[1:])
    wanted = budget / 2.0 ** (0.4 * np.arange(19))
    return sorted({0, *(int(evaluated[np.argmin(np.abs(np.log(evaluated / step)))]) for step in wanted)})


def primitive_root(p: int) -> int:
    """Return the smallest g whose powers are all of 1 to p - 1 modulo the prime p; raises SpecError for another p."""
    if not is_prime(p):
        raise SpecError(f"only a prime has a primitive root of this kind, p = {p} is not prime: choose a prime")
    return next(g for g in range(1, p) if len({pow(g, k, p) for k in range(p - 1)}) == p - 1)


def order(operation: str, p: int, logarithmic: bool | None = None) -> Ints:
    """Return the numbers `[n]` in the order in which the operation is addition modulo n.

    That is 0 to p - 1 for x+y and x-y, and the powers of a primitive root for x*y and x/y, unless `logarithmic` says.
    Raises SpecError for an operation that is no addition in either order, and for logarithms modulo no prime.
    """
    if operation not in SIGNS:
        raise SpecError(f"the Fourier picture is that of {', '.join(SIGNS)}; given {operation!r}")
    if logarithmic is None:
        logarithmic = operation in LOGARITHMIC
    if not logarithmic:
        return np.arange(p)
    g = primitive_root(p)
    return np.array([pow(g, k, p) for k in range(p - 1)], dtype=np.int64)


def spectrum(rows: Floats) -> Floats:
    """Return the share `[n // 2]` of each frequency k = 1 … n // 2 in the power of rows `[n, D]`, the mean left out.

    Rows that are all the same have no power, and every share is 0.
    """
    n = len(rows)
    power = (np.abs(np.fft.rfft(np.asarray(rows, dtype=np.float64), axis=0)) ** 2).sum(1)[1:]
    power[: (n - 1) // 2] *= 2  # every frequency but n/2 stands for itself and its mirror image
    return power / max(power.sum(), np.finfo(np.float64).tiny)


def equal_shares(n: int) -> Floats:
    """Return the shares `[n // 2]` where all waves are alike: cosine and sine of a frequency, at n/2 cosine alone."""
    waves = np.where(2 * np.arange(1, n // 2 + 1) == n, 1.0, 2.0)
    return waves / (n - 1)


def key_frequencies(shares: Floats, n: int) -> list[int]:
    """Return the frequencies that hold at least `KEY` times their equal share of a spectrum `[n // 2]`."""
    return [int(k) + 1 for k in np.flatnonzero(shares >= KEY * equal_shares(n))]


def split_logits(logits: Floats, keys: Sequence[int], sign: int = 1) -> tuple[Floats, Floats]:
    """Return the part of logits `[n, n, V]` at (a, b) that is a wave in a + sign·b of a key frequency, and the rest.

    The first, *restricted*, keeps the mean over the table; the second, *excluded*, is all without the waves.
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
    """Return what the weights of a run show, by step: a frame with the columns of `COLUMNS`.

    `share` is the spectrum of the embedding in the order of the operation, `share_other` in the other order (of x+y
    the logarithmic one, where p is prime), both by frequency; `key` names the key frequencies of the last step, and
    `key_share` is the part that they hold; `{full,restricted,excluded}_{train,val}_{accuracy,loss}` are of the logits
    as they are and of their two parts, on the rows whose numbers are in the order (for x*y those without 0).
    Raises SpecError for an operation that is no addition and for a network without the table `W_E`.
    """
    import torch
    from torch.func import functional_call

    from grokcore.nn.build import build_network

    if refused := _refused(spec):
        raise SpecError(refused)
    task = spec.task
    numbers, sign = order(task.operation, task.p), SIGNS[task.operation]
    n, natural = len(numbers), task.operation not in LOGARITHMIC
    orders = {"share": numbers}
    if is_prime(task.p):
        orders["share_other"] = order(task.operation, task.p, logarithmic=natural)
    tokens, labels, sides = _table(spec, numbers, sign)
    network, last = build_network(spec), max(weights)
    keys = key_frequencies(spectrum(weights[last]["W_E"][numbers]), n)
    rows: list[tuple[int, str, int, float]] = [(last, "key", k, 1.0) for k in keys]
    for step, named in weights.items():
        shares = {name: spectrum(named["W_E"][those]) for name, those in orders.items()}
        rows += [(step, name, k, float(share)) for name in shares for k, share in enumerate(shares[name], start=1)]
        rows.append((step, "key_share", 0, float(sum(shares["share"][k - 1] for k in keys))))
        state = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in named.items()}
        with torch.no_grad():
            logits = functional_call(network, state, (torch.from_numpy(tokens),)).numpy().astype(np.float64)
        restricted, excluded = split_logits(logits.reshape(n, n, -1), keys, sign)
        for name, part in {"full": logits, "restricted": restricted, "excluded": excluded}.items():
            found = _answers(part.reshape(n * n, -1), labels, sides)
            rows += [(step, f"{name}_{what}", 0, value) for what, value in found.items()]
    frame = pd.DataFrame(rows, columns=pd.Index(COLUMNS[1:]))
    frame.insert(0, "run", spec.id)
    return frame


def measured(specs: Sequence[RunSpec], store: Store | None = None) -> pd.DataFrame:
    """Return what was measured of runs: recorded, else of the weights that `grokcore.sweep(…, keep_weights=…)` kept.

    Raises RecordError for a run that is neither.
    """
    store = store or Store()
    known, wanted = recorded(store), {spec.id: spec for spec in specs}
    parts = [known.loc[known["run"].isin(wanted)]]
    parts += [measure(spec, store.weights(spec.id)) for spec in unmeasured(wanted.values(), store)]
    return pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)


def unmeasured(specs: Iterable[RunSpec], store: Store | None = None) -> list[RunSpec]:
    """Return the runs of which no measurement is recorded: those whose weights have to be kept."""
    known = set(recorded(store or Store())["run"])
    return [spec for spec in specs if spec.id not in known]


def recorded(store: Store) -> pd.DataFrame:
    """Return what is recorded; raises RecordError if the file is damaged."""
    path = store.records / FILE
    if not path.is_file():
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in TYPES.items()})
    return weight_tables.read(path, usecols=COLUMNS, dtype=TYPES)


def record(store: Store, specs: Sequence[RunSpec]) -> None:
    """Measure the runs among these whose weights were kept to the end and that are not recorded yet, and add them."""
    candidates = {spec.id: spec for spec in unmeasured(specs, store) if store.has_weights(spec.id)}
    new = [spec for spec in candidates.values() if not _refused(spec) and spec.steps in store.weights(spec.id)]
    if not new:
        return
    known = recorded(store)
    both = pd.concat([*([known] if len(known) else []), measured(new, store)], ignore_index=True)
    weight_tables.write(store.records / FILE, both.loc[:, COLUMNS], digits=6)


def _refused(spec: RunSpec) -> str:
    """Return why a run cannot be measured, empty if it can."""
    task = spec.task
    if task.operation not in SIGNS or task.n_operands != 2:
        given = f"{task.operation!r} of {task.n_operands} numbers"
        return f"the Fourier picture is that of {', '.join(SIGNS)} of two numbers; given {given}"
    if task.operation in LOGARITHMIC and not is_prime(task.p):
        return f"{task.operation} is an addition of logarithms only modulo a prime, p = {task.p} is not prime"
    if spec.model.name not in NETWORKS:
        return f"the network {spec.model.name!r} has no embedding W_E; those that have: {', '.join(NETWORKS)}"
    return ""


def _table(spec: RunSpec, numbers: Ints, sign: int) -> tuple[Ints, Ints, dict[str, Bools]]:
    """Return tokens `[n², 2]`, labels `[n²]` and the rows `[n²]` of either side, for all pairs in this order.

    A pair that the table of the task leaves out (y below `y_min`) is of neither side.
    """
    task, n = spec.task, len(numbers)
    a, b = (axis.ravel() for axis in np.meshgrid(np.arange(n), np.arange(n), indexing="ij"))
    x, y = numbers[a], numbers[b]
    there = y >= task.y_min
    row = np.where(there, x * (task.p - task.y_min) + y - task.y_min, 0)
    trained = np.zeros(task.n_rows, dtype=bool)
    trained[batches.split(spec)[0]] = True
    sides = {"train": there & trained[row], "val": there & ~trained[row]}
    return np.stack([x, y], axis=1), numbers[(a + sign * b) % n], sides


def _answers(logits: Floats, labels: Ints, sides: Mapping[str, Bools]) -> dict[str, float]:
    """Return accuracy and mean loss in nats of logits `[N, V]` on the rows `[N]` of either side."""
    peak = logits.max(1)
    loss = peak + np.log(np.exp(logits - peak[:, None]).sum(1)) - logits[np.arange(len(labels)), labels]
    right = logits.argmax(1) == labels
    return {
        f"{side}_{name}": float(values[rows].mean())
        for side, rows in sides.items()
        for name, values in (("accuracy", right), ("loss", loss))
    }
