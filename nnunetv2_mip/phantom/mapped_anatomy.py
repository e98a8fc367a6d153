"""A phantom around the real organs of a label map.

The organs of the map keep their shapes: they are scaled along the body's axes and bent smoothly,
all by the same random deformation, so that one map makes many bodies. Everything else (skin, fat,
muscle, skeleton, vessels, bowel, glands, organs that the map does not show) is the phantom's own
and is fitted in between (`phantom_fit`). The head is mirrored in every second body; the trunk never
is, its organs have sides.

FDG uptake, SUV at about an hour, drawn for each scan from normal distributions cut at two standard
deviations:

- liver 2.1 ± 0.3, between 2.34 ± 0.16 of 531 patients (Parlak et al., Istanbul Medical Journal 20,
  2019) and 1.88 ± 0.41 of 343 (Liu et al., Iranian Journal of Radiology 16, 2019);
- blood pool 1.57 ± 0.14 (Parlak et al.);
- brain: grey matter as the cerebellum, 8.0 ± 2.2 (Wang et al., Molecular Imaging and Biology 9,
  2007); white matter 0.45 of it is our choice;
- heart muscle: like blood in 55 % of the scans, patchy in 28 %, all of it hot in the rest, as after
  an overnight fast (Kumar et al., Indian Journal of Nuclear Medicine 29, 2014); how hot it then is,
  is our choice.

Spleen, kidneys, stomach, bowel, marrow, muscle, fat, lung and urine have the phantom's own ranges
(`phantom_anatomy`).
"""

from dataclasses import replace

import numpy as np
from numpy.random import Generator

from nnunetv2_mip.phantom.anatomy import add_sites
from nnunetv2_mip.phantom.body import (
    LUNG_HU,
    LUNG_SUV,
    Anatomy,
    add_brain,
    add_face,
    add_lungs,
    add_skeleton,
    add_trunk,
    add_vessels,
)
from nnunetv2_mip.phantom.distance_field import Common, DistanceField, pushed_out
from nnunetv2_mip.phantom.fitted_frame import FittedFrame, fit_frame
from nnunetv2_mip.phantom.label_maps import OrganMap
from nnunetv2_mip.phantom.organs import (
    PROSTATE_SUV,
    add_bowel,
    add_calyces,
    add_distractors,
    add_heart,
    add_liver,
    add_male_organs,
    add_pancreas,
    add_spleen,
    add_stomach,
    add_ureter,
    add_urinary_tract,
    add_uterus,
)
from nnunetv2_mip.phantom.shapes import Ellipsoid, Point, Tube, Wobble, rotation

LIVER_SUV, BLOOD_SUV, GREY_SUV = (2.1, 0.3), (1.57, 0.14), (8.0, 2.2)
# Shares of scans whose heart muscle is like blood, patchy, or hot all over.
HEART_SHARES = (0.55, 0.28, 0.17)
# A brain whose label ends this close below the top of the map was cut off by it.
CUT_MM = 24.0
# How often a lesion beside or behind a hot organ is added to a diseased subject.
HIDDEN_CHANCE = 0.5
# The table of `phantom_scanner` begins just behind this.
BACK_Y_MM = 155.0
Organs = dict[str, DistanceField]


def draw_suv(rng: Generator, distribution: tuple[float, float]) -> float:
    """A value of a normal distribution (mean, standard deviation), cut at two deviations."""
    mean, spread = distribution
    return mean + spread * float(np.clip(rng.normal(), -2, 2))


