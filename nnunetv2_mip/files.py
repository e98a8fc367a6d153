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

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")


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


def link_or_copy(source: Path | str, target: Path | str) -> None:
    """Hard link to a file, or a copy where the file system has none; whole or not at all."""
    # A link to a symbolic link would be lost with it.
    source = Path(source).resolve()
    with atomic_path(target) as partial:
        partial.unlink(missing_ok=True)
        try:
            os.link(source, partial)
        except OSError:
            shutil.copyfile(source, partial)


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


def checked_path(path: Path | str, suffix: str) -> Path:
    """Path of a file to write, whose folder is made; MipError unless it ends in `suffix`."""
    path = Path(path)
    if path.suffix.lower() != suffix:
        raise MipError(f"{path}: must end in {suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden by its name, as macOS's `._` files and `.DS_Store` are."""
    return name.startswith(".") and name.strip(".") != ""


def files_below(
    folder: Path | str,
    unreadable: list[tuple[Path, str]] | None = None,
    hidden: list[Path] | None = None,
) -> Iterator[Path]:
    """Files in a folder and the folders in it, sorted; links are followed, each folder once.

    Hidden files and folders are left out; `folder` itself may be hidden.

    Args:
        folder: to be searched.
        unreadable: receives (folder, reason) of folders that may not be read.
        hidden: receives the hidden folders.

    Raises:
        MipError: without `unreadable`, a folder that may not be read.
    """

    def refuse(error: OSError) -> None:
        path, reason = Path(error.filename or folder), cannot_read(error)
        if unreadable is None:
            raise MipError(f"{path}: {reason}") from None
        unreadable.append((path, reason))

    seen = set()
    found = []
    for here, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        if hidden is not None:
            hidden += [Path(here) / name for name in folders if is_hidden(name)]
        folders[:] = [name for name in folders if not is_hidden(name)]
        found += [Path(here) / name for name in names if not is_hidden(name)]
    yield from sorted(found)


def require_readable(path: Path) -> None:
    """Raise MipError where a file that exists may not be read."""
    if not os.access(path, os.R_OK):
        raise MipError(f"{path}: {cannot_read(PermissionError())}")


def cannot_read(error: OSError) -> str:
    """Why a file or folder cannot be read, with the remedy, for messages."""
    if isinstance(error, PermissionError):
        return "may not be read (permission denied); give yourself the right to read it"
    return f"cannot be read ({error.strerror or error})"


def write_json(target: Path | str, content: Any) -> None:
    """Write `content` as indented JSON, whole or not at all; equal content gives equal bytes."""
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    with atomic_path(target) as partial:
        # Names of files that are no UTF-8: as JSON escapes, which read back as the same names.
        partial.write_text(text, "utf-8", errors="backslashreplace")


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
    except PermissionError as error:
        raise MipError(f"{path}: {cannot_read(error)}") from None
    except (OSError, ValueError) as error:
        raise MipError(f"{path}: cannot be read as JSON ({error})") from None


def null_for_nan(content):
    """Copy for JSON, with None in the place of NaN, in dictionaries and lists too."""
    if isinstance(content, dict):
        return {key: null_for_nan(value) for key, value in content.items()}
    if isinstance(content, list):
        return [null_for_nan(value) for value in content]
    return None if isinstance(content, float) and math.isnan(content) else content


def archives_hint(folder: Path) -> str:
    """Words for an error line about a folder that holds archives instead of what is looked for."""
    names = sorted(path.name for path in folder.iterdir() if path.name.lower().endswith(_ARCHIVES))
    return f"; there is {names[0]}: unpack it" if names else ""
