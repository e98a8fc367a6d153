"""DICOM files of a folder, their headers, and the stack of slices of a series.

Needs pydicom, which the `dicom` extra installs; it is imported when it is used.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import files_below
from nnunetv2_mip.io.grid import SourceGrid
from nnunetv2_mip.wording import counted

if TYPE_CHECKING:
    from pydicom import Dataset

# Files with these suffixes are read even without a DICOM preamble, as old software writes them.
_DICOM_SUFFIXES = (".dcm", ".ima", ".dicom")
_PREAMBLE_LENGTH, _MAGIC = 128, b"DICM"
# First element of a file without preamble: of the meta information or the identifying group.
_FIRST_GROUPS = (0x0002, 0x0008)
_LAST_FIRST_ELEMENT = 0x0070


@dataclass(frozen=True)
class Slices:
    """Slices of one series, from the lowest to the highest position along their normal.

    Attributes:
        files: one for each slice; the frames of a multi-frame file repeat it.
        headers: pydicom data sets without pixels, in the same order.
        grid: of the stack; index axes are (column, row, slice).
        frames: index of each slice's frame in its file.
        warnings: lines for the user.
    """

    files: tuple[Path, ...]
    headers: tuple["Dataset", ...]
    grid: SourceGrid
    frames: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()


def import_pydicom() -> Any:
    """Module pydicom; MipError with the remedy where it is not installed."""
    try:
        import pydicom
    except ImportError:
        raise MipError(
            'DICOM needs pydicom, which is not installed: pip install "nnunetv2-mip[dicom]"'
        ) from None
    return pydicom


def dicom_files(folder: Path | str, recursive: bool = True) -> Iterator[Path]:
    """DICOM files below a folder, by name; hidden files and DICOMDIR are left out."""
    folder = Path(folder)
    for path in files_below(folder) if recursive else sorted(folder.iterdir()):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.name.upper() != "DICOMDIR" and path.is_file() and _is_dicom(path):
            yield path


def has_dicom_suffix(path: Path) -> bool:
    """Whether a file says by its name that it is DICOM."""
    return path.suffix.lower() in _DICOM_SUFFIXES


def _is_dicom(path: Path) -> bool:
    if has_dicom_suffix(path):
        return True
    try:
        with path.open("rb") as stream:
            head = stream.read(_PREAMBLE_LENGTH + len(_MAGIC))
    except OSError as error:
        raise MipError(f"{path}: cannot be read ({error.strerror})") from None
    return head[_PREAMBLE_LENGTH:] == _MAGIC or _starts_with_element(head)


def _starts_with_element(head: bytes) -> bool:
    """Whether bytes start with a data element, as a file without preamble does."""
    if len(head) < 8:
        return False
    for order in ("little", "big"):
        group, element = (int.from_bytes(head[i : i + 2], order) for i in (0, 2))
        if group not in _FIRST_GROUPS or element > _LAST_FIRST_ELEMENT:
            continue
        if head[4:6].isalpha() and head[4:6].isupper():
            return True
        # Implicit VR has a length there; the first element is a short text, a UID or a number.
        length = int.from_bytes(head[4:8], "little")
        if order == "little" and length <= 64 and length % 2 == 0:
            return True
    return False


def values_of(header: "Dataset", keyword: str) -> list[str]:
    """Values of a tag as text; an empty list where it is absent or empty."""
    value = header.get(keyword)
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str) else [str(item) for item in value]


def tag_name(keyword: str) -> str:
    """Name of a tag for messages: `Patient's Weight (0010,1030)` of `PatientWeight`."""
    import_pydicom()
    from pydicom.datadict import dictionary_description
    from pydicom.tag import Tag

    tag = Tag(keyword)
    return f"{dictionary_description(keyword)} ({tag >> 16:04X},{tag & 0xFFFF:04X})"


def number_of(header: "Dataset", keyword: str, path: Path) -> float:
    """Number in a tag.

    Raises:
        MipError: the tag is absent, empty, or no finite number.
    """
    return float(numbers_of(header, keyword, 1, path)[0])


def numbers_of(header: "Dataset", keyword: str, count: int, path: Path) -> np.ndarray:
    """Numbers in a tag, (count,).

    Raises:
        MipError: the tag is absent or empty, or does not hold so many finite numbers.
    """
    try:
        value = header.get(keyword)
        if value is None or value == "":
            raise MipError(f"{path}: lacks {tag_name(keyword)}")
        numbers = np.atleast_1d(np.asarray(value, np.float64))
    except (ValueError, TypeError):
        raise MipError(f"{path}: {tag_name(keyword)} is no number") from None
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise MipError(
            f"{path}: {tag_name(keyword)} does not hold {counted(count, 'finite number')}"
        )
    return numbers
