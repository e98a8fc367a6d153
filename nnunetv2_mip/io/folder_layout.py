"""Layout of an input folder, recognised in one place for all commands."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from nnunetv2_mip.conventions import VOLUME_SUFFIXES
from nnunetv2_mip.io.dicom.series import dicom_files
from nnunetv2_mip.io.dmiai_layout import IMAGES, LABELS, PATIENTS
from nnunetv2_mip.io.png import PNG_SUFFIX
from nnunetv2_mip.io.study_layouts import IMAGES_FOLDER, LABELS_FOLDER, SUV_NAME
from nnunetv2_mip.io.volumes import has_suffix
from nnunetv2_mip.wording import counted

OTHER_IMAGES = (".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")


class Layout(Enum):
    """Layouts of a folder, in the order in which they are looked for."""

    DMIAI = "DM-i-AI data: patients/imgs and patients/labels, with or without controls/imgs"
    DATASET = "nnU-Net data set: imagesTr or labelsTr"
    STUDY = "one study: SUV.nii.gz"
    FILES = "PNGs, view stacks or volumes, side by side"
    TREE = "folders: studies below them, DICOM files, or nothing that is known"


@dataclass(frozen=True)
class FolderContent:
    """Content of a folder.

    Attributes:
        folder: the folder.
        layout: how it is laid out.
        pngs, volumes: files directly in it, by name; hidden files are left out.
    """

    folder: Path
    layout: Layout
    pngs: tuple[Path, ...]
    volumes: tuple[Path, ...]

    def holds_dicom(self, recursive: bool = True) -> bool:
        """Whether DICOM files lie in the folder, or below it."""
        return next(dicom_files(self.folder, recursive), None) is not None


def recognise(folder: Path) -> FolderContent:
    """Recognise the layout of a folder that exists."""
    pngs, volumes = files_with_suffix(folder, (PNG_SUFFIX,)), files_with_suffix(folder)
    if any((folder / PATIENTS / part).is_dir() for part in (IMAGES, LABELS)):
        layout = Layout.DMIAI
    elif (folder / IMAGES_FOLDER).is_dir() or (folder / LABELS_FOLDER).is_dir():
        layout = Layout.DATASET
    elif (folder / SUV_NAME).is_file():
        layout = Layout.STUDY
    else:
        layout = Layout.FILES if pngs or volumes else Layout.TREE
    return FolderContent(folder, layout, tuple(pngs), tuple(volumes))


def left_out_images(folder: Path) -> str | None:
    """A line about JPEG, TIFF and BMP files beside PNGs or volumes, which are not read."""
    names = [path.name for path in files_with_suffix(folder, OTHER_IMAGES)]
    if not names:
        return None
    return (
        f"{folder}: {counted(len(names), 'image')} left out (first: {names[0]}); only PNGs are read"
    )


def files_with_suffix(folder: Path, suffixes: Sequence[str] = VOLUME_SUFFIXES) -> list[Path]:
    """Files directly in a folder with one of these endings, by name; hidden files left out."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and has_suffix(path, tuple(suffixes)) and not path.name.startswith(".")
    )
