"""Cohorts of simulated whole-body FDG PET/CT studies with known lesions, written to disk.

Subject `index` of cohort `seed` is the same person, scan and disease whatever the size of the
cohort, and the same anatomy at every spacing (only the noise depends on the grid). A cohort is
written in the layout of the autoPET TCIA collection, or as inputs of the challenge container.
Bodies are the phantom's own, or are built around the real organs of label maps
(`phantom.mapped_anatomy`).

Truth is drawn as a reader with a contouring tool would draw it: for every lesion the iso-contour at
45 % of its contrast over its surroundings, in the image after the scanner's blur and before its
noise. A cold necrotic core is therefore outside, and the truth is the metabolically active tumour.
Large masses of the wide variety (`phantom.masses`) are outlined whole, cold parts included.

The difficulty is fixed: `PHANTOM_VERSION` changes whenever a phantom of the same seed changes.
"""

import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import write_json
from nnunetv2_mip.grand_challenge.layout import CLICKS_FILE, CT_FOLDER, IMAGE_SUFFIX, PET_FOLDER
from nnunetv2_mip.io.clicks import write_clicks
from nnunetv2_mip.io.study_layouts import case_name
from nnunetv2_mip.io.volumes import write_volume
from nnunetv2_mip.parallel import for_each
from nnunetv2_mip.phantom.clicks import preset_clicks
from nnunetv2_mip.phantom.label_maps import OrganMaps, check_maps
from nnunetv2_mip.phantom.subject import (
    DEFAULT_SPACING_MM,
    MAPPED_VERSION,
    PHANTOM_VERSION,
    STANDARD,
    VARIETIES,
    WIDE,
    WIDE_VERSION,
    PhantomStudy,
    body_index,
    check_subject,
    simulate_subject,
)
from nnunetv2_mip.wording import counted

COHORT_FILE = "cohort.json"
AUTOPET, GRAND_CHALLENGE = "autopet", "grand-challenge"
LAYOUTS = (AUTOPET, GRAND_CHALLENGE)


def write_study(
    seed: int,
    index: int,
    spacing_mm: float,
    out: Path,
    organs: OrganMaps | None = None,
    layout: str = AUTOPET,
    clicks: int | None = None,
    variety: str = STANDARD,
) -> dict:
    """Entry in `cohort.json` of one subject, which is simulated and written below `out`.

    The arguments are those of `write_cohort`; `index` is the subject's place in the cohort.
    """
    study = simulate_subject(seed, index, spacing_mm, organs, variety)
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
    """Write `<case>/input`, as the platform mounts it, and the truth `<case>/SEG.mha` beside it."""
    folder = out / case_name(study.patient, study.study)
    # Random names, one for each image, as the platform gives them.
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
    processes: int = 1,
    organs: OrganMaps | None = None,
    layout: str = AUTOPET,
    clicks: int | None = None,
    variety: str = STANDARD,
) -> Path:
    """Folder of a cohort: subjects 0 … n-1, with `cohort.json` beside them.

    Args:
        out: folder that does not exist or is empty; it appears when everything is written.
        n: studies (a patient may have two).
        seed, spacing_mm, organs, variety: see `simulate_subject`.
        progress: wraps the iteration over the studies, called as `progress(iterator, total=n)`
            (tqdm fits).
        processes: worker processes; the files do not depend on their number.
        layout: one of `LAYOUTS`: the autoPET TCIA collection, or `<case>/input` of a run of the
            challenge container with the truth beside it.
        clicks: clicks of each kind in a study of the second layout (autoPET IV); None: no file.

    Raises:
        MipError: `out` is not empty, `n` below 1, an option out of range, or a label map that
            cannot be used.
    """
    if n < 1:
        raise MipError(f"{n} phantoms: choose 1 or more")
    if layout not in LAYOUTS:
        raise MipError(f"layout {layout!r}: choose one of {', '.join(LAYOUTS)}")
    if variety not in VARIETIES:
        raise MipError(f"variety {variety!r}: choose one of {', '.join(VARIETIES)}")
    if clicks is not None and (clicks < 0 or layout != GRAND_CHALLENGE):
        raise MipError(f"{counted(clicks, 'click')}: 0 or more, with the layout {GRAND_CHALLENGE}")
    check_subject(seed, 0, spacing_mm)
    out = Path(out).absolute()
    with _whole_folder(out) as folder:
        if organs:
            check_maps(organs, seed, {body_index(seed, k) for k in range(n)}, processes)
        write = partial(
            write_study,
            seed,
            spacing_mm=spacing_mm,
            out=folder,
            organs=organs,
            layout=layout,
            clicks=clicks,
            variety=variety,
        )
        # Closed before the folder is removed after an error: no worker may still write into it.
        with closing(for_each(write, range(n), processes, in_order=True)) as results:
            entries = (entry for _, entry in results)
            studies = list(progress(entries, total=n) if progress else entries)
        content = {
            **({"mapped_version": MAPPED_VERSION} if organs else {}),
            **({"variety": variety, "variety_version": WIDE_VERSION} if variety == WIDE else {}),
            "phantom_version": PHANTOM_VERSION,
            "seed": seed,
            "spacing_mm": spacing_mm,
            "studies": studies,
        }
        write_json(folder / COHORT_FILE, content)
    return out


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """New folder beside `out` that becomes `out` at the end, or is removed after an error.

    Raises:
        MipError: `out` is not an empty folder, or cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise MipError(f"{out}: exists and is not an empty folder; choose another or remove it")
    folder = out.with_name(out.name + ".partial")
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    except OSError as error:
        raise MipError(f"{out}: cannot be written ({error.strerror}); choose another") from None
    try:
        yield folder
        if out.exists():
            out.rmdir()
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
