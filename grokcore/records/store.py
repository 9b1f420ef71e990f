"""The store of runs: one file per run in the working cache, one Parquet file per experiment in the committed records.

Files are written beside their final name and moved into place, so that an interruption leaves the old file or the new
one, never a part.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from grokcore.records import weight_files
from grokcore.records.atomic import atomic_write, clear_leftovers
from grokcore.records.record import KEY, Record, RecordError, checked_record, damage_named, listed_columns
from grokcore.spec.base import short_repr
from grokcore.spec.run import RunSpec

KINDS = (".json", ".parquet")  # of the files of a recorded experiment
CACHE = "cache"  # where a run is that is in no recorded experiment


def repository() -> Path:
    """Return the root of the repository: the folder above this package with the notebooks, else the current one."""
    for folder in Path(__file__).resolve().parents:
        if (folder / "pyproject.toml").is_file() and (folder / "notebooks").is_dir():
            return folder
    return Path.cwd()


class Store:
    """The available runs: `cache` (one file per run, written by sweeps) and `records` (committed, by experiment).

    Args:
        cache: The folder of the cache; default: the one that GROKCORE_CACHE names, else `data/cache` of the repository.
        records: The folder of the records; default: GROKCORE_RECORDS, else `data/records` of the repository.

    Example:
        >>> store = Store(cache="no_such_folder")
        >>> record = store.load("cb5bffd477ba4619")
        >>> record.spec.task.operation, record.status, record.curve["step"].iloc[-1].item()
        ('x*y', 'finished', 10000)
    """

    def __init__(self, cache: str | Path | None = None, records: str | Path | None = None) -> None:
        data = repository() / "data"
        self.cache = Path(cache or os.environ.get("GROKCORE_CACHE") or data / "cache")
        self.records = Path(records or os.environ.get("GROKCORE_RECORDS") or data / "records")
        self._curves_by_run: dict[str, dict[str, pa.Table]] = {}  # of experiments, read once

    def experiments(self) -> list[str]:
        """Return the names of the recorded experiments."""
        return sorted(path.stem for path in self.records.glob("*.json"))

    def headers(self, experiment: str) -> dict[str, dict[str, Any]]:
        """Return specification, status and provenance of every run of a recorded experiment, by run id.

        Raises:
            RecordError: If the list of the experiment is missing or damaged.
        """
        path = self._header_path(experiment)
        try:
            runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
            if not all(isinstance(header, dict) for header in runs.values()):
                raise TypeError("a run is no mapping")
            return runs
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise RecordError(
                f"{path.name}: not a list of recorded runs ({error}): restore it from version control"
            ) from None

    def recorded(self) -> dict[str, str]:
        """Return the experiment that holds each recorded run, by run id; raises as `headers`."""
        return {run: experiment for experiment in reversed(self.experiments()) for run in self.headers(experiment)}

    def ids(self) -> list[str]:
        """Return the ids of all available runs, recorded ones first; raises as `headers`."""
        recorded = self.recorded()
        return [*recorded, *(run for run in self._cached() if run not in recorded)]

    def listing(self) -> list[dict[str, Any]]:
        """Return one row per available run, in the order of `ids`, without reading any curve.

        Returns:
            Rows with the columns `LISTED` of `records.record` (run, operation, p, …), `status`, and `where`: the name
            of the recorded experiment that has the run, or "cache". A column that a run does not have is None.

        Raises:
            RecordError: If a header is damaged or not that of its run; it names file and run. Checksums are not
                checked, since they cover the curves: `load` and `records.verify` do that.

        Example:
            >>> rows = Store(cache="no_such_folder").listing()
            >>> [row["where"] for row in rows if row["run"] == "cb5bffd477ba4619"]
            ['01_reproduction']
        """
        headers: dict[str, tuple[Path, dict[str, Any], str]] = {}
        for experiment in reversed(self.experiments()):
            path = self._header_path(experiment)
            headers |= {run: (path, header, experiment) for run, header in self.headers(experiment).items()}
        for run in self._cached():
            if run not in headers:
                path = self._path(run)
                with damage_named(path):
                    header = _header(pq.read_schema(path))
                headers[run] = path, header, CACHE
        return [{**listed_columns(path, run, header), "where": where} for run, (path, header, where) in headers.items()]

    def files(self, runs: Iterable[str]) -> list[Path]:
        """Return the files that hold these runs and their weights: whole experiments, and single ones in the cache."""
        runs, recorded = list(runs), self.recorded()
        names = [f"{name}{kind}" for name in {recorded[run] for run in runs if run in recorded} for kind in KINDS]
        cached = [path for run in runs for path in (self._path(run), self._weights_path(run))]
        return sorted(path for path in [*(self.records / name for name in names), *cached] if path.is_file())

    def load(self, run: str) -> Record:
        """Return the run with this id from the records, else from the cache.

        Raises:
            RecordError: If it is absent, damaged, or not what was recorded.
        """
        return self.load_all([run])[0]

    def load_all(self, runs: Iterable[str]) -> list[Record]:
        """Return runs in the order of their ids, each list of recorded runs read once; raises as `load`."""
        recorded, runs = self.recorded(), list(runs)
        headers = {name: self.headers(name) for name in {recorded[run] for run in runs if run in recorded}}
        return [
            self.load_recorded(recorded[run], run, headers[recorded[run]][run])
            if run in recorded
            else self.load_cached(run)
            for run in runs
        ]

    def load_cached(self, run: str) -> Record:
        """Return a run from the cache; raises as `load`."""
        path = self._path(run)
        if not path.is_file():
            raise RecordError(f"run {run} is neither recorded nor in the cache: train it with grokcore.sweep")
        with damage_named(path):
            table = pq.read_table(path)
            header = _header(table.schema)
        return checked_record(path, run, table, header)

    def load_recorded(self, experiment: str, run: str, header: dict[str, Any] | None = None) -> Record:
        """Return a run from a recorded experiment.

        Args:
            experiment: The name of the experiment.
            run: The id of the run; raises as `load` if it is not there.
            header: Its header, if that was read before; the list of the experiment is not read again then.
        """
        path = self._curves_path(experiment)
        with damage_named(path):
            rows = self._curves(experiment).get(run, pa.table({}))
        return checked_record(path, run, rows, self.headers(experiment)[run] if header is None else header)

    def find(self, specs: Iterable[RunSpec]) -> dict[str, Record]:
        """Return the available records of these specifications by run id; others are left out. Raises as `load`."""
        recorded, ids = self.recorded(), dict.fromkeys(spec.id for spec in specs)
        available = [run for run in ids if run in recorded or self._path(run).is_file()]
        return dict(zip(available, self.load_all(available), strict=True))

    def save(self, record: Record, weights: weight_files.WeightsByStep | None = None) -> None:
        """Write a run into the cache, each file whole or not at all.

        Args:
            record: The run.
            weights: What is kept of its weights, by step and name; weights of an earlier training are removed.

        Raises:
            StoreError: If it cannot be written; what was there is then as it was.
        """
        run = record.spec.id
        if weights:
            weight_files.write(self._weights_path(run), run, weights)
        table = pa.Table.from_pandas(record.curve, preserve_index=False)
        table = table.replace_schema_metadata({KEY: json.dumps(record.header()).encode()})
        with atomic_write(self._path(run)) as path:
            _write(table, path)
        if not weights:
            self._weights_path(run).unlink(missing_ok=True)  # those of an earlier training of this run

    def saved_at(self, run: str) -> float | None:
        """Return when a run was saved into the cache, in seconds since the epoch; None if it is not there."""
        return self._path(run).stat().st_mtime if self._path(run).is_file() else None

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints of runs that are being trained."""
        return self.cache / "checkpoints"

    def clear_leftovers(self) -> None:
        """Remove temporary files that processes which were killed while writing left in the cache."""
        clear_leftovers((self.cache, self.checkpoints, self.cache / "sweeps"))

    def has_weights(self, run: str) -> bool:
        """Tell whether weights of a run were kept."""
        return self._weights_path(run).is_file()

    def weights(self, run: str) -> dict[int, dict[str, np.ndarray]]:
        """Return the weights kept of a run, by step and name.

        Raises:
            RecordError: If none were kept, or the file is damaged or of another run.
        """
        path = self._weights_path(run)
        if not path.is_file():
            raise RecordError(f"no weights were kept of run {run}: train it with sweep(…, keep_weights=[steps])")
        return weight_files.read(path, run)

    def pack(self, experiment: str, runs: Sequence[str]) -> list[str]:
        """Write runs as a recorded experiment, without those that another experiment holds.

        Args:
            experiment: The name of the experiment, which names its two files; an older one is replaced.
            runs: Ids of available runs.

        Returns:
            The ids written.

        Raises:
            RecordError: If a run is absent or damaged.
            StoreError: If a file cannot be written.
        """
        elsewhere = {run for run, other in self.recorded().items() if other != experiment}
        records = self.load_all(run for run in dict.fromkeys(runs) if run not in elsewhere)
        if not records:
            return []
        curves = pd.concat([record.curve.assign(run=record.spec.id) for record in records], ignore_index=True)
        curves = curves[["run", *(name for name in curves.columns if name != "run")]]
        with atomic_write(self._curves_path(experiment)) as path:
            _write(pa.Table.from_pandas(curves, preserve_index=False), path)
        headers = {"runs": {record.spec.id: record.header() for record in records}}
        with atomic_write(self._header_path(experiment)) as path:
            path.write_text(json.dumps(headers, indent=1) + "\n")
        self._curves_by_run.pop(experiment, None)
        return [record.spec.id for record in records]

    def runs_with_rows(self, experiment: str) -> set[str]:
        """Return the runs that the curves of a recorded experiment name; raises as `load`."""
        with damage_named(self._curves_path(experiment)):
            return set(self._curves(experiment))

    def _cached(self) -> list[str]:
        return sorted(path.stem for path in self.cache.glob("*.parquet"))

    def _path(self, run: str) -> Path:
        return self.cache / f"{_file_name(run)}.parquet"

    def _weights_path(self, run: str) -> Path:
        return self.cache / f"{_file_name(run)}.safetensors"

    def _curves_path(self, experiment: str) -> Path:
        return self.records / f"{_file_name(experiment)}.parquet"

    def _header_path(self, experiment: str) -> Path:
        return self.records / f"{_file_name(experiment)}.json"

    def _curves(self, experiment: str) -> dict[str, pa.Table]:
        """Return the curves of a recorded experiment by run id."""
        if experiment not in self._curves_by_run:
            table = pq.read_table(self._curves_path(experiment))
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


def _header(schema: pa.Schema) -> dict[str, Any]:
    """Return the header in the metadata of a file of the cache; raises nearly anything if there is none."""
    header = json.loads((schema.metadata or {})[KEY])
    if not isinstance(header, Mapping):
        raise TypeError("its header is no mapping")
    return dict(header)


def _write(table: pa.Table, path: Path) -> None:
    keys = [name for name in table.column_names if name in ("run", "step")]
    floats = [field.name for field in table.schema if pa.types.is_floating(field.type)]
    options: dict[str, Any] = {"use_dictionary": keys, "use_byte_stream_split": floats}
    pq.write_table(table, path, compression="zstd", **options)
