"""Rotating MIPs show the views and the masks of their case."""

import base64
import io

import numpy as np
from PIL import Image

from nnunetv2_mip.io.study_layouts import find_studies
from nnunetv2_mip.io.volumes import read_mask
from nnunetv2_mip.report.case_files import CaseFiles
from nnunetv2_mip.report.collect import collect
from nnunetv2_mip.report.content import ReportRequest
from nnunetv2_mip.report.rotating_mip import RotatingMIPSettings, draw_rotating_mip


def first_overlay(page: dict) -> tuple[np.ndarray, np.ndarray]:
    """Truth and prediction of the first view, bool (H, W)."""
    content = base64.b64decode(page["overlay"].split(",")[1])
    sheet = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
    first = sheet[: page["rows"], : page["columns"]]
    return np.isin(first, (85, 255)), np.isin(first, (170, 255))


def test_views_and_masks_are_those_of_the_case(cohort):
    drawing = RotatingMIPSettings(views=6)
    content = collect(ReportRequest(cohort / "masks", cohort / "tree", shown=1, drawing=drawing))
    case, picture = next(iter(content.pictures.items()))
    page = picture.page
    assert page["views"] == 6 and page["angles_deg"] == [0, 30, 60, 90, 120, 150]
    assert page["wraps"] and page["has_truth"] and page["has_prediction"]
    assert page["image"].startswith("data:image/webp;base64,")
    assert len(picture.seen_in) == len(content.facts[case].lesions)
    assert all(0 <= number <= 6 for number in picture.seen_in)
    # 0° is the coronal view, the head on top; voxels of 10 mm are its pixels.
    study = next(study for study in find_studies(cohort / "tree") if study.case == case)
    for drawn, path in zip(first_overlay(page), (study.seg, cohort / "masks" / f"{case}.nii.gz")):
        shadow = read_mask(path).array.any(axis=1)[::-1]
        columns = np.flatnonzero(shadow.any(axis=0))
        shadow = shadow[:, columns[0] : columns[-1] + 1]
        columns = np.flatnonzero(drawn.any(axis=0))
        assert np.array_equal(drawn[:, columns[0] : columns[-1] + 1], shadow)


def test_overlays_hold_truth_and_prediction(pngs):
    data = pngs / "data" / "patients"
    files = CaseFiles(
        "patient_1",
        "png",
        data / "labels" / "segmentation_1.png",
        pngs / "masks" / "patient_1.png",
        data / "imgs" / "patient_1.png",
    )
    page = draw_rotating_mip(files, RotatingMIPSettings()).page
    truth, prediction = first_overlay(page)
    # Six rows, four columns, the prediction two columns further.
    assert truth.sum() == prediction.sum() == 24 and (truth & prediction).sum() == 12
    assert np.array_equal(np.roll(truth, 2, axis=1), prediction)
    # Of 80 columns the body has 24; 15 mm stay on either side.
    assert page["columns"] == 40 and page["rows"] == 60
