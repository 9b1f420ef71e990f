"""Checkpoints: a group of runs on its way, in one file, from which its training goes on bit for bit.

It is a safetensors file, with what is not an array as JSON in its header; nothing is unpickled. It is written whole or
not at all, and a checksum covers all of it.
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

PLAIN = {"runs": list, "left": list, "step": int, "since": (int, NoneType), "seconds": (int, float), "ended": dict}
ALSO = {"settings": dict, "measures": list}  # in the header, beside what is plain in a snapshot


def path(folder: Path, runs: list[str], settings: Mapping[str, Any]) -> Path:
    """Return where the checkpoint of a group is kept, by its runs and by settings with which alone it may go on."""
    name = hashlib.sha256(json.dumps([runs, dict(settings)], sort_keys=True).encode()).hexdigest()[:16]
    return folder / f"{name}.safetensors"


def write(path: Path, snapshot: Snapshot, settings: Mapping[str, Any]) -> None:
    """Write a snapshot, with the settings (JSON values) under which it was taken."""
    flat = {f"state/{name}": value for name, value in snapshot.state.items()}
    for run, curve in snapshot.curves.items():
        flat |= {f"curve/{run}/{name}": values for name, values in curve.items()}
    for run, steps in snapshot.weights.items():
        flat |= {f"weights/{run}/{step}/{name}": w for step, named in steps.items() for name, w in named.items()}
    plain = {name: getattr(snapshot, name) for name in PLAIN}
    header = {**plain, "settings": dict(settings), "measures": list(next(iter(snapshot.curves.values()), []))}
    metadata = {KEY.decode(): json.dumps(header), "sha256": _checksum(header, flat)}
    with atomic_write(path) as temporary:
        temporary.write_bytes(save(flat, metadata))


def header(path: Path) -> dict[str, Any]:
    """Return `runs`, `step` and `settings` of a checkpoint, unchecked; raises RecordError if it cannot be read."""
    return _open(path)[0]


def read(path: Path) -> Snapshot:
    """Return a snapshot as it was written; raises RecordError if the file is damaged."""
    found, checksum, flat = _open(path, arrays=True)
    if _checksum(found, flat) != checksum:
        raise RecordError(f"{path.name}: the checkpoint is not what was written (its checksum differs)")
    try:
        return _snapshot(found, flat)
    except (KeyError, ValueError) as error:
        raise RecordError(f"{path.name}: the checkpoint is not of this version ({error!r} in its names)") from None


def _snapshot(found: dict[str, Any], flat: Arrays) -> Snapshot:
    snapshot = Snapshot(*(found[name] for name in PLAIN))
    for run in found["runs"]:
        snapshot.curves[run] = {name: flat.pop(f"curve/{run}/{name}") for name in found["measures"]}
    for key, value in flat.items():
        if key.startswith("state/"):
            snapshot.state[key.removeprefix("state/")] = value
        else:
            _, run, step, name = key.split("/", 3)
            snapshot.weights.setdefault(run, {}).setdefault(int(step), {})[name] = value
    snapshot.weights = {run: dict(sorted(steps.items())) for run, steps in snapshot.weights.items()}
    return snapshot


def clear(store: Store, fresh: Collection[str]) -> None:
    """Remove checkpoints whose runs have been saved since or are all to be trained `fresh`, and damaged ones."""
    for found in store.checkpoints.glob("*.safetensors"):
        try:
            written, runs = found.stat().st_mtime, header(found)["runs"]
        except FileNotFoundError:  # another sweep has just removed it
            continue
        except RecordError as error:
            if not found.is_file():
                continue
            warnings.warn(f"{error}: it is removed, and its runs start again", RuntimeWarning, stacklevel=2)
            runs, written = [], 0.0
        if all((store.saved_at(run) or 0.0) > written or run in fresh for run in runs):
            found.unlink(missing_ok=True)


def _open(path: Path, arrays: bool = False) -> tuple[dict[str, Any], str, Arrays]:
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata()
            names = file.keys() if arrays else []
            found = json.loads(metadata[KEY.decode()])
            for name, kind in {**PLAIN, **ALSO}.items():
                if not isinstance(found[name], kind):
                    raise TypeError(f"{name} is of type {type(found[name]).__name__}")
            if not all(isinstance(run, str) for run in [*found["runs"], *found["left"], *found["measures"]]):
                raise TypeError("runs and measures have names")
            return found, metadata["sha256"], {n: file.get_tensor(n) for n in names}
    except Exception as error:  # a damaged file makes safetensors and json raise nearly anything
        raise RecordError(f"{path.name}: the checkpoint cannot be read ({error})") from None


def _checksum(header: dict[str, Any], flat: Arrays) -> str:
    return array_checksum(flat, json.dumps(header, sort_keys=True).encode())
