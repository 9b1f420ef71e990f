"""Recorded runs: one file a run in the working cache, one Parquet file an experiment in the committed records.

A record is a specification, its curve, how the run ended and where it comes from; its checksum covers all but the
last. Files are written beside their final name and moved into place, so that an interruption leaves the old file or
the new one, never a part.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import safe_open
from safetensors.numpy import save

from grokcore.records.atomic import atomic_write, clear_leftovers
from grokcore.spec.base import GrokcoreError, SpecError, short_repr
from grokcore.spec.run import RunSpec

KINDS = (".json", ".parquet")  # of the files of a recorded experiment
KEY = b"grokcore"


class RecordError(GrokcoreError, RuntimeError):
    """A record that is missing, damaged or not of its specification; the message names the file and the run."""


@dataclass(frozen=True)
class Record:
    """A recorded run: `curve` has a row an evaluation, `provenance` versions, device, date, commit and seconds."""

    spec: RunSpec
    curve: pd.DataFrame
    status: str
    provenance: dict[str, Any]

    @property
    def checksum(self) -> str:
        """SHA-256 over specification, status, and names and values of the curve."""
        return _checksum(self.spec.to_dict(), self.status, self.curve)

    def header(self) -> dict[str, Any]:
        """Return what stands beside the curve, as JSON values."""
        parts = {"spec": self.spec.to_dict(), "status": self.status, "provenance": self.provenance}
        return {**parts, "columns": list(self.curve.columns), "sha256": self.checksum}


def _checksum(spec: dict[str, Any], status: str, curve: pd.DataFrame) -> str:
    """Return the checksum of a record with the specification as it was written, which may lack fields of today."""
    digest = hashlib.sha256(json.dumps([spec, status], sort_keys=True).encode())
    for name in sorted(curve.columns):
        digest.update(name.encode() + np.ascontiguousarray(curve[name]).tobytes())
    return digest.hexdigest()


def array_checksum(arrays: Mapping[str, np.ndarray], also: bytes = b"") -> str:
    """Return the SHA-256 over names, types, shapes and values of arrays, in the order of their names."""
    digest = hashlib.sha256(also)
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {values.dtype} {values.shape}".encode() + values.tobytes())
    return digest.hexdigest()


def make_record(spec: RunSpec, curve: Mapping[str, np.ndarray], status: str, provenance: dict[str, Any]) -> Record:
    """Return a record whose curve has the precision of the files: int32 steps and float32 measures.

    Numbers too large for it become infinite, and every NaN the one that a file gives back.
    """
    columns: dict[str, np.ndarray] = {}
    for name, values in curve.items():
        with np.errstate(over="ignore"):
            columns[name] = values.astype(np.int32 if name == "step" else np.float32)
        if name != "step":
            columns[name][np.isnan(columns[name])] = np.nan
    return Record(spec, pd.DataFrame(columns), status, provenance)


def repository() -> Path:
    """Return the root of the repository: the folder above this package with the notebooks, else the current one."""
    for folder in Path(__file__).resolve().parents:
        if (folder / "pyproject.toml").is_file() and (folder / "notebooks").is_dir():
            return folder
    return Path.cwd()


class Store:
    """The runs at hand: `cache` (a file a run, written by sweeps) and `records` (committed, a file an experiment).

    Where they are not given: the folders that GROKCORE_CACHE and GROKCORE_RECORDS name, else those of the repository.
    """

    def __init__(self, cache: str | Path | None = None, records: str | Path | None = None) -> None:
        data = repository() / "data"
        self.cache = Path(cache or os.environ.get("GROKCORE_CACHE") or data / "cache")
        self.records = Path(records or os.environ.get("GROKCORE_RECORDS") or data / "records")
        self._curves_by_run: dict[str, dict[str, pa.Table]] = {}  # of experiments, read once

    def headers(self, experiment: str) -> dict[str, dict[str, Any]]:
        """Return specification, status and provenance of every run of a recorded experiment, by run id."""
        path = self.records / f"{_file_name(experiment)}.json"
        try:
            runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
            if not all(isinstance(header, dict) for header in runs.values()):
                raise TypeError("a run is no mapping")
            return runs
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise RecordError(
                f"{path.name}: not a list of recorded runs ({error}): restore it from version control"
            ) from None

    def experiments(self) -> list[str]:
        """Return the names of the recorded experiments."""
        return sorted(path.stem for path in self.records.glob("*.json"))

    def recorded(self) -> dict[str, str]:
        """Return the experiment that holds each recorded run, by run id."""
        return {run: experiment for experiment in reversed(self.experiments()) for run in self.headers(experiment)}

    def ids(self) -> list[str]:
        """Return the ids of all runs at hand, recorded ones first."""
        recorded, cached = self.recorded(), sorted(path.stem for path in self.cache.glob("*.parquet"))
        return [*recorded, *(run for run in cached if run not in recorded)]

    def files(self, runs: Iterable[str]) -> list[Path]:
        """Return the files that hold these runs and their weights: whole experiments, and single ones in the cache."""
        runs, recorded = list(runs), self.recorded()
        names = [f"{name}{kind}" for name in {recorded[run] for run in runs if run in recorded} for kind in KINDS]
        cached = [path for run in runs for path in (self._path(run), self._path(run).with_suffix(".safetensors"))]
        return sorted(path for path in [*(self.records / name for name in names), *cached] if path.is_file())

    def load(self, run: str) -> Record:
        """Return a run from the records, else the cache; raises RecordError if it is absent or fails its checks."""
        return self.load_all([run])[0]

    def load_all(self, runs: Iterable[str]) -> list[Record]:
        """Return runs in their order, each list of recorded runs read once; raises as `load`."""
        recorded, runs = self.recorded(), list(runs)
        lists = {name: self.headers(name) for name in {recorded[run] for run in runs if run in recorded}}
        known = {run: (recorded[run], run, lists[recorded[run]][run]) for run in runs if run in recorded}
        return [self.load_recorded(*known[run]) if run in known else self.load_cached(run) for run in runs]

    def load_cached(self, run: str) -> Record:
        """Return a run from the cache; raises as `load`."""
        path = self._path(run)
        if not path.is_file():
            raise RecordError(f"run {run} is neither recorded nor in the cache: train it with grokcore.sweep")
        with _damage(path):
            table = pq.read_table(path)
            header = json.loads((table.schema.metadata or {})[KEY])
        return _checked(path, run, table, header)

    def find(self, specs: Iterable[RunSpec]) -> dict[str, Record]:
        """Return the records at hand of these specifications, by run id; those not at hand are left out."""
        recorded, ids = self.recorded(), dict.fromkeys(spec.id for spec in specs)
        at_hand = [run for run in ids if run in recorded or self._path(run).is_file()]
        return dict(zip(at_hand, self.load_all(at_hand), strict=True))

    def save(self, record: Record, weights: Mapping[int, Mapping[str, np.ndarray]] | None = None) -> None:
        """Write a run into the cache, and weights by step and name beside it, each file whole or not at all."""
        beside = self._path(record.spec.id).with_suffix(".safetensors")
        if weights:
            flat = {f"{step}/{name}": value for step, named in weights.items() for name, value in named.items()}
            with atomic_write(beside) as path:
                path.write_bytes(save(flat, {"sha256": array_checksum(flat, record.spec.id.encode())}))
        table = pa.Table.from_pandas(record.curve, preserve_index=False)
        table = table.replace_schema_metadata({KEY: json.dumps(record.header()).encode()})
        with atomic_write(self._path(record.spec.id)) as path:
            _write(table, path)
        if not weights:
            beside.unlink(missing_ok=True)  # those of an earlier training of this run

    def saved_at(self, run: str) -> float | None:
        """Return when a run was saved into the cache, in seconds since the epoch; None if it is not there."""
        return self._path(run).stat().st_mtime if self._path(run).is_file() else None

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints of runs under way."""
        return self.cache / "checkpoints"

    def clear_leftovers(self) -> None:
        """Remove what processes that were killed while writing left in the cache."""
        clear_leftovers((self.cache, self.checkpoints, self.cache / "sweeps"))

    def has_weights(self, run: str) -> bool:
        """Tell whether weights of a run were kept."""
        return self._path(run).with_suffix(".safetensors").is_file()

    def weights(self, run: str) -> dict[int, dict[str, np.ndarray]]:
        """Return the weights kept of a run, by step and name."""
        path = self._path(run).with_suffix(".safetensors")
        if not path.is_file():
            raise RecordError(f"no weights were kept of run {run}: train it with sweep(…, keep_weights=[steps])")
        with _damage(path), safe_open(path, "numpy") as file:
            flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            expected = (file.metadata() or {}).get("sha256")
        older = (None, array_checksum(flat))  # files of before there was one, or of before it covered the run
        if not flat or (expected != array_checksum(flat, run.encode()) and expected not in older):
            raise RecordError(f"{path.name}: the weights of run {run} are not what was saved: {_ADVICE}")
        if wrong := [key for key in flat if not re.fullmatch(r"[0-9]{1,9}/.+", key, flags=re.S)]:
            raise RecordError(f"{path.name}: {short_repr(wrong[0])} names no weight of a step: {_ADVICE}")
        out: dict[int, dict[str, np.ndarray]] = {}
        for key in sorted(flat, key=lambda key: int(key.split("/", 1)[0])):
            step, name = key.split("/", 1)
            out.setdefault(int(step), {})[name] = flat[key]
        return out

    def pack(self, experiment: str, runs: Sequence[str]) -> list[str]:
        """Write runs as a recorded experiment, but for those another one holds; return the ids written."""
        elsewhere = {run for run, other in self.recorded().items() if other != experiment}
        records = self.load_all(run for run in dict.fromkeys(runs) if run not in elsewhere)
        if not records:
            return []
        curves = pd.concat([record.curve.assign(run=record.spec.id) for record in records], ignore_index=True)
        curves = curves[["run", *(name for name in curves.columns if name != "run")]]
        with atomic_write(self._curves(experiment)) as path:
            _write(pa.Table.from_pandas(curves, preserve_index=False), path)
        headers = {"runs": {record.spec.id: record.header() for record in records}}
        with atomic_write(self.records / f"{experiment}.json") as path:
            path.write_text(json.dumps(headers, indent=1) + "\n")
        self._curves_by_run.pop(experiment, None)
        return [record.spec.id for record in records]

    def _path(self, run: str) -> Path:
        return self.cache / f"{_file_name(run)}.parquet"

    def _curves(self, experiment: str) -> Path:
        return self.records / f"{_file_name(experiment)}.parquet"

    def load_recorded(self, experiment: str, run: str, header: dict[str, Any] | None = None) -> Record:
        """Return a run from a recorded experiment that has it, with its header where it is known; raises as `load`."""
        path = self._curves(experiment)
        with _damage(path):
            rows = self._rows(experiment).get(run, pa.table({}))
        return _checked(path, run, rows, self.headers(experiment)[run] if header is None else header)

    def runs_with_rows(self, experiment: str) -> set[str]:
        """Return the runs that the curves of a recorded experiment name; raises as `load`."""
        with _damage(self._curves(experiment)):
            return set(self._rows(experiment))

    def _rows(self, experiment: str) -> dict[str, pa.Table]:
        if experiment not in self._curves_by_run:
            table = pq.read_table(self._curves(experiment))
            order = np.argsort(runs := table["run"].to_numpy(), kind="stable")
            names, begins = np.unique(runs[order], return_index=True)
            table, ends = table.take(order), [*begins[1:], len(runs)]
            rows = {n: table.slice(begin, end - begin) for n, begin, end in zip(names, begins, ends, strict=True)}
            self._curves_by_run[experiment] = rows
        return self._curves_by_run[experiment]


