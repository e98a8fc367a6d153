"""DICOM image series on disk: the search in a folder, and the stack of their slices.

Needs pydicom, which the `dicom` extra installs; it is imported when it is used.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import files_below
from nnunetv2_mip.io.grid import SourceGrid

if TYPE_CHECKING:
    from pydicom import Dataset

# Files with these suffixes are read even without a DICOM preamble, as old software writes them.
_DICOM_SUFFIXES = (".dcm", ".ima")
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
)
# Bed overlaps leave gaps of 3.19 to 3.29 mm in series of 3.27 mm; a lost slice doubles one.
_GAP_TOLERANCE = 0.1
# Largest distance of a slice from its place on the uniform grid, in slices.
_PLACE_TOLERANCE = 0.25
# Positions nearer than this are one position.
_SAME_POSITION_MM = 0.01
_COSINE_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Series:
    """Files of one series, from a scan of a folder (copies of a slice count once).

    Attributes:
        uid: SeriesInstanceUID.
        study_uid: StudyInstanceUID.
        frame_uid: FrameOfReferenceUID, empty where absent.
        modality: `PT`, `CT`, ….
        description: SeriesDescription, for people.
        corrections: values of Corrected Image (`ATTN`, `DECY`, …).
        localizer: whether the series is a scout view.
        files: one for each slice, by name.
    """

    uid: str
    study_uid: str
    frame_uid: str
    modality: str
    description: str
    corrections: frozenset[str]
    localizer: bool
    files: tuple[Path, ...]

    def describe(self) -> str:
        """UID, description and number of slices, for messages."""
        return f"{self.uid} ({self.description or 'no description'}, {len(self.files)} slices)"


@dataclass(frozen=True)
class Slices:
    """Slices of one series, from the lowest to the highest position along their normal.

    Attributes:
        files: one for each slice.
        headers: pydicom data sets without pixels, in the same order.
        grid: of the stack; index axes are (column, row, slice).
    """

    files: tuple[Path, ...]
    headers: tuple["Dataset", ...]
    grid: SourceGrid


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


def _is_dicom(path: Path) -> bool:
    if path.suffix.lower() in _DICOM_SUFFIXES:
        return True
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError as error:
        raise MipError(f"{path}: cannot be read ({error.strerror})") from None


def find_series(folder: Path | str) -> list[Series]:
    """Image series in a folder and the folders in it, by SeriesInstanceUID.

    Raises:
        MipError: no such folder, an unreadable file, or pydicom is not installed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        reason = "is a file, a folder is needed" if folder.exists() else "no such folder"
        raise MipError(f"{folder}: {reason}")
    first: dict[str, Dataset] = {}
    slices: dict[str, dict[str, Path]] = {}
    for path in dicom_files(folder):
        header = _read(path, specific_tags=list(_SCANNED))
        if not header.get("Modality") or not header.get("SeriesInstanceUID"):
            continue
        uid = str(header.SeriesInstanceUID)
        first.setdefault(uid, header)
        instance = str(header.get("SOPInstanceUID", path))
        slices.setdefault(uid, {}).setdefault(instance, path)
    return [
        Series(
            uid=uid,
            study_uid=str(header.get("StudyInstanceUID", "")),
            frame_uid=str(header.get("FrameOfReferenceUID", "")),
            modality=str(header.Modality),
            description=str(header.get("SeriesDescription", "")),
            corrections=frozenset(values_of(header, "CorrectedImage")),
            localizer="LOCALIZER" in values_of(header, "ImageType"),
            files=tuple(slices[uid].values()),
        )
        for uid, header in sorted(first.items())
    ]


def values_of(header: "Dataset", keyword: str) -> list[str]:
    """Values of a tag as text; an empty list where it is absent or empty."""
    value = header.get(keyword)
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str) else [str(item) for item in value]


def _read(path: Path, **options: Any) -> "Dataset":
    pydicom = import_pydicom()
    _refuse_deflated(path)
    try:
        return pydicom.dcmread(path, stop_before_pixels=True, force=True, **options)
    except Exception as error:  # pydicom raises many kinds on a damaged file
        raise MipError(f"{path}: cannot be read as DICOM (damaged?): {error}") from None


def _refuse_deflated(path: Path) -> None:
    """Raise MipError on a file that is compressed as a whole.

    It may be of any size unpacked, and pydicom sets no limit. No PET scanner writes such files.
    """
    from pydicom.filereader import read_file_meta_info
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    try:
        syntax = read_file_meta_info(path).get("TransferSyntaxUID")
    except Exception:  # no meta information, or a damaged one: reading the file gives the error
        return
    if syntax == DeflatedExplicitVRLittleEndian:
        raise MipError(
            f"{path}: is compressed as a whole (Deflated Explicit VR), which is not read: convert "
            "it, for example with dcmconv +te"
        )


