"""Whole-body FDG PET/CT phantoms with known lesions, as reproducible as a file.

Subject `index` of cohort `seed` is the same person, scan and disease whatever the size of the
cohort, and the same anatomy at every spacing (only the noise belongs to the grid). A cohort is
written in the layout of the autoPET TCIA collection.

Truth is drawn as a reader with a contouring tool would: for every lesion the iso-contour at 45 %
of its contrast over what surrounds it, in the image after the scanner's blur and before its noise.
A cold necrotic core is therefore outside, and the truth is the metabolically active tumour.

The difficulty is fixed: `PHANTOM_VERSION` changes whenever a phantom of the same seed changes.
"""

import shutil
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import write_json
from nnunetv2_mip.phantom_anatomy import Anatomy, build_anatomy
from nnunetv2_mip.phantom_lesions import Lesion, disease_pattern, draw_lesions
from nnunetv2_mip.phantom_shapes import Canvas, Ellipsoid
from nnunetv2_mip.volumes import SourceGrid, write_volume

PHANTOM_VERSION = 1
DEFAULT_SPACING_MM = 4.0
SPACING_RANGE_MM = (1.5, 12.0)
# Width and depth of the field of view.
FIELD_MM = 640.0
CONTOUR_FRACTION = 0.45
# A lesion whose contrast never reaches this is seen by no reader, and is left out of the image.
VISIBLE_CONTRAST_SUV = 0.7
# SUV are stored in steps of 2^-10, as a scanner's 16-bit values are; it also compresses.
SUV_STEP = 2.0**-10
COHORT_FILE = "cohort.json"


@dataclass(frozen=True)
class PhantomStudy:
    """One simulated PET/CT study.

    Attributes:
        suv: float32 (z, y, x) LPS, SUV.
        ct: int16 (z, y, x), HU, on the same grid.
        seg: uint8 (z, y, x), 1 in lesions.
        body: bool (z, y, x), the body without air around it.
        grid: the voxel grid.
        patient, study: folder names in the autoPET layout.
        pattern: "healthy", or the pattern of disease.
        lesions: one dict a lesion: kind, site, volume_ml, suv_max, centre_mm (x, y, z physical).
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


def body_index(seed: int, index: int) -> int:
    """Whose body subject `index` has: its own, or that of `index - 1`, whose second study it is.

    Every fourth subject is a second study with probability one half.
    """
    second = index % 4 == 3 and np.random.default_rng([seed, 4, index]).uniform() < 0.5
    return index - 1 if second else index


def folder_names(seed: int, index: int) -> tuple[str, str]:
    """Patient and study folder in the autoPET layout; the study's name has spaces, as there."""
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
    seed: int, index: int, spacing_mm: float = DEFAULT_SPACING_MM
) -> PhantomStudy:
    """Simulate a study.

    Args:
        seed: of the cohort, non-negative.
        index: of the subject in the cohort, from 0.
        spacing_mm: isotropic voxel size, 1.5 to 12 mm.

    Raises:
        MipError: a seed, index or spacing out of range.
    """
    _check(seed, index, spacing_mm)
    owner = body_index(seed, index)
    body_rng = np.random.default_rng([seed, 0, owner])
    scan_rng, lesion_rng, noise_rng = (
        np.random.default_rng([seed, stream, index]) for stream in (1, 2, 6)
    )
    anatomy = build_anatomy(body_rng, scan_rng)
    pattern = disease_pattern(seed, index)
    lesions = draw_lesions(pattern, anatomy, lesion_rng)

    canvas = _canvas(anatomy, spacing_mm)
    body, texture = _paint(canvas, anatomy, scan_rng)
    psf_mm = float(scan_rng.uniform(4.8, 6.2)) / 2.3548
    labels, facts = _paint_lesions(canvas, lesions, body, texture, psf_mm)
    suv = _scan_pet(canvas, psf_mm, scan_rng, noise_rng)
    ct = _scan_ct(canvas, noise_rng)

    seg = (labels > 0).astype(np.uint8)
    grid = _grid(canvas, body_rng)
    patient, study = folder_names(seed, index)
    described = _describe(facts, labels, suv, grid)
    return PhantomStudy(suv, ct, seg, body, grid, patient, study, pattern, described)


