"""Data elements of a DICOM header: text, positive numbers, private elements of a vendor."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.dicom.series import number_of, tag_name

if TYPE_CHECKING:
    from pydicom import Dataset

# Words by which a vendor is recognised in Manufacturer (0008,0070), in small letters.
_VENDORS = {
    "GE": ("ge ", "ge-", "gems", "general electric"),
    "Philips": ("philips", "adac"),
    "Siemens": ("siemens", "cps", "cti"),
}


def text_or_none(header: "Dataset", keyword: str) -> str | None:
    """First value of an element as text; None where it is absent or empty."""
    value = header.get(keyword)
    if value is None or value == "":
        return None
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0] if value else ""
    return str(value).strip() or None


def required_text(header: "Dataset", keyword: str, path: Path) -> str:
    """First value of an element as text.

    Raises:
        MipError: it is absent or empty.
    """
    text = text_or_none(header, keyword)
    if text is None:
        raise MipError(f"{path}: lacks {tag_name(keyword)}; SUV needs it")
    return text


def positive_number(header: "Dataset", keyword: str, path: Path, remedy: str = "") -> float:
    """Number above 0 in an element.

    Args:
        remedy: what the user can do, for the error line.

    Raises:
        MipError: it is absent, empty, no number, or not above 0.
    """
    try:
        value = number_of(header, keyword, path)
    except MipError as error:
        raise MipError(f"{error}; SUV needs it{remedy}") from None
    if value <= 0:
        raise MipError(
            f"{path}: {tag_name(keyword)} is {value:g}; SUV needs a number above 0{remedy}"
        )
    return value


def positive_or_none(header: "Dataset", keyword: str, path: Path) -> float | None:
    """Number above 0 in an element, or None."""
    try:
        value = number_of(header, keyword, path)
    except MipError:
        return None
    return value if value > 0 else None


def stated_text(header: "Dataset", keyword: str) -> str:
    """Name of an element and what the header states there, for people."""
    return f"{tag_name(keyword)}, {text_or_none(header, keyword) or 'absent'}"


def is_vendor(header: "Dataset", vendor: str) -> bool:
    """Whether Manufacturer names `GE`, `Philips` or `Siemens`"""
    manufacturer = (text_or_none(header, "Manufacturer") or "").lower() + " "
    return any(
        manufacturer.startswith(word) if vendor == "GE" else word in manufacturer
        for word in _VENDORS[vendor]
    )


def private_text(
    header: "Dataset", group: int, creator: str, element: int, vendor: str
) -> str | None:
    """Text of a private element, also where its private creator was removed; None without it.

    De-identification often keeps an element and removes the creator of its block. Then the
    manufacturer tells whose group it is; where it was removed too, only Philips' is trusted, whose
    group is used by no other vendor of PET.

    Args:
        element: last byte of the element's number, `0x0D` of (0009,100D).
        vendor: as of `is_vendor`.
    """
    blocks = [block for block in range(0x10, 0x100) if (group, block) in header]
    for block in blocks:
        if _text_of(header[group, block].value) == creator:
            return _private_value(header, group, block << 8 | element)
    removed = vendor == "Philips" and text_or_none(header, "Manufacturer") is None
    if removed or is_vendor(header, vendor):
        return _orphan(header, group, element, blocks)
    return None


def _orphan(header: "Dataset", group: int, element: int, blocks: list[int]) -> str | None:
    """Text of a private element in a block without a creator, or None."""
    # The data set itself would give elements, each of them decoded.
    own = [tag for tag in header.keys() if tag.group == group]  # noqa: SIM118
    for tag in sorted(own):
        block, number = divmod(tag.element, 0x100)
        if number == element and block >= 0x10 and block not in blocks:
            return _private_value(header, group, tag.element)
    return None


def _private_value(header: "Dataset", group: int, element: int) -> str | None:
    return _text_of(header[group, element].value) if (group, element) in header else None


def _text_of(value: object) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace").strip("\0 ")
    return None if value is None else str(value).strip() or None


def private_factor(
    header: "Dataset", group: int, creator: str, element: int, vendor: str
) -> float | None:
    """Number above 0 in a private element (see `private_text`), or None."""
    text = private_text(header, group, creator, element, vendor)
    try:
        factor = float(text or 0)
    except ValueError:
        return None
    return factor if factor > 0 and math.isfinite(factor) else None
