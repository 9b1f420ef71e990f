"""Sweeps in processes of their own, to be killed or interrupted."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from grokcore.records.store import Store, repository
from grokcore.spec.presets import msu
from grokcore.spec.run import RunSpec, replace

TINY: dict[str, Any] = {"p": 7, "d_model": 8, "d_mlp": 12, "n_heads": 2, "batch_size": 8}
LONG = msu(**TINY, steps=3000)
SHORT = replace(LONG, steps=30)

PARALLEL = """
    import json, os, sys, time
    from pathlib import Path
    import grokcore as gc
    from grokcore.records.store import Store

    if __name__ == "__main__":
        folder, specs = Path(sys.argv[1]), [gc.RunSpec.model_validate(spec) for spec in json.loads(sys.argv[2])]
        jobs, sweeps = map(int, sys.argv[3:])
        store = Store(folder / "cache", folder / "records")
        trained = set()

        def watch(progress):
            trained.update(progress.curves["run"])
            print(json.dumps(sorted(trained)), flush=True)

        (folder / f"{os.getpid()}.ready").touch()
        while len(list(folder.glob("*.ready"))) < sweeps:
            time.sleep(0.01)
        gc.sweep(specs, store=store, device="cpu", jobs=jobs, checkpoint_every=0, keep_weights=[100], watch=watch)
"""


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(repository()), "OMP_NUM_THREADS": "1", "GROKCORE_CACHE": str(folder)}


def start(folder: Path, specs: list[RunSpec], jobs: int = 2, sweeps: int = 1) -> subprocess.Popen[str]:
    """Start a sweep that begins when so many sweeps of this folder are ready to."""
    script = folder / "parallel.py"
    script.write_text(textwrap.dedent(PARALLEL))
    specs_json = json.dumps([spec.to_dict() for spec in specs])
    command = [sys.executable, "-W", "error", str(script), str(folder), specs_json, str(jobs), str(sweeps)]
    return launch(command, folder)


def launch(command: list[str], folder: Path) -> subprocess.Popen[str]:
    """Start a process group of its own, which Ctrl-C interrupts also where this process was started to ignore it."""

    def heed() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment(folder), start_new_session=True, preexec_fn=heed, **options)


def wait_for(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
        time.sleep(0.01)


def checkpoints(store: Store) -> list[Path]:
    return list(store.checkpoints.glob("*.safetensors"))


def tidy(store: Store) -> bool:
    """Tell whether there is nothing in the cache but runs, and the lock that sweeps take turns with."""
    assert [path.name for path in (store.cache / "sweeps").iterdir()] == ["turn.lock"]
    return not list(store.cache.rglob(".*")) and not checkpoints(store)


def alive(group: int) -> list[str]:
    """Return the processes of a group that have not ended, as the system names them."""
    names = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, state, _, of = re.match(r"\d+ \((.*)\) (\S) (\d+) (\d+)", path.read_text()).groups()  # type: ignore
            if int(of) == group and state != "Z":
                names.append(name)
    return names
