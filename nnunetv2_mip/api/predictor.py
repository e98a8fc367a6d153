"""Predictor of the API: a trained model that segments volumes and MIP-PET images."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunetv2_mip.api.studies import VolumeSource, as_image, is_image_source, read_study
from nnunetv2_mip.errors import MipError, MipWarning
from nnunetv2_mip.inference.config import InferenceConfig
from nnunetv2_mip.inference.find_inputs import Job, find_inputs
from nnunetv2_mip.inference.load_predictor import ModelChoice
from nnunetv2_mip.inference.predict_files import predict_job, predict_png, predict_volume
from nnunetv2_mip.inference.results import ImageResult, VolumeResult
from nnunetv2_mip.io.clicks import read_clicks
from nnunetv2_mip.io.dicom.options import FROM_HEADERS, DicomOptions
from nnunetv2_mip.io.read_study import Study
from nnunetv2_mip.io.volumes import without_suffix
from nnunetv2_mip.nnunet.model_folder import BUNDLED_VOLUME_WARNING, CHECKPOINT, bundled_model
from nnunetv2_mip.views.channels import StudyViews, view_study

if TYPE_CHECKING:
    from typing import Self

    from nnunetv2_mip.inference.predictor import MIPPredictor


class Predictor:
    """Predictor with a trained model. The network is loaded when it is first used, then kept.

    Args:
        model_folder: as training or `nnUNetv2_mip_export_model` leaves it (plans.json, fold_*).
        folds: folds to average, None for all that are there.
        checkpoint: file name in the fold folders.
        device: `cuda` (`cpu` where there is none), `cpu` or `mps`.
        views: projection angles of volumes, None for the model's own number.
        tta: average over mirrored copies, None for the model's own choice; False is faster.
        second_stage: model folder of a second stage in 3D; None takes the one within the folder.
        combine: how the second stage's answer becomes a mask, `none` or `l2snet`.
        settings: further changes of the model's `InferenceConfig`, such as `threshold=0.4`,
            `never_empty=True`, `fusion=FusionRule(…)`.

    Raises:
        MipError: the folder lacks something, or a setting that cannot be.
    """

    def __init__(
        self,
        model_folder: Path | str,
        *,
        folds: Sequence[int | str] | None = None,
        checkpoint: str = CHECKPOINT,
        device: str = "cuda",
        views: int | None = None,
        tta: bool | None = None,
        second_stage: Path | str | None = None,
        combine: str = "none",
        **settings: Any,
    ):
        unknown = sorted(settings.keys() - InferenceConfig.__dataclass_fields__.keys())
        if unknown:
            raise MipError(f"Predictor: unknown setting {', '.join(unknown)}")
        choices = {"views": views, "tta": tta, **settings}
        choices = {key: value for key, value in choices.items() if value is not None}
        self._choice = ModelChoice(
            Path(model_folder), folds, checkpoint, device, choices, second_stage, combine
        )
        self._is_bundled = False

    @classmethod
    def bundled(cls, **options: Any) -> "Self":
        """Predictor with the model that is installed with the package.

        Args:
            options: as of the class, without the folder.

        Raises:
            MipError: the model was removed from the installation.
        """
        predictor = cls(bundled_model(), **options)
        predictor._is_bundled = True
        return predictor

    @property
    def model_folder(self) -> Path:
        """Folder of the model."""
        return self._choice.folder

    @property
    def config(self) -> InferenceConfig:
        """Settings of inference: those of the model with the changes that were asked for."""
        return self._choice.config

    @cached_property
    def loaded(self) -> "MIPPredictor":
        """Predictor in memory, as the commands and the service use it; loaded on first use."""
        return self._choice.load()

    def predict(
        self,
        source: VolumeSource | Study | bytes | np.ndarray,
        *,
        ct: VolumeSource | None = None,
        clicks: Path | str | None = None,
        probability: bool = False,
        case: str | None = None,
        options: DicomOptions = FROM_HEADERS,
    ) -> VolumeResult | ImageResult:
        """Result of one volume or image. What is doubtful about it is warned of (`MipWarning`).

        Args:
            source: a volume: path of a SUV file (NIfTI, MHA, NRRD) or of a folder with one DICOM
                study, SimpleITK image, (array, spacing), or a study of `read_study`. An image: path
                or bytes of a PNG, or its pixels (H, W) or (H, W, 3) uint8, dark is uptake.
            ct: CT on the grid of a volume, for a model that wants it (`wants_ct`).
            clicks: file of a reader's clicks on a volume (autoPET IV's JSON).
            probability: of a volume, also the probability of every voxel, which takes longer. An
                image always has it.
            case: name of the result; None takes that of the file.
            options: of a DICOM folder.

        Returns:
            `VolumeResult` of a volume, `ImageResult` of an image.

        Raises:
            MipError: what cannot be read, or a folder with more than one case (`predict_all`).
        """
        if isinstance(source, Path | str):
            found = self._predict_path(Path(source), ct, clicks, probability, case, options)
        elif is_image_source(source):
            if ct is not None or clicks is not None:
                raise MipError("predict: CT and clicks belong to a volume; the input is an image")
            name = case or "image"
            image = as_image(source, name)  # type: ignore[arg-type]
            found = predict_png(image, self.loaded, name, name)
        else:
            study = read_study(source, ct, options=options)  # type: ignore[arg-type]
            found = self._predict_study(study, clicks, probability, case)
        self._warn(found)
        return found

    def predict_all(
        self,
        sources: Path | str | Iterable[Any],
        *,
        probability: bool = False,
        options: DicomOptions = FROM_HEADERS,
        progress: bool = False,
    ) -> Iterator[VolumeResult | ImageResult]:
        """Results of many inputs, one after the other; none is kept in memory.

        Args:
            sources: folder of PNGs, of volumes, of studies (autoPET tree, DICOM), as
                `nnUNetv2_mip_predict` takes it; or inputs of `predict`.
            probability: as of `predict`.
            options: as of `predict`.
            progress: show a progress bar.

        Raises:
            MipError: at an input that cannot be read; the results before it were given out.
        """
        from tqdm import tqdm

        work: list[Any]
        if isinstance(sources, Path | str):
            work = _without_stacks(find_inputs(sources, options))
        else:
            work = list(sources)
        for source in tqdm(work, unit="case", disable=not progress):
            if isinstance(source, Job):
                found = predict_job(source, self.loaded, probability)
                self._warn(found)
                yield found
            else:
                yield self.predict(source, probability=probability, options=options)

    @property
    def wants_ct(self) -> bool:
        """Whether the model needs the CT of a study; loads the model."""
        return self.loaded.wants_ct

    def project(self, study: Study) -> StudyViews:
        """Views of a study with the settings of the model (see `nnunetv2_mip.project`).

        Raises:
            MipError: the model wants the CT and there is none.
        """
        return view_study(study, self.config.view_settings)

    def view_probabilities(self, views: StudyViews) -> np.ndarray:
        """Lesion probability of the pixels of views.

        Args:
            views: of `project` of this predictor.

        Returns:
            (V, H', W') float32 on the pixels of `views.levels`, for `nnunetv2_mip.fuse`.

        Raises:
            MipError: other channels or another window than the model has.
        """
        window_suv = self.config.window_suv
        if views.geometry.window_suv != window_suv:
            raise MipError(
                f"views: level 255 is {views.geometry.window_suv} SUV in them and {window_suv} in "
                "the model; make them with its own project"
            )
        return self.loaded.view_probabilities(views.levels, views.spacing_mm[1:])

    def _predict_path(
        self,
        path: Path,
        ct: VolumeSource | None,
        clicks: Path | str | None,
        probability: bool,
        case: str | None,
        options: DicomOptions,
    ) -> VolumeResult | ImageResult:
        if ct is not None and not isinstance(ct, Path | str):
            study = read_study(path, ct, options=options)
            return self._predict_study(study, clicks, probability, case)
        jobs = _without_stacks(find_inputs(path, options, ct, clicks))
        if len(jobs) > 1:
            raise MipError(f"{path}: holds {len(jobs)} cases; predict them with predict_all")
        return predict_job(replace(jobs[0], case=case or jobs[0].case), self.loaded, probability)

    def _predict_study(
        self, study: Study, clicks: Path | str | None, probability: bool, case: str | None
    ) -> VolumeResult:
        lines: list[str] = []
        found = None if clicks is None else read_clicks(clicks, study.grid, lines.append)
        name = case or without_suffix(study.source)
        return predict_volume(study, self.loaded, name, probability, found, tuple(lines))

    def _warn(self, found: VolumeResult | ImageResult) -> None:
        lines = list(found.warnings)
        if self._is_bundled and isinstance(found, VolumeResult):
            lines.append(BUNDLED_VOLUME_WARNING)
        for line in lines:
            warnings.warn(line, MipWarning, stacklevel=3)

    def __repr__(self) -> str:
        return f"<Predictor {self.model_folder}>"


def _without_stacks(jobs: list[Job]) -> list[Job]:
    """The jobs, after a check that none is a stack of views, which has no single mask."""
    for job in jobs:
        if job.kind == "stack":
            raise MipError(
                f"{job.source}: is a stack of views; predict it with nnUNetv2_mip_predict, or give "
                "the volume that it was projected from"
            )
    return jobs
