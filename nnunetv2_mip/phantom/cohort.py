"""Whole-body FDG PET/CT phantoms with known lesions, as reproducible as a file.

Subject `index` of cohort `seed` is the same person, scan and disease whatever the size of the
cohort, and the same anatomy at every spacing (only the noise belongs to the grid). A cohort is
written in the layout of the autoPET TCIA collection, or as inputs of the challenge container.
Bodies are the phantom's own, or are built around the real organs of label maps (`phantom_mapped`).

Truth is drawn as a reader with a contouring tool would: for every lesion the iso-contour at 45 %
of its contrast over what surrounds it, in the image after the scanner's blur and before its noise.
A cold necrotic core is therefore outside, and the truth is the metabolically active tumour.

The difficulty is fixed: `PHANTOM_VERSION` changes whenever a phantom of the same seed changes.
"""

import shutil
import uuid
from collections.abc import Callable
from concurrent.futures import Executor, wait
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import write_json
from nnunetv2_mip.grand_challenge.layout import CLICKS_FILE, CT_FOLDER, IMAGE_SUFFIX, PET_FOLDER
from nnunetv2_mip.io.clicks import write_clicks
from nnunetv2_mip.io.study_layouts import case_name
from nnunetv2_mip.io.volumes import SourceGrid, write_volume
from nnunetv2_mip.phantom.anatomy import build_anatomy
from nnunetv2_mip.phantom.body import Anatomy
from nnunetv2_mip.phantom.clicks import preset_clicks
from nnunetv2_mip.phantom.label_maps import OrganMaps, check_maps, choose_map, read_organ_map
from nnunetv2_mip.phantom.lesions import Lesion, disease_pattern, draw_lesions
from nnunetv2_mip.phantom.mapped_anatomy import build_mapped_anatomy
from nnunetv2_mip.phantom.scanner import (
    canvas_for,
    paint_anatomy,
    paint_lesions,
    scan_ct,
    scan_pet,
)
from nnunetv2_mip.phantom.shapes import Canvas

PHANTOM_VERSION = 1
# The same for bodies built around label maps.
MAPPED_VERSION = 1
DEFAULT_SPACING_MM = 4.0
SPACING_RANGE_MM = (1.5, 12.0)
COHORT_FILE = "cohort.json"
AUTOPET, GRAND_CHALLENGE = "autopet", "grand-challenge"
LAYOUTS = (AUTOPET, GRAND_CHALLENGE)


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
        organ_map: name of the label map it was built on, None without one.
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
    seed: int,
    index: int,
    spacing_mm: float = DEFAULT_SPACING_MM,
    organs: OrganMaps | None = None,
) -> PhantomStudy:
    """Simulate a study.

    Args:
        seed: of the cohort, non-negative.
        index: of the subject in the cohort, from 0.
        spacing_mm: isotropic voxel size, 1.5 to 12 mm.
        organs: label maps to build the body on; None: the phantom's own anatomy. The maps are
            dealt out in an order that depends on the seed and on their names.

    Raises:
        MipError: a seed, index or spacing out of range, or a label map that cannot be used.
    """
    _check(seed, index, spacing_mm)
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
    lesions = draw_lesions(pattern, anatomy, lesion_rng)

    canvas = canvas_for(anatomy, spacing_mm)
    body, texture = paint_anatomy(canvas, anatomy, scan_rng)
    psf_mm = float(scan_rng.uniform(4.8, 6.2)) / 2.3548
    labels, facts = paint_lesions(canvas, lesions, body, texture, psf_mm)
    suv = scan_pet(canvas, psf_mm, scan_rng, noise_rng)
    ct = scan_ct(canvas, noise_rng)

    seg = (labels > 0).astype(np.uint8)
    grid = _grid(canvas, body_rng)
    patient, study = folder_names(seed, index)
    described = _describe(facts, labels, suv, grid)
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


def _check(seed: int, index: int, spacing_mm: float) -> None:
    low, high = SPACING_RANGE_MM
    if not low <= spacing_mm <= high:
        raise MipError(f"spacing {spacing_mm:g} mm: choose between {low:g} and {high:g} mm")
    if seed < 0 or index < 0:
        raise MipError(f"seed {seed}, subject {index}: both must be 0 or more")


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


