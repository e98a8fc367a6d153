"""Many workers for many cases: processes of this machine, or a Dask cluster.

Both are `concurrent.futures` executors, so that whatever runs on one runs on the other.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    as_completed,
)
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

from nnunetv2_mip.errors import MipError

CONNECT_SECONDS = 15
_PR_SET_PDEATHSIG = 1


def for_each(
    work: Callable[[Any], Any],
    items: Sequence[Any],
    processes: int = 1,
    dask: str | None = None,
) -> Iterator[tuple[Any, Any]]:
    """Call `work` on every item; gives (item, result) as they are done.

    Args:
        work: picklable where processes or Dask are used.
        items: likewise.
        processes: workers of this machine; 1 works in this process.
        dask: address of a Dask scheduler (`tcp://host:8786`); its workers then do everything.

    Raises:
        MipError: no Dask, no scheduler at this address, or a worker died.
    """
    if dask is None and (processes <= 1 or len(items) <= 1):
        for item in items:
            yield item, work(item)
        return
    with _local(processes) if dask is None else _dask(dask) as executor:
        futures = {executor.submit(work, item): item for item in items}
        try:
            for future in as_completed(futures):
                yield futures[future], _result(future)
        finally:
            for future in futures:
                future.cancel()


def threads_beside(count: int) -> Executor:
    """Threads for work beside the computation; none where this process has one core to itself.

    Workers that share a machine are given one numba thread each: more threads would take the cores
    of the others. What is submitted then runs at once.
    """
    import numba

    return ThreadPoolExecutor(count) if numba.get_num_threads() > 1 else _AtOnce()


class _AtOnce(Executor):
    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def _result(future) -> Any:
    try:
        return future.result()
    except Exception as error:
        # Dask's name for it, without importing Dask.
        if isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker":
            raise MipError(
                "a worker process died, most likely of too little memory; run again with fewer "
                "workers (finished cases are kept)"
            ) from None
        raise


@contextmanager
def _local(processes: int) -> Iterator[Executor]:
    threads = max(1, (os.cpu_count() or 1) // processes)
    with ProcessPoolExecutor(
        processes,
        mp_context=get_context("spawn"),
        initializer=_prepare_worker,
        initargs=(threads, os.getpid()),
    ) as pool:
        yield pool


def _prepare_worker(threads: int, parent: int) -> None:
    """Share the cores (numba would use all of them in each worker), and end with the parent."""
    if sys.platform == "linux":
        import ctypes

        # A worker that outlives a killed conversion would write into the one that resumes it.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
    import numba

    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))


@contextmanager
def _dask(address: str) -> Iterator[Executor]:
    try:
        from distributed import Client
    except ImportError:
        raise MipError(
            'Dask is not installed; run: pip install "nnunetv2-mip[dask]" (here and on the workers)'
        ) from None
    try:
        client = Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MipError(f"--dask {address}: no Dask scheduler answers there ({reason})") from None
    with client:
        if not client.scheduler_info()["workers"]:
            raise MipError(f"--dask {address}: the scheduler has no workers; start dask worker")
        yield client.get_executor(pure=False)
