"""What all parts of a specification share: they are frozen and validated, and their errors say what is expected.

The parts themselves are in `task`, `networks` and `optimizers`; `run` puts them together.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

MAX_STEPS = 100_000_000
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
    """Return a value for a message: as Python writes it, shortened where it is long or deeply nested.

    Example:
        >>> short_repr("x*y"), short_repr(list(range(100)))
        ("'x*y'", '[0, 1, 2, 3, 4, 5, ...]')
    """
    short = reprlib.Repr()
    short.maxstring = short.maxlong = short.maxother = 120
    try:
        return short.repr(value)
    except ValueError:  # Python does not write whole numbers of more than 4300 digits
        return f"a value of type {type(value).__name__} that is too long to write"


def suggestion(name: str, valid_names: Iterable[str]) -> str:
    """Return a sentence that suggests the valid name closest to this one, if one is close, and lists all of them.

    Example:
        >>> suggestion("adamx", ["sgd", "adam"])
        "did you mean 'adam'? known: sgd, adam"
    """
    valid_names = list(valid_names)
    close = difflib.get_close_matches(str(name), valid_names, n=1, cutoff=0.5)
    question = f"did you mean {close[0]!r}? " if close else ""
    return f"{question}known: {', '.join(valid_names) or 'none'}"


class FrozenModel(BaseModel):
    """A frozen pydantic model without unknown fields; it raises `SpecError` in place of pydantic's own error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SpecError("\n".join(_message(type(self), detail) for detail in error.errors())) from None

    @model_validator(mode="wrap")
    @classmethod
    def _fields_have_names(cls, values: Any, validate: Any) -> Any:
        """Refuse keys that are no text before they are taken for the names of arguments."""
        if isinstance(values, dict) and not all(isinstance(key, str) for key in values):
            raise ValueError(f"the fields of {cls.__name__} have names; given {short_repr(list(values))}")
        return validate(values)


def _message(model: type[BaseModel], detail: Any) -> str:
    """Return one of pydantic's errors as a sentence with the field, the value and what is allowed."""
    field = ".".join(str(key)[:120] for key in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"{model.__name__} has no field {short_repr(field)}; {suggestion(field, model.model_fields)}"
    text = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "value_error":
        return f"{field}: {text}" if field else text
    return f"{model.__name__}.{field}: given {short_repr(detail['input'])}; {text}"
