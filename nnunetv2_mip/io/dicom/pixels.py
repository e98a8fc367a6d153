"""Pixels of DICOM files: decoded, and rescaled to the values of a stack.

JPEG is decoded by imagecodecs; everything else by pydicom.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.dicom.read_header import read_file
from nnunetv2_mip.io.dicom.series import Slices, number_of, values_of

if TYPE_CHECKING:
    from pydicom import Dataset, FileDataset

_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")
_JPEG_LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_JPEG_LOSSY = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
_JPEG_LS, _JPEG_2000 = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"


def read_values(slices: Slices) -> np.ndarray:
    """Rescaled values (stored value × slope + intercept) of the slices.

    Returns:
        (slices, rows, columns) float32, the file order of `slices.grid`.

    Raises:
        MipError: pixels that cannot be decoded, or no rescale slope.
    """
    values = np.empty(slices.grid.size[::-1], np.float32)
    frames = slices.frames or (0,) * len(slices.files)
    # A multi-frame file is decoded once.
    last: tuple[Path, np.ndarray] | None = None
    for index, (path, header, frame) in enumerate(zip(slices.files, slices.headers, frames)):
        slope = number_of(header, "RescaleSlope", path)
        intercept = number_of(header, "RescaleIntercept", path)
        if last is None or last[0] != path:
            plain = _plain_pixels(path, header)
            last = path, _stored(path) if plain is None else plain
        stored = last[1] if last[1].ndim == 2 else last[1][frame]
        if stored.shape != values.shape[1:]:
            raise MipError(f"{path}: has {stored.shape} pixels, not those of its header")
        values[index] = stored.astype(np.float64) * slope + intercept
        if header.get("Modality") == "PT":
            values[index][_is_padding(stored, header)] = 0
    return values


def _is_padding(stored: np.ndarray, header: "Dataset") -> np.ndarray | bool:
    """Pixels outside of what was measured, by Pixel Padding Value and its range."""
    try:
        low = int(header["PixelPaddingValue"].value)
        high = int(header.get("PixelPaddingRangeLimit", low))
    except (KeyError, TypeError, ValueError):
        return False
    low, high = sorted((low, high))
    return False if low == high == 0 else (stored >= low) & (stored <= high)


def lossy_warning(header: "Dataset", path: Path) -> str | None:
    """A line where the pixels were compressed with loss at some time."""
    syntax = getattr(getattr(header, "file_meta", None), "TransferSyntaxUID", "")
    if values_of(header, "LossyImageCompression") != ["01"] and syntax not in _JPEG_LOSSY:
        return None
    return f"{path}: its series was compressed with loss; its values are not those of the scanner"


def _plain_pixels(path: Path, header: "Dataset") -> np.ndarray | None:
    """Stored values (rows, columns) of a plain file that ends with them; None of other files.

    Its header has been read: parsing all of it again takes several times as long.
    """
    syntax = str(getattr(getattr(header, "file_meta", None), "TransferSyntaxUID", ""))
    bits = (header.get("BitsAllocated"), header.get("BitsStored"), header.get("SamplesPerPixel", 1))
    if syntax not in _NATIVE or bits != (16, 16, 1) or "NumberOfFrames" in header:
        return None
    rows, columns = int(header.Rows), int(header.Columns)
    length = 2 * rows * columns
    size = length.to_bytes(4, "little")
    # Pixel Data (7FE0,0010) with its length, and with its type where the syntax has types.
    starts = [b"\xe0\x7f\x10\0" + size]
    if syntax != _NATIVE[0]:
        starts = [b"\xe0\x7f\x10\0" + kind + b"\0\0" + size for kind in (b"OW", b"OB")]
    with path.open("rb") as stream:
        content = stream.read()
    if content[-length - len(starts[0]) : -length] not in starts:
        return None
    kind = "<i2" if header.get("PixelRepresentation") else "<u2"
    return np.frombuffer(content, kind, rows * columns, len(content) - length).reshape(
        rows, columns
    )


def _stored(path: Path) -> np.ndarray:
    """Stored values of a file, (rows, columns) or (frames, rows, columns)."""
    from pydicom.uid import UID

    data = read_file(path)
    try:
        syntax = str(data.file_meta.TransferSyntaxUID)
        if "PixelData" in data and data["PixelData"].is_undefined_length and syntax in _NATIVE:
            syntax = _syntax_of_fragments(data)
            data.file_meta.TransferSyntaxUID = UID(syntax)
        if syntax in (*_JPEG_LOSSLESS, *_JPEG_LOSSY):
            return _decode_jpeg(data, is_lossless=syntax in _JPEG_LOSSLESS)
        plain = _plain_values(data) if syntax in _NATIVE else None
        return data.pixel_array if plain is None else plain
    except Exception as error:  # truncated pixels, or a compression without its decoder
        reason = " ".join(str(error).split())
        raise MipError(f"{path}: the pixels cannot be decoded: {reason}") from None


def _plain_values(data: "FileDataset") -> np.ndarray | None:
    """Values of a file with 16 used bits a pixel, without pydicom's detour; None of others."""
    if data.get("BitsAllocated") != 16 or data.get("BitsStored") != 16 or "PixelData" not in data:
        return None
    shape = (int(data.get("NumberOfFrames") or 1), int(data.Rows), int(data.Columns))
    if int(data.get("SamplesPerPixel") or 1) != 1 or len(data.PixelData) != 2 * np.prod(shape):
        return None
    values = np.frombuffer(data.PixelData, "<i2" if data.PixelRepresentation else "<u2")
    return values.reshape(shape)[0] if shape[0] == 1 else values.reshape(shape)


def _decode_jpeg(data: "FileDataset", is_lossless: bool) -> np.ndarray:
    """Values of JPEG frames; the codec knows no sign, the header has it."""
    import imagecodecs
    from pydicom.encaps import generate_frames

    count = int(data.get("NumberOfFrames") or 1)
    decode = imagecodecs.ljpeg_decode if is_lossless else imagecodecs.jpeg_decode
    frames = np.stack(
        [decode(frame) for frame in generate_frames(data.PixelData, number_of_frames=count)]
    )
    if len(frames) != count or frames.ndim != 3:
        raise ValueError(f"{count} grey frames are expected, found {frames.shape}")
    if data.PixelRepresentation:
        sign = 1 << (int(data.BitsStored) - 1)
        whole = frames.astype(np.int32) & (2 * sign - 1)
        frames = (whole ^ sign) - sign
    return frames[0] if count == 1 else frames


def _syntax_of_fragments(data: "FileDataset") -> str:
    """Transfer syntax of compressed pixels in a file that names none.

    Raises:
        ValueError: they are of no known kind.
    """
    from pydicom.encaps import generate_frames

    count = int(data.get("NumberOfFrames") or 1)
    first = next(generate_frames(data.PixelData, number_of_frames=count))
    if first.startswith(b"\xff\x4f\xff\x51") or first[4:8] == b"jP  ":
        return _JPEG_2000
    if first.startswith(b"\xff\xd8"):
        markers = first[:4096]
        if b"\xff\xf7" in markers:
            return _JPEG_LS
        return _JPEG_LOSSLESS[1] if b"\xff\xc3" in markers else _JPEG_LOSSY[0]
    raise ValueError("they are compressed, and the file names no transfer syntax (0002,0010)")