def sort_slices(series: Series) -> Slices:
    """Slices of a series in order, with their headers.

    Raises:
        MipError: slices are missing, doubled, of different sizes, tilted, oblique to the body, or
            lack the tags of their position.
    """
    headers = [_read(path) for path in series.files]
    geometry = [_slice_geometry(h, path) for h, path in zip(headers, series.files)]
    size, spacing, cosines, _ = geometry[0]
    for path, (other_size, other_spacing, other_cosines, _) in zip(series.files, geometry):
        if (
            other_size != size
            or not np.allclose(other_spacing, spacing, atol=1e-3)
            or not np.allclose(other_cosines, cosines, atol=_COSINE_TOLERANCE)
        ):
            raise MipError(
                f"{path}: has another size, pixel spacing or orientation than "
                f"{series.files[0].name} of the same series"
            )
    row, column = cosines[:3], cosines[3:]
    normal = np.cross(row, column)
    positions = np.array([position for *_, position in geometry])
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    files = tuple(series.files[index] for index in order)
    gap = _slice_gap(along[order], files)
    origin = positions[order[0]]
    steps = positions[order] - origin
    across = np.abs(steps - np.outer(steps @ normal, normal)).max()
    if across > 0.5 * min(spacing):
        raise MipError(
            f"{files[-1]}: the slices are shifted sideways along the series (tilted gantry); "
            "resample it first"
        )
    x, y, z = (float(value) for value in origin)
    grid = SourceGrid(
        size=(size[1], size[0], len(files)),
        spacing=(float(spacing[1]), float(spacing[0]), gap),
        origin=(x, y, z),
        direction=tuple(float(v) for v in np.stack([row, column, normal], axis=1).ravel()),
    )
    if not grid.is_axis_aligned:
        raise MipError(
            f"{files[0]}: is oblique to the body axes; resample it to an axis-aligned grid first"
        )
    return Slices(files, tuple(headers[index] for index in order), grid)


def _slice_geometry(
    header: "Dataset", path: Path
) -> tuple[tuple[int, int], np.ndarray, np.ndarray, np.ndarray]:
    """Size (rows, columns), spacing (row, column), direction cosines, position of pixel (0, 0)."""
    if int(header.get("NumberOfFrames") or 1) > 1:
        raise MipError(
            f"{path}: is a multi-frame DICOM file; export the series as one file a slice"
        )
    if int(header.get("SamplesPerPixel") or 1) != 1:
        raise MipError(f"{path}: is a colour image, a slice with numbers is expected")
    size = int(number_of(header, "Rows", path)), int(number_of(header, "Columns", path))
    spacing = _numbers(header, "PixelSpacing", 2, path)
    cosines = _numbers(header, "ImageOrientationPatient", 6, path)
    position = _numbers(header, "ImagePositionPatient", 3, path)
    if min(spacing) <= 0:
        raise MipError(f"{path}: {tag_name('PixelSpacing')} is not above 0")
    return size, spacing, cosines, position


def _slice_gap(along: np.ndarray, files: Sequence[Path]) -> float:
    """Distance of the slices in mm, from their sorted positions `along` the normal."""
    if len(along) < 2:
        raise MipError(f"{files[0]}: is the only slice of its series; is the folder whole?")
    gaps = np.diff(along)
    near = int(gaps.argmin())
    if gaps[near] < _SAME_POSITION_MM:
        raise MipError(
            f"{files[near + 1]}: lies at the position of {files[near].name}, in the same series; "
            "of a dynamic or gated series, give a folder with one time frame"
        )
    median = float(np.median(gaps))
    far = int(gaps.argmax())
    if gaps[far] > (1 + _GAP_TOLERANCE) * median:
        raise MipError(
            f"{files[far]}: {gaps[far]:.2f} mm to {files[far + 1].name}, the other slices are "
            f"{median:.2f} mm apart; a slice is missing, copy the series again"
        )
    gap = float(along[-1] - along[0]) / (len(along) - 1)
    off = np.abs(along - along[0] - gap * np.arange(len(along)))
    if gaps[near] < (1 - _GAP_TOLERANCE) * median or off.max() > _PLACE_TOLERANCE * gap:
        raise MipError(
            f"{files[near]}: the slices are {gaps[near]:.2f} to {gaps[far]:.2f} mm apart, not "
            "evenly; resample the series first"
        )
    return gap


def read_values(slices: Slices) -> np.ndarray:
    """Rescaled values (stored value × slope + intercept) of the slices.

    Returns:
        (slices, rows, columns) float32, the file order of `slices.grid`.

    Raises:
        MipError: pixels that cannot be decoded, or no rescale slope.
    """
    pydicom = import_pydicom()
    values = np.empty(slices.grid.size[::-1], np.float32)
    for index, (path, header) in enumerate(zip(slices.files, slices.headers)):
        slope = number_of(header, "RescaleSlope", path)
        intercept = number_of(header, "RescaleIntercept", path)
        try:
            stored = pydicom.dcmread(path, force=True).pixel_array
        except Exception as error:  # truncated pixels, or a compression without its decoder
            reason = " ".join(str(error).split())
            raise MipError(f"{path}: the pixels cannot be decoded: {reason}") from None
        values[index] = stored.astype(np.float64) * slope + intercept
    return values


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
    return float(_numbers(header, keyword, 1, path)[0])


def _numbers(header: "Dataset", keyword: str, count: int, path: Path) -> np.ndarray:
    try:
        value = header.get(keyword)
        if value is None or value == "":
            raise MipError(f"{path}: lacks {tag_name(keyword)}")
        numbers = np.atleast_1d(np.asarray(value, np.float64))
    except (ValueError, TypeError):
        raise MipError(f"{path}: {tag_name(keyword)} is no number") from None
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise MipError(f"{path}: {tag_name(keyword)} does not hold {count} finite number(s)")
    return numbers
