"""Checks of uploaded volumes by their headers, before a volume is opened as an image.

The header of a MetaImage or NRRD file may name another file, any file of this machine, as the one
with the voxels. Any header may announce more voxels than the memory holds.
"""

import math
import mmap
import re
from pathlib import Path

import SimpleITK as sitk

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.image_header import read_header
from nnunetv2_mip.io.volumes import has_suffix
from nnunetv2_mip.wording import counted

# Reader for each suffix. Other formats may name other files too.
READERS = {
    ".nii.gz": "NiftiImageIO",
    ".nii": "NiftiImageIO",
    ".mha": "MetaImageIO",
    ".nrrd": "NrrdImageIO",
}
# A NRRD header ends with an empty line.
MAX_NRRD_HEADER_BYTES = 2**16
_META_DATA = b"ElementDataFile"
_META_LOCAL = re.compile(rb"ElementDataFile[ \t]*=[ \t]*LOCAL[ \t]*\r?\n")
_NRRD_DATA_FILE = re.compile(rb"data ?file\s*:", re.IGNORECASE)


def check_volume(path: Path, max_voxels: int) -> None:
    """Check of a volume by its header.

    Args:
        path: file with one of `conventions.VOLUME_SUFFIXES`.
        max_voxels: limit for voxels of 4 bytes; wider ones, or several values a voxel, count as
            more.

    Raises:
        MipError: the voxels lie in another file, the format is not that of the suffix, or the
            voxels are too many.
    """
    if has_suffix(path, (".mhd",)) or not _voxels_in_file(path):
        raise MipError(
            f"{path}: keeps its voxels in another file; convert it to .nii.gz, or to a .mha or "
            ".nrrd that holds them"
        )
    # ITK chooses the reader by the content. (Setting the reader instead is not safe while other
    # threads read: ITK 5.4 aborts.)
    chosen = sitk.ImageFileReader.GetImageIOFromFileName(str(path))
    if chosen and chosen != _reader_of(path):
        raise MipError(f"{path}: is not what its name says; rename it, or convert it to .nii.gz")
    try:
        header = read_header(path, with_voxels=False)
    except MipError:
        # `read_study` reads it next and gives the same message.
        return
    voxels = math.prod(header.size)
    item, values = header.item_bytes, header.values
    if voxels * values * max(4, item) > 4 * max_voxels:
        wide = f" of {values} x {item} bytes" if values * item > 4 else ""
        raise MipError(f"{path}: has {counted(voxels, 'voxel')}{wide}, at most {max_voxels}")


def _reader_of(path: Path) -> str:
    return next((name for end, name in READERS.items() if has_suffix(path, (end,))), "")


def _voxels_in_file(path: Path) -> bool:
    """True if the header names no other file for the voxels."""
    if not has_suffix(path, (".mha", ".nrrd")):
        return True
    with (
        path.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        if has_suffix(path, (".nrrd",)):
            head = content[:MAX_NRRD_HEADER_BYTES]
            return bool(re.search(rb"\n\r?\n", head)) and not _NRRD_DATA_FILE.search(head)
        # The field occurs once in the whole file, so every parser reads the same value.
        first = content.find(_META_DATA)
        local = first >= 0 and _META_LOCAL.match(content, first)
        return bool(local) and content.find(_META_DATA, first + 1) < 0
