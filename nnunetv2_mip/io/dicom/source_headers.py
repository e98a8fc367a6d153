"""Headers of a PET series as new DICOM objects copy them: UTF-8 text, values that DICOM allows.

Scanners and anonymisers write values that the standard forbids. highdicom refuses to copy some of
them, and a copy would make the new object invalid. So patient and study are copied value by value:
what can be read is written in the standard's form, the rest is left empty.
"""

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.dicom.frame_references import Frame, frames_of
from nnunetv2_mip.io.dicom.pet import DicomPet
from nnunetv2_mip.io.dicom.series import import_pydicom, tag_name

if TYPE_CHECKING:
    from pydicom import Dataset

_PET_CLASS = "1.2.840.10008.5.1.4.1.1.128"
# Type 2 attributes of patient and study: they must exist, but may be empty.
_MAY_BE_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
_SEXES = {"M": "M", "MALE": "M", "F": "F", "FEMALE": "F", "O": "O", "OTHER": "O"}
_MAX_LENGTH = {"LO": 64, "SH": 16, "ST": 1024, "LT": 10240, "UT": 1 << 20, "UC": 1 << 20}
_PATTERNS = {
    "CS": re.compile(r"[A-Z0-9 _]{1,16}"),
    "AS": re.compile(r"\d{3}[DWMY]"),
    "UI": re.compile(r"(?=.{1,64}$)(0|[1-9]\d*)(\.(0|[1-9]\d*))+"),
}
# Also of the standard before DICOM 3.0 (2020.01.31, 10:20:30), and of other writers.
_DATE_FORMS = ("%Y%m%d", "%Y.%m.%d", "%Y-%m-%d", "%Y/%m/%d")
# Change of the character set (ISO 2022), which pydicom leaves in Chinese text.
_ESCAPE = re.compile(r"\x1b[ -/]+[0-~]")
_TIME = re.compile(r"(\d{2})(?::?(\d{2})(?::?(\d{2})(\.\d{1,6})?)?)?")


@dataclass(frozen=True)
class SourceHeaders:
    """Headers of a series, fit for reference and copy.

    Attributes:
        slices: one a slice, in the order of `DicomPet.headers`: identity and geometry. The first
            has patient and study too.
        warnings: lines for the user.
        frames: UID in `slices` → frame that it stands in for (see `frame_references`).
    """

    slices: tuple["Dataset", ...]
    warnings: tuple[str, ...]
    frames: Mapping[str, Frame]

    @property
    def first(self) -> "Dataset":
        """Header with patient and study."""
        return self.slices[0]


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Block without warnings: of odd values of the source, which are copied or mended."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def source_headers(pet: DicomPet) -> SourceHeaders:
    """Headers of a PET series for a new DICOM object.

    Raises:
        MipError: the series lacks the UIDs by which an object refers to it, or a file does not
            tell which of its frames a slice is.
    """
    with quiet_pydicom():
        return _source_headers(pet)


def _source_headers(pet: DicomPet) -> SourceHeaders:
    pydicom = import_pydicom()
    lines: list[str] = []
    shared = _shared(pet, lines)
    for path, header in zip(pet.files, pet.headers):
        if not str(header.get("SOPInstanceUID") or "").strip():
            raise MipError(f"{path}: lacks {tag_name('SOPInstanceUID')}: no object can refer to it")
    frames, slices = frames_of(pet), []
    for header, frame in zip(pet.headers, frames):
        data = pydicom.Dataset()
        for keyword, value in shared.items():
            setattr(data, keyword, value)
        known = str(header.get("SOPClassUID") or "")
        is_image = frame is None and pydicom.uid.UID(known).name != known
        data.SOPClassUID = known if is_image else _PET_CLASS
        uid = str(header.SOPInstanceUID).strip()
        data.SOPInstanceUID = uid if frame is None else frame.stand_in
        data.ImagePositionPatient = [_decimal(v) for v in header.ImagePositionPatient]
        slices.append(data)
    first = _patient_and_study(pet.headers[0])
    first.update(slices[0])
    stand_ins = {frame.stand_in: frame for frame in frames if frame is not None}
    return SourceHeaders((first, *slices[1:]), tuple(lines), stand_ins)


def _shared(pet: DicomPet, lines: list[str]) -> dict[str, Any]:
    """Values that all slices share; adds a line for each UID that had to be made."""
    from pydicom.uid import generate_uid

    header, path = pet.headers[0], pet.files[0]
    series = str(header.get("SeriesInstanceUID") or "").strip()
    values: dict[str, Any] = {"SeriesInstanceUID": series}
    for keyword, use in (
        ("StudyInstanceUID", "an archive does not list them with it"),
        ("FrameOfReferenceUID", "a viewer may not lay them over it"),
    ):
        values[keyword] = str(header.get(keyword) or "").strip()
        if not values[keyword]:
            # The same for all objects of a series.
            values[keyword] = generate_uid(entropy_srcs=[keyword, series])
            lines.append(
                f"{path}: lacks {tag_name(keyword)}; the written objects get one of their own, so "
                f"{use}"
            )
    grid = pet.suv.grid
    thickness = _number(header.get("SliceThickness"))
    values |= {
        "Modality": "PT",
        "Rows": grid.size[1],
        "Columns": grid.size[0],
        "ImageOrientationPatient": [_decimal(v) for v in header.ImageOrientationPatient],
        "PixelSpacing": [_decimal(v) for v in header.PixelSpacing],
        "SliceThickness": _decimal(thickness if thickness > 0 else grid.spacing[2]),
        # Of the positions: the tag may be negative, or wrong.
        "SpacingBetweenSlices": _decimal(grid.spacing[2]),
    }
    return values


