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
    """Return a table.

    Args:
        path: The file.
        options: Those of `pandas.read_csv`.

    Returns:
        The table.

    Raises:
        RecordError: If it is missing or not as it was written.
    """
    try:
        first, _, text = path.read_text(encoding="utf-8").partition("\n")
        if first != CHECKSUM + _sum(text):
            raise ValueError("it is not what was recorded: its checksum differs")
        return pd.read_csv(io.StringIO(text), **options)
    except (OSError, ValueError, OverflowError) as error:
        raise RecordError(f"{path.name} cannot be read ({error}): restore it from version control") from None


def write(path: Path, table: pd.DataFrame, digits: int) -> None:
    """Write a table whole or not at all.

    Args:
        path: The file.
        table: The table; its index is not written.
        digits: How many significant digits of its numbers are written.

    Raises:
        StoreError: If it cannot be written.
    """
    text = table.to_csv(index=False, float_format=f"%.{digits}g", lineterminator="\n")
    with atomic_write(path) as temporary:
        temporary.write_text(f"{CHECKSUM}{_sum(text)}\n{text}", encoding="utf-8", newline="\n")


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
