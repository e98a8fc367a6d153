"""Steps of a prediction one by one: views of a study, and their fusion to a mask."""

from collections.abc import Sequence

import numpy as np

from nnunetv2_mip.conventions import DEFAULT_ARC_DEG, DEFAULT_VIEWS, DEFAULT_WINDOW_SUV
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.fusion.fuse import fuse as fuse_views
from nnunetv2_mip.fusion.region_classifier import RegionClassifier
from nnunetv2_mip.fusion.region_features import RegionContext
from nnunetv2_mip.fusion.rules import FusionRule
from nnunetv2_mip.inference.results import VolumeResult
from nnunetv2_mip.io.read_study import Study
from nnunetv2_mip.views.channels import StudyViews, view_study
from nnunetv2_mip.views.resampling import to_detector, view_shape
from nnunetv2_mip.views.settings import ViewSettings


def project(
    study: Study,
    views: int = DEFAULT_VIEWS,
    *,
    arc_deg: float = DEFAULT_ARC_DEG,
    start_deg: float = 0.0,
    angles_deg: Sequence[float] | None = None,
    channels: Sequence[str] = ("suv",),
    window_suv: float = DEFAULT_WINDOW_SUV,
    pixel_mm: float | None = None,
) -> StudyViews:
    """Maximum intensity projections of a study on many angles.

    Args:
        study: from `read_study`, with its CT for the channel `ct`.
        views: number of angles, evenly spaced over [start, start + arc).
        arc_deg: angle that the views cover, degrees.
        start_deg: first angle, degrees; 0 is the coronal view, patient's left on the right.
        angles_deg: the angles themselves instead.
        channels: some of `suv`, `ct` and `depth`, the SUV first.
        window_suv: SUV that maps to level 255 in `levels`.
        pixel_mm: edge of the square pixels of `levels`; None keeps the detector's own.

    Returns:
        views with `suv` (V, H, W) float32 in SUV, row 0 at the head; `levels` (C, V, H', W') uint8
        as networks see them; `ct_hu`, `depth_mm`; `geometry` and `spacing_mm`.

    Raises:
        MipError: a setting that cannot be, or a channel without its volume.
    """
    angles = None if angles_deg is None else tuple(float(angle) for angle in angles_deg)
    settings = ViewSettings(
        views=views,
        arc_deg=arc_deg,
        start_deg=start_deg,
        window_suv=window_suv,
        angles_deg=angles,
        pixel_mm=pixel_mm,
        channels=tuple(channels),
    )
    return view_study(study, settings)


def fuse(
    probabilities: np.ndarray,
    views: StudyViews,
    study: Study | None = None,
    fusion: FusionRule | None = None,
    regions: RegionClassifier | None = None,
    case: str | None = None,
) -> VolumeResult:
    """3D mask of masks or probabilities of views, on the grid of the volume they came from.

    Args:
        probabilities: (V, H', W') in [0, 1], on the pixels of `views.levels`.
        views: from `project` or `Predictor.project`.
        study: that was projected. With it the fusion knows which lesions a view hides.
        fusion: rule and settings; None is the default of `FusionRule`. That of a model is
            `Predictor.config.fusion`.
        regions: classifier that removes regions which are probably no lesion; needs the study. That
            of a model is `Predictor.config.regions`.
        case: name of the result; None takes that of the volume.

    Raises:
        MipError: another shape than that of the views, values outside [0, 1], or a study on
            another grid.
    """
    geometry = views.geometry
    probabilities = np.asarray(probabilities)
    expected = view_shape(geometry, views.pixel_mm)
    if probabilities.shape != expected:
        raise MipError(
            f"probabilities {probabilities.shape}: the views have (views, rows, columns) {expected}"
        )
    values = probabilities.astype(np.float32)
    # In this form NaN fails too.
    if not (values.min() >= 0 and values.max() <= 1):
        raise MipError(
            "probabilities: masks or probabilities between 0 and 1 are expected, found "
            f"{values.min():g} to {values.max():g}"
        )
    suv = suv_views = None
    if study is not None:
        if not study.grid.same_as(geometry.grid):
            raise MipError(
                f"{study.source}: lies on another grid than the views came from "
                f"({study.grid.difference(geometry.grid)})"
            )
        suv, suv_views = study.suv.array, views.suv
    detected = to_detector(values, geometry, views.pixel_mm)
    mask = fuse_views(detected, geometry, fusion or FusionRule(), suv, suv_views)
    if regions is not None:
        if suv is None or suv_views is None:
            raise MipError("the classifier of regions needs the study: give it as `study`")
        mask = regions.keep_lesions(mask, RegionContext(suv, detected, suv_views, geometry))
    return VolumeResult(
        case or geometry.source,
        geometry.grid,
        study,
        mask,
        views=views,
        view_probability=values,
        warnings=() if study is None else study.warnings,
    )
