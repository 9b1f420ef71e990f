"""Executed notebooks, kept to be used again as long as nothing that they depend on has changed.

That is: the notebook, its parameters, the whole package, the pinned requirements, the Python version, the claims and
sources, the benchmark's results, and the records of its runs, each file hashed whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat

from grokcore.records.atomic import atomic_write
from grokcore.records.store import Store, repository
from grokcore.report.execute import Executed
from grokcore.report.notebook_files import NotebookError, read
from grokcore.spec.run import RunSpec

KEPT = 4  # executed copies of one notebook, the latest ones
SECONDS = "grokcore_seconds"
COMMON_FILES = ("grokcore/**/*", "requirements.txt", "data/*.yaml", "benchmarks/*.json")


def common_digest(root: Path | None = None) -> str:
    """Return a SHA-256 of what every notebook depends on; it is computed once for a report.

    Args:
        root: The repository (default: this one).
    """
    root = repository() if root is None else root
    files = sorted({path for pattern in COMMON_FILES for path in root.glob(pattern) if path.is_file()})
    sums = [(path.relative_to(root).as_posix(), _file_sum(path)) for path in files if "__pycache__" not in path.parts]
    return _digest([sys.version, sums])


def key(path: Path, parameters: dict[str, Any], specs: Sequence[RunSpec], store: Store, common: str) -> str:
    """Return what identifies an execution: a SHA-256 of the notebook and of all that it depends on.

    Args:
        path: The notebook.
        parameters: What it is executed with.
        specs: The runs that it needs.
        store: Where these runs are.
        common: What all notebooks depend on: `common_digest` and the kernel.
    """
    notebook = read(path)
    cells = [[cell.cell_type, cell.source, cell.metadata.get("tags", [])] for cell in notebook.cells]
    files = [*store.files([spec.id for spec in specs]), *sorted(store.records.glob("*.csv"))]
    records = [(file.name, _file_sum(file)) for file in files]
    return _digest([common, str(path), cells, parameters, [spec.id for spec in specs], records])


def find(path: Path, parameters: dict[str, Any], key: str, store: Store) -> Executed | None:
    """Return the kept execution of a notebook, or None if there is none.

    Args:
        path: The notebook.
        parameters: What it was executed with.
        key: What `key` returns for it now.
        store: In whose cache executions are kept.
    """
    file = kept_file(path, key, store)
    if not file.is_file():
        return None
    try:
        seconds = float(read(file).metadata[SECONDS])
    except (NotebookError, KeyError, TypeError, ValueError):
        return None  # a damaged copy: the notebook is executed again, which writes it anew
    with contextlib.suppress(OSError):  # a cache that is read-only
        os.utime(file)
    return Executed(path, file, parameters, None, seconds)


def keep(executed: Executed, key: str, store: Store) -> None:
    """Keep a copy of an execution that did not fail, and of the same notebook the latest ones before it.

    Args:
        executed: The notebook after its execution.
        key: What `key` returns for it.
        store: In whose cache executions are kept.
    """
    if executed.failure is not None:
        return
    file = kept_file(executed.source, key, store)
    notebook = read(executed.output)
    notebook.metadata[SECONDS] = executed.seconds
    with atomic_write(file) as part:
        nbformat.write(notebook, part)
    copies = sorted(file.parent.glob(f"{executed.source.stem}.*.ipynb"), key=lambda copy: copy.stat().st_mtime)
    for old in copies[:-KEPT]:
        old.unlink(missing_ok=True)


def kept_file(path: Path, key: str, store: Store) -> Path:
    """Return where the execution of a notebook with this key is kept, if it is."""
    return store.cache / "executed" / f"{path.stem}.{key[:16]}.ipynb"


def _file_sum(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()
