"""Converter of autoPET PET/CT studies: one stack of MIP views a study and channel."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from nnunetv2_mip.conventions import IGNORE_LABEL
from nnunetv2_mip.dataset_conversion.body_statistics import BodyStatistics
from nnunetv2_mip.dataset_conversion.conversion_plan import Case, CasePaths, ConversionPlan
from nnunetv2_mip.dataset_conversion.raw_dataset import ConversionResult, build_raw_dataset
from nnunetv2_mip.files import write_json
from nnunetv2_mip.io.dicom.options import FROM_HEADERS, DicomOptions
from nnunetv2_mip.io.patients import PatientOptions
from nnunetv2_mip.io.read_study import read_study_files
from nnunetv2_mip.io.study_layouts import CT_NAME, StudyFiles, scan_tree, with_dicom_options
from nnunetv2_mip.parallel import threads_beside
from nnunetv2_mip.views.channels import view_study
from nnunetv2_mip.views.labels import label_views
from nnunetv2_mip.views.resampling import to_pixels
from nnunetv2_mip.views.settings import ViewSettings
from nnunetv2_mip.views.stack_files import save_geometry, write_stack

DEFAULT_NAME = "AutoPETMIP"
NO_MASK = "its study has no lesion mask (SEG); training needs one"


def convert_autopet(
    tree: Path | str,
    dataset_id: int,
    name: str = DEFAULT_NAME,
    settings: ViewSettings | None = None,
    workers: int = 1,
    skip_broken: bool = False,
    dask: str | None = None,
    patients: PatientOptions | None = None,
    options: DicomOptions = FROM_HEADERS,
) -> ConversionResult:
    """Convert every study of a tree or release that has a SUV and a lesion mask.

    `patients` is what the user says of the patients (see `io.patients`).

    Beside the stacks of a case lie its geometry and its lesions (which is seen in which view).
    Where the labels are not the whole projection, that lies in `labelsTr_projected/`, to score by.

    `options` are of the DICOM studies; a weight, dose or injection of one study alone.

    Raises:
        MipError: see `study_layouts.scan_tree`, `with_dicom_options`, and
            `raw_dataset.build_raw_dataset`; or no name says who the patients are.
    """
    settings = settings or ViewSettings()
    found = with_dicom_options(scan_tree(tree, patients), options, tree)
    found.grouping.require_answer()
    problems = list(found.problems)
    cases = []
    for study in found.studies:
        if study.seg is None:
            problems.append((study.suv, study.no_seg or NO_MASK))
        elif study.ct is None and "ct" in settings.channels and not study.suv.is_dir():
            problems.append((study.suv, f"its study has no {CT_NAME}; the channel ct needs it"))
        else:
            cases.append(
                Case(
                    study.case,
                    study.patient,
                    (study, settings),
                    study.files,
                    study.original,
                    study.options.to_dict(),
                )
            )
    view_entries: dict[str, Any] = {
        "views": settings.views,
        "arc_deg": settings.arc_deg,
        "start_deg": settings.start_deg,
        "window_suv": settings.window_suv,
        "pixel_mm": settings.pixel_mm,
        "labels": settings.labels,
        "channels": list(settings.channels),
        "occlusion": asdict(settings.occlusion),
    }
    if settings.angles_deg is not None:
        view_entries["angles_deg"] = list(settings.angles_deg)
    labels = {"background": 0, "lesion": 1}
    if settings.labels == "ignore":
        labels["ignore"] = IGNORE_LABEL
    plan = ConversionPlan(
        dataset_id=dataset_id,
        name=name,
        cases=cases,
        convert=convert_study,
        settings={"converter": "autopet", "layout": found.layout, **view_entries},
        mip={"source": "autopet", **view_entries},
        source=Path(tree),
        problems=problems,
        warnings=(*found.warnings, *found.grouping.warnings),
        grouping=found.grouping.line,
        labels=labels,
        totals=("lesions", "lesions_seen_in_no_view", "lesion_ml", "unseen_ml"),
    )
    return build_raw_dataset(plan, workers, skip_broken, dask)


def convert_study(payload: tuple[StudyFiles, ViewSettings], paths: CasePaths) -> dict:
    """Write the views, labels, geometry and lesions of one study; returns its record."""
    files, settings = payload
    study = read_study_files(files, wants_ct="ct" in settings.channels)
    views = view_study(study, settings)
    geometry, pixel, spacing = views.geometry, views.pixel_mm, views.spacing_mm
    with threads_beside(3) as beside:
        # Deflating too.
        written = [
            beside.submit(write_stack, levels, spacing, paths.channel(index))
            for index, levels in enumerate(views.levels)
        ]
        found = label_views(
            study.lesion_mask,
            study.suv.array,
            views.suv,
            geometry,
            settings.window_suv,
            settings.occlusion,
        )
        labels = {settings.labels: paths.label}
        if settings.labels != "projected":
            labels["projected"] = paths.projected_label
        for mode, path in labels.items():
            label = to_pixels(found.label(mode), geometry, pixel, nearest=True)
            written.append(beside.submit(write_stack, label, spacing, path))
        save_geometry(geometry, paths.geometry, pixel)
        write_json(paths.lesions, found.table(geometry))
        record = {
            "has_lesion": bool(found.lesions),
            "lesion_ml": round(sum(lesion.volume_ml for lesion in found.lesions), 3),
            "lesions": len(found.lesions),
            "lesions_seen_in_no_view": len(found.in_no_view),
            "unseen_ml": round(sum(found.lesions[n - 1].volume_ml for n in found.in_no_view), 3),
            "stack": list(views.levels.shape[1:]),
            "body": {
                channel: BodyStatistics.of_levels(levels).to_list()
                for channel, levels in zip(settings.channels, views.levels)
            },
            "warnings": list(study.warnings),
        }
        for part in written:
            part.result()
    return record
