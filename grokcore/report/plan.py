"""What a notebook will do before it does it: its parameters, checked strictly, and the runs it will ask
for."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import linecache
import os
import sys
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from grokcore.records import yaml_files
from grokcore.records.store import repository
from grokcore.spec.base import SpecError, short_repr, suggestion
from grokcore.spec.run import RunSpec

PLANS = ("cpu", "full")  # of runs at the sources' scale: for some hours of processors, and for a GPU
SCALES = (*PLANS, "smoke")
_TYPES: dict[str, Any] = {
    **{kind.__name__: kind for kind in (bool, dict, float, int, list, str, tuple)},
    **{"None": None, "Any": Any},
}
_OF_TYPES = (ast.Expression, ast.Name, ast.Load, ast.Constant, ast.Subscript, ast.Tuple, ast.BinOp, ast.BitOr)


class NotebookError(ValueError):
    """A notebook that cannot be executed as asked; the message names it, what was given and what it takes."""


@dataclass(frozen=True)
class Parameter:
    """One line of a notebook's `parameters` cell: its type as written there, and its default."""

    type: str
    default: Any


def find(names: Sequence[str | Path] | None = None, folder: Path | None = None) -> list[Path]:
    """Return the notebooks named (a name, or the path of an .ipynb file), or all of `folder` (default:
    `notebooks/`).

    Raises NotebookError for a name that does not exist, with the nearest that does.
    """
    folder = repository() / "notebooks" if folder is None else folder
    known = {path.stem: path for path in sorted(folder.glob("*.ipynb"))}
    if not names:
        if not known:
            raise NotebookError(f"there is no notebook in {folder}; put one there, or name the path of one")
        return list(known.values())
    found = []
    for name in names:
        path = Path(name)
        if path.suffix == ".ipynb" and os.path.isfile(path):  # false, not an error, for a name no file can have
            found.append(path.resolve())
        elif path.stem in known and path.parent == Path("."):
            found.append(known[path.stem])
        else:
            raise NotebookError(
                f"there is no notebook {short_repr(str(name))} in {folder}; {suggestion(path.stem, known)}"
            )
    twice = {path.stem for path in found if [other.stem for other in found].count(path.stem) > 1}
    if twice:
        raise NotebookError(f"two notebooks named {sorted(twice)[0]!r} would share a page; name each once")
    if any(path.stem == "index" for path in found):
        raise NotebookError("a notebook named 'index' would take the place of the front page; rename it")
    return found


def read(path: Path) -> NotebookNode:
    """Return a notebook as nbformat's version 4; raises NotebookError if the file is none."""
    wrong: dict[str, Exception] = {}
    try:
        notebook = nbformat.read(path, as_version=4, capture_validation_error=wrong)
        if not wrong:
            return notebook
        raise wrong["ValidationError"]
    except Exception as error:  # nbformat raises nearly anything on a file that is no notebook
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise NotebookError(f"{path.name} cannot be read as a notebook: {reason}") from None


def tagged(notebook: NotebookNode, tag: str) -> int | None:
    """Return the index of the first code cell with this tag, or None."""
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and tag in cell.metadata.get("tags", []):
            return index
    return None


def parameters(path: Path) -> dict[str, Parameter]:
    """Return the parameters that a notebook takes, from its cell tagged `parameters` (one `name: type =
    literal` a line).

    Raises NotebookError if there is no such cell, or if a line of it is not of this form.
    """
    notebook = read(path)
    index = tagged(notebook, "parameters")
    if index is None:
        raise NotebookError(f"{path.name} has no code cell tagged 'parameters', so nothing can be set in it; tag one")
    found = {}
    for node in _parsed(path, index, notebook.cells[index].source).body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None):
            line = ast.unparse(node).splitlines()[0]
            raise NotebookError(
                f"{path.name}, cell {index + 1}: {short_repr(line)} is no parameter; write `name: type = literal`"
            )
        try:
            found[node.target.id] = Parameter(ast.unparse(node.annotation), ast.literal_eval(node.value))
        except (ValueError, TypeError):
            given = short_repr(ast.unparse(node.value))
            raise NotebookError(
                f"{path.name}: the default of {node.target.id!r} is {given}; it must be a literal"
            ) from None
    return found


def _parsed(path: Path, index: int, source: str) -> ast.Module:
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