def build_mapped_anatomy(
    organ_map: OrganMap, body: Generator, scan: Generator, has_prostate_labels: bool
) -> Anatomy:
    """Draw a body around the organs of a label map.

    Args:
        body: for what stays between two studies of a patient.
        scan: for what differs between them.
        has_prostate_labels: the map would show a prostate if there were one.
    """
    organs, top_mm = _deformed(organ_map, body)
    cut = "brain" in organs and organ_map.above_mm < CUT_MM
    fat_mm = float(np.clip(body.lognormal(np.log(16), 0.4), 7, 36))
    organs, frame = _laid_down(organs, cut, fat_mm)
    anatomy = Anatomy(scale=(frame.width * frame.depth * frame.height) ** (1 / 3))
    female = "prostate" not in organs and bool(
        body.uniform() < (0.85 if has_prostate_labels else 0.45)
    )
    blood = draw_suv(scan, BLOOD_SUV)
    marrow = float(scan.uniform(1.0, 1.7))
    if scan.uniform() < 0.12:  # activated, as after growth factors
        marrow *= float(scan.uniform(1.6, 2.4))

    trunk_organs = [o for name, o in organs.items() if name not in ("gland", "prostate", "brain")]
    heads = [organs["brain"]] if "brain" in organs else []
    # A column stands upright: where a head is held aslant, the neck leads to it.
    course = [frame.at(0, y, z) for y, z in ((8, 795), (4, 845), (-4, 895))]
    neck = [Tube(course, (49 * frame.width, 46 * frame.width, 46 * frame.width))]
    add_trunk(
        anatomy, frame, body, scan, fat_mm, female,
        [o.grown(min(10 + fat_mm, 28)) for o in trunk_organs] + [h.grown(13) for h in heads] + neck,
        [o.grown(8) for o in trunk_organs] + [h.grown(10) for h in heads] + neck,
    )  # fmt: skip
    add_vessels(anatomy, frame, blood)
    add_skeleton(anatomy, frame, body, scan, marrow)
    _add_head(anatomy, frame, organs, body, scan)
    add_pancreas(anatomy, frame, scan)
    add_bowel(anatomy, frame, body, scan)
    _add_trunk_organs(anatomy, frame, organs, body, scan, blood)
    _add_urinary_tract(anatomy, frame, organs, body, scan, female)
    add_distractors(anatomy, frame, scan)
    add_sites(anatomy, frame)
    _clear_sites(anatomy, organs)
    _add_hidden_sites(anatomy, organs, frame.at(0, 0, 419)[0])

    anatomy.top_mm = frame.at(0, 0, 1030)[2] + float(scan.uniform(-55, 20))
    if "brain" in organs and cut:
        top_mm = float(organs["brain"].points[:, 2].max())
    anatomy.top_mm = min(anatomy.top_mm, top_mm)
    anatomy.bottom_mm = frame.at(0, 0, float(scan.uniform(-30, 50)))[2]
    return anatomy


def _deformed(organ_map: OrganMap, body: Generator) -> tuple[Organs, float]:
    """The map's organs as solids of a body of its own, and the height (mm) where the map ends.

    The origin is where the phantom has it: in the midline, at the level of the upper thighs.
    """
    scale = np.clip(body.normal(1.0, 0.045, 3), 0.9, 1.1)  # x, y, z
    mirrored = bool(body.uniform() < 0.5)
    wobble = Wobble.draw(body, 2.5, 190)
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
    shift = -np.array(plain.at(0, 0, 636))
    shift[2] = -plain.at(0, 0, 0)[2]
    moved = {}
    for name, organ in organs.items():
        if name in ("brain", "gland"):
            organ = _turned_head(organ, organs, mirrored, head_scale)
        corner = tuple(np.array(organ.corner) + shift)
        moved[name] = replace(organ, corner=corner, wobbles=(wobble,))
    return moved, float(top_mm + shift[2])


def _laid_down(organs: Organs, cut: bool, fat_mm: float) -> tuple[Organs, FittedFrame]:
    """The organs, moved so that the back rests on the table, and their frame."""
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
    """An organ of the head, scaled about where the brain's base or the glands are, or mirrored."""
    about = organs.get("brain", organs.get("gland")).points
    pivot = np.array([*np.percentile(about, 50, axis=0)[:2], about[:, 2].min()])
    corner = pivot + (np.array(organ.corner) - pivot) * scale
    spacing = np.array(organ.spacing) * scale
    field = organ.field
    if mirrored:
        end = corner[0] + (field.shape[2] - 1) * spacing[0]
        corner[0] = 2 * pivot[0] - end
        field = np.ascontiguousarray(field[:, :, ::-1])
    return replace(organ, field=field, corner=tuple(corner), spacing=tuple(spacing))


