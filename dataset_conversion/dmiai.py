"""Converter of DM-i-AI MIP-PET PNGs: one stack of a single view an image."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nnunetv2_mip.conventions import DEFAULT_WINDOW_SUV, PNG_PIXEL_MM, VIEW_AXIS_SPACING_MM
from nnunetv2_mip.dataset_conversion.body_statistics import BodyStatistics
from nnunetv2_mip.dataset_conversion.conversion_plan import Case, CasePaths, ConversionPlan
from nnunetv2_mip.dataset_conversion.raw_dataset import ConversionResult, build_raw_dataset
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import write_json
from nnunetv2_mip.io.case_names import distinct_names, keeps_letters, safe_name
from nnunetv2_mip.io.dmiai_layout import (
    CONTROLS,
    IMAGES,
    LABELS,
    PATIENTS,
    images_in,
    mask_of_image,
)
from nnunetv2_mip.io.folder_layout import left_out_images
from nnunetv2_mip.io.folder_patients import owner_of_image
from nnunetv2_mip.io.patients import describe_patients
from nnunetv2_mip.io.png import image_fault, read_png
from nnunetv2_mip.io.png_masks import decode_truth_png
from nnunetv2_mip.views.geometry import image_geometry
from nnunetv2_mip.views.stack_files import write_stack

DEFAULT_NAME = "DMIAI"
STACK_SPACING = (VIEW_AXIS_SPACING_MM, PNG_PIXEL_MM, PNG_PIXEL_MM)


def convert_dmiai(
    data: Path | str,
    dataset_id: int,
    name: str = DEFAULT_NAME,
    controls: int | None = None,
    workers: int = 1,
    skip_broken: bool = False,
    dask: str | None = None,
) -> ConversionResult:
    """Convert `patients/{imgs,labels}` and `controls/imgs`; controls are cases without lesion.

    Args:
        controls: take the first N controls (by name), None for all.

    Raises:
        MipError: a folder or label is missing, or see `raw_dataset.build_raw_dataset`.
    """
    data = Path(data)
    images, labels = data / PATIENTS / IMAGES, data / PATIENTS / LABELS
    for folder in (images, labels):
        if not folder.is_dir():
            raise MipError(f"{folder}: no such folder; expected patients/imgs and patients/labels")
    pictures = images_in(images)
    if not pictures:
        raise MipError(f"{images}: holds no PNG")
    pairs: list[tuple[Path, Path | None]] = []
    problems = []
    for image in pictures:
        label = mask_of_image(image, labels)
        if label is None:
            problems.append((labels / image.name, f"no such file; it is the mask of {image}"))
        else:
            pairs.append((image, label))
    used = {label for _, label in pairs}
    for label in images_in(labels):
        if label not in used:
            problems.append((label, f"is the mask of no image in {images}"))
    healthy = images_in(data / CONTROLS / IMAGES) if controls != 0 else []
    if controls is not None and controls > len(healthy):
        raise MipError(
            f"{data / CONTROLS / IMAGES}: holds {len(healthy)} PNGs, --controls "
            f"{controls} asked; --controls all takes those that are there"
        )
    cases, grouping = _cases([*pairs, *((image, None) for image in healthy[:controls])])
    others = [left_out_images(folder) for folder in (images, labels)]
    plan = ConversionPlan(
        dataset_id=dataset_id,
        name=name,
        cases=cases,
        convert=convert_image,
        settings={"converter": "dmiai", "controls": controls},
        mip={
            "source": "dmiai",
            "channels": ["suv"],
            "views": 1,
            "arc_deg": 180.0,
            "start_deg": 0.0,
            # What the images' brightest level stands for is not published; on real studies this
            # window gives the closest match.
            "window_suv": DEFAULT_WINDOW_SUV,
            "pixel_mm": PNG_PIXEL_MM,
            "labels": "projected",
        },
        source=data,
        problems=problems,
        warnings=[line for line in others if line is not None],
        grouping=grouping,
    )
    return build_raw_dataset(plan, workers, skip_broken, dask)


def convert_image(payload: tuple[Path, Path | None], paths: CasePaths) -> dict:
    """Write one image (1, H, W), its label and its geometry; returns its record."""
    image, label = payload
    picture = read_png(image)
    levels = picture.levels
    fault = image_fault(levels)
    if fault is not None:
        raise MipError(f"{image}: {fault}")
    mask = np.zeros_like(levels) if label is None else decode_truth_png(label)
    if mask.shape != levels.shape:
        raise MipError(
            f"{label}: is {mask.shape[1]}x{mask.shape[0]} pixels, its image {image.name} "
            f"{levels.shape[1]}x{levels.shape[0]}; they must agree"
        )
    write_stack(levels[None], STACK_SPACING, paths.channel(0))
    write_stack(mask[None], STACK_SPACING, paths.label)
    write_json(paths.geometry, image_geometry(image.name, PNG_PIXEL_MM))
    return {
        "has_lesion": bool(mask.any()),
        "lesion_px": int(np.count_nonzero(mask)),
        "stack": [1, *levels.shape],
        "body": {"suv": BodyStatistics.of_levels(levels).to_list()},
        "warnings": [f"{image}: {line}" for line in picture.warnings],
    }


def _cases(images: Sequence[tuple[Path, Path | None]]) -> tuple[list[Case], str]:
    """Cases of images and their masks, and how they were given to patients.

    Each image is of a patient of its own, unless its name tells a study of one (`P1_baseline`).
    """
    stems = [image.stem for image, _ in images]
    plain = [safe_name(stem) for stem in stems]
    names = distinct_names(plain, stems)
    owners = [owner_of_image(stem).patient for stem in stems]
    patients = [
        name if owner is None or owner == stem else owner
        for owner, stem, name in zip(owners, stems, names)
    ]
    cases = []
    for pair, stem, before, name, patient in zip(images, stems, plain, names, patients):
        exact = name == before and keeps_letters(stem)
        inputs = tuple(path for path in pair if path is not None)
        cases.append(Case(name, patient, pair, inputs, None if exact else stem))
    grouped = len(set(patients)) < len(set(names))
    return cases, describe_patients(names, patients, "the names of the images") if grouped else ""
