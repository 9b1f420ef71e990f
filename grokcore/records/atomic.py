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
LEFTOVER_AGE = 3600.0  # seconds after which no process is writing a temporary file any more


class StoreError(GrokcoreError, RuntimeError):
    """A file of the store that cannot be written; the message says which and why. What was there is unchanged."""


def unwritable(path: Path, error: OSError) -> StoreError:
    """Return the error of a file or folder that cannot be written."""
    return StoreError(
        f"{path} cannot be written ({error.strerror or error}): free space, make the folder writable, or name "
        "another one with GROKCORE_CACHE or GROKCORE_RECORDS; nothing that was saved is changed"
    )


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary file in the same folder, and move it to `path` if the block succeeds.

    Args:
        path: The file to write; its folder is made if it is missing.

    Yields:
        The temporary file, which is removed if the block fails.

    Raises:
        StoreError: If it cannot be written: a full disk, a folder that is read-only.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_write(Path(folder) / "file") as temporary:
        ...         _ = temporary.write_text("whole")
        ...     [path.name for path in Path(folder).iterdir()]
        ['file']
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
    """Let a block end before Ctrl-C interrupts, in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals: list[tuple[int, FrameType | None]] = []
    handler = signal.signal(signal.SIGINT, lambda *arguments: signals.append(arguments))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if signals and callable(handler):
        handler(*signals[0])


def clear_leftovers(folders: Iterable[Path]) -> None:
    """Remove temporary files of processes that were killed while writing, if they are an hour old.

    Args:
        folders: Where they are looked for.
    """
    for path in (path for folder in folders for kind in TEMPORARY for path in folder.glob(kind)):
        with contextlib.suppress(FileNotFoundError):  # another process has just moved it into place
            if path.is_file() and time.time() - path.stat().st_mtime > LEFTOVER_AGE:
                path.unlink()