def _patient_and_study(header: "Dataset") -> "Dataset":
    """Patient, study and what else a header says in values that DICOM allows, in UTF-8."""
    clean = _clean(header, _charset_is_known(header))
    for keyword in _MAY_BE_EMPTY:
        if keyword not in clean:
            setattr(clean, keyword, "")
    clean.PatientSex = _SEXES.get(str(header.get("PatientSex") or "").strip().upper(), "")
    clean.SpecificCharacterSet = "ISO_IR 192"
    return clean


def _charset_is_known(header: "Dataset") -> bool:
    from pydicom.charset import python_encoding

    named = header.get("SpecificCharacterSet") or ""
    names = [named] if isinstance(named, str) else list(named)
    return any(names) and all(str(name) in python_encoding for name in names)


def _clean(data: "Dataset", charset_is_known: bool) -> "Dataset":
    """Copy of the elements whose values can be written as the standard says; no pixels."""
    from pydicom import Dataset
    from pydicom.datadict import dictionary_has_tag, dictionary_VM, dictionary_VR

    clean = Dataset()
    for tag in list(data.keys()):
        if not 0x0008 <= tag.group < 0x7FE0 or tag.is_private or not dictionary_has_tag(tag):
            continue
        vr, many = dictionary_VR(tag), dictionary_VM(tag) != "1"
        try:
            value = data[tag].value
        except Exception:  # pydicom raises many kinds on a damaged value
            continue
        if vr == "SQ":
            items = [_clean(item, charset_is_known) for item in value or []]
            if any(len(item) for item in items):
                clean.add_new(tag, vr, [item for item in items if len(item)])
            continue
        several = [value] if isinstance(value, (str, bytes)) or not _is_list(value) else list(value)
        if not many and len(several) > 1 and vr in (*_MAX_LENGTH, "PN"):
            several = [" ".join(str(part) for part in several)]
        values = [_clean_value(vr, part, charset_is_known) for part in several]
        values = [part for part in values if part is not None]
        if values and len(values) == len(several):
            clean.add_new(tag, vr, values if many and len(values) > 1 else values[0])
    return clean


def _is_list(value: Any) -> bool:
    from pydicom.multival import MultiValue

    return isinstance(value, (MultiValue, list, tuple))


def _clean_value(vr: str, value: Any, charset_is_known: bool) -> Any:
    """One value as the standard allows it for its kind (VR); None where there is no such."""
    if value is None or isinstance(value, bytes):
        return None
    if vr in _MAX_LENGTH or vr == "PN":
        text = _text(str(value), charset_is_known)
        return (_person_name(text) if vr == "PN" else text[: _MAX_LENGTH[vr]].strip()) or None
    if vr in _PATTERNS:
        text = str(value).strip()
        return text if _PATTERNS[vr].fullmatch(text) else None
    if vr == "DA":
        return _date(str(value))
    if vr == "TM":
        return _time(str(value))
    if vr in ("DS", "IS"):
        number = _number(value)
        if not isfinite(number) or (vr == "IS" and number != int(number)):
            return None
        return int(number) if vr == "IS" else _decimal(value)
    return value if vr in ("US", "SS", "UL", "SL", "FL", "FD") else None


def _text(text: str, charset_is_known: bool) -> str:
    """Text without control characters and backslashes, which separate values.

    Text without a (known) character set was decoded as Latin-1. Most such files are UTF-8.
    """
    text = _ESCAPE.sub("", text)
    if not charset_is_known and not text.isascii():
        with suppress(UnicodeError):
            text = text.encode("latin-1").decode("utf-8")
    return "".join(
        " " if c in "\\\r\n\t" else c for c in text if c.isprintable() or c.isspace()
    ).strip()


def _person_name(text: str) -> str:
    """Name of at most three groups of five components, 64 characters a group."""
    groups = text.split("=")[:3]
    groups = ["^".join(group.split("^")[:5])[:64].strip() for group in groups]
    return "=".join(groups).rstrip("=^ ")


def _date(text: str) -> str | None:
    for form in _DATE_FORMS:
        try:
            found = datetime.strptime(text.strip(), form)
        except ValueError:
            continue
        return f"{found.year:04d}{found.month:02d}{found.day:02d}"
    return None


def _time(text: str) -> str | None:
    found = _TIME.fullmatch(text.strip())
    if not found:
        return None
    hour, minute, second, fraction = found.groups()
    if int(hour) > 23 or int(minute or 0) > 59 or int(second or 0) > 59:
        return None
    return "".join(part or "" for part in (hour, minute, second, fraction))


def _number(value: Any) -> float:
    """Number in a value; NaN where there is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def _decimal(value: Any) -> Any:
    """Decimal string (DS) of at most 16 characters; the source's own where it is one."""
    from pydicom.valuerep import DSfloat, format_number_as_ds

    text = str(getattr(value, "original_string", "") or "").strip()
    if 0 < len(text) <= 16:
        return DSfloat(text)
    return DSfloat(format_number_as_ds(float(np.float64(value))))
