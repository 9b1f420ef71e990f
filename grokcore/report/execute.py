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

from grokcore.report.notebook_files import NotebookError, read, tagged

GRACE = 10.0  # seconds that an interrupted worker has to close its kernel
POLL_INTERVAL = 0.05  # seconds between two looks at the workers


@dataclass(frozen=True)
class Failure:
    """Why a notebook stopped.

    Attributes:
        cell: The cell that failed, counted from 1; None if the notebook stopped before its first cell.
        n_cells: How many cells the notebook has.
        source: The text of that cell.
        cause: The error and its message.
        frames: The traceback, without papermill's own frames.
    """

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
    """A notebook after its execution.

    Attributes:
        source: The notebook.
        output: Its copy with outputs.
        parameters: What it was executed with.
        failure: Why it stopped; None if it did not.
        seconds: How long the execution took.
    """

    source: Path
    output: Path
    parameters: dict[str, Any]
    failure: Failure | None
    seconds: float


@dataclass(frozen=True)
class Worker:
    """A process that executes a notebook, and when it was started on the monotonic clock, in seconds."""

    process: subprocess.Popen[bytes]
    began: float


def require_kernel(name: str) -> None:
    """Raise NotebookError if Jupyter knows no kernel of this name."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    manager = KernelSpecManager()
    try:
        manager.get_kernel_spec(name)
    except NoSuchKernel:
        installed = ", ".join(sorted(manager.find_kernel_specs())) or "none"
        raise NotebookError(
            f"the Jupyter kernel {name!r} is not installed (there is: {installed}); "
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
    """Execute notebooks and return them in the order given.

    A notebook that fails does not stop the others. An interrupt ends the workers and their kernels and is then passed
    on.

    Args:
        notebooks: The parameters of each notebook, by its path.
        folder: Where the executed copies are written.
        jobs: How many notebooks are executed at once.
        kernel: The Jupyter kernel.
        environment: Variables that are added to the environment of the kernels.
        watch: Called with each notebook as it ends.

    Raises:
        NotebookError: The kernel is not installed.
    """
    require_kernel(kernel)
    waiting = list(notebooks)
    running: dict[Path, Worker] = {}
    done: dict[Path, Executed] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                path = waiting.pop(0)
                process = _start(path, notebooks[path], folder, kernel, environment or {})
                running[path] = Worker(process, began=time.monotonic())
            for path, worker in list(running.items()):
                if worker.process.poll() is not None:
                    del running[path]
                    seconds = time.monotonic() - worker.began
                    done[path] = _outcome(path, notebooks[path], folder, worker.process.returncode, seconds)
                    if watch is not None:
                        watch(done[path])
            time.sleep(POLL_INTERVAL)
    finally:
        _end([worker.process for worker in running.values()])
    return [done[path] for path in notebooks]


def _start(
    path: Path, parameters: dict[str, Any], folder: Path, kernel: str, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    request = {
        "source": str(path),
        "output": str(folder / path.name),
        "parameters": parameters,
        "kernel": kernel,
    }
    file = folder / f"{path.stem}.request.json"
    file.write_text(json.dumps(request))
    with open(folder / f"{path.stem}.log", "wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "grokcore.report.execute", str(file)],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # an interrupt reaches this process alone, which ends the workers
        )


def _outcome(path: Path, parameters: dict[str, Any], folder: Path, code: int, seconds: float) -> Executed:
    """Return what became of a notebook whose worker ended with this exit code."""
    result = folder / f"{path.stem}.result.json"
    if result.is_file():
        fields = json.loads(result.read_text())
        failure = Failure(**fields) if fields else None
    else:
        log = (folder / f"{path.stem}.log").read_text(errors="replace").strip()
        failure = Failure(
            cell=None,
            n_cells=len(read(path).cells),
            source="",
            cause=f"its worker process ended with code {code}",
            frames=log[-2000:],
        )
    return Executed(path, folder / path.name, parameters, failure, seconds)


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _execute_request(request: dict[str, Any]) -> Failure | None:
    """Execute the notebook of a request; return why it stopped, None if it did not."""
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
        # Papermill adds a cell with the parameters behind the one that is tagged: it is not counted.
        parameters_cell = tagged(notebook, "parameters")
        injected = bool(request["parameters"]) and parameters_cell is not None and parameters_cell < error.cell_index
        return Failure(
            cell=error.cell_index + 1 - injected,
            n_cells=len(notebook.cells),
            source=error.source,
            cause=f"{error.ename}: {error.evalue}",
            frames=strip_color("\n".join(error.traceback)),
        )
    except Exception as error:  # a kernel that died, for one: its page says so, without papermill's own frames
        cause = f"{type(error).__name__}: {error}"
        return Failure(cell=None, n_cells=len(notebook.cells), source="", cause=cause, frames="")
    return None


def main() -> None:
    """Execute the notebook of the request given as the only argument, and write its outcome beside it."""
    file = Path(sys.argv[1])
    failure = _execute_request(json.loads(file.read_text()))
    result = file.with_name(file.name.replace(".request.json", ".result.json"))
    part = result.with_suffix(".part")
    part.write_text(json.dumps(asdict(failure) if failure else None))
    os.replace(part, result)


if __name__ == "__main__":
    main()
