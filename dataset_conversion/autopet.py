"""autoPET PET/CT studies to a nnU-Net data set of MIP views, one stack a study."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunetv2_mip.dataset_conversion.raw_dataset import (
    Case,
    CasePaths,
    ConversionPlan,
    ConversionResult,
    build_raw_dataset,
)
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.geometry import DEFAULT_ARC_DEG, DEFAULT_VIEWS, ViewGeometry, view_angles
from nnunetv2_mip.projection import project, project_mask
from nnunetv2_mip.scale import DEFAULT_WINDOW_SUV, BodyStatistics, levels_from_suv
from nnunetv2_mip.stacks import write_stack
from nnunetv2_mip.studies import StudyFiles, scan_tree
from nnunetv2_mip.volumes import read_mask, read_suv, suv_warning

DEFAULT_NAME = "AutoPETMIP"


@dataclass(frozen=True)
class ViewSettings:
    """How studies are turned into views.

    Attributes:
        views: number of projection angles.
        arc_deg, start_deg: the angles cover [start, start + arc) degrees.
        window_suv: SUV that maps to level 255.
    """

    views: int = DEFAULT_VIEWS
    arc_deg: float = DEFAULT_ARC_DEG
    start_deg: float = 0.0
    window_suv: float = DEFAULT_WINDOW_SUV

    def __post_init__(self):
        if not 0 < self.window_suv < math.inf:
            raise MipError(f"--window {self.window_suv}: must be above 0 SUV")
        view_angles(self.views)


def convert_autopet(
    tree: Path | str,
    dataset_id: int,
    name: str = DEFAULT_NAME,
    settings: ViewSettings | None = None,
    workers: int = 1,
    skip_broken: bool = False,
) -> ConversionResult:
    """Convert every study of an autoPET tree (either layout) that has a SUV and a lesion mask.

    Raises:
        MipError: see `studies.scan_tree` and `raw_dataset.build_raw_dataset`.
    """
    settings = settings or ViewSettings()
    found = scan_tree(tree)
    problems = list(found.problems)
    cases = []
    for study in found.studies:
        if study.seg is None:
            problems.append((study.suv, "its study has no lesion mask (SEG); training needs one"))
        else:
            cases.append(Case(study.case, study.patient, (study, settings)))
    view_entries = {
        "views": settings.views,
        "arc_deg": settings.arc_deg,
        "start_deg": settings.start_deg,
        "window_suv": settings.window_suv,
        "pixel_mm": None,
        "labels": "projected",
    }
    plan = ConversionPlan(
        dataset_id=dataset_id,
        name=name,
        cases=cases,
        convert=convert_study,
        settings={"converter": "autopet", "layout": found.layout, **view_entries},
        mip={"source": "autopet", "channels": ["suv"], **view_entries},
        source=Path(tree),
        problems=problems,
        warnings=found.warnings,
    )
    return build_raw_dataset(plan, workers, skip_broken)


def convert_study(payload: tuple[StudyFiles, ViewSettings], paths: CasePaths) -> dict:
    """Write the views, the label views and the geometry of one study; returns its record."""
    study, settings = payload
    suv = read_suv(study.suv)
    seg = read_mask(study.seg, like=suv)
    angles = view_angles(settings.views, settings.arc_deg, settings.start_deg)
    geometry = ViewGeometry.for_volume(suv, angles).with_window(settings.window_suv)
    levels = levels_from_suv(project(suv.array, geometry).suv, settings.window_suv)
    label = project_mask(seg.array, geometry)
    write_stack(levels, geometry.stack_spacing_mm, paths.channel(0))
    write_stack(label, geometry.stack_spacing_mm, paths.label)
    geometry.save(paths.geometry)
    warning = suv_warning(suv)
    return {
        "has_lesion": bool(seg.array.any()),
        "lesion_ml": round(float(np.count_nonzero(seg.array)) * suv.grid.voxel_ml, 3),
        "stack": list(geometry.stack_shape),
        "body": BodyStatistics.of_levels(levels).to_list(),
        "warnings": [warning] if warning else [],
    }
