"""Simulation of one PET/CT study: PET, CT and lesion mask of a subject of a cohort."""

from dataclasses import dataclass

import numpy as np

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.grid import SourceGrid
from nnunetv2_mip.phantom.anatomy import build_anatomy
from nnunetv2_mip.phantom.body import Anatomy
from nnunetv2_mip.phantom.label_maps import OrganMaps, choose_map, read_organ_map
from nnunetv2_mip.phantom.lesions import Lesion, disease_pattern, draw_lesions
from nnunetv2_mip.phantom.mapped_anatomy import build_mapped_anatomy
from nnunetv2_mip.phantom.masses import draw_wide_lesions, draw_wide_pattern
from nnunetv2_mip.phantom.scanner import canvas_for, paint_anatomy, paint_lesions, scan_ct, scan_pet
from nnunetv2_mip.phantom.shapes import Canvas, point_of
from nnunetv2_mip.phantom.wide_physiology import add_wide_physiology

PHANTOM_VERSION = 1
# Version of the bodies built around label maps.
MAPPED_VERSION = 1
# Version of the wide variety.
WIDE_VERSION = 1
DEFAULT_SPACING_MM = 4.0
SPACING_RANGE_MM = (1.5, 12.0)
STANDARD, WIDE = "standard", "wide"
VARIETIES = (STANDARD, WIDE)
# Of the wide variety: resolution (full width at half maximum) and relative noise of the scanner.
WIDE_RESOLUTION_MM = (4.2, 8.5)
WIDE_NOISE = (0.07, 0.4)


@dataclass(frozen=True)
class PhantomStudy:
    """Simulated PET/CT study.

    Attributes:
        suv: float32 (z, y, x) LPS, SUV.
        ct: int16 (z, y, x), HU, on the same grid.
        seg: uint8 (z, y, x), 1 in lesions.
        body: bool (z, y, x), the body without the air around it.
        grid: the voxel grid.
        patient, study: folder names in the autoPET layout.
        pattern: "healthy", or the pattern of disease.
        lesions: a dict for each: kind, site, volume_ml, suv_max, centre_mm (x, y, z physical).
        organ_map: name of the label map that the body was built around, None without one.
    """

    suv: np.ndarray
    ct: np.ndarray
    seg: np.ndarray
    body: np.ndarray
    grid: SourceGrid
    patient: str
    study: str
    pattern: str
    lesions: list[dict]
    organ_map: str | None = None


def body_index(seed: int, index: int) -> int:
    """Index of the subject whose body subject `index` has: its own, or the one before.

    With probability one half, every fourth subject is the second study of the patient before.
    """
    second = index % 4 == 3 and np.random.default_rng([seed, 4, index]).uniform() < 0.5
    return index - 1 if second else index


def folder_names(seed: int, index: int) -> tuple[str, str]:
    """Names of patient and study folder in the autoPET layout; the study has spaces, as there."""
    owner = body_index(seed, index)
    rng = np.random.default_rng([seed, 5, owner])
    month, day, year = rng.integers(1, 13), rng.integers(1, 29), rng.integers(2001, 2012)
    number = int(rng.integers(0, 90000)) + (index - owner)
    study = (
        f"{month:02d}-{day:02d}-{year + index - owner}-NA-PET-CT Ganzkoerper  "
        f"primaer mit KM-{number:05d}"
    )
    return f"PETCT_{seed % 65536:04x}{owner:04x}", study


