"""Paired comparison of two sets of predictions of the same cases.

Studies of one patient are not independent, so the bootstrap draws patients, each with all of its
cases.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.evaluation.bootstrap import interval_over_groups
from nnunetv2_mip.evaluation.matching import truths_of
from nnunetv2_mip.files import read_json
from nnunetv2_mip.io.folder_layout import Layout, recognise
from nnunetv2_mip.io.folder_patients import owner_in_release, owner_of_image
from nnunetv2_mip.io.patients import Grouping, PatientOptions, StudyPlace, give_patients
from nnunetv2_mip.io.study_layouts import IMAGES_FOLDER, NoStudy, scan_tree
from nnunetv2_mip.wording import counted


def compare(
    first: Mapping, second: Mapping, patients: Mapping[str, str] | None = None, seed: int = 0
) -> dict:
    """Paired difference of the Dice, first minus second, over the cases with lesions.

    Args:
        first, second: reports of `evaluation.evaluate` on the same truths.
        patients: case → patient; a case that is not in it counts as a patient of its own.
        seed: of the bootstrap.

    Returns:
        `dice_difference` (mean over cases), `interval_95` [low, high] (percentile bootstrap over
        patients, NaN with fewer than two), `cases`, `patients`, `better`, `worse`, `equal`.

    Raises:
        MipError: the reports are of different cases or kinds, or no case has lesions.
    """
    if first["kind"] != second["kind"]:
        raise MipError("the two sets of predictions are not of the same cases")
    unpaired = sorted(set(first["cases"]) ^ set(second["cases"]))
    if unpaired:
        raise MipError(
            f"the two sets of predictions are not of the same cases: {unpaired[0]} is in one alone "
            f"({counted(len(unpaired), 'such case')}); predict them in both"
        )
    groups = defaultdict(list)
    for case, scores in first["cases"].items():
        if scores["has_lesion"]:
            difference = scores["dice"] - second["cases"][case]["dice"]
            groups[(patients or {}).get(case, case)].append(difference)
    if not groups:
        raise MipError("no case has lesions: there is no Dice to compare")
    values = np.array([value for group in groups.values() for value in group])
    return {
        "dice_difference": float(values.mean()),
        "interval_95": list(interval_over_groups(list(groups.values()), seed)),
        "cases": len(values),
        "patients": len(groups),
        "better": int((values > 0).sum()),
        "worse": int((values < 0).sum()),
        "equal": int((values == 0).sum()),
    }


def patients_of(truths: Path | str, options: PatientOptions | None = None) -> dict[str, str]:
    """Case → patient (see `grouping_of`)."""
    return grouping_of(truths, options)[0]


def grouping_of(
    truths: Path | str, options: PatientOptions | None = None
) -> tuple[dict[str, str], Grouping]:
    """Case → patient, and how they were found.

    They are those of a data set of this package or of a tree of studies; of a plain folder of masks
    they are read in its names, where `options` says nothing.

    Args:
        truths: the folder, or a file.
        options: what the user says of the patients.

    Raises:
        MipError: `options` leaves a case out.
    """
    truths, options = Path(truths), options or PatientOptions()
    for folder in (truths, truths.parent):
        if options == PatientOptions() and (folder / "dataset.json").is_file():
            known = dict(read_json(folder / "dataset.json").get("mip", {}).get("patients", {}))
            return known, Grouping()
    if not truths.is_dir():
        return {}, Grouping()
    layout = recognise(truths).layout
    if layout in (Layout.TREE, Layout.STUDY) or (truths / IMAGES_FOLDER).is_dir():
        try:
            found = scan_tree(truths, options, needs_suv=False)
        except NoStudy:
            return {}, Grouping()
        return {study.case: study.patient for study in found.studies}, found.grouping
    try:
        cases = [pair.case for pair in truths_of(truths)]
    except MipError:
        return {}, Grouping()
    owner_of = owner_of_image if layout is Layout.DMIAI else owner_in_release
    places = [StudyPlace(case, (case,), owner_of(case)) for case in cases]
    patients, grouping = give_patients(places, truths, options)
    return dict(zip(cases, patients)), grouping


def describe_comparison(comparison: Mapping, other: Path | str) -> str:
    """The comparison as one printed line; `other` is the second set of predictions."""
    low, high = comparison["interval_95"]
    line = f"against {other}: Dice {comparison['dice_difference']:+.3f}"
    if not math.isnan(low):
        line += (
            f" (95 % interval {low:+.3f} to {high:+.3f}, bootstrap over "
            f"{counted(comparison['patients'], 'patient')})"
        )
    return (
        f"{line}; better in {comparison['better']}, worse in {comparison['worse']}, equal in "
        f"{comparison['equal']} of {counted(comparison['cases'], 'case')}"
    )
