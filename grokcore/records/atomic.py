"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType

from grokcore.spec.base import GrokcoreError

TEMPORARY = (".*.parquet.*", ".*.safetensors.*", ".*.json.*")  # as `atomic_write` names them
LEFTOVER = 3600.0  # seconds after which a temporary file is nobody's


class StoreError(GrokcoreError, RuntimeError):
    """A file of the store that cannot be written; the message says which and why, and what was there is as it was."""


def unwritable(path: Path, error: OSError) -> StoreError:
    """Return the error of a file or folder that cannot be written."""
    return StoreError(
        f"{path} cannot be written ({error.strerror or error}): free space, make the folder writable, or name "
        "another one with GROKCORE_CACHE or GROKCORE_RECORDS; nothing that was saved is changed"
    )


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary name in the same folder, and move the file to `path` if the block succeeds; makes the folder.

    Raises StoreError if it cannot be written: a full disk, a folder that is read-only.
    """
    name = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        yield Path(name)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        if name is not None:
            Path(name).unlink(missing_ok=True)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let a block end before Ctrl-C is heeded, in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[tuple[int, FrameType | None]] = []
    before = signal.signal(signal.SIGINT, lambda *given: heard.append(given))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if heard and callable(before):
        before(*heard[0])


def clear_leftovers(folders: Iterable[Path]) -> None:
    """Remove what processes that were killed while replacing a file left in these folders, if it is an hour old."""
    for path in (path for folder in folders for kind in TEMPORARY for path in folder.glob(kind)):
        with contextlib.suppress(FileNotFoundError):  # another process has just moved it into place
            if path.is_file() and time.time() - path.stat().st_mtime > LEFTOVER:
                path.unlink()
