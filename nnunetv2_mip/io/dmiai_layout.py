"""Layout of the DM-i-AI tumour segmentation data: patients/{imgs,labels} and controls/imgs.

The mask of `patient_017.png` is `segmentation_017.png`, or has the name of its image.
"""

from pathlib import Path

from nnunetv2_mip.io.png import PNG_SUFFIX

PATIENTS, CONTROLS = "patients", "controls"
IMAGES, LABELS = "imgs", "labels"
_IMAGE_PREFIX, _MASK_PREFIX = "patient_", "segmentation_"


def images_in(folder: Path) -> list[Path]:
    """PNGs of a folder, by name; none where the folder is missing."""
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() == PNG_SUFFIX and not path.name.startswith(".")
    )


def mask_of_image(image: Path, labels: Path) -> Path | None:
    """The mask of an image in the folder `labels`, or None where there is none."""
    number = image.name.removeprefix(_IMAGE_PREFIX)
    names = [image.name]
    if number != image.name:
        names.append(_MASK_PREFIX + number)
    return next((labels / name for name in names if (labels / name).is_file()), None)


def case_of_mask(stem: str) -> str:
    """Name of the case that a mask belongs to: `segmentation_017` → `patient_017`."""
    if stem.startswith(_MASK_PREFIX):
        return _IMAGE_PREFIX + stem.removeprefix(_MASK_PREFIX)
    return stem
