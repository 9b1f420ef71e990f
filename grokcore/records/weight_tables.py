"""Tables measured on the weights of runs, recorded as CSV: the first line is the checksum of the rest."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import pandas as pd

from grokcore.records.atomic import atomic_write
from grokcore.records.record import RecordError

CHECKSUM = "# sha256 "


def read(path: Path, **options: Any) -> pd.DataFrame:
    """Return a table, read with these options of `pandas.read_csv`; raises RecordError if it is not as written."""
    try:
        first, _, text = path.read_text(encoding="utf-8").partition("\n")
        if first != CHECKSUM + _sum(text):
            raise ValueError("it is not what was recorded: its checksum differs")
        return pd.read_csv(io.StringIO(text), **options)
    except (OSError, ValueError, OverflowError) as error:
        raise RecordError(f"{path.name} cannot be read ({error}): restore it from version control") from None


def write(path: Path, table: pd.DataFrame, digits: int) -> None:
    """Write a table with so many digits of its numbers, whole or not at all."""
    text = table.to_csv(index=False, float_format=f"%.{digits}g", lineterminator="\n")
    with atomic_write(path) as part:
        part.write_text(f"{CHECKSUM}{_sum(text)}\n{text}", encoding="utf-8", newline="\n")


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
