"""Anatomy of a phantom that is built around the real organs of a label map.

The organs of the map keep their shapes: they are scaled along the body's axes and bent smoothly,
all by the same random deformation, so that one map makes many bodies. Everything else (skin, fat,
muscle, skeleton, vessels, bowel, glands, organs that the map does not show) is the phantom's own
and is fitted in between (`phantom.fitted_frame`). The head is mirrored in every second body; the
trunk never is, its organs have sides. The uptake is described in `phantom.mapped_organs`.
"""

from dataclasses import replace

import numpy as np
from numpy.random import Generator

from nnunetv2_mip.phantom.anatomy import add_sites
from nnunetv2_mip.phantom.body import Anatomy
from nnunetv2_mip.phantom.distance_field import DistanceField
from nnunetv2_mip.phantom.fitted_frame import KIDNEY_Z, LUNG_Z, FittedFrame, fit_frame
from nnunetv2_mip.phantom.label_maps import OrganMap
from nnunetv2_mip.phantom.mapped_organs import (
    BLOOD_SUV,
    Organs,
    add_mapped_head,
    add_mapped_trunk_organs,
    add_mapped_urinary_tract,
    draw_suv,
)
from nnunetv2_mip.phantom.mapped_sites import add_hidden_sites, clear_sites
from nnunetv2_mip.phantom.organs import add_bowel, add_distractors, add_pancreas
from nnunetv2_mip.phantom.shapes import Deformation, Solid, Tube
from nnunetv2_mip.phantom.skeleton import add_skeleton
from nnunetv2_mip.phantom.trunk import add_trunk, add_vessels

# A brain whose label ends this close below the top of the map was cut off by it.
CUT_MM = 24.0
# The table of `phantom.scanner` begins just behind this.
BACK_Y_MM = 155.0


def build_mapped_anatomy(
    organ_map: OrganMap, body: Generator, scan: Generator, has_prostate_labels: bool
) -> Anatomy:
    """Random body around the organs of a label map.

    Args:
        organ_map: the label map.
        body: generator of what stays between two studies of a patient.
        scan: generator of what differs between them.
        has_prostate_labels: whether the map would show a prostate if there were one.
    """
    organs, top_mm = _deformed(organ_map, body)
    cut = "brain" in organs and organ_map.above_mm < CUT_MM
    fat_mm = float(np.clip(body.lognormal(np.log(16), 0.4), 7, 36))
    organs, frame = _on_table(organs, cut, fat_mm)
    anatomy = Anatomy(scale=(frame.width * frame.depth * frame.height) ** (1 / 3))
    female = "prostate" not in organs and bool(
        body.uniform() < (0.85 if has_prostate_labels else 0.45)
    )
    blood = draw_suv(scan, BLOOD_SUV)
    marrow = float(scan.uniform(1.0, 1.7))
    if scan.uniform() < 0.12:  # activated, as after growth factors
        marrow *= float(scan.uniform(1.6, 2.4))

    skin_around, flesh_around = _layers_around(organs, frame, fat_mm)
    add_trunk(anatomy, frame, body, scan, fat_mm, female, skin_around, flesh_around)
    add_vessels(anatomy, frame, blood)
    add_skeleton(anatomy, frame, marrow)
    add_mapped_head(anatomy, frame, organs, body, scan)
    add_pancreas(anatomy, frame, scan)
    add_bowel(anatomy, frame, body, scan)
    add_mapped_trunk_organs(anatomy, frame, organs, body, scan, blood)
    add_mapped_urinary_tract(anatomy, frame, organs, body, scan, female)
    add_distractors(anatomy, frame, scan)
    add_sites(anatomy, frame)
    clear_sites(anatomy, organs)
    add_hidden_sites(anatomy, organs, frame.at(0, 0, KIDNEY_Z)[0])

    anatomy.top_mm = frame.at(0, 0, 1030)[2] + float(scan.uniform(-55, 20))
    if "brain" in organs and cut:
        top_mm = float(organs["brain"].points[:, 2].max())
    anatomy.top_mm = min(anatomy.top_mm, top_mm)
    anatomy.bottom_mm = frame.at(0, 0, float(scan.uniform(-30, 50)))[2]
    return anatomy


