"""Reading and writing of files: written whole or not at all, JSON, walks through folders."""

import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunetv2_mip.errors import MipError


@contextmanager
def atomic_path(target: Path | str) -> Iterator[Path]:
    """Temporary path beside `target` that replaces it when the block ends without error.

    The temporary name keeps the target's suffixes, so that writers which choose a format by
    suffix (`.nii.gz`) choose the same one. After an error the temporary file is removed.
    """
    target = Path(target)
    partial = target.with_name(f".{os.getpid()}.partial.{target.name}")
    try:
        yield partial
        partial.replace(target)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)


def check_output(target: Path | str) -> None:
    """Raise MipError when `target` cannot be written: a file in the place of a folder, or no right.

    It is called before the work begins, so that no result is lost.
    """
    target = Path(target)
    for above in target.absolute().parents:
        if above.exists():
            if not above.is_dir():
                raise MipError(f"{target}: cannot be written: {above} is a file; choose another -o")
            if not os.access(above, os.W_OK):
                raise MipError(f"{target}: cannot be written: {above} may not be written to")
            return


def files_below(folder: Path | str) -> Iterator[Path]:
    """Files in a folder and the folders in it, sorted; links are followed, each folder once."""
    seen = set()
    found = []
    for here, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        found += [Path(here) / name for name in names]
    yield from sorted(found)


def write_json(target: Path | str, content: Any) -> None:
    """Write `content` as indented JSON, whole or not at all; equal content gives equal bytes."""
    with atomic_path(target) as partial:
        partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")


def read_json(path: Path | str) -> Any:
    """Content of a JSON file.

    Raises:
        MipError: the file is missing or is not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise MipError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise MipError(f"{path}: cannot be read as JSON ({error})") from None


def null_for_nan(content):
    """Copy for JSON, with None in the place of NaN, in dictionaries and lists too."""
    if isinstance(content, dict):
        return {key: null_for_nan(value) for key, value in content.items()}
    if isinstance(content, list):
        return [null_for_nan(value) for value in content]
    return None if isinstance(content, float) and math.isnan(content) else content
