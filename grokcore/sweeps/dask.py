"""A Dask cluster as an executor for `grokcore.sweep`, on one machine or on many.

Specifications go out and records come back to this process, which alone writes them.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from functools import partial
from typing import TYPE_CHECKING, Any

from grokcore.sweeps.executors import ExecutorError

if TYPE_CHECKING:
    from distributed import Client

TIMEOUT = 10.0  # seconds in which a scheduler has to answer
Say = Callable[[str], None]


class DaskExecutor(Executor):
    """The executor of a Dask client, which says how many `workers` it has: threads that take one task each.

    Args:
        client: A client that is connected.
    """

    def __init__(self, client: Client) -> None:
        self.client, self.tasks = client, client.get_executor(pure=False)

    @property
    def workers(self) -> int:
        """Number of groups that can be trained at once; raises BrokenExecutor if the scheduler does not answer."""
        if self.client.status != "running":
            raise self._lost_scheduler()
        try:
            return sum(self.client.nthreads().values())  # type: ignore[union-attr]
        except OSError as error:
            raise self._lost_scheduler() from error

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Return the future of a call, as any executor; raises BrokenExecutor if the scheduler is gone."""
        if self.client.status != "running":
            raise self._lost_scheduler()
        return self.tasks.submit(partial(fn, *args, **kwargs))  # Dask would look for tasks within arguments

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; the cluster stays."""
        self.tasks.shutdown(wait=wait)

    def _lost_scheduler(self) -> BrokenExecutor:
        return BrokenExecutor(f"no answer from the scheduler at {self.client._start_arg}")


@contextlib.contextmanager
def connected(address: str, say: Say = print) -> Iterator[DaskExecutor]:
    """Yield a Dask cluster as an executor, with at least one worker.

    Args:
        address: The address of the scheduler, for instance `tcp://host:8786`.
        say: Called with a line if no worker has joined yet and one is waited for.

    Yields:
        The executor.

    Raises:
        ExecutorError: If no scheduler answers, or `dask` and `distributed` are not installed.
    """
    try:
        from distributed import Client
    except ImportError:
        raise ExecutorError("a cluster takes Dask, which is not installed: pip install 'grokcore[cluster]'") from None
    try:
        client = Client(address, timeout=TIMEOUT, set_as_default=False)
    except (OSError, TimeoutError, ValueError, TypeError) as error:  # TypeError: TLS without its certificates
        raise ExecutorError(
            f"no Dask scheduler answers at {address!r} ({error}): start one with `dask scheduler` and give the address "
            "that it prints, for instance tcp://127.0.0.1:8786"
        ) from None
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # ExecutorError says that the scheduler is lost
    with client:
        executor = DaskExecutor(client)
        if not client.scheduler_info()["workers"]:
            say(f"no worker has joined {address} yet: waiting; start some with `dask worker {address} --nthreads 1`")
            client.wait_for_workers(1)
        yield executor
