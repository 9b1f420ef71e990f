"""Tiny notebooks made for one test each."""

from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

PARAMETERS = "steps: int = 30\nalphas: list[float] = [0.5]\nname: str = 'a'\nlr: float = 0.001\nshare: bool = True"
SPECS = "import grokcore as gc\nspecs = []"


def write_notebook(
    folder: Path,
    name: str,
    code: Sequence[str] = (),
    *,
    parameters: str | None = PARAMETERS,
    specs: str | None = SPECS,
    prose: Sequence[str] = ("# A tiny notebook",),
) -> Path:
    """Write a notebook of prose, `parameters` and `specs` cells, then the code given; return its path."""
    cells = [new_markdown_cell(text) for text in prose]
    for tag, source in (("parameters", parameters), ("specs", specs)):
        if source is not None:
            cells.append(new_code_cell(source, metadata={"tags": [tag]}))
    cells += [new_code_cell(source) for source in code]
    path = folder / f"{name}.ipynb"
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=metadata), path)
    return path
