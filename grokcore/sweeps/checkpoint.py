"""Checkpoints: a group of runs in the middle of its training, in one file, from which it goes on bit for bit.

It is a safetensors file with the values that are not arrays as JSON in its header; nothing is unpickled. It is written
whole or not at all, and a checksum covers all of it.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from types import NoneType
from typing import Any

from safetensors import safe_open
from safetensors.numpy import save

from grokcore.engine.snapshot import Arrays, Snapshot
from grokcore.records.atomic import atomic_write
from grokcore.records.record import KEY, RecordError, array_checksum
from grokcore.records.store import Store

# Fields of a snapshot that stand in the header, with their types, then what else stands there.
SNAPSHOT_FIELDS = {
    "runs": list,
    "left": list,
    "step": int,
    "since": (int, NoneType),
    "seconds": (int, float),
    "ended": dict,
}
HEADER_FIELDS = {**SNAPSHOT_FIELDS, "settings": dict, "measures": list}


def path(folder: Path, runs: list[str], settings: Mapping[str, Any]) -> Path:
    """Return the file of the checkpoint of a group.

    Args:
        folder: The folder of the checkpoints.
        runs: The ids of the runs of the group.
        settings: JSON values; training may go on from a checkpoint only with the settings that it was written with.

    Returns:
        The path, named by a hash of runs and settings.
    """
    name = hashlib.sha256(json.dumps([runs, dict(settings)], sort_keys=True).encode()).hexdigest()[:16]
    return folder / f"{name}.safetensors"


def write(path: Path, snapshot: Snapshot, settings: Mapping[str, Any]) -> None:
    """Write a snapshot whole or not at all.

    Args:
        path: The file.
        snapshot: The state of the training of a group.
        settings: JSON values under which the snapshot was taken.

    Raises:
        StoreError: If it cannot be written.
    """
    arrays = {f"state/{name}": value for name, value in snapshot.state.items()}
    for run, curve in snapshot.curves.items():
        arrays |= {f"curve/{run}/{name}": values for name, values in curve.items()}
    for run, steps in snapshot.weights.items():
        for step, weights in steps.items():
            arrays |= {f"weights/{run}/{step}/{name}": value for name, value in weights.items()}
    header = {
        **{name: getattr(snapshot, name) for name in SNAPSHOT_FIELDS},
        "settings": dict(settings),
        "measures": list(next(iter(snapshot.curves.values()), [])),
    }
    metadata = {KEY.decode(): json.dumps(header), "sha256": _checksum(header, arrays)}
    with atomic_write(path) as temporary:
        temporary.write_bytes(save(arrays, metadata))


def header(path: Path) -> dict[str, Any]:
    """Return `runs`, `step` and `settings` of a checkpoint, unchecked; raises RecordError if it cannot be read."""
    return _open(path)[0]


def read(path: Path) -> Snapshot:
    """Return a snapshot as it was written.

    Args:
        path: The file of a checkpoint.

    Returns:
        The snapshot.

    Raises:
        RecordError: If the file cannot be read, is damaged or of another version.
    """
    header, checksum, arrays = _open(path, with_arrays=True)
    if _checksum(header, arrays) != checksum:
        raise RecordError(f"{path.name}: the checkpoint is not what was written (its checksum differs)")
    try:
        return _snapshot(header, arrays)
    except (KeyError, ValueError) as error:
        raise RecordError(f"{path.name}: the checkpoint is not of this version ({error!r} in its names)") from None


def _snapshot(header: dict[str, Any], arrays: Arrays) -> Snapshot:
    snapshot = Snapshot(**{name: header[name] for name in SNAPSHOT_FIELDS})
    for run in header["runs"]:
        snapshot.curves[run] = {name: arrays.pop(f"curve/{run}/{name}") for name in header["measures"]}
    for key, value in arrays.items():
        if key.startswith("state/"):
            snapshot.state[key.removeprefix("state/")] = value
        else:
            _, run, step, name = key.split("/", 3)
            snapshot.weights.setdefault(run, {}).setdefault(int(step), {})[name] = value
    snapshot.weights = {run: dict(sorted(steps.items())) for run, steps in snapshot.weights.items()}
    return snapshot


def clear(store: Store, fresh: Collection[str]) -> None:
    """Remove checkpoints that are of no use any more, and damaged ones with a warning.

    Args:
        store: The store of the checkpoints.
        fresh: Runs that are to be trained anew. A checkpoint is removed if each of its runs is one of them, or has been
            saved since.
    """
    for file in store.checkpoints.glob("*.safetensors"):
        try:
            written, runs = file.stat().st_mtime, header(file)["runs"]
        except FileNotFoundError:  # another sweep has just removed it
            continue
        except RecordError as error:
            if not file.is_file():
                continue
            warnings.warn(f"{error}: it is removed, and its runs start again", RuntimeWarning, stacklevel=2)
            runs, written = [], 0.0
        if all((store.saved_at(run) or 0.0) > written or run in fresh for run in runs):
            file.unlink(missing_ok=True)


def _open(path: Path, with_arrays: bool = False) -> tuple[dict[str, Any], str, Arrays]:
    """Return header, checksum and arrays (none unless asked for) of a file; raises RecordError if it is damaged."""
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata()
            names = file.keys() if with_arrays else []
            header = json.loads(metadata[KEY.decode()])
            for name, kind in HEADER_FIELDS.items():
                if not isinstance(header[name], kind):
                    raise TypeError(f"{name} is of type {type(header[name]).__name__}")
            if not all(isinstance(run, str) for run in [*header["runs"], *header["left"], *header["measures"]]):
                raise TypeError("runs and measures have names")
            return header, metadata["sha256"], {name: file.get_tensor(name) for name in names}
    except Exception as error:  # a damaged file makes safetensors and json raise nearly anything
        raise RecordError(f"{path.name}: the checkpoint cannot be read ({error})") from None


def _checksum(header: dict[str, Any], arrays: Arrays) -> str:
    return array_checksum(arrays, json.dumps(header, sort_keys=True).encode())