def _add_head(
    anatomy: Anatomy, frame: FittedFrame, organs: Organs, body: Generator, scan: Generator
) -> None:
    if "brain" not in organs:
        add_brain(anatomy, frame, body, scan)
        add_face(anatomy, frame, scan)
        return
    add_face(anatomy, frame, scan)
    if "gland" in organs:
        anatomy.parts = [part for part in anatomy.parts if part.name != "gland"]
    brain, grey = organs["brain"], draw_suv(scan, GREY_SUV)
    anatomy.add("skull", brain.grown(7), 0.7, 800)
    anatomy.add("brain", brain.grown(1), grey, 38, texture=0.11)
    # Cortex folds: the white matter's surface is uneven.
    folds = (Wobble.draw(body, 2.5, 34), *brain.wobbles)
    white = replace(brain.grown(-11), wobbles=folds)
    anatomy.add("white matter", white, 0.45 * grey, 32, texture=0.12)
    points = brain.points
    middle = np.array([np.percentile(points[:, k], p) for k, p in enumerate((50, 50, 40))])
    for side in (-1, 1):
        nucleus = Ellipsoid(tuple(middle + [side * 17 * frame.width, -4, 0]), frame.semi(8, 20, 11))
        anatomy.add("basal ganglia", nucleus, 1.05 * grey, 38, texture=0.1)
    if "gland" in organs:
        anatomy.add("gland", organs["gland"], float(scan.uniform(1.1, 2.0)), 40, texture=0.15)


def _add_trunk_organs(
    anatomy: Anatomy,
    frame: FittedFrame,
    organs: Organs,
    body: Generator,
    scan: Generator,
    blood: float,
) -> None:
    """Lungs, heart, liver, spleen and stomach: the map's, or else the phantom's own."""
    if "lung" in organs:
        anatomy.add("lung", organs["lung"], LUNG_SUV, LUNG_HU, texture=0.25)
    else:
        add_lungs(anatomy, frame, body)
    liver = draw_suv(scan, LIVER_SUV)
    if "liver" in organs:
        anatomy.add("liver", organs["liver"], liver, 105, texture=0.05)
    else:
        add_liver(anatomy, frame, body, scan)
    if "spleen" in organs:
        spleen = liver * float(scan.uniform(0.72, 1.0))
        anatomy.add("spleen", organs["spleen"], spleen, 110, texture=0.05)
    else:
        add_spleen(anatomy, frame, body, scan)
    if "stomach" in organs:
        anatomy.add("stomach", organs["stomach"], float(scan.uniform(1.1, 2.6)), 40, texture=0.25)
        anatomy.add("stomach lumen", organs["stomach"].grown(-9), 0.7, 10, texture=0.2)
    else:
        add_stomach(anatomy, frame, body, scan)
    if "heart" in organs:
        _add_mapped_heart(anatomy, organs["heart"], scan, blood)
    else:
        add_heart(anatomy, frame, body, scan, blood)


def _add_mapped_heart(
    anatomy: Anatomy, heart: DistanceField, scan: Generator, blood: float
) -> None:
    """Blood in the map's heart, and the left ventricle's wall at its left, front and bottom."""
    anatomy.add("heart", heart, blood, 130, texture=0.1)
    points = heart.points
    low, high = np.percentile(points, (2, 98), axis=0)
    size = float(np.clip(np.prod(high - low) ** (1 / 3) / 105, 0.85, 1.1))
    centre = points.mean(0) + (high - low) * [0.17, -0.02, -0.10]
    turn = rotation(degrees_x=-38, degrees_z=-48) @ rotation(degrees_x=90)
    semi = tuple(size * s for s in (31, 31, 43))
    muscle = Common([Ellipsoid(tuple(centre), semi, turn), heart.grown(3)])
    kind = int(scan.choice(3, p=HEART_SHARES))
    if kind == 0:
        suv, texture = blood * float(scan.uniform(1.0, 1.4)), 0.12
    elif kind == 1:
        suv, texture = float(scan.uniform(2.5, 6.0)), 0.4
    else:
        suv, texture = float(scan.uniform(6.0, 14.0)), 0.14
    anatomy.add("myocardium", muscle, suv, 110, texture=texture)
    # The cavity is open towards the valves.
    axis = turn[:, 2] * (1 if turn[0, 2] < 0 else -1)
    cavity = Ellipsoid(tuple(centre + 12 * size * axis), (19 * size, 19 * size, 38 * size), turn)
    anatomy.add("heart", Common([cavity, heart.grown(3)]), blood, 150, texture=0.1)


