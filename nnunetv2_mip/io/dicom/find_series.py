"""Image series of a folder: their files, and whether they are a stack of slices."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.dicom.copies import contradiction_of_copies
from nnunetv2_mip.io.dicom.frames import frame_headers, is_multiframe
from nnunetv2_mip.io.dicom.pixels import lossy_warning
from nnunetv2_mip.io.dicom.read_header import read_header
from nnunetv2_mip.io.dicom.series import Slices, dicom_files, has_dicom_suffix, values_of
from nnunetv2_mip.io.dicom.stacking import (
    NoVolume,
    RepeatedPositions,
    SlicePlace,
    Stack,
    place_of,
    stack_slices,
)
from nnunetv2_mip.wording import counted

if TYPE_CHECKING:
    from pydicom import Dataset

_SCANNED = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesDescription",
    "FrameOfReferenceUID",
    "Modality",
    "ImageType",
    "CorrectedImage",
    "StudyDate",
    "SeriesType",
    "Units",
    "InstanceNumber",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "NumberOfFrames",
    "PixelSpacing",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "SliceThickness",
    "SpacingBetweenSlices",
)
_VOLUMES = ("PT", "CT")
# Secondary Capture and its multi-frame forms, encapsulated documents, reports.
_NO_SLICES = (
    "1.2.840.10008.5.1.4.1.1.7",
    "1.2.840.10008.5.1.4.1.1.104",
    "1.2.840.10008.5.1.4.1.1.88",
)
# PET and CT images, multi-frame ones too.
_IMAGE_CLASSES = ("1.2.840.10008.5.1.4.1.1.128", "1.2.840.10008.5.1.4.1.1.2")
# Values of Image Type of images that are no slices.
_NO_SLICE_TYPES = frozenset(
    {
        "LOCALIZER",
        "MIP",
        "MPR_MIP",
        "PROJECTION",
        "PROJECTION IMAGE",
        "VOLUME RENDERED",
        "PROTOCOL",
        "SCREEN SAVE",
    }
)
_GATED_TYPES = frozenset({"GATED", "DYNAMIC"})
# Units of which SUV cannot be made.
_RELATIVE_UNITS = frozenset({"PROPCNTS", "NONE", "PCNT", "PROPCPS", "1CM", "STDDEV"})


@dataclass(frozen=True)
class Series:
    """Files of one series, from a scan of a folder (copies of a slice count once).

    Attributes:
        uid: SeriesInstanceUID.
        study_uid: StudyInstanceUID.
        study_date: StudyDate, empty where absent.
        frame_uid: FrameOfReferenceUID, empty where absent.
        modality: `PT`, `CT`, ….
        description: SeriesDescription, for people.
        corrections: values of Corrected Image (`ATTN`, `DECY`, …).
        is_original: whether Image Type does not say that it is derived from other images.
        is_repeated: whether it is gated or dynamic, so that positions repeat.
        is_relative: whether its units are no activity and no SUV.
        files: one for each slice or multi-frame file; in the order of the stack where there is one.
        frames: index of each slice's frame in its file.
        stack: its grid; None where `problem` says why not.
        problem: why it is no stack of slices; empty where it is.
        is_volume: whether it is meant as a volume; a broken one is.
        span_mm: distance of its outermost slices, and one slice.
        broken: files that are no whole DICOM files, of the series or beside its slices: one of
            them may be a slice.
        contradiction: which two files are one slice with other values; empty where none are.
    """

    uid: str
    study_uid: str
    study_date: str
    frame_uid: str
    modality: str
    description: str
    corrections: frozenset[str]
    is_original: bool
    is_repeated: bool
    is_relative: bool
    files: tuple[Path, ...]
    frames: tuple[int, ...] = ()
    stack: Stack | None = None
    problem: str = ""
    is_volume: bool = True
    span_mm: float = 0.0
    broken: tuple[Path, ...] = ()
    contradiction: str = ""

    @property
    def is_axial(self) -> bool:
        """Whether the slices lie across the body."""
        return self.stack is not None and abs(self.stack.grid.direction[8]) > 0.9

    @property
    def gap_mm(self) -> float:
        """Distance of the slices."""
        return 0.0 if self.stack is None else self.stack.grid.spacing[2]

    @property
    def extent_mm(self) -> float:
        """Length of the body that it covers, from the feet to the head."""
        if self.stack is None:
            return self.span_mm
        grid = self.stack.grid
        return grid.shape_zyx[0] * grid.spacing_zyx[0]

    def describe(self) -> str:
        """UID, description, number of slices and length, for messages."""
        length = f", {self.extent_mm:.0f} mm" if self.stack is not None else ""
        count = len(self.files)
        return (
            f"{self.uid} ({self.description or 'no description'}, "
            f"{counted(count, 'slice')}{length})"
        )


@dataclass
class _Found:
    """What a scan found of one series so far."""

    header: "Dataset"
    slices: dict[tuple, tuple[Path, int, "Dataset"]] = field(default_factory=dict)
    others: list[Path] = field(default_factory=list)
    broken: list[Path] = field(default_factory=list)
    contradiction: str = ""


def find_series(folder: Path | str) -> list[Series]:
    """Image series in a folder and the folders in it, by SeriesInstanceUID.

    Raises:
        MipError: no such folder, an unreadable file, or pydicom is not installed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        reason = "is a file, a folder is needed" if folder.exists() else "no such folder"
        raise MipError(f"{folder}: {reason}")
    found: dict[str, _Found] = {}
    broken: list[Path] = []
    for path in dicom_files(folder):
        header = _scan(path)
        if header is None:
            continue
        if not header.get("Modality") or not header.get("SeriesInstanceUID"):
            if _claims_to_be_image(header, path):
                broken.append(path)
            continue
        one = found.setdefault(str(header.SeriesInstanceUID), _Found(header))
        if header.Modality in _VOLUMES and not header.get("Rows") and _is_image_class(header):
            one.broken.append(path)
        elif header.Modality not in _VOLUMES or not _is_slice(header):
            one.others.append(path)
        elif is_multiframe(header):
            _add_frames(one, path)
        else:
            if not one.slices:
                # The first slice speaks for the series, not a capture of it.
                one.header = header
            first, _, _ = one.slices.setdefault(_key(header, path), (path, 0, header))
            one.contradiction = one.contradiction or contradiction_of_copies(first, path)
    all_series = [_series_of(uid, one) for uid, one in sorted(found.items())]
    return [_with_broken(series, broken) for series in all_series]