def _layers_around(
    organs: Organs, frame: FittedFrame, fat_mm: float
) -> tuple[list[Solid], list[Solid]]:
    """Solids of the skin and of the muscle around the organs of the map, and around the neck."""
    trunk_organs = [o for name, o in organs.items() if name not in ("gland", "prostate", "brain")]
    heads = [organs["brain"]] if "brain" in organs else []
    # The trunk stands upright: where a head is held aslant, this neck leads to it.
    course = [frame.at(0, y, z) for y, z in ((8, 795), (4, 845), (-4, 895))]
    neck = Tube(course, (49 * frame.width, 46 * frame.width, 46 * frame.width))
    skin = [o.grown(min(10 + fat_mm, 28)) for o in trunk_organs] + [h.grown(13) for h in heads]
    flesh = [o.grown(8) for o in trunk_organs] + [h.grown(10) for h in heads]
    return [*skin, neck], [*flesh, neck]


def _deformed(organ_map: OrganMap, body: Generator) -> tuple[Organs, float]:
    """Organs of the map, randomly scaled and bent, and the height (mm) of the map's upper end.

    The origin is that of all phantoms: in the midline, at the level of the upper thighs.
    """
    scale = np.clip(body.normal(1.0, 0.045, 3), 0.9, 1.1)  # x, y, z
    mirrored = bool(body.uniform() < 0.5)
    deformation = Deformation.draw(body, 2.5, 190)
    head_scale = np.clip(body.normal(1.0, 0.03, 3), 0.93, 1.07)
    spacing = np.array(organ_map.spacing_mm[::-1]) * scale
    organs = {}
    for name, mask in organ_map.masks.items():
        organs[name] = DistanceField.of_mask(mask, (0.0, 0.0, 0.0), tuple(spacing))
    top_mm = next(iter(organ_map.masks.values())).shape[0] * spacing[2]
    top_mm += organ_map.above_mm * scale[2]

    plain = fit_frame(
        {name: organ.points for name, organ in organs.items()},
        organ_map.above_mm < CUT_MM,
    )
    # The chest is the middle of the field of view, and nominal height 0 stays the origin.
    shift = -np.array(plain.at(0, 0, LUNG_Z))
    shift[2] = -plain.at(0, 0, 0)[2]
    moved = {}
    for name, organ in organs.items():
        if name in ("brain", "gland"):
            organ = _turned_head(organ, organs, mirrored, head_scale)
        corner = tuple(np.array(organ.corner) + shift)
        moved[name] = replace(organ, corner=corner, deformations=(deformation,))
    return moved, float(top_mm + shift[2])


def _on_table(organs: Organs, cut: bool, fat_mm: float) -> tuple[Organs, FittedFrame]:
    """Organs moved until the back rests on the table, and the frame fitted to them."""
    frame = fit_frame({name: organ.points for name, organ in organs.items()}, cut)
    trunk = frame.column()[1:-3]
    back = float((trunk[:, 3] + trunk[:, 2]).max()) + fat_mm
    lower = np.array([0.0, BACK_Y_MM - back, 0.0])
    organs = {
        name: replace(organ, corner=tuple(np.array(organ.corner) + lower))
        for name, organ in organs.items()
    }
    return organs, fit_frame({name: organ.points for name, organ in organs.items()}, cut)


def _turned_head(
    organ: DistanceField, organs: Organs, mirrored: bool, scale: np.ndarray
) -> DistanceField:
    """Organ of the head, scaled about the brain's base (or the glands) and mirrored if wanted."""
    about = organs["brain" if "brain" in organs else "gland"].points
    pivot = np.array([*np.percentile(about, 50, axis=0)[:2], about[:, 2].min()])
    corner = pivot + (np.array(organ.corner) - pivot) * scale
    spacing = np.array(organ.spacing) * scale
    field = organ.field
    if mirrored:
        end = corner[0] + (field.shape[2] - 1) * spacing[0]
        corner[0] = 2 * pivot[0] - end
        field = np.ascontiguousarray(field[:, :, ::-1])
    return replace(organ, field=field, corner=tuple(corner), spacing=tuple(spacing))