def simulate_subject(
    seed: int,
    index: int,
    spacing_mm: float = DEFAULT_SPACING_MM,
    organs: OrganMaps | None = None,
    variety: str = STANDARD,
) -> PhantomStudy:
    """Simulated study of a subject.

    Args:
        seed: of the cohort, non-negative.
        index: of the subject in the cohort, from 0.
        spacing_mm: isotropic voxel size, 1.5 to 12 mm.
        organs: label maps to build the body around; None: the phantom's own anatomy. Their order
            in the cohort depends on the seed and on their names.
        variety: `standard`, or `wide`: also large masses of low contrast (`phantom.masses`), much
            healthy uptake that resembles disease (`phantom.wide_physiology`), fields of view cut at
            thigh, pelvis, skull or neck, and scanners of other resolution and noise.

    Raises:
        MipError: a seed, index or spacing out of range, or a label map that cannot be used.
    """
    check_subject(seed, index, spacing_mm)
    owner = body_index(seed, index)
    body_rng = np.random.default_rng([seed, 0, owner])
    scan_rng, lesion_rng, noise_rng = (
        np.random.default_rng([seed, stream, index]) for stream in (1, 2, 6)
    )
    if organs is None:
        anatomy, organ_map = build_anatomy(body_rng, scan_rng), None
    else:
        anatomy, organ_map = _mapped_anatomy(seed, owner, organs, body_rng, scan_rng)
    pattern = disease_pattern(seed, index)
    resolution_mm, noise_range = (4.8, 6.2), (0.14, 0.26)
    if variety == WIDE:
        resolution_mm, noise_range = WIDE_RESOLUTION_MM, WIDE_NOISE
        pattern = pattern if pattern == "healthy" else draw_wide_pattern(lesion_rng)
        add_wide_physiology(anatomy, scan_rng)
        _cut_field(anatomy, scan_rng)
        lesions = draw_wide_lesions(pattern, anatomy, lesion_rng)
    else:
        lesions = draw_lesions(pattern, anatomy, lesion_rng)

    canvas = canvas_for(anatomy, spacing_mm)
    body, texture = paint_anatomy(canvas, anatomy, scan_rng)
    psf_mm = float(scan_rng.uniform(*resolution_mm)) / 2.3548
    labels, visible = paint_lesions(canvas, lesions, body, texture, psf_mm)
    suv = scan_pet(canvas, psf_mm, scan_rng, noise_rng, noise_range)
    ct = scan_ct(canvas, noise_rng)

    seg = (labels > 0).astype(np.uint8)
    grid = _grid(canvas, body_rng)
    patient, study = folder_names(seed, index)
    described = _describe(visible, labels, suv, grid)
    return PhantomStudy(suv, ct, seg, body, grid, patient, study, pattern, described, organ_map)


def _mapped_anatomy(
    seed: int,
    owner: int,
    organs: OrganMaps,
    body_rng: np.random.Generator,
    scan_rng: np.random.Generator,
) -> tuple[Anatomy, str]:
    path = choose_map(organs, seed, owner)
    found = read_organ_map(path, organs)
    anatomy = build_mapped_anatomy(found, body_rng, scan_rng, "prostate" in organs.organs)
    return anatomy, path.name


def _cut_field(anatomy: Anatomy, rng: np.random.Generator) -> None:
    """Shorten the scanned stretch of some subjects, at its upper or lower end."""
    height = anatomy.top_mm - anatomy.bottom_mm
    if rng.uniform() < 0.3:
        anatomy.top_mm -= float(rng.uniform(0.02, 0.2)) * height
    if rng.uniform() < 0.15:
        anatomy.bottom_mm += float(rng.uniform(0.05, 0.2)) * height


def check_subject(seed: int, index: int, spacing_mm: float) -> None:
    """Raise MipError where a seed, an index or a spacing is out of range."""
    low, high = SPACING_RANGE_MM
    if not low <= spacing_mm <= high:
        raise MipError(f"spacing {spacing_mm:g} mm: choose between {low:g} and {high:g} mm")
    if seed < 0 or index < 0:
        raise MipError(f"seed {seed}, subject {index}: both must be 0 or more")


def _grid(canvas: Canvas, rng: np.random.Generator) -> SourceGrid:
    z, y, x = canvas.shape
    # Scanners put the origin at the table's reference point, somewhere along the body.
    table = np.round(rng.uniform((-8, 130, -1250), (8, 190, -950)), 1)
    origin = point_of(float(c) for c in np.array(canvas.corner) + table - [0, 320, 0])
    identity = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    return SourceGrid((x, y, z), (canvas.spacing_mm,) * 3, origin, identity)


def _describe(
    lesions: list[Lesion], labels: np.ndarray, suv: np.ndarray, grid: SourceGrid
) -> list[dict]:
    """Entries of the lesions in `cohort.json`; a lesion wholly inside another is left out."""
    described = []
    for number, lesion in enumerate(lesions, start=1):
        place = np.argwhere(labels == number)
        if not len(place):
            continue
        centre = place.mean(0)[::-1] * grid.spacing + np.array(grid.origin)
        described.append(
            {
                "kind": lesion.kind,
                "site": lesion.site,
                "volume_ml": round(len(place) * grid.voxel_ml, 3),
                "suv_max": round(float(suv[tuple(place.T)].max()), 2),
                "centre_mm": [round(float(c), 1) for c in centre],
            }
        )
    return described
