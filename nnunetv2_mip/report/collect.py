"""From folders to a report: what is read, scored, checked and drawn, in this order."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.evaluation.evaluate import evaluate
from nnunetv2_mip.evaluation.matching import match
from nnunetv2_mip.evaluation.summary import worst_first
from nnunetv2_mip.parallel import for_each
from nnunetv2_mip.report.case_facts import Facts, read_all_facts
from nnunetv2_mip.report.case_files import (
    Source,
    find_images,
    sources_of_dataset,
    sources_of_pairs,
    sources_of_predictions,
)
from nnunetv2_mip.report.content import Content, Group, Request
from nnunetv2_mip.report.dataset_check import check_cases
from nnunetv2_mip.report.rotating_mip import Turn, draw_turn
from nnunetv2_mip.report.training_curves import read_training


def collect(request: Request, show_progress: bool = False) -> Content:
    """Read everything that the page tells.

    Raises:
        MipError: nothing is asked for, something is missing, unreadable or does not fit; see
            `evaluation.evaluate`, `facts.read_facts`, `training.read_training`.
    """
    asked = (request.predictions, request.truths, request.dataset, request.model)
    if not any(asked):
        raise MipError(
            "nothing to report on: give predictions (-i), truth (-g), a data set (-d) or a model "
            "folder (-m)"
        )
    if not 0 <= request.min_overlap <= 1:
        raise MipError(f"--min-overlap {request.min_overlap}: give a fraction from 0 to 1")
    if request.shown < 0:
        raise MipError(f"--cases {request.shown}: give 0 or more")
    # The quick ones first: what is wrong with them should not be heard after an hour.
    training = None if request.model is None else read_training(request.model)
    read = partial(
        read_all_facts,
        min_overlap=request.min_overlap,
        processes=request.processes,
        show_progress=show_progress,
    )
    scores, sources, facts = None, [], []
    if request.predictions is not None:
        images = _images(request, own=request.truths)
        scores, sources = _predicted(request, images, show_progress)
        _require_images(request, sources)
        facts = read(sources, title="lesions")
    check, checked = None, []
    if request.dataset is not None or (request.truths is not None and not sources):
        folder = request.dataset or request.truths
        checked = sources_of_dataset(folder, _images(request, own=folder))
        check = check_cases(folder, read(checked, title="data set"))
    elif request.truths is not None:
        check = check_cases(request.truths, facts)
    shown, shown_facts = (sources, facts) if sources else (checked, check.facts if check else [])
    groups = _choose(scores, shown_facts, request.shown)
    turns = _draw(groups, shown, request, show_progress)
    by_name = {f.case: f for f in shown_facts}
    return Content(
        request,
        scores,
        {f.case: f for f in facts},
        check,
        groups,
        turns,
        {case: by_name[case] for case in turns},
        training,
    )


def _images(request: Request, own: Path | None) -> dict[str, Path]:
    """Case → image; where several folders have one, that beside the truth (`own`) wins."""
    found: dict[str, Path] = {}
    for folder in (request.dataset, request.truths, own):
        if folder is not None:
            found |= find_images(folder)
    # Unless one was named.
    if request.images is not None:
        found |= find_images(request.images, plain=True)
    single = request.predictions is not None and request.predictions.is_file()
    if single and request.images is not None and request.images.is_file():
        # One mask, one image, whatever their names.
        names = sources_of_predictions(request.predictions, {})
        found |= {source.case: request.images for source in names}
        if request.truths is not None:
            found |= {s.case: request.images for s in sources_of_predictions(request.truths, {})}
    return found


def _predicted(
    request: Request, images: dict[str, Path], show_progress: bool
) -> tuple[dict | None, list[Source]]:
    if request.truths is None:
        return None, sources_of_predictions(request.predictions, images)
    scores = evaluate(
        request.predictions,
        request.truths,
        allow_missing=request.allow_missing,
        only_predicted=request.only_predicted,
        min_overlap=request.min_overlap,
        processes=request.processes,
        show_progress=show_progress,
    )
    pairs = match(
        request.predictions,
        request.truths,
        request.allow_missing,
        only_predicted=request.only_predicted,
    ).pairs
    return scores, sources_of_pairs(pairs, images)


def _require_images(request: Request, sources: Sequence[Source]) -> None:
    if request.images is not None and not any(source.image for source in sources):
        raise MipError(
            f"{request.images}: holds no image of any of the {len(sources)} cases (expected names "
            f"such as {sources[0].case}, as PNG or SUV volume, or a tree of studies)"
        )


def _choose(scores: dict | None, facts: Sequence[Facts], shown: int) -> list[Group]:
    """The cases to draw."""
    if shown == 0 or not facts:
        return []
    if scores is not None:
        return _by_score(scores["cases"], shown)
    which = "predicted" if all(f.burden is None for f in facts) else "true"
    amounts = {
        f.case: (f.predicted_burden if which == "predicted" else f.burden) or 0.0 for f in facts
    }
    ranked = sorted(amounts, key=lambda case: -amounts[case])
    if len(ranked) <= 2 * shown:
        return [Group("All cases", "the largest tumour burden first", ranked)]
    with_lesions = [case for case in ranked if amounts[case] > 0]
    most = Group("Largest tumour burden", f"of the {which} masks", ranked[:shown])
    least = with_lesions[shown:][-shown:]
    rest = Group("Smallest tumour burden", "of the cases with lesions, the smallest last", least)
    return [most, rest] if least else [most]


def _by_score(cases: dict[str, dict], shown: int) -> list[Group]:
    ranked = worst_first(cases)
    with_lesions = [case for case in ranked if cases[case]["has_lesion"]]
    controls = [case for case in ranked if not cases[case]["has_lesion"]]
    groups = []
    if len(with_lesions) > 2 * shown:
        groups.append(Group("Worst cases", "lowest Dice first", with_lesions[:shown]))
        groups.append(Group("Best cases", "highest Dice first", with_lesions[: -shown - 1 : -1]))
    elif with_lesions:
        groups.append(Group("All cases with lesions", "lowest Dice first", with_lesions))
    if controls:
        some = controls[: max(1, shown // 2)]
        groups.append(Group("Cases without lesions", "most false positives first", some))
    return groups


def _draw(
    groups: Sequence[Group], sources: Sequence[Source], request: Request, show_progress: bool
) -> dict[str, Turn]:
    by_name = {source.case: source for source in sources}
    wanted = [by_name[case] for group in groups for case in group.cases]
    turns = {}
    draw = partial(draw_turn, settings=request.turn)
    with tqdm(total=len(wanted), desc="draw", unit="case", disable=not show_progress) as bar:
        for source, turn in for_each(draw, wanted, request.processes):
            turns[source.case] = turn
            bar.update()
    return turns
