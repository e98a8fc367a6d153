"""Pairs of prediction and ground truth, matched by name.

Ground truth is one of:

- a single file, with a single file as prediction; one of the two may be DICOM SEG or RTSTRUCT;
- a folder of PNG masks (0 and 255); `segmentation_017.png` is the truth of `patient_017.png`;
- the DM-i-AI data folder (`patients/labels`, `controls/imgs`): a control's truth is empty, and
  controls without a prediction are left out;
- a folder of volumes or of view stacks, `<case>.nii.gz` and the like, or a folder that has such a
  folder as `labelsTr` (a raw nnU-Net data set);
- a study tree (`PETCT_*/<study>/SEG.nii.gz`, or a DICOM SEG or RTSTRUCT with its PET), whose cases
  are named by `nnunetv2_mip.io.study_layouts`.

The prediction of a case is `<case>` with any known suffix in the prediction folder, or the file at
the truth's relative path (predictions that mirror a tree). A 3D file whose first spacing is at
least 500 mm (or with a geometry file beside it) is a stack of views and is scored view by view, in
pixels; in its truth, label 2 is "ignore" and such pixels are left out. Every other 3D file is a
volume, scored in ml.
"""

from dataclasses import dataclass
from pathlib import Path

from nnunetv2_mip.conventions import VOLUME_SUFFIXES
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import files_below, is_hidden
from nnunetv2_mip.io.dicom.masks import is_dicom_file
from nnunetv2_mip.io.dmiai_layout import (
    CONTROLS,
    IMAGES,
    LABELS,
    PATIENTS,
    case_of_mask,
    images_in,
)
from nnunetv2_mip.io.folder_layout import Layout, files_with_suffix, recognise
from nnunetv2_mip.io.png import PNG_SUFFIX
from nnunetv2_mip.io.study_layouts import (
    EXPECTED,
    IMAGES_FOLDER,
    LABELS_FOLDER,
    SEG_NAME,
    StudyFiles,
    find_studies,
    scan_tree,
)
from nnunetv2_mip.io.volumes import has_suffix
from nnunetv2_mip.wording import counted, part_of


@dataclass(frozen=True)
class Pair:
    """Files of a case to score.

    Attributes:
        case: its name.
        truth: the mask, or for a control without a mask its image.
        prediction: the predicted mask, None when it is missing and counts as empty.
        is_control_image: whether `truth` is the PNG of a control, of which only the size is used.
        study: of a DICOM truth (SEG, RTSTRUCT) the study with its PET, else None.
    """

    case: str
    truth: Path
    prediction: Path | None
    is_control_image: bool = False
    study: StudyFiles | None = None


@dataclass(frozen=True)
class Matches:
    """Result of the matching.

    Attributes:
        pairs: the cases to score, by name.
        ignored: predictions without a truth.
        left_out: controls (images without a mask) that have no prediction.
        not_predicted: other cases without a prediction, with `only_predicted`.
    """

    pairs: list[Pair]
    ignored: list[str]
    left_out: list[str]
    not_predicted: list[str]


