"""The Fourier picture of a network that adds: spectra of its embedding, and what its key frequencies answer alone.

Addition modulo n is multiplication of waves: exp(2πika/n)·exp(2πikb/n) = exp(2πik(a+b)/n) for every frequency k. A
network that uses this has an embedding whose rows, as a function of the number, are made of few frequencies (Nanda et
al. 2023). Multiplication modulo a prime p is addition modulo p - 1 of discrete logarithms, so the same is measured with
the numbers 1 to p - 1 in the order of the powers of a primitive root.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from grokcore import tasks
from grokcore.parts import SpecError, is_prime
from grokcore.spec import RunSpec
from grokcore.store import RecordError, Store

FILE = "fourier.csv"
COLUMNS = ["run", "step", "measure", "frequency", "value"]
KEY = 3.0  # a key frequency holds at least so many times its equal share of the power
SIGNS = {"x+y": 1, "x-y": -1, "x*y": 1, "x/y": -1}
Floats = NDArray[np.float64]


def primitive_root(p: int) -> int:
    """Return the smallest g whose powers are all of 1 to p - 1 modulo the prime p; raises SpecError for another p."""
    if not is_prime(p):
        raise SpecError(f"only a prime has a primitive root of this kind, p = {p} is not prime: choose a prime")
    return next(g for g in range(1, p) if len({pow(g, k, p) for k in range(p - 1)}) == p - 1)


def order(operation: str, p: int, logarithmic: bool | None = None) -> NDArray[np.int64]:
    """Return the numbers `[n]` in the order in which the operation is addition modulo n.

    That is 0 to p - 1 for x+y and x-y, and the powers of a primitive root for x*y and x/y, unless `logarithmic` says.
    Raises SpecError for an operation that is no addition in either order.
    """
    if operation not in SIGNS:
        raise SpecError(f"the Fourier picture is that of {', '.join(SIGNS)}; given {operation!r}")
    if logarithmic is None:
        logarithmic = operation in ("x*y", "x/y")
    if not logarithmic:
        return np.arange(p)
    g = primitive_root(p)
    return np.array([pow(g, k, p) for k in range(p - 1)], dtype=np.int64)


def spectrum(rows: Floats) -> Floats:
    """Return the share `[n // 2]` of each frequency k = 1 … n // 2 in the power of rows `[n, D]`, the mean left out."""
    n = len(rows)
    power = (np.abs(np.fft.rfft(np.asarray(rows, dtype=np.float64), axis=0)) ** 2).sum(1)[1:]
    power[: (n - 1) // 2] *= 2  # every frequency but n/2 stands for itself and its mirror image
    return power / power.sum()


def key_frequencies(shares: Floats) -> list[int]:
    """Return the frequencies that hold at least `KEY` times an equal share of a spectrum `[K]`."""
    return [k + 1 for k in np.flatnonzero(shares >= KEY / len(shares))]


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
    the logarithmic one), both by frequency; `key_share` the part that the key frequencies of the last step hold;
    `{full,restricted,excluded}_{train,val}_{accuracy,loss}` are of the logits as they are and of their two parts.
    Raises SpecError for an operation that is no addition.
    """
    import torch
    from torch.func import functional_call

    from grokcore import models

    task = spec.task
    numbers, sign = order(task.operation, task.p), SIGNS.get(task.operation, 1)
    others = order(task.operation, task.p, logarithmic=len(numbers) == task.p)
    tokens, labels, train = _table(spec, numbers)
    network = models.build(spec)
    last = weights[max(weights)]
    keys = key_frequencies(spectrum(last["W_E"][numbers]))
    rows: list[tuple[int, str, int, float]] = [(max(weights), "key", k, 1.0) for k in keys]
    for step, named in weights.items():
        shares = spectrum(named["W_E"][numbers])
        rows += [(step, "share", k, share) for k, share in enumerate(shares, start=1)]
        rows += [(step, "share_other", k, share) for k, share in enumerate(spectrum(named["W_E"][others]), start=1)]
        rows.append((step, "key_share", 0, float(sum(shares[k - 1] for k in keys))))
        state = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in named.items()}
        with torch.no_grad():
            logits = functional_call(network, state, (torch.from_numpy(tokens),)).numpy().astype(np.float64)
        logits = logits.reshape(len(numbers), len(numbers), -1)
        parts = dict(zip(("restricted", "excluded"), split_logits(logits, keys, sign), strict=True))
        for name, part in {"full": logits, **parts}.items():
            for what, value in _answers(part.reshape(len(labels), -1), labels, train).items():
                rows.append((step, f"{name}_{what}", 0, value))
    frame = pd.DataFrame(rows, columns=pd.Index(COLUMNS[1:]))
    return frame.assign(run=spec.id)[COLUMNS]


def measured(specs: Sequence[RunSpec], store: Store | None = None) -> pd.DataFrame:
    """Return what was measured of runs: recorded, else of the weights that `grokcore.sweep(…, keep_weights=…)` kept.

    Raises RecordError for a run that is neither.
    """
    store = store or Store()
    known = recorded(store)
    parts = [known.loc[known["run"].isin({spec.id for spec in specs})]]
    parts += [measure(spec, store.weights(spec.id)) for spec in specs if spec.id not in set(known["run"])]
    return pd.concat([part for part in parts if len(part)], ignore_index=True)


def unmeasured(specs: Sequence[RunSpec], store: Store | None = None) -> list[RunSpec]:
    """Return the runs of which no measurement is recorded: those whose weights have to be kept."""
    known = set(recorded(store or Store())["run"])
    return [spec for spec in specs if spec.id not in known]


def recorded(store: Store) -> pd.DataFrame:
    """Return what is recorded; raises RecordError if the file is damaged."""
    path = store.records / FILE
    if not path.is_file():
        return pd.DataFrame(columns=pd.Index(COLUMNS))
    try:
        return pd.read_csv(path).loc[:, COLUMNS]
    except (ValueError, KeyError) as error:
        raise RecordError(f"{FILE} cannot be read ({error}): restore it from version control") from None


def record(store: Store, specs: Sequence[RunSpec]) -> None:
    """Measure the runs among these whose weights were kept and that are not recorded yet, and add them."""
    known = recorded(store)
    new = [spec for spec in specs if spec.id not in set(known["run"]) and store.has_weights(spec.id)]
    new = [spec for spec in new if spec.task.operation in SIGNS and spec.task.n_operands == 2]
    if not new:
        return
    both = pd.concat([*([known] if len(known) else []), measured(new, store)], ignore_index=True)
    part = store.records / f".{FILE}.part"
    both[COLUMNS].to_csv(part, index=False, float_format="%.6g")
    os.replace(part, store.records / FILE)


def _table(spec: RunSpec, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Return tokens `[n², 2]`, labels `[n²]` and whether the row was trained on `[n²]`, for pairs in this order."""
    task = spec.task
    x, y = (axis.ravel() for axis in np.meshgrid(numbers, numbers, indexing="ij"))
    row = x * (task.p - task.y_min) + y - task.y_min
    trained = np.zeros(task.n_rows, dtype=bool)
    trained[tasks.split(spec)[0]] = True
    tokens, labels = tasks.table(task)
    return tokens[row], labels[row], trained[row]


def _answers(logits: Floats, labels: NDArray[np.int64], train: NDArray[np.bool_]) -> dict[str, float]:
    """Return accuracy and mean loss in nats of logits `[N, V]` on the training rows and the others."""
    peak = logits.max(1)
    loss = peak + np.log(np.exp(logits - peak[:, None]).sum(1)) - logits[np.arange(len(labels)), labels]
    right = logits.argmax(1) == labels
    sides = {"train": train, "val": ~train}
    return {
        f"{side}_{name}": float(values[rows].mean())
        for side, rows in sides.items()
        for name, values in (("accuracy", right), ("loss", loss))
    }