def _with_broken(series: Series, broken: Sequence[Path]) -> Series:
    """The same series with the broken files that lie beside its slices."""
    folders = {path.parent for path in series.files}
    beside = tuple(path for path in broken if path.parent in folders)
    return replace(series, broken=(*series.broken, *beside)) if beside else series


def _claims_to_be_image(header: "Dataset", path: Path) -> bool:
    """Whether a file without modality or series is one by its name or class: cut, or empty."""
    return has_dicom_suffix(path) or _is_image_class(header)


def _is_image_class(header: "Dataset") -> bool:
    """Whether the SOP class is that of PET or CT images."""
    return str(header.get("SOPClassUID", "")).startswith(_IMAGE_CLASSES)


def _scan(path: Path) -> "Dataset | None":
    """Tags of a file that a scan needs; None of a file that only looked like DICOM."""
    try:
        return read_header(path, _SCANNED)
    except MipError:
        if has_dicom_suffix(path):
            raise
        with path.open("rb") as stream:
            if stream.read(132)[128:] == b"DICM":
                raise
        return None


def _is_slice(header: "Dataset") -> bool:
    """Whether an image may be a slice: no capture, report page, localizer or MIP, and grey."""
    if str(header.get("SOPClassUID", "")).startswith(_NO_SLICES):
        return False
    if int(header.get("SamplesPerPixel") or 1) != 1 or not header.get("Rows"):
        return False
    return _NO_SLICE_TYPES.isdisjoint(value.upper() for value in values_of(header, "ImageType"))


def _key(header: "Dataset", path: Path) -> tuple:
    """Identity of a slice: a copy has the same, other slices of one wrong SOPInstanceUID not."""
    position = tuple(values_of(header, "ImagePositionPatient"))
    return (str(header.get("SOPInstanceUID", path)), position, str(header.get("InstanceNumber")))


def _add_frames(one: _Found, path: Path) -> None:
    """Add the frames of a multi-frame file to a series."""
    header = read_header(path)
    try:
        frames = frame_headers(header, path)
    except MipError:
        one.others.append(path)
        return
    for index, frame in enumerate(frames):
        if not _is_slice(frame):
            continue
        if not one.slices:
            one.header = frame
        one.slices.setdefault(
            (str(header.get("SOPInstanceUID", path)), index), (path, index, frame)
        )


