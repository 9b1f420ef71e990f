"""Tables that a spreadsheet opens without executing any of their text."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

FORMULA = "=+-@\uff1d\uff0b\uff0d\uff20"  # as a spreadsheet takes them, the last four in full width


def without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with a ' before every text and every column's name that a spreadsheet would take for a formula.

    Numbers stay what they are, negative ones too.

    Example:
        >>> without_formulas(pd.DataFrame({"status": ["=1+1"], "loss": [-1.5]})).values.tolist()
        [["'=1+1", -1.5]]
    """
    safe = table.copy(deep=False)
    for i, kind in enumerate(table.dtypes):
        if not pd.api.types.is_numeric_dtype(kind):
            safe.isetitem(i, table.iloc[:, i].map(_without_formula))
    return safe.set_axis([_without_formula(name) for name in table.columns], axis=1)


def _without_formula(value: Any) -> Any:
    if not isinstance(value, str) or not value:
        return value
    text = re.sub(r"[\r\n]", " ", value)  # behind which a reader may begin a new cell
    return f"'{text}" if value[0].isspace() or (text.lstrip() or " ")[0] in FORMULA else text