def write_study(
    seed: int,
    index: int,
    spacing_mm: float,
    out: Path,
    organs: OrganMaps | None = None,
    layout: str = AUTOPET,
    clicks: int | None = None,
) -> dict:
    """Simulate one subject, write its files below `out`, and give its cohort entry."""
    study = simulate_subject(seed, index, spacing_mm, organs)
    if layout == AUTOPET:
        folder = Path(out) / study.patient / study.study
        write_volume(study.suv, study.grid, folder / "SUV.nii.gz")
        write_volume(study.ct, study.grid, folder / "CTres.nii.gz")
        write_volume(study.seg, study.grid, folder / "SEG.nii.gz")
    else:
        _write_challenge_study(study, seed, index, Path(out), clicks)
    entry = {
        "index": index,
        "patient": study.patient,
        "study": study.study,
        "pattern": study.pattern,
        "lesion_ml": round(float(study.seg.sum()) * study.grid.voxel_ml, 3),
        "lesions": study.lesions,
    }
    return entry | ({"organ_map": study.organ_map} if study.organ_map else {})


def _write_challenge_study(
    study: PhantomStudy, seed: int, index: int, out: Path, clicks: int | None
) -> None:
    """`<case>/input`, as the platform mounts it, and `<case>/SEG.mha`, the truth, beside it."""
    folder = out / case_name(study.patient, study.study)
    # Random names that differ, as the platform gives them.
    ct, pet = (
        uuid.UUID(bytes=np.random.default_rng([seed, 7, index, kind]).bytes(16), version=4)
        for kind in (0, 1)
    )
    inputs = folder / "input"
    write_volume(study.ct, study.grid, inputs / CT_FOLDER / f"{ct}{IMAGE_SUFFIX}")
    write_volume(study.suv, study.grid, inputs / PET_FOLDER / f"{pet}{IMAGE_SUFFIX}")
    if clicks is not None:
        found = preset_clicks(study.suv, study.seg, study.grid.spacing_zyx, clicks)
        write_clicks(found, study.grid, inputs / CLICKS_FILE)
    write_volume(study.seg, study.grid, folder / f"SEG{IMAGE_SUFFIX}")


def write_cohort(
    out: Path | str,
    n: int,
    seed: int = 0,
    spacing_mm: float = DEFAULT_SPACING_MM,
    progress: Callable | None = None,
    executor: Executor | None = None,
    organs: OrganMaps | None = None,
    layout: str = AUTOPET,
    clicks: int | None = None,
) -> Path:
    """Write subjects 0 … n-1 of a cohort, with `cohort.json` beside them.

    Args:
        out: folder that does not exist or is empty; it appears when everything is written.
        n: studies (a patient may have two).
        seed, spacing_mm, organs: see `simulate_subject`.
        progress: wraps the iteration over the studies, called as `progress(iterator, total=n)`
            (tqdm fits).
        executor: runs the studies side by side; without it one after the other.
        layout: one of `LAYOUTS`: the autoPET TCIA collection, or `<case>/input` of a run of the
            challenge container with the truth beside it.
        clicks: with the latter, so many clicks of each kind a study (autoPET IV); None: no file.

    Returns:
        The folder.

    Raises:
        MipError: `out` is not empty, `n` below 1, an option out of range, or a label map that
            cannot be used.
    """
    out = Path(out).absolute()
    if n < 1:
        raise MipError(f"{n} phantoms: choose 1 or more")
    if layout not in LAYOUTS:
        raise MipError(f"layout {layout!r}: choose one of {', '.join(LAYOUTS)}")
    if clicks is not None and (clicks < 0 or layout != GRAND_CHALLENGE):
        raise MipError(f"{clicks} clicks: 0 or more, with the layout {GRAND_CHALLENGE}")
    _check(seed, 0, spacing_mm)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise MipError(f"{out}: exists and is not an empty folder; choose another or remove it")
    partial = out.with_name(out.name + ".partial")
    try:
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
    except OSError as error:
        raise MipError(f"{out}: cannot be written ({error.strerror}); choose another") from None
    jobs = []
    try:
        if organs:
            owners = {body_index(seed, k) for k in range(n)}
            check_maps(organs, seed, owners, executor.map if executor else map)
        if executor:
            jobs = [
                executor.submit(write_study, seed, k, spacing_mm, partial, organs, layout, clicks)
                for k in range(n)
            ]
            entries = (job.result() for job in jobs)
        else:
            entries = (
                write_study(seed, k, spacing_mm, partial, organs, layout, clicks) for k in range(n)
            )
        studies = list(progress(entries, total=n) if progress else entries)
        content = {
            **({"mapped_version": MAPPED_VERSION} if organs else {}),
            "phantom_version": PHANTOM_VERSION,
            "seed": seed,
            "spacing_mm": spacing_mm,
            "studies": studies,
        }
        write_json(partial / COHORT_FILE, content)
        if out.exists():
            out.rmdir()
        partial.rename(out)
    finally:
        # Nothing may still write into the folder when it is removed.
        for job in jobs:
            job.cancel()
        wait(jobs)
        shutil.rmtree(partial, ignore_errors=True)
    return out
