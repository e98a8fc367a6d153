"""Files of a grand-challenge run for autoPET I to IV: its study, and its answer.

Every edition gives one PET in SUV and one CT on its grid, `images/pet/*.mha` and
`images/ct/*.mha`, under names that differ. Edition IV adds `lesion-clicks.json`. The mask bears
the name of the CT; edition III also wants a boolean: was the model that of its data-centric track?
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunetv2_mip.conventions import AIR_HU
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import write_json
from nnunetv2_mip.io.grid import SourceGrid
from nnunetv2_mip.io.resampling import resample_to_grid
from nnunetv2_mip.io.volumes import Volume, read_volume, without_negative, write_volume
from nnunetv2_mip.wording import counted, part_of

PET_FOLDER, CT_FOLDER = Path("images/pet"), Path("images/ct")
CLICKS_FILE = "lesion-clicks.json"
DATA_CENTRIC_FILE = "data-centric-model.json"
IMAGE_SUFFIX = ".mha"
AUTO = "auto"


@dataclass(frozen=True)
class Edition:
    """Interface of an edition of autoPET.

    Attributes:
        number: 1 to 4.
        masks: folder of the mask below the output.
        tells_track: it wants `DATA_CENTRIC_FILE`.
        has_clicks: it gives `CLICKS_FILE`.
    """

    number: int
    masks: str
    tells_track: bool = False
    has_clicks: bool = False


EDITIONS = {
    1: Edition(1, "images/automated-petct-lesion-segmentation"),
    2: Edition(2, "images/automated-petct-lesion-segmentation"),
    3: Edition(3, "images/automated-petct-lesion-segmentation", tells_track=True),
    4: Edition(4, "images/tumor-lesion-segmentation", has_clicks=True),
}


@dataclass(frozen=True)
class ChallengeStudy:
    """Files of a run.

    Attributes:
        edition: whose rules hold.
        pet: in SUV.
        ct: None where there is none.
        clicks: None where there are none, or the edition has none.
    """

    edition: Edition
    pet: Path
    ct: Path | None
    clicks: Path | None

    @property
    def case(self) -> str:
        """Name of the mask: that of the CT, or of the PET where there is no CT."""
        return (self.ct or self.pet).name[: -len(IMAGE_SUFFIX)]


def find_study(folder: Path | str, edition: str = AUTO) -> ChallengeStudy:
    """Study of an input folder.

    Args:
        folder: as the platform mounts it at /input.
        edition: "1" to "4", or "auto": 4 where there are clicks, else 3, whose answer editions 1
            and 2 take too.

    Raises:
        MipError: no PET, several PETs or CTs, edition 4 without clicks, or another edition.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MipError(f"{folder}: no such folder; name the input folder by -i")
    clicks = folder / CLICKS_FILE
    if edition == AUTO:
        edition = "4" if clicks.exists() else "3"
    numbers = {str(number): found for number, found in EDITIONS.items()}
    if edition not in numbers:
        raise MipError(f"edition {edition}: choose {AUTO} or one of {', '.join(numbers)}")
    chosen = numbers[edition]
    if chosen.has_clicks and not clicks.is_file():
        raise MipError(
            f"{clicks}: no such file; edition {chosen.number} gives one, with no points at first"
        )
    pet = _only_image(folder / PET_FOLDER)
    if pet is None:
        raise MipError(f"{folder / PET_FOLDER}: holds no PET (one {IMAGE_SUFFIX} file is expected)")
    ct = _only_image(folder / CT_FOLDER)
    return ChallengeStudy(chosen, pet, ct, clicks if chosen.has_clicks else None)


def _only_image(folder: Path) -> Path | None:
    """The one image of a folder, or None where there is none."""
    if not folder.is_dir():
        return None
    there = [path for path in folder.iterdir() if path.is_file() and path.name[0] != "."]
    images = sorted(path for path in there if path.name.lower().endswith(IMAGE_SUFFIX))
    if len(images) > 1:
        names = ", ".join(path.name for path in images[:4])
        raise MipError(f"{folder}: holds {counted(len(images), 'image')} ({names}); a run has one")
    return images[0] if images else None


def read_challenge_pet(path: Path, warn: Callable[[str], None]) -> Volume:
    """PET volume in SUV, float32; small faults that `volumes.read_suv` refuses are mended.

    A run without a mask costs a whole submission. Values that are not finite count as 0, slight
    negative ones too, and an image without uptake is one; each is told to `warn`. A sound image
    gives exactly what `read_suv` gives.

    Raises:
        MipError: as `volumes.read_volume`; or the values are no SUV at all.
    """
    volume = read_volume(path)
    array = np.ascontiguousarray(volume.array, dtype=np.float32)
    finite = np.isfinite(array)
    if not finite.all():
        count = array.size - int(np.count_nonzero(finite))
        warn(f"{path}: {part_of(count, array.size, 'voxel', 'is')} not finite and read as 0")
        array = np.where(finite, array, np.float32(0))
    high = float(array.max())
    array, told = without_negative(array, path, float(array.min()))
    if high <= 0:
        told = (*told, f"{path}: is empty (no value above 0)")
    for line in (*volume.warnings, *told):
        warn(line)
    return Volume(array, volume.grid, volume.path)


def read_challenge_ct(path: Path | None, like: Volume, warn: Callable[[str], None]) -> Volume:
    """CT volume in HU, resampled to the grid of the PET where it lies on another one.

    Values that are not finite count as air, and so does a CT that is not there (None); each is
    told to `warn`. A sound CT on the grid gives exactly what `read_study.read_ct` gives.

    Raises:
        MipError: as `volumes.read_volume`.
    """
    if path is None:
        warn(f"{like.path}: comes without the CT that the model uses, which counts as air")
        return Volume(np.full(like.array.shape, AIR_HU, np.float32), like.grid, like.path)
    ct = read_volume(path)
    for line in ct.warnings:
        warn(line)
    finite = np.isfinite(ct.array)
    if not finite.all():
        count = finite.size - np.count_nonzero(finite)
        warn(f"{path}: {part_of(count, finite.size, 'voxel', 'is')} not finite and read as air")
        cleaned = np.where(finite, ct.array, ct.array.dtype.type(AIR_HU))
        ct = Volume(cleaned, ct.grid, ct.path)
    if ct.grid.same_as(like.grid):
        return Volume(ct.array, like.grid, path)
    warn(
        f"{path}: lies on another grid than the PET ({ct.grid.difference(like.grid)}) and is "
        "resampled to that"
    )
    return resample_to_grid(ct, like.grid, AIR_HU)


def answer_path(study: ChallengeStudy, output: Path | str) -> Path:
    """Path of the mask."""
    return Path(output) / study.edition.masks / f"{study.case}{IMAGE_SUFFIX}"


def write_answer(
    mask: np.ndarray,
    grid: SourceGrid,
    study: ChallengeStudy,
    output: Path | str,
    data_centric: bool = False,
) -> Path:
    """Write the answer of a run: the mask (z, y, x) of 0 and 1, and the other file of the edition.

    Returns:
        the path of the mask: uint8, compressed, with exactly the header of the PET.
    """
    if study.edition.tells_track:
        Path(output).mkdir(parents=True, exist_ok=True)
        write_json(Path(output) / DATA_CENTRIC_FILE, data_centric)
    path = answer_path(study, output)
    write_volume(mask.astype(np.uint8, copy=False), grid, path)
    return path
