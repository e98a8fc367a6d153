"""Environment of a restricted container: number of threads, and cache folders in /tmp.

A container may run as a user without a home, on a read-only root, with few processes allowed.
"""

import os
import shutil
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

THREADS = 8
THREAD_VARIABLES = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def prepare_environment() -> None:
    """Set the variables that numpy, numba, torch and matplotlib read when they are imported.

    Variables that are set already stay as they are. To be called before the heavy imports.
    """
    if "numba" not in sys.modules and "torch" not in sys.modules:
        # On a machine of 64 cores three pools of threads would not fit into 256 processes.
        cores = os.cpu_count() or 1
        if hasattr(os, "sched_getaffinity"):
            cores = len(os.sched_getaffinity(0))
        for name in THREAD_VARIABLES:
            os.environ.setdefault(name, str(min(THREADS, cores)))
        # Waiting threads that spin take the cores from those that work.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not _may_write(Path(os.environ.get("HOME", "/nonexistent"))):
        # matplotlib's and fontconfig's: nnU-Net imports them.
        for name in ("MPLCONFIGDIR", "XDG_CACHE_HOME"):
            if name not in os.environ:
                os.environ[name] = tempfile.mkdtemp(prefix="cache-")
    _copy_compiled_kernels(Path(str(files("nnunetv2_mip"))))


def _copy_compiled_kernels(package: Path) -> None:
    """Copy compiled kernels to a folder where numba may write.

    numba loads compiled kernels only from a folder where it may write, and stops where it finds
    no such folder.
    """
    caches = sorted({path.parent for path in package.rglob("__pycache__/*.nbi")})
    if "NUMBA_CACHE_DIR" in os.environ or all(map(_may_write, caches or [package])):
        return
    import numba
    from numba.core import caching

    folder = Path(tempfile.mkdtemp(prefix="numba-"))
    # numba makes its settings at import, where type checkers do not see them.
    numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
    # Private to numba: without it the kernels are compiled again, half a minute.
    locator = getattr(caching, "_CacheLocator", None)
    if locator is None or not hasattr(locator, "get_suitable_cache_subpath"):
        return
    for cache in caches:
        # numba names the copy after the folder that the module's file lies in.
        own = folder / locator.get_suitable_cache_subpath(str(cache.parent / "module.py"))
        own.mkdir()
        for path in cache.glob("*.nb[ic]"):
            shutil.copy(path, own)


def _may_write(folder: Path) -> bool:
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True