def _check(seed: int, index: int, spacing_mm: float) -> None:
    low, high = SPACING_RANGE_MM
    if not low <= spacing_mm <= high:
        raise MipError(f"spacing {spacing_mm:g} mm: choose between {low:g} and {high:g} mm")
    if seed < 0 or index < 0:
        raise MipError(f"seed {seed}, subject {index}: both must be 0 or more")


def _canvas(anatomy: Anatomy, spacing_mm: float) -> Canvas:
    across = 2 * round(FIELD_MM / spacing_mm / 2)
    slices = int((anatomy.top_mm - anatomy.bottom_mm) / spacing_mm)
    edge = -(across - 1) / 2 * spacing_mm
    return Canvas((slices, across, across), spacing_mm, (edge, edge, anatomy.bottom_mm))


def _paint(
    canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Paint the healthy body; gives the body's mask and the uptake texture (unit spread)."""
    texture = 0.75 * canvas.texture(rng, 13.0) + 0.66 * canvas.texture(rng, 34.0)
    box, filled = canvas.occupancy(anatomy.outline)
    body = np.zeros(canvas.shape, np.float32)
    body[box] = filled
    for part in anatomy.parts:
        found = canvas.occupancy(part.solids)
        if found is None:
            continue
        box, filled = found
        if part.inside:
            filled = filled * body[box]
        if part.suv is not None:
            uptake = part.suv * np.clip(1 + part.texture * texture[box], 0.3, 2.5)
            canvas.suv[box] += filled * (uptake - canvas.suv[box])
        if part.hu is not None:
            canvas.hu[box] += filled * (part.hu - canvas.hu[box])
    # The table, seen by the CT only.
    y = canvas.axes[1][None, :, None]
    table = (np.abs(y - 170) < 12) & (np.abs(canvas.axes[2]) < 210) & (body < 0.5)
    canvas.hu[np.broadcast_to(table, canvas.shape)] = -650
    return body > 0.5, texture


def _paint_lesions(
    canvas: Canvas,
    lesions: list[Lesion],
    body: np.ndarray,
    texture: np.ndarray,
    psf_mm: float,
) -> tuple[np.ndarray, list[Lesion]]:
    """Add the lesions; gives the label volume (0, or 1 + place in the list) and the painted ones."""
    labels, painted = np.zeros(canvas.shape, np.uint8), []
    for lesion in lesions:
        found = canvas.occupancy(lesion.blobs, margin_mm=4 * psf_mm)
        if found is None:
            continue
        box, filled = found
        filled = filled * body[box]
        uptake = lesion.suv * np.clip(1 + lesion.texture * texture[box], 0.5, 1.5)
        if lesion.core is not None:
            uptake *= 1 - 0.93 * _occupancy_in(canvas, lesion.core, box)
        added = filled * np.maximum(uptake - canvas.suv[box], 0)
        seen = gaussian_filter(added, psf_mm / canvas.spacing_mm, mode="constant")
        if seen.max(initial=0) < VISIBLE_CONTRAST_SUV:
            continue
        drawn = (seen >= CONTOUR_FRACTION * seen.max()) & body[box]
        if not drawn.any():
            continue
        painted.append(lesion)
        labels[box][drawn & (labels[box] == 0)] = len(painted)
        canvas.suv[box] += added
        # The core is replaced, not covered: no fat or lung remains inside a mass.
        if lesion.core is not None:
            cold = _occupancy_in(canvas, lesion.core, box) * filled
            canvas.suv[box] += cold * (0.07 * lesion.suv - canvas.suv[box])
        canvas.hu[box] += filled * (45 - canvas.hu[box])
    return labels, painted


def _occupancy_in(canvas: Canvas, solid: Ellipsoid, box) -> np.ndarray:
    z, y, x = (canvas.axes[axis][box[axis]] for axis in range(3))
    distance = solid.distance(x[None, None, :], y[None, :, None], z[:, None, None])
    return np.clip(0.5 - distance / canvas.spacing_mm, 0, 1).astype(np.float32)


def _scan_pet(
    canvas: Canvas,
    psf_mm: float,
    scan_rng: np.random.Generator,
    noise_rng: np.random.Generator,
) -> np.ndarray:
    """Blur and noise.

    Noise is log-normal with a variance that grows in proportion to the signal (Poisson counts),
    correlated over about a resolution element, and stronger in the outermost slices, where few
    lines of response cross: an iterative reconstruction gives no negative value either.
    """
    sigma = psf_mm / canvas.spacing_mm
    suv = gaussian_filter(canvas.suv, sigma, mode="nearest")
    level = float(scan_rng.uniform(0.14, 0.26))
    noise = noise_rng.standard_normal(canvas.shape, dtype=np.float32)
    width = 0.85 * sigma
    noise = gaussian_filter(noise, width, mode="wrap")
    noise /= noise.std()
    spread = level / np.sqrt(suv + 0.12)
    depth = np.arange(canvas.shape[0]) * canvas.spacing_mm
    edge = np.minimum(depth, depth[::-1])
    spread *= (1 + 2.2 * np.exp(-edge / 9.0)).astype(np.float32)[:, None, None]
    np.minimum(spread, 0.9, out=spread)
    suv += 0.004  # scatter
    suv *= np.exp(noise * spread - 0.5 * spread**2)
    return np.rint(suv / SUV_STEP).astype(np.float32) * np.float32(SUV_STEP)


def _scan_ct(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    hu = gaussian_filter(canvas.hu, 1.2 / canvas.spacing_mm, mode="nearest")
    hu += 12 * rng.standard_normal(canvas.shape, dtype=np.float32)
    return np.rint(np.clip(hu, -1024, 3000)).astype(np.int16)


def _grid(canvas: Canvas, rng: np.random.Generator) -> SourceGrid:
    z, y, x = canvas.shape
    # Scanners put the origin at the table's reference point, somewhere along the body.
    table = np.round(rng.uniform((-8, 130, -1250), (8, 190, -950)), 1)
    origin = tuple(float(c) for c in np.array(canvas.corner) + table - [0, 320, 0])
    identity = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    return SourceGrid((x, y, z), (canvas.spacing_mm,) * 3, origin, identity)


def _describe(
    lesions: list[Lesion], labels: np.ndarray, suv: np.ndarray, grid: SourceGrid
) -> list[dict]:
    """What `cohort.json` says of each lesion; one swallowed by another has volume 0 and is left."""
    described = []
    for number, lesion in enumerate(lesions, start=1):
        place = np.flatnonzero(labels == number) if len(lesions) < 1 else np.argwhere(labels == number)
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


def write_study(seed: int, index: int, spacing_mm: float, out: Path) -> dict:
    """Simulate one subject, write its three volumes below `out`, and give its cohort entry."""
    study = simulate_subject(seed, index, spacing_mm)
    folder = Path(out) / study.patient / study.study
    write_volume(study.suv, study.grid, folder / "SUV.nii.gz")
    write_volume(study.ct, study.grid, folder / "CTres.nii.gz")
    write_volume(study.seg, study.grid, folder / "SEG.nii.gz")
    return {
        "index": index,
        "patient": study.patient,
        "study": study.study,
        "pattern": study.pattern,
        "lesion_ml": round(float(study.seg.sum()) * study.grid.voxel_ml, 3),
        "lesions": study.lesions,
    }


def write_cohort(
    out: Path | str,
    n: int,
    seed: int = 0,
    spacing_mm: float = DEFAULT_SPACING_MM,
    progress: Callable | None = None,
    executor: Executor | None = None,
) -> Path:
    """Write subjects 0 … n-1 of a cohort in the autoPET layout, with `cohort.json` beside them.

    Args:
        out: folder that does not exist or is empty; it appears when everything is written.
        n: studies (a patient may have two).
        seed, spacing_mm: see `simulate_subject`.
        progress: wraps the iteration over the studies, called as `progress(iterator, total=n)`
            (tqdm fits).
        executor: runs the studies side by side; without it one after the other.

    Returns:
        The folder.

    Raises:
        MipError: `out` is not empty, `n` below 1, or an option out of range.
    """
    out = Path(out)
    if n < 1:
        raise MipError(f"{n} phantoms: choose 1 or more")
    _check(seed, 0, spacing_mm)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise MipError(f"{out}: exists and is not an empty folder; choose another or remove it")
    partial = out.with_name(out.name + ".partial")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    try:
        arguments = ([seed] * n, range(n), [spacing_mm] * n, [partial] * n)
        entries = (executor.map if executor else map)(write_study, *arguments)
        studies = list(progress(entries, total=n) if progress else entries)
        write_json(
            partial / COHORT_FILE,
            {
                "phantom_version": PHANTOM_VERSION,
                "seed": seed,
                "spacing_mm": spacing_mm,
                "studies": studies,
            },
        )
        if out.exists():
            out.rmdir()
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out
