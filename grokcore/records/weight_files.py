"""Weights kept of a run: a safetensors file with one array per step and weight, and a checksum that covers the run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from grokcore.records.atomic import atomic_write
from grokcore.records.record import ADVICE, RecordError, array_checksum, damage_named
from grokcore.spec.base import short_repr

WeightsByStep = Mapping[int, Mapping[str, np.ndarray]]


def write(path: Path, run: str, weights: WeightsByStep) -> None:
    """Write the weights of a run, whole or not at all.

    Args:
        path: The file.
        run: The id of the run, which the checksum covers.
        weights: The weights by step and name.

    Raises:
        StoreError: If it cannot be written.
    """
    arrays = {f"{step}/{name}": value for step, by_name in weights.items() for name, value in by_name.items()}
    with atomic_write(path) as temporary:
        temporary.write_bytes(save(arrays, {"sha256": array_checksum(arrays, run.encode())}))


def read(path: Path, run: str) -> dict[int, dict[str, np.ndarray]]:
    """Return the weights of a run.

    Args:
        path: The file.
        run: The id of the run.

    Returns:
        The weights by step, in increasing order, and name.

    Raises:
        RecordError: If the file is damaged or of another run.
    """
    with damage_named(path), safe_open(path, "numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        checksum = (file.metadata() or {}).get("sha256")
    older = (None, array_checksum(arrays))  # files of before there was a checksum, or of before it covered the run
    if not arrays or (checksum != array_checksum(arrays, run.encode()) and checksum not in older):
        raise RecordError(f"{path.name}: the weights of run {run} are not what was saved: {ADVICE}")
    if wrong := [key for key in arrays if not re.fullmatch(r"[0-9]{1,9}/.+", key, flags=re.S)]:
        raise RecordError(f"{path.name}: {short_repr(wrong[0])} names no weight of a step: {ADVICE}")
    weights: dict[int, dict[str, np.ndarray]] = {}
    for key in sorted(arrays, key=lambda key: int(key.split("/", 1)[0])):
        step, name = key.split("/", 1)
        weights.setdefault(int(step), {})[name] = arrays[key]
    return weights
