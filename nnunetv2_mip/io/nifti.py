"""Voxels and header fields of NIfTI files, checked: ITK fills truncated files with zeros.

Inflating is done by libdeflate (imagecodecs) or ISA-L (python-isal), several times as fast as zlib,
and the checksum of the gzip stream is verified. What the header says of the geometry is judged by
`io.nifti_geometry`.
"""

import math
import zlib
from pathlib import Path
from typing import Any, Literal

import imagecodecs
import numpy as np
from isal import igzip, isal_zlib

from nnunetv2_mip.errors import MipError

# The fields that are read, by their names and places in the standards (nifti1.h, nifti2.h), and the
# size of a header, which is its first field. nibabel has them too, but importing it takes 0.2 s of
# every command and every worker.
_NIFTI_1 = np.dtype(
    {
        "names": ["sizeof_hdr", "dim", "datatype", "pixdim", "vox_offset", "scl_slope", "scl_inter",
                  "xyzt_units", "qform_code", "sform_code", "quatern", "qoffset", "srow", "magic"],
        "formats": ["i4", "8i2", "i2", "8f4", "f4", "f4", "f4",
                    "u1", "i2", "i2", "3f4", "3f4", "12f4", "S3"],
        "offsets": [0, 40, 70, 76, 108, 112, 116, 123, 252, 254, 256, 268, 280, 344],
        "itemsize": 348,
    }
)  # fmt: skip
_NIFTI_2 = np.dtype(
    {
        "names": ["sizeof_hdr", "magic", "datatype", "dim", "pixdim", "vox_offset", "scl_slope",
                  "scl_inter", "qform_code", "sform_code", "quatern", "qoffset", "srow",
                  "xyzt_units"],
        "formats": ["i4", "S3", "i2", "8i8", "8f8", "i8", "f8",
                    "f8", "i4", "i4", "3f8", "3f8", "12f8",
                    "i4"],
        "offsets": [0, 4, 12, 16, 104, 168, 176, 184, 344, 348, 352, 376, 400, 500],
        "itemsize": 540,
    }
)  # fmt: skip
# Extensions lie between header and voxels, and nothing behind those.
_MOST_OFFSET_BYTES = 2**26
_MOST_AFTER_BYTES = 2**20
# Of numbers that are not known.
MOST_ITEM_BYTES = 8
# Codes of the field `datatype` for scalar voxels.
_DTYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}


def read_nifti_voxels(path: Path, header: np.void | None = None) -> np.ndarray | None:
    """Voxels of a `.nii` or `.nii.gz` file in file order (k, j, i), scaled as the header says.

    Args:
        path: the file.
        header: of `read_nifti_header`; None where it was not read.

    Returns:
        The array (read-only where no scaling applies), or None for files that are left to ITK:
        other formats than NIfTI, and voxels that are not plain numbers.

    Raises:
        MipError: the file is truncated or damaged.
    """
    if header is None:
        header = read_nifti_header(path)
    if header is None:
        return None
    dimensions, code = int(header["dim"][0]), int(header["datatype"])
    if code not in _DTYPES or not 1 <= dimensions <= 7:
        return None
    dtype = np.dtype(_DTYPES[code]).newbyteorder(header.dtype["dim"].base.byteorder)
    shape = [max(1, int(size)) for size in header["dim"][1 : 1 + dimensions]]
    voxels = _read_array(path, dtype, shape[::-1], float(header["vox_offset"]))
    slope, intercept = header["scl_slope"], header["scl_inter"]
    # A slope of 0 means "no scaling" in NIfTI.
    scaled = np.isfinite((slope, intercept)).all() and slope != 0
    if scaled and (slope, intercept) != (1.0, 0.0):
        voxels = voxels * np.float32(slope) + np.float32(intercept)
    return voxels


def read_nifti_header(path: Path) -> np.void | None:
    """Fields of a NIfTI-1 or NIfTI-2 header, in the byte order of the file.

    Returns:
        The record, or None where the file has neither header.

    Raises:
        MipError: the file is truncated or damaged.
    """
    block = _first_bytes(path, _NIFTI_2.itemsize)
    if len(block) < _NIFTI_1.itemsize:
        raise MipError(f"{path}: is truncated or damaged (shorter than a NIfTI header)")
    orders: tuple[Literal["<", ">"], ...] = ("<", ">")
    for kind in (_NIFTI_1, _NIFTI_2):
        for order in orders:
            if len(block) < kind.itemsize:
                continue
            header = np.frombuffer(block, kind.newbyteorder(order), 1)[0]
            if header["sizeof_hdr"] == kind.itemsize:
                return header
    return None