def match(
    predictions: Path,
    truths: Path,
    allow_missing: bool = False,
    *,
    only_predicted: bool = False,
) -> Matches:
    """Pairs of every truth with its prediction; the rules are in the module.

    Args:
        predictions, truths: two folders or two files.
        allow_missing: a case without a prediction gets a pair without one.
        only_predicted: such a case gets no pair, and is named in `not_predicted`.

    Raises:
        MipError: a path is missing, there is no truth, two predictions or truths of one case, or
            (with neither option) no prediction for a case.
    """
    for path in (truths, predictions):
        if not path.exists():
            raise MipError(f"{path}: no such file or folder")
    if truths.is_file() != predictions.is_file():
        file, folder = (truths, predictions) if truths.is_file() else (predictions, truths)
        raise MipError(f"{file}: is a file but {folder} is a folder; give two files or two folders")
    if truths.is_file():
        if has_suffix(truths, (PNG_SUFFIX,)) != has_suffix(predictions, (PNG_SUFFIX,)):
            raise MipError(f"{predictions}: is another kind of file than its truth {truths}")
        case = truths.stem if is_dicom_file(truths) else _case_of_file(truths)
        return Matches([Pair(case, truths, predictions)], [], [], [])

    wanted, is_png = _truths_in(truths)
    suffixes = (PNG_SUFFIX,) if is_png else VOLUME_SUFFIXES
    available = _files_by_key(predictions, suffixes)
    pairs, used, missing, left_out, not_predicted = [], set(), [], [], []
    for truth in wanted:
        names = [truth.case, *_other_names(truth, truths)]
        key = next((name for name in names if name in available), None)
        if key is None and truth.is_control_image:
            left_out.append(truth.case)
            continue
        if key is None:
            missing.append(predictions / f"{truth.case}{suffixes[0]}")
            if only_predicted:
                not_predicted.append(truth.case)
                continue
        used.add(key)
        prediction = None if key is None else available[key]
        pairs.append(Pair(truth.case, truth.path, prediction, truth.is_control_image, truth.study))
    if not any(pair.prediction for pair in pairs):
        raise MipError(
            f"{predictions}: holds no prediction for any of the {counted(len(wanted), 'case')} "
            f"of {truths} "
            f"(expected files such as {(missing or [predictions])[0].name})"
        )
    if missing and not (allow_missing or only_predicted):
        raise MipError(
            f"{missing[0]}: no such prediction "
            f"({part_of(len(missing), len(pairs), 'case', 'has')} none); "
            "predict them, count them as empty with --allow_missing, or leave them out with "
            "--only_predicted"
        )
    pairs.sort(key=lambda pair: pair.case)
    # Files that the predictor writes beside the mask of a case.
    companions = {f"{key}_probabilities" for key in used}
    companions |= {f"{key}_views/{name}" for key in used for name in ("levels", "probabilities")}
    unused = available.keys() - used - companions
    ignored = sorted(available[key].relative_to(predictions).as_posix() for key in unused)
    return Matches(pairs, ignored, left_out, sorted(not_predicted))


def truths_of(folder: Path) -> list[Pair]:
    """All truths of a folder, controls without a mask included; no predictions.

    Raises:
        MipError: no such folder, or no truth in it.
    """
    if not folder.is_dir():
        raise MipError(f"{folder}: no such folder")
    wanted, _ = _truths_in(folder)
    return sorted(
        (
            Pair(truth.case, truth.path, None, truth.is_control_image, truth.study)
            for truth in wanted
        ),
        key=lambda pair: pair.case,
    )


def predictions_of(path: Path) -> dict[str, Path]:
    """Case → predicted mask, of a folder or a single file, without a truth.

    Raises:
        MipError: no such folder or file, no mask in it, or PNGs beside volumes.
    """
    if path.is_file():
        return {_case_of_file(path): path}
    if not path.is_dir():
        raise MipError(f"{path}: no such file or folder")
    found = {
        key: file
        for suffixes in ((PNG_SUFFIX,), VOLUME_SUFFIXES)
        for key, file in _files_by_key(path, suffixes).items()
        if not key.endswith("_probabilities") and not Path(key).parent.name.endswith("_views")
    }
    if not found:
        raise MipError(f"{path}: holds no mask (PNG, NIfTI, MHA or NRRD)")
    if len({has_suffix(file, (PNG_SUFFIX,)) for file in found.values()}) > 1:
        raise MipError(f"{path}: holds PNGs and volumes; report on them separately")
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class _Truth:
    case: str
    path: Path
    is_control_image: bool = False
    study: StudyFiles | None = None


