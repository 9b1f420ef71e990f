"""A record: the specification of a run, its curve, how it ended and where it comes from, with its checksum."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from grokcore.spec.base import GrokcoreError, SpecError
from grokcore.spec.run import RunSpec

KEY = b"grokcore"  # of a file's metadata, under which its header stands
ADVICE = "restore the file from version control, or delete it from the cache to train the run again"
# What a list of runs shows of a specification.
LISTED = (
    "run",
    "operation",
    "p",
    "alpha",
    "model",
    "n_layers",
    "optimizer",
    "lr",
    "weight_decay",
    "steps",
    "seed",
)


class RecordError(GrokcoreError, RuntimeError):
    """A record that is missing, damaged or not of its specification; the message names the file and the run."""


@dataclass(frozen=True)
class Record:
    """A recorded run.

    Attributes:
        spec: The specification of the run.
        curve: One row per evaluation: `step` (int32), then the measures (float32).
        status: How the run ended: "finished", "stopped early" or "nonfinite".
        provenance: Versions, device, date, commit and seconds.
    """

    spec: RunSpec
    curve: pd.DataFrame
    status: str
    provenance: dict[str, Any]

    @property
    def checksum(self) -> str:
        """SHA-256 over specification, status, and names and values of the curve; provenance is not covered."""
        return _checksum(self.spec.to_dict(), self.status, self.curve)

    def header(self) -> dict[str, Any]:
        """Return what is stored beside the curve, as JSON values."""
        return {
            "spec": self.spec.to_dict(),
            "status": self.status,
            "provenance": self.provenance,
            "columns": list(self.curve.columns),
            "sha256": self.checksum,
        }


def make_record(spec: RunSpec, curve: Mapping[str, np.ndarray], status: str, provenance: dict[str, Any]) -> Record:
    """Return a record whose curve has the precision of the files: int32 steps and float32 measures.

    Args:
        spec: The specification of the run.
        curve: The measures by name, `step` among them, each an array with one value per evaluation.
        status: How the run ended.
        provenance: Versions, device, date, commit and seconds.

    Returns:
        The record. Numbers too large for float32 are infinite, and every NaN is the one that a file gives back.
    """
    columns: dict[str, np.ndarray] = {}
    for name, values in curve.items():
        with np.errstate(over="ignore"):
            columns[name] = values.astype(np.int32 if name == "step" else np.float32)
        if name != "step":
            columns[name][np.isnan(columns[name])] = np.nan
    return Record(spec, pd.DataFrame(columns), status, provenance)


def array_checksum(arrays: Mapping[str, np.ndarray], prefix: bytes = b"") -> str:
    """Return the checksum of arrays.

    Args:
        arrays: The arrays by name; their order does not matter.
        prefix: What else the checksum covers.

    Returns:
        The SHA-256 over the prefix, then names, types, shapes and values of the arrays.
    """
    digest = hashlib.sha256(prefix)
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {values.dtype} {values.shape}".encode() + values.tobytes())
    return digest.hexdigest()


def checked_record(path: Path, run: str, table: pa.Table, header: Mapping[str, Any]) -> Record:
    """Make a record of a table and its header.

    Args:
        path: The file that the table was read from, for the message of an error.
        run: The id of the run.
        table: The curve, one row per evaluation; may have more columns than the header lists.
        header: What is stored beside the curve, see `Record.header`.

    Returns:
        The record.

    Raises:
        RecordError: If it is not what was written for this run.
    """
    spec = checked_spec(path, run, header)
    with _unreadable(path, run):
        curve = table.select([str(name) for name in header["columns"]]).to_pandas()  # by name, never by place
        record = Record(spec, curve, header["status"], dict(header["provenance"]))
        checksum = _checksum(header["spec"], record.status, curve)
    if checksum != header.get("sha256"):
        raise RecordError(f"{path.name}: run {run} is not what was recorded (its checksum differs): {ADVICE}")
    return record


def checked_spec(path: Path, run: str, header: Mapping[str, Any]) -> RunSpec:
    """Return the specification in a header; raises RecordError if it is damaged or not that of the run with this id."""
    with _unreadable(path, run):
        spec = RunSpec.model_validate(header["spec"])
    if spec.id != run:
        raise RecordError(f"{path.name}: run {run} is not what was recorded (its specification differs): {ADVICE}")
    return spec


def listed_columns(path: Path, run: str, header: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a list of runs shows of a header: the columns `LISTED` and `status`; raises as `checked_spec`."""
    columns = checked_spec(path, run, header).columns()
    with _unreadable(path, run):
        if not isinstance(header["status"], str):
            raise TypeError("its status is no text")
        return {name: columns[name] for name in LISTED} | {"status": header["status"]}


@contextlib.contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Raise whatever the reading of a file raises as a RecordError that names the file."""
    try:
        yield
    except Exception as error:  # a damaged file makes pyarrow, safetensors and json raise nearly anything
        raise RecordError(f"{path.name}: cannot be read ({error}): {ADVICE}") from None


@contextlib.contextmanager
def _unreadable(path: Path, run: str) -> Iterator[None]:
    """Raise what a damaged header leads to as a RecordError that names file and run."""
    try:
        yield
    except (SpecError, KeyError, TypeError, ValueError, RecursionError, pa.ArrowException) as error:
        raise RecordError(f"{path.name}: run {run} cannot be read ({error}): {ADVICE}") from None


def _checksum(spec: dict[str, Any], status: str, curve: pd.DataFrame) -> str:
    """Return the checksum of a record with the specification as it was written, which may lack newer fields."""
    digest = hashlib.sha256(json.dumps([spec, status], sort_keys=True).encode())
    for name in sorted(curve.columns):
        digest.update(name.encode() + np.ascontiguousarray(curve[name]).tobytes())
    return digest.hexdigest()
