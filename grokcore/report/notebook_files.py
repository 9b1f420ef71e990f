"""The files of the notebooks: which there are, their cells, and the error of one that cannot be used."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from grokcore.records.store import repository
from grokcore.spec.base import GrokcoreError, short_repr, suggestion


class NotebookError(GrokcoreError, ValueError):
    """A notebook cannot be executed as requested; the message names it, what was given and what it takes."""

    exit_code = 2


def find(names: Sequence[str | Path] | None = None, folder: Path | None = None) -> list[Path]:
    """Return the paths of notebooks.

    Args:
        names: Names of notebooks in `folder`, or paths of .ipynb files (default: all notebooks of `folder`).
        folder: Where names are looked up (default: `notebooks/` of the repository).

    Returns:
        One path for each name, in the order of the names; without names all of `folder`, sorted.

    Raises:
        NotebookError: A name does not exist (the message has the nearest that does), two notebooks have the same name,
            or one is called `index`, as the front page is.
    """
    folder = repository() / "notebooks" if folder is None else folder
    by_name = {path.stem: path for path in sorted(folder.glob("*.ipynb"))}
    if not names:
        if not by_name:
            raise NotebookError(f"there is no notebook in {folder}; put one there, or name the path of one")
        return list(by_name.values())
    paths = []
    for name in names:
        path = Path(name)
        if path.suffix == ".ipynb" and os.path.isfile(path):  # false, not an error, for a name no file can have
            paths.append(path.resolve())
        elif path.stem in by_name and path.parent == Path("."):
            paths.append(by_name[path.stem])
        else:
            raise NotebookError(
                f"there is no notebook {short_repr(str(name))} in {folder}; {suggestion(path.stem, by_name)}"
            )
    stems = [path.stem for path in paths]
    if repeated := sorted({stem for stem in stems if stems.count(stem) > 1}):
        raise NotebookError(f"two notebooks named {repeated[0]!r} would share a page; name each once")
    if "index" in stems:
        raise NotebookError("a notebook named 'index' would take the place of the front page; rename it")
    return paths


def read(path: Path) -> NotebookNode:
    """Return a notebook in version 4 of nbformat.

    Args:
        path: An .ipynb file.

    Raises:
        NotebookError: The file is no valid notebook.
    """
    invalid: dict[str, Exception] = {}
    try:
        notebook = nbformat.read(path, as_version=4, capture_validation_error=invalid)
        if not invalid:
            return notebook
        raise invalid["ValidationError"]
    except Exception as error:  # nbformat raises nearly anything on a file that is no notebook
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise NotebookError(f"{path.name} cannot be read as a notebook: {reason}") from None


def tagged(notebook: NotebookNode, tag: str) -> int | None:
    """Return the index of the first code cell with this tag, or None."""
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and tag in cell.metadata.get("tags", []):
            return index
    return None
