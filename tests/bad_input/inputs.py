"""Small good inputs that the tests of bad input spoil."""

from pathlib import Path

import numpy as np

SHAPE = (8, 10, 10)
STUDY = Path("tree/PETCT_a/first study")
RELEASE = "fdg_a_2001-01-01"
PATIENTS = Path("png/patients")
MASK = PATIENTS / "labels" / "segmentation_001.png"
PICTURE = PATIENTS / "imgs" / "patient_001.png"


def suv_array() -> np.ndarray:
    suv = np.full(SHAPE, 0.8, np.float32)
    suv[2:4, 3:5, 3:5] = 6
    return suv


def seg_array() -> np.ndarray:
    return (suv_array() > 5).astype(np.uint8)


def write_garbage(path: Path) -> None:
    path.write_bytes(b"this is no image at all")
