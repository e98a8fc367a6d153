"""The voxels of NIfTI-1 files, checked: ITK fills truncated files with zeros and turns NaN to 0.

Inflating is done by libdeflate (imagecodecs) or ISA-L (python-isal), several times as fast as zlib,
and the checksum of the gzip stream is verified. Headers and geometry stay ITK's business (see
`volumes`).
"""

import math
import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
from isal import igzip, isal_zlib

from nnunetv2_mip.errors import MipError

_HEADER_BYTES = 348
# Extensions lie between header and voxels, and nothing behind those.
_MOST_OFFSET_BYTES = 2**26
_MOST_AFTER_BYTES = 2**20
# NIfTI-1 datatype codes of scalar voxels.
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


def read_nifti_voxels(path: Path) -> np.ndarray | None:
    """The voxels of a `.nii` or `.nii.gz` file, in file order (k, j, i), scaled as the header says.

    Returns:
        The array (read-only where no scaling applies), or None for what this reader leaves to ITK:
        NIfTI-2, and voxels that are not plain numbers.

    Raises:
        MipError: the file is truncated or damaged.
    """
    header = _first_bytes(path, _HEADER_BYTES)
    if len(header) < _HEADER_BYTES:
        raise MipError(f"{path}: is truncated or damaged (shorter than a NIfTI header)")
    for order in "<>":
        if struct.unpack_from(order + "i", header)[0] == _HEADER_BYTES:
            break
    else:
        return None
    dim = struct.unpack_from(order + "8h", header, 40)
    code = struct.unpack_from(order + "h", header, 70)[0]
    offset, slope, intercept = struct.unpack_from(order + "3f", header, 108)
    if code not in _DTYPES or not 1 <= dim[0] <= 7:
        return None
    if not 0 <= offset <= _MOST_OFFSET_BYTES:
        raise MipError(f"{path}: is damaged (its voxels begin at byte {offset:g}); copy it again")
    shape = [max(1, size) for size in dim[1 : 1 + dim[0]]]
    count = math.prod(shape)
    dtype = np.dtype(_DTYPES[code]).newbyteorder(order)
    size = int(offset) + count * dtype.itemsize
    content = _inflated(path, size)
    if len(content) < size:
        missing = size - len(content)
        raise MipError(f"{path}: is truncated ({missing} bytes are missing); copy it again")
    voxels = np.frombuffer(content, dtype, count, int(offset)).reshape(shape[::-1])
    # A slope of 0 means "no scaling" in NIfTI.
    scaled = np.isfinite((slope, intercept)).all() and slope != 0
    if scaled and (slope, intercept) != (1.0, 0.0):
        voxels = voxels * np.float32(slope) + np.float32(intercept)
    return voxels


def _inflated(path: Path, size: int) -> bytes | np.ndarray:
    """The first `size` bytes of a file, inflated, or all where there are fewer; the header's word
    for how many there are bounds the memory, whatever follows.

    By libdeflate in one go, or by ISA-L as a stream. libdeflate is twice as fast, but needs the
    size beforehand. That is written at the end of the file (modulo 4 GiB, and of the last of
    several members only): whatever does not fit, and every error, is left to the stream, which
    knows more and says more.
    """
    if not path.name.lower().endswith(".gz"):
        return _first_bytes(path, size)
    # Read by numpy into huge pages: in half the time of read_bytes.
    packed = np.fromfile(path, np.uint8)
    whole = int.from_bytes(packed[-4:].tobytes(), "little")
    # Deflate shrinks to a thousandth at best: other sizes are not this file's.
    if len(packed) <= whole < 1032 * len(packed) and size <= whole <= size + _MOST_AFTER_BYTES:
        try:
            content = imagecodecs.gzip_decode(packed, out=np.empty(whole, np.uint8))
            if len(content) == whole:
                return content
        except imagecodecs.DeflateError:
            pass
    del packed
    return _first_bytes(path, size)


def _first_bytes(path: Path, size: int) -> bytes:
    # Python takes the memory before it reads.
    size = min(size, 1032 * path.stat().st_size)
    try:
        if not path.name.lower().endswith(".gz"):
            with path.open("rb") as stream:
                return stream.read(size)
        with igzip.open(path, "rb") as stream:
            content = stream.read(size)
            # At the end of the stream its checksum is looked at.
            stream.read(1)
            return content
    except (OSError, EOFError, zlib.error, isal_zlib.error) as error:
        raise MipError(f"{path}: is truncated or damaged; copy it again ({error})") from None
