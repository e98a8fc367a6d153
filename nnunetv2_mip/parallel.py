"""Parallel work on many cases: processes of this machine, or a Dask cluster.

Both are `concurrent.futures` executors, so the same function runs on either.
"""

import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
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
    *,
    in_order: bool = False,
    finished_are_kept: bool = False,
) -> Generator[tuple[Any, Any], None, None]:
    """Pairs (item, result of `work`) of all items, each as soon as it is finished.

    Close the iterator (`contextlib.closing`) where the work must have ended before what follows:
    items that have not begun are then cancelled, and the others are waited for.

    Args:
        work: picklable where processes or Dask are used.
        items: likewise.
        processes: workers of this machine; 1 works in this process.
        dask: address of a Dask scheduler (`tcp://host:8786`); its workers then do everything.
        in_order: give the pairs in the order of the items.
        finished_are_kept: say, when a worker dies, that finished cases need not be repeated.

    Raises:
        MipError: no Dask, no scheduler at this address, or a worker died.
    """
    processes = min(processes, len(items))
    if dask is None and processes <= 1:
        for item in items:
            yield item, work(item)
        return
    with _local(processes) if dask is None else _dask(dask) as executor:
        futures = {executor.submit(work, item): item for item in items}
        try:
            for future in futures if in_order else as_completed(futures):
                yield futures[future], _result(future, finished_are_kept)
        finally:
            for future in futures:
                future.cancel()


def threads_beside(count: int) -> Executor:
    """Executor for work beside the computation: `count` threads, or none on a single core.

    Workers that share a machine are given one numba thread each: more threads would take the cores
    of the others. Submitted work then runs at once, in the calling thread.
    """
    import numba

    return ThreadPoolExecutor(count) if numba.get_num_threads() > 1 else _AtOnce()


class _AtOnce(Executor):
    """Executor that runs submitted work in the calling thread."""

    def submit(self, fn, /, *args, **kwargs):
        future: Future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def _result(future: Future, finished_are_kept: bool) -> Any:
    """Result of a future; MipError where its worker died."""
    try:
        return future.result()
    except Exception as error:
        # Dask's name for it, without importing Dask.
        if isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker":
            kept = " (finished cases are kept)" if finished_are_kept else ""
            raise MipError(
                "a worker process died, most likely of too little memory; run again with fewer "
                f"workers{kept}"
            ) from None
        raise


@contextmanager
def _local(processes: int) -> Iterator[Executor]:
    """Pool of processes, spawned: forking a process with threads (SimpleITK has some) can hang."""
    threads = max(1, (os.cpu_count() or 1) // processes)
    with ProcessPoolExecutor(
        processes,
        mp_context=get_context("spawn"),
        initializer=_prepare_worker,
        initargs=(threads, os.getpid()),
    ) as pool:
        yield pool


def _prepare_worker(threads: int, parent: int) -> None:
    """Set up a worker process: it ends with its parent and leaves cores to the other workers."""
    if sys.platform == "linux":
        import ctypes

        # A worker that outlived a killed conversion would write into the one that resumes it.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
    _limit_numba_threads(threads)


def _limit_numba_threads(threads: int) -> None:
    """Let numba use no more threads than `threads`; work without numba does not import it."""
    if "numba" in sys.modules:
        import numba

        # numba makes the settings of this module at run time.
        most = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
        numba.set_num_threads(min(threads, most))
        return
    asked = os.environ.get("NUMBA_NUM_THREADS", "")
    os.environ["NUMBA_NUM_THREADS"] = str(min(threads, int(asked) if asked.isdigit() else threads))


@contextmanager
def _dask(address: str) -> Iterator[Executor]:
    """Executor of the Dask cluster at `address`; MipError where there is none."""
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
