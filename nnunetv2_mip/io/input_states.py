"""States of input files, to see whether finished work still fits its inputs."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import cannot_read, files_below

# Files up to this size are hashed (a mask, a few milliseconds); those of folders never.
_HASHED_BYTES = 1 << 20


def input_states(inputs: Iterable[Path]) -> dict[str, list[Any]]:
    """State of each file: size in bytes, time of its last change in ns, SHA-256 or None.

    Args:
        inputs: files, and folders with all files below them.

    Raises:
        MipError: a file is missing or may not be read.
    """
    return {
        str(file.absolute()): _state(file, hashed=file == path)
        for path in inputs
        for file in (files_below(path) if path.is_dir() else (path,))
    }


def changed_inputs(before: Mapping[str, list[Any]], now: Mapping[str, list[Any]]) -> list[str]:
    """Files that are new, gone, or not as they were.

    Another time alone does not count where the content is known to be the same.
    """
    return sorted(
        name
        for name in before.keys() | now.keys()
        if name not in before or name not in now or not _same(before[name], now[name])
    )


def _same(before: list[Any], now: list[Any]) -> bool:
    if before[0] != now[0]:
        return False
    if before[2] is not None and now[2] is not None:
        return bool(before[2] == now[2])
    return bool(before[1] == now[1])


def _state(path: Path, hashed: bool) -> list[Any]:
    try:
        found = path.stat()
        digest = None
        if hashed and found.st_size <= _HASHED_BYTES:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except FileNotFoundError:
        raise MipError(f"{path}: no such file") from None
    except OSError as error:
        raise MipError(f"{path}: {cannot_read(error)}") from None
    return [found.st_size, found.st_mtime_ns, digest]