def _truths_in(folder: Path) -> tuple[list[_Truth], bool]:
    """The truths of a folder, and whether they are PNGs."""
    content = recognise(folder)
    labels = folder / PATIENTS / LABELS
    if content.layout is Layout.DMIAI and labels.is_dir():
        found = [_Truth(_case_of_file(path), path) for path in images_in(labels)]
        controls = images_in(folder / CONTROLS / IMAGES)
        return _unique([*found, *(_Truth(_stem(path), path, True) for path in controls)]), True
    if content.layout is Layout.FILES:
        if content.pngs and content.volumes:
            raise MipError(f"{folder}: holds PNGs and volumes; evaluate them separately")
        files = content.pngs or content.volumes
        return _unique([_Truth(_case_of_file(path), path) for path in files]), bool(content.pngs)
    if content.layout is Layout.DATASET and (folder / LABELS_FOLDER).is_dir():
        return _labels_in(folder), False
    return _studies_in(folder), False


def _studies_in(folder: Path) -> list[_Truth]:
    content = scan_tree(folder, needs_suv=False)
    for path, reason in content.problems:
        raise MipError(f"{path}: {reason}")
    found = []
    for study in content.studies:
        if study.no_seg is not None:
            raise MipError(f"{study.suv}: {study.no_seg}")
        if study.seg is not None:
            is_dicom = not has_suffix(study.seg, VOLUME_SUFFIXES)
            found.append(_Truth(study.case, study.seg, study=study if is_dicom else None))
    if not found:
        raise MipError(f"{folder}: no study in it has a {SEG_NAME} to compare with; {EXPECTED}")
    return found


def _labels_in(folder: Path) -> list[_Truth]:
    """Labels of an nnU-Net data set, named as the converters name the cases of a release."""
    names = {}
    images = folder / IMAGES_FOLDER
    if any(not is_hidden(path.name) for path in images.glob("*_0001.nii.gz")):
        names = {study.seg: study.case for study in find_studies(folder) if study.seg}
    labels = files_with_suffix(folder / LABELS_FOLDER)
    if not labels:
        raise MipError(f"{folder / LABELS_FOLDER}: holds no label files")
    return _unique([_Truth(names.get(path, _stem(path)), path) for path in labels])


def _unique(truths: list[_Truth]) -> list[_Truth]:
    seen: dict[str, Path] = {}
    for truth in truths:
        if truth.case in seen:
            raise MipError(f"{truth.path}: names the same case as {seen[truth.case]}; remove one")
        seen[truth.case] = truth.path
    return truths


def _files_by_key(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Files by stem at the top level and by relative path below it."""
    found: dict[str, Path] = {}
    for path in files_below(folder):
        if not has_suffix(path, suffixes):
            continue
        relative = path.relative_to(folder)
        key = (relative.parent / _stem(path)).as_posix()
        if key in found:
            raise MipError(f"{path}: predicts the same case as {found[key]}; remove one")
        found[key] = path
    return found


def _other_names(truth: _Truth, folder: Path) -> list[str]:
    """The file's own stem; `<patient>/<study>/SEG` and `<patient>/<study>` inside a tree."""
    path = truth.path
    if truth.study is not None:
        return [truth.study.suv.relative_to(folder.resolve()).as_posix()]
    if path.name != SEG_NAME:
        return [_stem(path)]
    if not path.is_relative_to(folder.resolve()) or path.parent == folder.resolve():
        return []
    parent = path.parent.relative_to(folder.resolve())
    return [(parent / _stem(path)).as_posix(), parent.as_posix()]


def _stem(path: Path) -> str:
    known = (PNG_SUFFIX, *VOLUME_SUFFIXES)
    suffix = next((s for s in known if path.name.lower().endswith(s)), None)
    if suffix is None:
        raise MipError(f"{path}: unknown kind of mask; use one of {', '.join(known)}")
    return path.name[: -len(suffix)]


def _case_of_file(path: Path) -> str:
    """The stem; the DM-i-AI mask `segmentation_017.png` belongs to the case `patient_017`."""
    stem = _stem(path)
    return case_of_mask(stem) if has_suffix(path, (PNG_SUFFIX,)) else stem
