"""Studies as stacks of views: inputs to score, and labelled studies of a data set."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2_mip.classification.study_labels import StudyLabel
from nnunetv2_mip.conventions import PNG_PIXEL_MM
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import read_json
from nnunetv2_mip.inference.find_inputs import Job, find_jobs
from nnunetv2_mip.io.dicom.options import FROM_HEADERS, DicomOptions
from nnunetv2_mip.io.png import read_png
from nnunetv2_mip.io.read_study import read_study
from nnunetv2_mip.views.stack_files import FILE_ENDING, read_levels, read_stack

if TYPE_CHECKING:
    from nnunetv2_mip.inference.predictor import MIPPredictor


@dataclass(frozen=True)
class LabelledStudy:
    """Study of a data set.

    Attributes:
        study: case, patient and truth.
        channels: files of its stacks, (V, H, W) each.
        label: file of the stack of its masks, or None.
    """

    study: StudyLabel
    channels: tuple[Path, ...]
    label: Path | None = None

    def levels(self) -> tuple[np.ndarray, tuple[float, float]]:
        """(C, V, H, W) levels and (row, column) mm."""
        stacks = [read_stack(path) for path in self.channels]
        return np.stack([stack for stack, _ in stacks]), stacks[0][1][1:]

    def mask(self) -> np.ndarray | None:
        """(V, H, W), lesions are 1; None where the data set has no mask of it."""
        return None if self.label is None else read_stack(self.label)[0]


def find_studies_to_score(
    source: Path | str, beside: Path, options: DicomOptions = FROM_HEADERS
) -> list[Job]:
    """Inputs that can be scored: those of `nnUNetv2_mip_predict`.

    Args:
        source, options: see `find_inputs.find_jobs`.
        beside: the table to be written.

    Raises:
        MipError: nothing that can be scored.
    """
    # No mask is written; the folder only has to be none of the inputs.
    jobs = find_jobs(source, beside.parent / f".{beside.name}.masks", options)
    if not jobs:
        raise MipError(f"{source}: holds nothing that can be scored")
    return jobs


def views_of_job(
    job: Job, predictor: "MIPPredictor", warn: Callable[[str], None]
) -> tuple[np.ndarray, tuple[float, float]]:
    """Views of an input: (C, V, H, W) or (V, H, W) levels, and (row, column) mm.

    A SUV volume is projected as the model's inference.json says.

    Raises:
        MipError: it cannot be read.
    """
    if job.kind == "png":
        image = read_png(job.source)
        for line in image.warnings:
            warn(f"{job.source}: {line}")
        return image.levels[None], (PNG_PIXEL_MM, PNG_PIXEL_MM)
    if job.kind == "stack":
        levels, spacing = read_levels(job.source, predictor.config.window_suv)
        return levels, spacing[1:]
    study = read_study(
        job.dicom or job.source, job.ct, wants_ct=predictor.wants_ct, options=job.options
    )
    for line in study.warnings:
        warn(line)
    views = predictor.view_study(study)
    return views.levels, views.spacing_mm[1:]


def labelled_studies(raw: Path, channels: int) -> list[LabelledStudy]:
    """Studies of a raw nnU-Net data set that this package's converters wrote.

    Args:
        raw: its folder.
        channels: number of the network's input channels.

    Raises:
        MipError: no such data set, or one that does not say which cases show lesions.
    """
    content = read_json(raw / "dataset.json")
    mip = content.get("mip", {})
    lesions, patients = mip.get("has_lesion"), mip.get("patients")
    if not isinstance(lesions, dict) or not isinstance(patients, dict):
        raise MipError(
            f"{raw / 'dataset.json'}: does not say which cases show lesions "
            '("mip" → "has_lesion", "patients"); convert the data set with this package'
        )
    if not lesions:
        raise MipError(f"{raw}: holds no case")
    found = []
    for case in sorted(lesions):
        paths = tuple(
            raw / "imagesTr" / f"{case}_{channel:04d}{FILE_ENDING}" for channel in range(channels)
        )
        for path in paths:
            if not path.is_file():
                raise MipError(f"{path}: no such file; convert the data set again")
        if case not in patients:
            raise MipError(f"{raw / 'dataset.json'}: does not name the patient of {case}")
        label = raw / "labelsTr" / f"{case}{FILE_ENDING}"
        study = StudyLabel(case, patients[case], bool(lesions[case]))
        found.append(LabelledStudy(study, paths, label if label.is_file() else None))
    return found


def studies_of(labelled: Sequence[LabelledStudy]) -> list[StudyLabel]:
    """Names and truths of the studies, in their order."""
    return [item.study for item in labelled]
