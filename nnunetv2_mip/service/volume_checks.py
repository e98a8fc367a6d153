"""What a stranger's volume says of itself, looked at before any of it is opened as an image.

MetaImage and NRRD may keep their voxels in another file, which the header names: any file of this
machine. And a header may announce more than the memory holds.
"""

import mmap
import re
from pathlib import Path

import SimpleITK as sitk

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.volumes import has_suffix

# By suffix, what is to read it: other formats, whatever their names, may name other files too.
READERS = {
    ".nii.gz": "NiftiImageIO",
    ".nii": "NiftiImageIO",
    ".mha": "MetaImageIO",
    ".nrrd": "NrrdImageIO",
}
# A NRRD header ends with an empty line.
MOST_NRRD_HEADER_BYTES = 2**16
_META_DATA = b"ElementDataFile"
_META_WITHIN = re.compile(rb"ElementDataFile[ \t]*=[ \t]*LOCAL[ \t]*\r?\n")
_NRRD_ELSEWHERE = re.compile(rb"data ?file\s*:", re.IGNORECASE)


def check_volume(path: Path, max_voxels: int) -> None:
    """Refuse a volume by its header.

    Args:
        path: of a file with one of `volumes.VOLUME_SUFFIXES`.
        max_voxels: of 4 bytes; wider and several values a voxel count as more.

    Raises:
        MipError: its voxels lie in another file, or are too many.
    """
    if has_suffix(path, (".mhd",)) or not _holds_its_voxels(path):
        raise MipError(
            f"{path}: keeps its voxels in another file; convert it to .nii.gz, or to a .mha or "
            ".nrrd that holds them"
        )
    # ITK asks the content who is to read it. (Naming the reader to it instead is not safe while
    # other threads read: ITK 5.4 aborts.)
    chosen = sitk.ImageFileReader.GetImageIOFromFileName(str(path))
    if chosen and chosen != _reader_of(path):
        raise MipError(f"{path}: is not what its name says; rename it, or convert it to .nii.gz")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        # Who reads it next gives the better message.
        return
    voxels = 1.0
    for size in reader.GetSize():
        voxels *= size
    values = reader.GetNumberOfComponents()
    kind = reader.GetPixelIDValue()
    item = sitk.Image([1, 1], kind).GetSizeOfPixelComponent() if kind >= 0 else 8
    if voxels * values * max(4, item) > 4 * max_voxels:
        wide = f" of {values} x {item} bytes" if values * item > 4 else ""
        raise MipError(f"{path}: has {voxels:.0f} voxels{wide}, at most {max_voxels}")


def _reader_of(path: Path) -> str:
    return next((name for end, name in READERS.items() if has_suffix(path, (end,))), "")


def _holds_its_voxels(path: Path) -> bool:
    if not has_suffix(path, (".mha", ".nrrd")):
        return True
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as all_:
        if has_suffix(path, (".nrrd",)):
            head = all_[:MOST_NRRD_HEADER_BYTES]
            return bool(re.search(rb"\n\r?\n", head)) and not _NRRD_ELSEWHERE.search(head)
        # Named once in the whole file: no parser can read another one than we do.
        first = all_.find(_META_DATA)
        within = first >= 0 and _META_WITHIN.match(all_, first)
        return bool(within) and all_.find(_META_DATA, first + 1) < 0