def _add_urinary_tract(
    anatomy: Anatomy,
    frame: FittedFrame,
    organs: Organs,
    body: Generator,
    scan: Generator,
    female: bool,
) -> None:
    """Kidneys, ureters, bladder and what lies around it."""
    if "kidney" not in organs or "bladder" not in organs:
        add_urinary_tract(anatomy, frame, body, scan, female)
        return
    cortex = float(scan.uniform(1.8, 3.6))
    urine = float(np.exp(scan.uniform(np.log(6), np.log(30))))
    kidney, bladder = organs["kidney"], organs["bladder"]
    anatomy.add("kidney", kidney, cortex, 170, texture=0.15)
    spots, pool = kidney.points, bladder.points
    midline = frame.at(0, 0, 419)[0]
    for side in (-1, 1):
        one = spots[(spots[:, 0] - midline) * side > 0]
        if len(one) < 0.1 * len(spots):  # taken out, or never there
            continue
        centre = one.mean(0)
        tilt = rotation(degrees_y=side * 12)
        hilum = centre + tilt @ np.array([-side * 9.0, -4.0, -2.0])
        add_calyces(anatomy, scan, side, hilum, tilt, urine)
        end = pool.mean(0) + [side * 0.8 * pool[:, 0].std() * 2, 8, -5]
        add_ureter(anatomy, frame, scan, side, hilum, tuple(end), urine)
    if female:
        add_uterus(anatomy, frame, scan)
    anatomy.add("bladder", bladder, urine, 8, texture=0.03)
    if not female:
        prostate = organs.get("prostate")
        if prostate is None:
            prostate = Ellipsoid(frame.at(0, -18, 138), frame.semi(19, 15, 15))
        anatomy.add("prostate", prostate, PROSTATE_SUV, 45, texture=0.2)
        anatomy.add("bladder", bladder, urine, 8, texture=0.03)
        add_male_organs(anatomy, frame, scan, urine)


def _clear_sites(anatomy: Anatomy, organs: Organs) -> None:
    """Move lymph node stations out of the organs that the map has where the phantom has none."""
    blockers = [o for name, o in organs.items() if name not in ("gland", "prostate")]
    for site in ("mediastinum", "retroperitoneum", "iliac", "groin", "neck", "supraclavicular",
                 "axilla"):  # fmt: skip
        anatomy.sites[site] = [pushed_out(p, blockers, 6.0) for p in anatomy.sites[site]]


def _add_hidden_sites(anatomy: Anatomy, organs: Organs, midline_x: float) -> None:
    """Places beside, behind and above hot organs, clear of all of them."""
    sites: dict[str, list[Point]] = {}
    if "bladder" in organs:
        low, high, middle = _extent(organs["bladder"])
        sites["beside bladder"] = [
            (low[0] - 15, middle[1] + 14, middle[2]),
            (high[0] + 15, middle[1] + 14, middle[2]),
        ]
        sites["behind bladder"] = [(middle[0], high[1] + 16, middle[2])]
    if "heart" in organs:
        low, high, middle = _extent(organs["heart"])
        sites["behind heart"] = [(middle[0] - 4, high[1] + 9, middle[2] + d) for d in (-12, 12)]
    if "kidney" in organs:
        spots = organs["kidney"].points
        for side in (-1, 1):
            one = spots[(spots[:, 0] - midline_x) * side > 0]
            if len(one) < 0.1 * len(spots):
                continue
            low, high = np.percentile(one, (2, 98), axis=0)
            inner = low[0] if side > 0 else high[0]
            sites.setdefault("beside kidney", []).append(
                (inner - side * 12, one[:, 1].mean() - 10, one[:, 2].mean() + 10)
            )
            # The adrenal glands, behind liver and stomach.
            sites.setdefault("above kidney", []).append(
                (one[:, 0].mean() - side * 10, one[:, 1].mean() - 8, high[2] + 12)
            )
    if "brain" in organs:
        low, high, middle = _extent(organs["brain"])
        sites["beside brain"] = [(x, middle[1] + 10, middle[2]) for x in (low[0] - 5, high[0] + 5)]
    hot = [organs[o] for o in ("bladder", "kidney", "heart", "liver", "spleen") if o in organs]
    for name, points in sites.items():
        anatomy.sites[name] = [pushed_out(p, hot, 8.0) for p in points]
    found = tuple(
        name for name in anatomy.sites if name.split()[0] in ("beside", "behind", "above")
    )
    anatomy.hidden_sites = tuple(name for name in found if anatomy.sites[name])
    anatomy.hidden_chance = HIDDEN_CHANCE


def _extent(organ: DistanceField) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    points = organ.points
    low, high = np.percentile(points, (2, 98), axis=0)
    return low, high, points.mean(0)
