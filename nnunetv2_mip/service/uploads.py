"""Uploads of the page: an image (PNG, JPEG), a SUV volume, or a zip with a DICOM PET series."""

import lzma
import shutil
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from nnunetv2_mip.conventions import VOLUME_SUFFIXES
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.dicom.options import FROM_HEADERS, DicomOptions
from nnunetv2_mip.io.read_study import Study, read_study
from nnunetv2_mip.io.volumes import has_suffix
from nnunetv2_mip.service.image_codec import decode_bytes
from nnunetv2_mip.service.settings import Settings
from nnunetv2_mip.service.volume_checks import check_volume
from nnunetv2_mip.wording import counted

MAX_FILES_IN_ZIP = 20_000
# PNG and JPEG.
_IMAGE_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")


@dataclass(frozen=True)
class Upload:
    """Content of an uploaded file.

    Attributes:
        levels: (H, W) uint8 of an image, None for a volume.
        study: volumes of a study, None for an image.
        warnings: lines for the user about an image.
    """

    levels: np.ndarray | None = None
    study: Study | None = None
    warnings: tuple[str, ...] = ()


def read_upload(
    path: Path,
    name: str,
    wants_ct: bool,
    settings: Settings,
    options: DicomOptions = FROM_HEADERS,
) -> Upload:
    """Uploaded file, read by its content.

    Args:
        path: the file, with the suffix of its name.
        name: file name given by the user, for messages.
        wants_ct: whether the model has the channel `ct`.
        settings: limits.
        options: of a zip with DICOM.

    Raises:
        MipError: the format is not accepted, or the file is damaged or too large. The message has
            the user's file name.
    """
    try:
        return _read(path, wants_ct, settings, options)
    except MipError as error:
        # Files of a zip lie in a temporary folder, which the user must not see.
        reason = str(error).replace(f"{path}.d/", f"{name}: ").replace(f"{path}.d", name)
        reason = reason.replace(str(path), name)
        reason = reason.removeprefix("img: ").replace("--series UID", "Series under DICOM")
        raise MipError(reason if name in reason else f"{name}: {reason}") from None


def _read(path: Path, wants_ct: bool, settings: Settings, options: DicomOptions) -> Upload:
    with path.open("rb") as stream:
        signature = stream.read(8)
    if not signature:
        raise MipError(f"{path}: is empty")
    if signature.startswith(_IMAGE_SIGNATURES):
        if path.stat().st_size > settings.max_body_bytes:
            raise MipError(f"{path}: is too large for an image")
        options.require_dicom(path)
        image = decode_bytes(path.read_bytes(), settings)
        return Upload(levels=image.levels, warnings=image.warnings)
    if signature.startswith(b"PK"):
        folder = Path(f"{path}.d")
        _unzip(path, folder, settings)
        study = read_study(folder, wants_ct=wants_ct, options=options)
    elif has_suffix(path, VOLUME_SUFFIXES):
        check_volume(path, settings.max_voxels)
        study = read_study(path, options=options)
    else:
        raise MipError(
            f"{path}: is none of the kinds that are taken: PNG, SUV volume (.nii.gz, .nii, .mha, "
            ".nrrd), zip with a DICOM PET series"
        )
    voxels = study.suv.array.size
    if voxels > settings.max_voxels:
        raise MipError(f"{path}: has {counted(voxels, 'voxel')}, at most {settings.max_voxels}")
    return Upload(study=study)


def _is_hidden(name: str) -> bool:
    """Whether a file of a zip is none of the user's: `._` files of macOS and its `__MACOSX`."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return "__MACOSX" in parts or any(
        part.startswith(".") and part not in (".", "..") for part in parts
    )


def _unzip(path: Path, folder: Path, settings: Settings) -> None:
    """Unpack a zip into `folder` under numbered names, so that no name leads out of it."""
    try:
        with zipfile.ZipFile(path) as archive:
            files = [item for item in archive.infolist() if not item.is_dir()]
            if len(files) > MAX_FILES_IN_ZIP:
                raise MipError(
                    f"{path}: has {counted(len(files), 'file')}, at most {MAX_FILES_IN_ZIP}"
                )
            if sum(item.file_size for item in files) > 2 * settings.max_upload_bytes:
                raise MipError(
                    f"{path}: unpacks to more than {2 * settings.max_upload_bytes} bytes"
                )
            folder.mkdir()
            for number, item in enumerate(files):
                if _is_hidden(item.filename):
                    continue
                if item.flag_bits & 1:
                    raise MipError(f"{path}: is encrypted; unpack it and zip it without password")
                suffix = PurePosixPath(item.filename).suffix[:8]
                target = folder / f"{number:05d}{suffix if suffix.isascii() else ''}"
                with archive.open(item) as source, target.open("wb") as out:
                    # zipfile stops at the size that the zip's directory gives.
                    shutil.copyfileobj(source, out)
    # zipfile raises NotImplementedError for an unknown compression, and passes on the errors of
    # its decompressors.
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        NotImplementedError,
        EOFError,
        OSError,
        ValueError,
    ) as error:
        raise MipError(f"{path}: cannot be unpacked ({error})") from None
