"""The parameters that a notebook takes, and the values it is executed with, checked strictly."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from grokcore.records import yaml_files
from grokcore.report.notebook_files import NotebookError, read, tagged
from grokcore.report.scales import PLANS, SCALES
from grokcore.spec.base import short_repr, suggestion

TYPES: dict[str, Any] = {
    "bool": bool,
    "dict": dict,
    "float": float,
    "int": int,
    "list": list,
    "str": str,
    "tuple": tuple,
    "None": None,
    "Any": Any,
}
# What an annotation may consist of, so that evaluating it executes nothing.
ANNOTATION_NODES = (
    ast.Expression,
    ast.Name,
    ast.Load,
    ast.Constant,
    ast.Subscript,
    ast.Tuple,
    ast.BinOp,
    ast.BitOr,
)


@dataclass(frozen=True)
class Parameter:
    """One line of a notebook's `parameters` cell.

    Attributes:
        type: The type as it is written there, for instance "list[float]".
        default: The value that stands there.
    """

    type: str
    default: Any


def parameters(path: Path) -> dict[str, Parameter]:
    """Return the parameters that a notebook takes, by name.

    They are read from its cell tagged `parameters`, which has one `name: type = literal` a line. It is not executed.

    Args:
        path: The notebook.

    Raises:
        NotebookError: There is no such cell, or a line of it is not of this form.
    """
    notebook = read(path)
    index = tagged(notebook, "parameters")
    if index is None:
        raise NotebookError(f"{path.name} has no code cell tagged 'parameters', so nothing can be set in it; tag one")
    by_name = {}
    for node in parsed(path, index, notebook.cells[index].source).body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None):
            line = ast.unparse(node).splitlines()[0]
            raise NotebookError(
                f"{path.name}, cell {index + 1}: {short_repr(line)} is no parameter; write `name: type = literal`"
            )
        try:
            by_name[node.target.id] = Parameter(ast.unparse(node.annotation), ast.literal_eval(node.value))
        except (ValueError, TypeError):
            expression = short_repr(ast.unparse(node.value))
            raise NotebookError(
                f"{path.name}: the default of {node.target.id!r} is {expression}; it must be a literal"
            ) from None
    return by_name


def parsed(path: Path, index: int, source: str) -> ast.Module:
    """Return the syntax tree of a cell.

    Args:
        path: The notebook, for the message.
        index: The index of the cell, counted from 0; the message counts from 1.
        source: The cell's text.

    Raises:
        NotebookError: The text is not plain Python.
    """
    try:
        tree = ast.parse(source)
        compile(tree, path.name, "exec")  # which refuses what the grammar alone allows, as a return outside a function
    except SyntaxError as error:
        raise NotebookError(
            f"{path.name}, cell {index + 1}: not plain Python ({error.msg}, line {error.lineno})"
        ) from None
    except (ValueError, RecursionError, MemoryError) as error:  # NUL, half a surrogate pair, brackets in thousands
        raise NotebookError(f"{path.name}, cell {index + 1}: not plain Python ({error or 'too deep'})") from None
    return tree


def parameter_values(path: Path, scale: str = "cpu", changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the parameters to execute a notebook with, all checked: those of the scale, then the changes.

    Args:
        path: The notebook.
        scale: A plan, whose parameters stand in `<plan>/<name>.yaml` beside the notebook, or "smoke", which keeps the
            notebook's own defaults.
        changes: Parameters that replace those of the scale.

    Returns:
        The parameters that differ from the notebook's defaults, or are written down although they do not.

    Raises:
        NotebookError: An unknown scale or parameter (the message has the nearest known), or a value of the wrong type.
    """
    if scale not in SCALES:
        raise NotebookError(f"unknown scale {scale!r}; {suggestion(scale, SCALES)}")
    planned = _planned(path, scale) if scale in PLANS else {}
    return checked(path, {**planned, **(changes or {})})


def _planned(path: Path, scale: str) -> dict[str, Any]:
    file = path.parent / scale / f"{path.stem}.yaml"
    if not file.is_file():
        raise NotebookError(
            f"{path.name} has no parameters in plan {scale}; write them to {file}, or use another scale"
        )
    try:
        values = yaml_files.read(file) or {}
    except yaml_files.YamlError as error:
        raise NotebookError(f"{file} is not YAML of plain values: {error}") from None
    if not isinstance(values, dict):
        raise NotebookError(f"{file} holds a {type(values).__name__}; it must be a mapping of parameters")
    return values


def checked(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Return `values` if the notebook takes each of these parameters with that type.

    Args:
        path: The notebook.
        values: Values by the name of the parameter.

    Raises:
        NotebookError: The notebook has no such parameter, or its type is another one, or cannot be checked.
    """
    by_name = parameters(path)
    for name, value in values.items():
        if name not in by_name:
            raise NotebookError(f"{path.name} has no parameter {short_repr(name)}; {suggestion(name, by_name)}")
        type_name = by_name[name].type
        shown = f"{name} = {short_repr(value)} ({type(value).__name__})"
        try:
            json.dumps(value)  # a date or a set of YAML's would not reach the notebook
        except (TypeError, ValueError):
            raise NotebookError(f"{path.name}: {shown} was given; it must be a value that JSON has") from None
        try:
            TypeAdapter(_annotation(type_name), config=ConfigDict(strict=True)).validate_python(value)
        except ValidationError:
            raise NotebookError(f"{path.name}: {shown} was given; it must be of type {type_name}") from None
        except (NameError, TypeError, PydanticUserError):
            raise NotebookError(
                f"{path.name}: {name} has the type {type_name!r}, which cannot be checked; use {', '.join(TYPES)}"
            ) from None
    return values


def _annotation(text: str) -> Any:
    """Return the type that an annotation names; raises TypeError if it is made of anything but names of types."""
    tree = ast.parse(text, mode="eval")
    for node in ast.walk(tree):
        if not isinstance(node, ANNOTATION_NODES) or (isinstance(node, ast.Constant) and node.value is not None):
            raise TypeError(text)
    return eval(compile(tree, "<annotation>", "eval"), {"__builtins__": {}}, TYPES)
