"""What all parts of a specification share: frozen, validated, and errors that say what is expected."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

MOST_STEPS = 100_000_000
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class GrokcoreError(Exception):
    """An error of the package; its message says what is wrong, what was expected and what to do.

    Attributes:
        exit_code: With what the command `grokcore` ends: 1 if something went wrong, 2 for wrong use.
    """

    exit_code: int = 1


class SpecError(GrokcoreError, ValueError):
    """A specification that cannot be trained; the message names the field, the value and what is allowed."""

    exit_code = 2


def short_repr(value: Any) -> str:
    """Return a value as it stands in a message: as Python writes it, cut where it is long or deep."""
    short = reprlib.Repr()
    short.maxstring = short.maxlong = short.maxother = 120
    try:
        return short.repr(value)
    except ValueError:  # Python does not write whole numbers of more than 4300 digits
        return f"a value of type {type(value).__name__} that is too long to write"


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return a sentence that lists the known names and, where one is close, suggests it."""
    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}known: {', '.join(known) or 'none'}"


class FrozenModel(BaseModel):
    """Frozen and strict about names; raises `SpecError` instead of pydantic's own error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SpecError("\n".join(_explain(type(self), item) for item in error.errors())) from None

    @model_validator(mode="wrap")
    @classmethod
    def _fields_have_names(cls, values: Any, validate: Any) -> Any:
        """Refuse keys that are no text before they are taken for the names of arguments."""
        if isinstance(values, dict) and not all(isinstance(key, str) for key in values):
            raise ValueError(f"the fields of {cls.__name__} have names; given {short_repr(list(values))}")
        return validate(values)


def _explain(part: type[BaseModel], item: Any) -> str:
    field = ".".join(str(key)[:120] for key in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"{part.__name__} has no field {short_repr(field)}; {suggestion(field, part.model_fields)}"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error":
        return f"{field}: {message}" if field else message
    return f"{part.__name__}.{field}: given {short_repr(item['input'])}; {message}"