def _series_of(uid: str, one: _Found) -> Series:
    header = one.header
    files: tuple[Path, ...] = tuple(path for path, _, _ in one.slices.values())
    frames: tuple[int, ...] = tuple(index for _, index, _ in one.slices.values())
    stack, problem, is_volume, span_mm, repeats = None, "", True, 0.0, False
    if not files and not one.others:
        files = tuple(one.broken)
        problem = f"{files[0]}: is no whole DICOM file (cut or empty); copy it again"
    elif not files:
        files = tuple(one.others)
        problem, is_volume = _why_no_slices(header, files[0]), False
    elif header.Modality in _VOLUMES:
        places: list[SlicePlace] = []
        try:
            places = [place_of(tags, path) for path, _, tags in one.slices.values()]
            stack = stack_slices(places, files, _stated_gaps(header))
            files = tuple(files[index] for index in stack.order)
            frames = tuple(frames[index] for index in stack.order)
        except MipError as error:
            problem, is_volume = str(error), not isinstance(error, NoVolume)
            repeats = isinstance(error, RepeatedPositions)
            positions = np.array([place.position for place in places])
            span_mm = float(np.ptp(positions[:, 2])) if len(places) else 0.0
    series_type = {value.upper() for value in values_of(header, "SeriesType")}
    return Series(
        uid=uid,
        study_uid=str(header.get("StudyInstanceUID", "")),
        study_date=str(header.get("StudyDate") or ""),
        frame_uid=str(header.get("FrameOfReferenceUID", "")),
        modality=str(header.Modality),
        description=str(header.get("SeriesDescription", "")),
        corrections=frozenset(values_of(header, "CorrectedImage")),
        is_original="DERIVED" not in [v.upper() for v in values_of(header, "ImageType")[:1]],
        is_repeated=repeats or not _GATED_TYPES.isdisjoint(series_type),
        is_relative=str(header.get("Units") or "").upper() in _RELATIVE_UNITS,
        files=files,
        frames=frames,
        stack=stack,
        problem=problem,
        is_volume=is_volume,
        span_mm=span_mm,
        broken=tuple(one.broken),
        contradiction=one.contradiction,
    )


def _why_no_slices(header: "Dataset", path: Path) -> str:
    """Reason why no image of a series is a slice."""
    if is_multiframe(header) and "PerFrameFunctionalGroupsSequence" not in header:
        return (
            f"{path}: is a multi-frame DICOM file without a position for each frame; export the "
            "series as one file a slice"
        )
    if int(header.get("SamplesPerPixel") or 1) != 1:
        return f"{path}: is a colour image, a slice with numbers is expected"
    return f"{path}: is no slice (a capture, a localizer, a MIP or a report)"


def _stated_gaps(header: "Dataset") -> Sequence[float]:
    """Distances of the slices that a header states, mm."""
    gaps = []
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        try:
            gaps.append(abs(float(header.get(keyword))))
        except (TypeError, ValueError):
            continue
    return gaps


def sort_slices(series: Series) -> Slices:
    """Slices of a series in order, with their headers.

    Raises:
        MipError: it is no stack of slices: some are missing, doubled, of different sizes, tilted,
            oblique to the body, or lack the tags of their position.
    """
    if series.stack is None:
        raise MipError(series.problem)
    if series.contradiction:
        raise MipError(series.contradiction)
    if series.broken:
        more = f" (and {len(series.broken) - 1} more)" if len(series.broken) > 1 else ""
        raise MipError(
            f"{series.broken[0]}: is no whole DICOM file (cut or empty){more} and may be a slice "
            f"of the series {series.describe()}; copy it again, or remove it"
        )
    headers: list[Dataset] = []
    last: tuple[Path, list[Dataset]] | None = None
    for path, frame in zip(series.files, series.frames):
        if last is None or last[0] != path:
            header = read_header(path)
            last = path, frame_headers(header, path) if is_multiframe(header) else [header]
        headers.append(last[1][frame])
    lossy = lossy_warning(headers[0], series.files[0])
    return Slices(
        series.files,
        tuple(headers),
        series.stack.grid,
        series.frames,
        (*series.stack.warnings, *((lossy,) if lossy else ())),
    )
