"""Which runs each sweep on a store is training, so that two of them do not train the same run.

Each sweep keeps a file that lists its runs, and holds a lock beside it for as long as it lives: the operating system
releases the lock of a process that was killed, and then its list counts no more. Beside them it has a folder to which
the processes that train for it write their progress.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock, Timeout

from grokcore.records.atomic import atomic_write, unwritable


class Reservations:
    """The runs reserved by one sweep, from entering the context to its end.

    Args:
        folder: The folder that the sweeps on one store share. Entering raises StoreError if it cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, Reservations(Path(folder)) as reservations:
        ...     reservations.take(["run"]), reservations.busy(["run"])  # busy: with another sweep
        (True, False)
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.runs = set[str]()
        self.progress = self.folder / uuid.uuid4().hex
        self.list = self.progress.with_suffix(".json")
        self.turn = FileLock(folder / "turn.lock")  # held while lists are read and changed
        self.alive = FileLock(self.list.with_suffix(".lock"))

    def __enter__(self) -> Reservations:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.turn:
                self.alive.acquire()
                try:
                    self.progress.mkdir()
                    self._write()
                except BaseException:
                    self.alive.release()
                    _remove(self.list)
                    raise
        except OSError as error:
            raise unwritable(self.folder, error) from error
        return self

    def __exit__(self, *_: object) -> None:
        with self.turn:
            self.alive.release()
            _remove(self.list)

    def take(self, runs: Iterable[str]) -> bool:
        """Reserve runs, all or none; tell whether they are reserved, so that no other sweep is training one of them."""
        runs = set(runs)
        with self.turn:
            if runs & self._of_other_sweeps():
                return False
            self.runs |= runs
            self._write()
        return True

    def busy(self, runs: Iterable[str]) -> bool:
        """Tell whether another sweep is training one of these runs."""
        with self.turn:
            return not self._of_other_sweeps().isdisjoint(runs)

    def release(self, runs: Iterable[str]) -> None:
        """Release runs that have ended."""
        with self.turn:
            self.runs.difference_update(runs)
            self._write()

    def _of_other_sweeps(self) -> set[str]:
        """Return the runs of other sweeps that live; the lists of those that have died are removed."""
        runs: set[str] = set()
        for lock_path in self.folder.glob("*.lock"):
            path = lock_path.with_suffix(".json")
            if path == self.list or lock_path.name == "turn.lock":
                continue
            lock = FileLock(lock_path)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                runs.update(json.loads(path.read_text()) if path.is_file() else [])
            else:
                lock.release()
                _remove(path)
        return runs

    def _write(self) -> None:
        with atomic_write(self.list) as path:
            path.write_text(json.dumps(sorted(self.runs)))


def _remove(path: Path) -> None:
    """Remove the list of a sweep with its lock and its folder of progress."""
    folder = path.with_suffix("")
    hidden = folder.with_name(f".{folder.name}")  # moved at once: a worker may be writing there
    with contextlib.suppress(FileNotFoundError):
        os.replace(folder, hidden)
    shutil.rmtree(hidden, ignore_errors=True)
    path.unlink(missing_ok=True)
    path.with_suffix(".lock").unlink(missing_ok=True)
