"""Files of the cases of a report: truth, prediction, image, lesion visibility."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_mip.conventions import VOLUME_SUFFIXES
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.evaluation.matching import Pair, predictions_of, truths_of
from nnunetv2_mip.files import is_hidden
from nnunetv2_mip.io.dicom.options import FROM_HEADERS, DicomOptions
from nnunetv2_mip.io.dmiai_layout import CONTROLS, IMAGES, PATIENTS, images_in
from nnunetv2_mip.io.folder_layout import Layout, recognise
from nnunetv2_mip.io.png import PNG_SUFFIX
from nnunetv2_mip.io.study_layouts import IMAGES_FOLDER, SEG_NAME, SUV_NAME, find_studies
from nnunetv2_mip.io.volumes import has_suffix
from nnunetv2_mip.views.stack_files import (
    FILE_ENDING,
    LESIONS_SUFFIX,
    case_of_channel_file,
    is_stack_file,
)

KINDS = ("png", "volume", "stack")


@dataclass(frozen=True)
class CaseFiles:
    """Files of one case; None for a file that does not exist.

    Attributes:
        case: its name.
        kind: one of `KINDS`.
        truth, prediction: masks; the truth of a control may be its image, see `is_control_image`.
        image: PNG, SUV volume, folder with a DICOM PET series, or stack of levels.
        lesions: lesion file of a stack: volumes, and the views in which each lesion is visible.
        is_control_image: whether `truth` is the image of a case without lesions.
        is_missing: whether the prediction is missing and counts as empty.
        dicom: of `image`, where that is a folder with a DICOM PET series.
    """

    case: str
    kind: str
    truth: Path | None
    prediction: Path | None
    image: Path | None
    lesions: Path | None = None
    is_control_image: bool = False
    is_missing: bool = False
    dicom: DicomOptions = FROM_HEADERS


def files_of_pairs(
    pairs: Iterable[Pair], images: Mapping[str, Path], is_scored: bool = True
) -> list[CaseFiles]:
    """Files of matched pairs of prediction and truth.

    Args:
        pairs: as `evaluation.matching.match` finds them.
        images: by case, see `find_images`.
        is_scored: whether a missing prediction counts as empty; else there are no predictions.
    """
    found = []
    for pair in pairs:
        image = pair.truth if pair.is_control_image else images.get(pair.case)
        image = image or images.get(_stem(pair.truth))
        lesions = pair.truth.parent.parent / IMAGES_FOLDER / f"{pair.case}{LESIONS_SUFFIX}"
        kind = _kind(pair.truth)
        found.append(
            CaseFiles(
                pair.case,
                kind,
                pair.truth,
                pair.prediction,
                _of_same_kind(image, kind),
                lesions if lesions.is_file() else None,
                pair.is_control_image,
                is_scored and pair.prediction is None,
            )
        )
    return found


def files_of_predictions(predictions: Path, images: Mapping[str, Path]) -> list[CaseFiles]:
    """Files of all predictions, without truth.

    Raises:
        MipError: see `evaluation.matching.predictions_of`.
    """
    return [
        CaseFiles(case, _kind(path), None, path, _of_same_kind(images.get(case), _kind(path)))
        for case, path in predictions_of(predictions).items()
    ]


def files_of_dataset(folder: Path, images: Mapping[str, Path]) -> list[CaseFiles]:
    """Files of all labelled cases of a data set, or of a folder of truths.

    Raises:
        MipError: see `evaluation.matching.truths_of`.
    """
    return files_of_pairs(truths_of(folder), images, is_scored=False)


def find_images(folder: Path, plain: bool = False) -> dict[str, Path]:
    """Images in a folder, by case; empty where there is none.

    Each kind of folder that the commands take is known:

    - the DM-i-AI data folder: `patients/imgs`, `controls/imgs`;
    - a raw nnU-Net data set: `imagesTr` (of an autoPET release the SUV, else channel 0000);
    - a study tree: the SUV, or the folder of its DICOM series;
    - a folder of files named by the cases, or a single file: images if `plain`, else masks.

    Raises:
        MipError: no such folder.
    """
    if folder.is_file():
        if folder.name == SEG_NAME and (folder.parent / SUV_NAME).is_file():
            return {_stem(folder): folder.parent / SUV_NAME}
        return {_stem(folder): folder} if plain else {}
    if not folder.is_dir():
        raise MipError(f"{folder}: no such file or folder")
    content = recognise(folder)
    if content.layout is Layout.DMIAI:
        images = [images_in(folder / part / IMAGES) for part in (PATIENTS, CONTROLS)]
        return {path.stem: path for part in images for path in part}
    if content.layout is Layout.DATASET and (folder / IMAGES_FOLDER).is_dir():
        return _images_of_dataset(folder)
    if content.layout is Layout.FILES:
        stacks = {case_of_channel_file(path): path for path in content.volumes}
        return {path.stem: path for path in content.pngs} | stacks if plain else {}
    try:
        return {study.case: study.suv for study in find_studies(folder)}
    except MipError:
        return {}


def _images_of_dataset(folder: Path) -> dict[str, Path]:
    images = folder / IMAGES_FOLDER
    files = [path for path in sorted(images.iterdir()) if not is_hidden(path.name)]
    if any(path.name.endswith(f"_0001{FILE_ENDING}") for path in files):
        first = next((path for path in files if path.name.endswith(f"_0000{FILE_ENDING}")), None)
        # Stacks of several channels begin with the SUV, releases of autoPET with the CT.
        if first is None or not is_stack_file(first):
            studies = find_studies(folder)
            named = {study.case: study.suv for study in studies}
            return named | {_stem(study.seg): study.suv for study in studies if study.seg}
    return {
        case: path
        for path in files
        if has_suffix(path, VOLUME_SUFFIXES) and re.search(r"_0000\.", path.name)
        for case in (case_of_channel_file(path),)
    }


def _kind(mask: Path) -> str:
    if has_suffix(mask, (PNG_SUFFIX,)):
        return "png"
    return "stack" if is_stack_file(mask) else "volume"


def _of_same_kind(image: Path | None, kind: str) -> Path | None:
    """Image if it is of the same kind as its mask, else None."""
    if image is None:
        return None
    own = "volume" if image.is_dir() else _kind(image)
    return image if own == kind else None


def _stem(path: Path) -> str:
    suffixes = (PNG_SUFFIX, *VOLUME_SUFFIXES)
    suffix = next((s for s in suffixes if path.name.lower().endswith(s)), "")
    return path.name[: len(path.name) - len(suffix)]
