"""Collection of a report's content: folders are read, scored, checked and drawn."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.evaluation.evaluate import evaluate
from nnunetv2_mip.evaluation.matching import match
from nnunetv2_mip.evaluation.summary import worst_first
from nnunetv2_mip.io.dicom.choice import options_of_folders
from nnunetv2_mip.parallel import for_each
from nnunetv2_mip.report.case_facts import CaseFacts, read_all_facts
from nnunetv2_mip.report.case_files import (
    CaseFiles,
    files_of_dataset,
    files_of_pairs,
    files_of_predictions,
    find_images,
)
from nnunetv2_mip.report.content import CaseGroup, ReportContent, ReportRequest
from nnunetv2_mip.report.dataset_check import check_cases
from nnunetv2_mip.report.rotating_mip import RotatingMIP, draw_rotating_mip
from nnunetv2_mip.report.training_curves import read_training
from nnunetv2_mip.wording import counted


def collect(request: ReportRequest, show_progress: bool = False) -> ReportContent:
    """Content of the report that is asked for.

    Raises:
        MipError: nothing is asked for; a file is missing, unreadable or does not fit the others;
            see `evaluation.evaluate`, `case_facts.read_facts`, `training_curves.read_training`.
    """
    _require_valid(request)
    # First what is read quickly: an error in it is reported before the long work begins.
    training = None if request.model is None else read_training(request.model)
    read = partial(
        read_all_facts,
        min_overlap=request.min_overlap,
        processes=request.processes,
        show_progress=show_progress,
    )
    scores = None
    predicted: list[CaseFiles] = []
    facts: list[CaseFacts] = []
    if request.predictions is not None:
        images = _images(request, beside=request.truths)
        scores, predicted = _predicted_cases(request, request.predictions, images, show_progress)
        predicted = _with_dicom_options(predicted, request)
        _require_images(request, predicted)
        facts = read(predicted, title="lesions")
    check = None
    checked: list[CaseFiles] = []
    folder = request.dataset
    if folder is None and not predicted:
        folder = request.truths
    if folder is not None:
        checked = files_of_dataset(folder, _images(request, beside=folder))
        checked = _with_dicom_options(checked, request)
        check = check_cases(folder, read(checked, title="data set"))
    elif request.truths is not None:
        check = check_cases(request.truths, facts)
    drawable, drawable_facts = (
        (predicted, facts) if predicted else (checked, check.facts if check else [])
    )
    groups = _choose_cases(scores, drawable_facts, request.shown)
    pictures = _draw(groups, drawable, request, show_progress)
    by_name = {f.case: f for f in drawable_facts}
    return ReportContent(
        request,
        scores,
        {f.case: f for f in facts},
        check,
        groups,
        pictures,
        {case: by_name[case] for case in pictures},
        training,
    )


def _require_valid(request: ReportRequest) -> None:
    if not any((request.predictions, request.truths, request.dataset, request.model)):
        raise MipError(
            "nothing to report on: give predictions (-i), truth (-g), a data set (-d) or a model "
            "folder (-m)"
        )
    if not 0 <= request.min_overlap <= 1:
        raise MipError(f"--min_overlap {request.min_overlap}: give a fraction from 0 to 1")
    if request.shown < 0:
        raise MipError(f"--cases {request.shown}: give 0 or more")


def _images(request: ReportRequest, beside: Path | None) -> dict[str, Path]:
    """Images by case.

    Where several folders hold an image of a case, that of `--images` is taken, then that of
    `beside`, the folder of the truth in use.
    """
    found: dict[str, Path] = {}
    for folder in (request.dataset, request.truths, beside):
        if folder is not None:
            found |= find_images(folder)
    if request.images is not None:
        found |= find_images(request.images, plain=True)
    is_single = request.predictions is not None and request.predictions.is_file()
    if is_single and request.images is not None and request.images.is_file():
        # One mask and one image belong together, whatever their names.
        for masks in (request.predictions, request.truths):
            if masks is not None:
                found |= {files.case: request.images for files in files_of_predictions(masks, {})}
    return found


def _with_dicom_options(cases: Sequence[CaseFiles], request: ReportRequest) -> list[CaseFiles]:
    """The same cases; images that are DICOM series are read with the options of the request.

    Raises:
        MipError: options, but no such image; a weight, dose or injection for several studies.
    """
    options = request.dicom
    if not options:
        return list(cases)
    where = request.images or request.truths or request.dataset or request.predictions
    folders = [files.image for files in cases if files.image is not None and files.image.is_dir()]
    own = options_of_folders(options, folders, str(where))
    return [
        replace(files, dicom=own[files.image]) if files.image in own else files for files in cases
    ]


def _predicted_cases(
    request: ReportRequest, predictions: Path, images: dict[str, Path], show_progress: bool
) -> tuple[dict | None, list[CaseFiles]]:
    """Scores (None without truth) and files of the predicted cases."""
    if request.truths is None:
        return None, files_of_predictions(predictions, images)
    scores = evaluate(
        predictions,
        request.truths,
        allow_missing=request.allow_missing,
        only_predicted=request.only_predicted,
        min_overlap=request.min_overlap,
        processes=request.processes,
        show_progress=show_progress,
    )
    pairs = match(
        predictions,
        request.truths,
        request.allow_missing,
        only_predicted=request.only_predicted,
    ).pairs
    return scores, files_of_pairs(pairs, images)


def _require_images(request: ReportRequest, cases: Sequence[CaseFiles]) -> None:
    if request.images is not None and not any(files.image for files in cases):
        raise MipError(
            f"{request.images}: holds no image of any of the {counted(len(cases), 'case')} "
            "(expected names "
            f"such as {cases[0].case}, as PNG or SUV volume, or a tree of studies)"
        )


def _choose_cases(scores: dict | None, facts: Sequence[CaseFacts], shown: int) -> list[CaseGroup]:
    """Cases to draw: the worst and best by score, or those with most and least tumour."""
    if shown == 0 or not facts:
        return []
    if scores is not None:
        return _choose_by_score(scores["cases"], shown)
    which = "predicted" if all(f.burden is None for f in facts) else "true"
    amounts = {
        f.case: (f.predicted_burden if which == "predicted" else f.burden) or 0.0 for f in facts
    }
    ranked = sorted(amounts, key=lambda case: -amounts[case])
    if len(ranked) <= 2 * shown:
        return [CaseGroup("All cases", "the largest tumour burden first", ranked)]
    with_lesions = [case for case in ranked if amounts[case] > 0]
    most = CaseGroup("Largest tumour burden", f"of the {which} masks", ranked[:shown])
    least = with_lesions[shown:][-shown:]
    remark = "of the cases with lesions, the smallest last"
    return [most, CaseGroup("Smallest tumour burden", remark, least)] if least else [most]


def _choose_by_score(cases: dict[str, dict], shown: int) -> list[CaseGroup]:
    ranked = worst_first(cases)
    with_lesions = [case for case in ranked if cases[case]["has_lesion"]]
    controls = [case for case in ranked if not cases[case]["has_lesion"]]
    groups = []
    if len(with_lesions) > 2 * shown:
        best = with_lesions[: -shown - 1 : -1]
        groups.append(CaseGroup("Worst cases", "lowest Dice first", with_lesions[:shown]))
        groups.append(CaseGroup("Best cases", "highest Dice first", best))
    elif with_lesions:
        groups.append(CaseGroup("All cases with lesions", "lowest Dice first", with_lesions))
    if controls:
        some = controls[: max(1, shown // 2)]
        groups.append(CaseGroup("Cases without lesions", "most false positives first", some))
    return groups


def _draw(
    groups: Sequence[CaseGroup],
    cases: Sequence[CaseFiles],
    request: ReportRequest,
    show_progress: bool,
) -> dict[str, RotatingMIP]:
    by_name = {files.case: files for files in cases}
    wanted = [by_name[case] for group in groups for case in group.cases]
    pictures = {}
    draw = partial(draw_rotating_mip, settings=request.drawing)
    with tqdm(
        total=len(wanted), desc="draw", unit="case", disable=None if show_progress else True
    ) as bar:
        for files, picture in for_each(draw, wanted, request.processes):
            pictures[files.case] = picture
            bar.update()
    return pictures