def is_scalar(header: np.void) -> bool:
    """Whether the voxels are plain numbers (not colours, not complex)."""
    return int(header["datatype"]) in _DTYPES


def item_bytes(header: np.void) -> int:
    """Size of one value of a voxel in the file."""
    name = _DTYPES.get(int(header["datatype"]))
    return MOST_ITEM_BYTES if name is None else np.dtype(name).itemsize


def _read_array(path: Path, dtype: np.dtype, shape: list[int], offset: float) -> np.ndarray:
    """Array of `shape` that begins `offset` bytes into a file, inflated; MipError if it is cut."""
    if not 0 <= offset <= _MOST_OFFSET_BYTES:
        raise MipError(f"{path}: is damaged (its voxels begin at byte {offset:g}); copy it again")
    count = math.prod(shape)
    size = int(offset) + count * dtype.itemsize
    content = _inflated(path, size)
    if len(content) < size:
        missing = size - len(content)
        raise MipError(f"{path}: is truncated ({missing} bytes are missing); copy it again")
    return np.frombuffer(content, dtype, count, int(offset)).reshape(shape)


def _inflated(path: Path, size: int) -> bytes | np.ndarray:
    """First `size` bytes of a file, inflated, or all where there are fewer.

    `size` follows from the header and bounds the memory, whatever the file holds behind it.

    libdeflate inflates in one go, ISA-L as a stream. libdeflate is twice as fast, but needs the
    size beforehand. The size is written at the end of the file (modulo 4 GiB, and of the last of
    several members only). A file whose size does not fit, and every error, is left to the stream,
    which gives the more precise error.
    """
    if not path.name.lower().endswith(".gz"):
        return _first_bytes(path, size)
    # Read by numpy into huge pages: in half the time of read_bytes.
    packed = np.fromfile(path, np.uint8)
    whole = int.from_bytes(packed[-4:].tobytes(), "little")
    # Deflate shrinks to a thousandth at best: other sizes are not this file's.
    if len(packed) <= whole < 1032 * len(packed) and size <= whole <= size + _MOST_AFTER_BYTES:
        try:
            inflated = np.empty(whole, np.uint8)
            # imagecodecs' hints leave out the arrays that it takes and returns.
            content: Any = imagecodecs.gzip_decode(packed, out=inflated)  # type: ignore[arg-type]
            if len(content) == whole:
                return content
        except imagecodecs.DeflateError:
            pass
    del packed
    return _first_bytes(path, size)


def _first_bytes(path: Path, size: int) -> bytes:
    """First `size` bytes of a file, inflated as a stream; its checksum is verified at its end."""
    # Python takes the memory before it reads.
    size = min(size, 1032 * path.stat().st_size)
    _require_honest_suffix(path)
    try:
        if not path.name.lower().endswith(".gz"):
            with path.open("rb") as stream:
                return stream.read(size)
        with igzip.open(path, "rb") as stream:
            content = stream.read(size)
            # Reading beyond the last byte verifies the checksum.
            stream.read(1)
            return content
    # isal's hints declare its exception class as an instance.
    except (OSError, EOFError, zlib.error, isal_zlib.error) as error:  # type: ignore[misc]
        raise MipError(f"{path}: is truncated or damaged; copy it again ({error})") from None


def _require_honest_suffix(path: Path) -> None:
    """Raise MipError where a file is gzipped and its name says that it is not, or the reverse."""
    with path.open("rb") as stream:
        is_gzipped = stream.read(2) == b"\x1f\x8b"
    named_so = path.name.lower().endswith(".gz")
    if is_gzipped and not named_so:
        raise MipError(f"{path}: is gzipped; rename it to {path.name}.gz")
    if named_so and not is_gzipped:
        with path.open("rb") as stream:
            # A NIfTI file begins with the size of its header, in either byte order.
            start = stream.read(4)
        if start in (b"\x5c\x01\0\0", b"\0\0\x01\x5c", b"\x1c\x02\0\0", b"\0\0\x02\x1c"):
            raise MipError(f"{path}: is not gzipped; rename it to {path.name[:-3]}")
        if start[:2] == b"PK":
            raise MipError(f"{path}: is a zip archive; unpack it")
        if start:
            raise MipError(
                f"{path}: is neither gzipped nor NIfTI (it begins with {start!r}): another kind of "
                "file under this name, or a download that failed"
            )