def _file_name(name: str) -> str:
    """Return the name of a run or an experiment, which with an ending is that of a file in its folder."""
    if not name.isprintable() or "/" in name or "\\" in name or not 0 < len(name.encode()) < 200:
        raise RecordError(f"{short_repr(name)} names no run and no experiment: give letters and digits, no path")
    return name


def _checked(path: Path, run: str, table: pa.Table, header: dict[str, Any]) -> Record:
    """Make a record of a table and its header; raise RecordError if it is not what was written for this run."""
    try:
        spec = RunSpec.model_validate(header["spec"])
        curve = table.select([str(name) for name in header["columns"]]).to_pandas()  # by name, never by place
        record = Record(spec, curve, header["status"], dict(header["provenance"]))
    except (SpecError, KeyError, TypeError, ValueError, RecursionError, pa.ArrowException) as error:
        raise RecordError(f"{path.name}: run {run} cannot be read ({error}): {_ADVICE}") from None
    if spec.id != run or _checksum(header["spec"], record.status, curve) != header.get("sha256"):
        raise RecordError(f"{path.name}: run {run} is not what was recorded (checksum or specification): {_ADVICE}")
    return record


_ADVICE = "restore the file from version control, or delete it from the cache to train the run again"


@contextlib.contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a damaged file makes pyarrow, safetensors and json raise nearly anything
        raise RecordError(f"{path.name}: cannot be read ({error}): {_ADVICE}") from None


def _write(table: pa.Table, path: Path) -> None:
    keys = [name for name in table.column_names if name in ("run", "step")]
    floats = [field.name for field in table.schema if pa.types.is_floating(field.type)]
    options: dict[str, Any] = {"use_dictionary": keys, "use_byte_stream_split": floats}
    pq.write_table(table, path, compression="zstd", **options)
