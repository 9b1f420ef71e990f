"""Which runs the sweeps on one store are at, so that two of them do not train the same run.

Each sweep keeps a file that lists its runs, and holds a lock beside it for as long as it lives: the operating system
lets go of the lock of a process that was killed, and then its list counts no more. Beside them it has a folder in which
the processes that train for it tell of their progress.
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
    """The runs reserved by one sweep, from entering the context to its end; raises StoreError for a bad folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.runs = folder.absolute(), set[str]()
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
        """Reserve runs, all or none: tell whether no other sweep is at one of them."""
        runs = set(runs)
        with self.turn:
            if runs & self._others():
                return False
            self.runs |= runs
            self._write()
        return True

    def busy(self, runs: Iterable[str]) -> bool:
        """Tell whether another sweep is at one of these runs."""
        with self.turn:
            return not self._others().isdisjoint(runs)

    def release(self, runs: Iterable[str]) -> None:
        """Let go of runs that have ended."""
        with self.turn:
            self.runs.difference_update(runs)
            self._write()

    def _others(self) -> set[str]:
        """Return the runs of the other sweeps that live, and forget those of the dead."""
        found: set[str] = set()
        for held in self.folder.glob("*.lock"):
            path = held.with_suffix(".json")
            if path == self.list or held.name == "turn.lock":
                continue
            lock = FileLock(held)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                found.update(json.loads(path.read_text()) if path.is_file() else [])
            else:
                lock.release()
                _remove(path)
        return found

    def _write(self) -> None:
        with atomic_write(self.list) as path:
            path.write_text(json.dumps(sorted(self.runs)))


def _remove(path: Path) -> None:
    folder = path.with_suffix("")
    gone = folder.with_name(f".{folder.name}")  # at once, for a worker that may be writing there
    with contextlib.suppress(FileNotFoundError):
        os.replace(folder, gone)
    shutil.rmtree(gone, ignore_errors=True)
    path.unlink(missing_ok=True)
    path.with_suffix(".lock").unlink(missing_ok=True)