def settings(path: Path, scale: str = "cpu", changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the parameters to execute a notebook with: those of the scale, then the changes, all checked.

    A plan reads `<plan>/<name>.yaml` beside the notebook, `smoke` keeps the notebook's own defaults. Raises
    NotebookError for an unknown scale or parameter (with the nearest known) and for a value of the wrong type.
    """
    if scale not in SCALES:
        raise NotebookError(f"unknown scale {scale!r}; {suggestion(scale, SCALES)}")
    return checked(path, {**(_planned(path, scale) if scale in PLANS else {}), **(changes or {})})


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


def checked(path: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Return `given` if the notebook takes each of these parameters with that type; raises NotebookError
    otherwise."""
    known = parameters(path)
    for name, value in given.items():
        if name not in known:
            raise NotebookError(f"{path.name} has no parameter {short_repr(name)}; {suggestion(name, known)}")
        try:
            json.dumps(value)  # a date or a set of YAML's would not reach the notebook
        except (TypeError, ValueError):
            kind = f"{short_repr(value)} ({type(value).__name__})"
            raise NotebookError(f"{path.name}: {name} = {kind} was given; it must be a value that JSON has") from None
        try:
            TypeAdapter(_annotation(known[name].type), config=ConfigDict(strict=True)).validate_python(value)
        except ValidationError:
            kind = f"{short_repr(value)} ({type(value).__name__})"
            raise NotebookError(
                f"{path.name}: {name} = {kind} was given; it must be of type {known[name].type}"
            ) from None
        except (NameError, TypeError, PydanticUserError):
            kind = known[name].type
            raise NotebookError(
                f"{path.name}: {name} has the type {kind!r}, which cannot be checked; use {', '.join(_TYPES)}"
            ) from None
    return given


def _annotation(text: str) -> Any:
    tree = ast.parse(text, mode="eval")
    for node in ast.walk(tree):
        if not isinstance(node, _OF_TYPES) or (isinstance(node, ast.Constant) and node.value is not None):
            raise TypeError(text)
    return eval(compile(tree, "<annotation>", "eval"), {"__builtins__": {}}, _TYPES)


def planned_runs(path: Path, given: dict[str, Any]) -> tuple[list[RunSpec], list[int]]:
    """Return the runs a notebook will ask for, and the steps at which it wants their weights kept.

    Its code cells up to the one tagged `specs` are executed in this process, with `given` in place of the defaults
    after the `parameters` cell; they leave a list `specs`, and a list `kept` if weights are wanted. Nothing is trained.
    Raises NotebookError if a cell fails, or leaves no list of RunSpec named `specs`.
    """
    notebook = read(path)
    last, injected = tagged(notebook, "specs"), tagged(notebook, "parameters")
    if last is None:
        raise NotebookError(f"{path.name} has no code cell tagged 'specs'; tag the one that builds the list `specs`")
    main = types.ModuleType("__main__")
    with contextlib.chdir(path.parent), _in_place_of_main(main, path.name):  # where it will be executed
        for index, cell in enumerate(notebook.cells[: last + 1]):
            if cell.cell_type == "code":
                _run(path, index, cell.source, vars(main))
            if index == injected:
                vars(main).update(given)
    names = vars(main)
    specs = names.get("specs")
    if not isinstance(specs, list) or not all(isinstance(spec, RunSpec) for spec in specs):
        raise NotebookError(
            f"{path.name}, cell {last + 1}: `specs` must be a list of RunSpec, it is {type(specs).__name__}"
        )
    kept = names.get("kept", [])
    if not isinstance(kept, (list, tuple)) or not all(type(step) is int and step >= 0 for step in kept):
        raise NotebookError(f"{path.name}, cell {last + 1}: `kept` must be a list of steps, it is {short_repr(kept)}")
    return specs, list(kept)


@contextlib.contextmanager
def _in_place_of_main(module: types.ModuleType, name: str) -> Iterator[None]:
    """Let `module` be `__main__`, with its source at hand, as in a kernel: a user's network is known by its source."""
    module.__file__ = f"<{name}>"
    linecache.cache[module.__file__] = (0, None, [], module.__file__)
    before = sys.modules["__main__"]
    sys.modules["__main__"] = module
    try:
        yield
    finally:
        sys.modules["__main__"] = before


def _run(path: Path, index: int, source: str, names: dict[str, Any]) -> None:
    _parsed(path, index, source)
    file, lines = names["__file__"], linecache.getlines(names["__file__"])
    code = compile("\n" * len(lines) + source, file, "exec")
    lines += f"{source}\n".splitlines(keepends=True)
    linecache.cache[file] = (sum(map(len, lines)), None, lines, file)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(code, names)
    except SpecError as error:
        raise NotebookError(f"{path.name}, cell {index + 1}: {error}") from None
    except (Exception, SystemExit) as error:
        raise NotebookError(f"{path.name}, cell {index + 1} failed: {type(error).__name__}: {error}") from error
