"""Execute notebooks by papermill, each in a worker process of its own with a kernel of its own.

As a module (`python -m grokcore.report.execute REQUEST.json`) it is that worker: one notebook, its outcome as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from grokcore.report.plan import NotebookError, read, tagged

GRACE = 10.0  # seconds that an interrupted worker has to close its kernel


@dataclass(frozen=True)
class Failure:
    """Why a notebook stopped: `cell` counts from 1 (None: before the first), `frames` are the cell's own."""

    cell: int | None
    n_cells: int
    source: str
    cause: str
    frames: str

    def __str__(self) -> str:
        first = self.source.strip().splitlines()[0] if self.source.strip() else ""
        where = "before its first cell" if self.cell is None else f"in cell {self.cell} of {self.n_cells}"
        return f"failed {where}{f' (`{first}`)' if first else ''}: {self.cause}"


@dataclass(frozen=True)
class Executed:
    """A notebook after its execution: the file with its outputs, or the failure; and the seconds it took."""

    source: Path
    output: Path
    parameters: dict[str, Any]
    failure: Failure | None
    seconds: float


def require_kernel(name: str) -> None:
    """Raise NotebookError if Jupyter knows no kernel of this name."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    manager = KernelSpecManager()
    try:
        manager.get_kernel_spec(name)
    except NoSuchKernel:
        known = ", ".join(sorted(manager.find_kernel_specs())) or "none"
        raise NotebookError(
            f"the Jupyter kernel {name!r} is not installed (there is: {known}); "
            f"install it with `{Path(sys.executable).name} -m pip install ipykernel`"
        ) from None


def execute(
    notebooks: Mapping[Path, dict[str, Any]],
    folder: Path,
    *,
    jobs: int = 1,
    kernel: str = "python3",
    environment: Mapping[str, str] | None = None,
    watch: Callable[[Executed], None] | None = None,
) -> list[Executed]:
    """Execute notebooks with their parameters, at most `jobs` at once, and return them in the order given.

    The executed copies are written to `folder`; `environment` is added to that of the kernels. A notebook
    that fails does not stop the others. `watch` is called with each as it ends. An interrupt ends the workers
    and their kernels, then goes on up.
    """
    require_kernel(kernel)
    waiting, running, done = list(notebooks), {}, {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                path = waiting.pop(0)
                running[path] = (
                    _start(path, notebooks[path], folder, kernel, environment or {}),
                    time.monotonic(),
                )
            for path, (worker, begun) in list(running.items()):
                if worker.poll() is not None:
                    del running[path]
                    done[path] = _outcome(path, notebooks[path], folder, worker, time.monotonic() - begun)
                    if watch is not None:
                        watch(done[path])
            time.sleep(0.05)
    finally:
        _end([worker for worker, _ in running.values()])
    return [done[path] for path in notebooks]


def _start(
    path: Path, parameters: dict[str, Any], folder: Path, kernel: str, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    request = folder / f"{path.stem}.request.json"
    output = folder / path.name
    request.write_text(
        json.dumps({"source": str(path), "output": str(output), "parameters": parameters, "kernel": kernel})
    )
    with open(folder / f"{path.stem}.log", "wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "grokcore.report.execute", str(request)],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # an interrupt reaches this process alone, which ends the workers
        )


def _outcome(
    path: Path, parameters: dict[str, Any], folder: Path, worker: subprocess.Popen[bytes], seconds: float
) -> Executed:
    result = folder / f"{path.stem}.result.json"
    if result.is_file():
        told = json.loads(result.read_text())
        failure = Failure(**told) if told else None
    else:
        log = (folder / f"{path.stem}.log").read_text(errors="replace").strip()
        cause = f"its worker process ended with code {worker.returncode}"
        failure = Failure(None, len(read(path).cells), "", cause, log[-2000:])
    return Executed(path, folder / path.name, parameters, failure, seconds)


def _end(workers: list[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        worker.terminate()
    for worker in workers:
        try:
            worker.wait(GRACE)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def _work(request: dict[str, Any]) -> Failure | None:
    import papermill
    from papermill.exceptions import PapermillExecutionError, strip_color

    source = Path(request["source"])
    notebook = read(source)
    try:
        papermill.execute_notebook(
            str(source),
            request["output"],
            parameters=request["parameters"],
            kernel_name=request["kernel"],
            progress_bar=False,
            request_save_on_cell_execute=False,
            cwd=str(source.parent),
        )
    except PapermillExecutionError as error:
        parameters_cell = tagged(notebook, "parameters")
        injected = bool(request["parameters"]) and parameters_cell is not None and parameters_cell < error.cell_index
        frames = strip_color("\n".join(error.traceback))
        cause = f"{error.ename}: {error.evalue}"
        return Failure(error.cell_index + 1 - injected, len(notebook.cells), error.source, cause, frames)
    except Exception as error:  # a kernel that died, for one: told in the page, not as papermill's own frames
        return Failure(None, len(notebook.cells), "", f"{type(error).__name__}: {error}", "")
    return None


def main() -> None:
    """Execute the notebook of the request given as the only argument, and write its outcome beside it."""
    file = Path(sys.argv[1])
    failure = _work(json.loads(file.read_text()))
    result = file.with_name(file.name.replace(".request.json", ".result.json"))
    part = result.with_suffix(".part")
    part.write_text(json.dumps(asdict(failure) if failure else None))
    os.replace(part, result)


if __name__ == "__main__":
    main()
