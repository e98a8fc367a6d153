"""Headers of DICOM files, also of files without preamble, meta information or transfer syntax."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.dicom.series import import_pydicom

if TYPE_CHECKING:
    from pydicom import Dataset, FileDataset

# The transfer syntax lies within the first bytes: preamble, then the meta information.
_META_BYTES = 4096
_DEFLATED = b"1.2.840.10008.1.2.1.99"


def read_header(path: Path, keywords: Sequence[str] | None = None) -> "FileDataset":
    """Header of a file without its pixels.

    Args:
        path: the file.
        keywords: tags to read; None is all of them.

    Raises:
        MipError: it cannot be read, or is compressed as a whole.
    """
    options: dict[str, Any] = {} if keywords is None else {"specific_tags": list(keywords)}
    return _read(path, stop_before_pixels=True, **options)


def read_file(path: Path) -> "FileDataset":
    """Whole file, with a transfer syntax where it has none.

    Raises:
        MipError: as `read_header`.
    """
    return _read(path)


def _read(path: Path, **options: Any) -> "FileDataset":
    pydicom = import_pydicom()
    try:
        with path.open("rb") as stream:
            if _DEFLATED in stream.read(_META_BYTES):
                _refuse_deflated(path)
            stream.seek(0)
            header = pydicom.dcmread(stream, force=True, **options)
    except MipError:
        raise
    except Exception as error:  # pydicom raises many kinds on a damaged file
        raise MipError(f"{path}: cannot be read as DICOM (damaged?): {error}") from None
    if header.file_meta.get("TransferSyntaxUID") is None:
        header.file_meta.TransferSyntaxUID = _encoding(header)
    return header


def _encoding(header: "Dataset") -> str:
    """Transfer syntax of a file that names none, as pydicom recognised it."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    is_implicit, is_little = header.original_encoding
    if is_little is False:
        return ExplicitVRBigEndian
    # The standard's default where nothing is said.
    return ExplicitVRLittleEndian if is_implicit is False else ImplicitVRLittleEndian


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
