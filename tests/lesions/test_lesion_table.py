"""Table of the lesions of a mask."""

import math

import numpy as np

from nnunetv2_mip.io.grid import SourceGrid
from nnunetv2_mip.lesions.lesion_table import lesion_table


def test_the_table_beside_a_mask(tmp_path):
    suv = np.zeros((4, 6, 6), np.float32)
    mask = np.zeros((4, 6, 6), np.uint8)
    mask[0, 0, 0] = 1
    suv[0, 0, 0] = 3.0
    mask[2, 3, 2:4] = 1
    suv[2, 3, 2:4] = (4.0, 6.0)
    # Voxels of 0.04 ml whose index x runs to the patient's right.
    direction = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    grid = SourceGrid((6, 6, 4), (2.0, 4.0, 5.0), (100.0, -20.0, 7.0), direction)
    first, second = lesion_table(mask, suv, grid)
    assert first["lesion"] == 1 and math.isclose(first["volume_ml"], 0.08)
    assert (first["suv_max"], first["suv_mean"], first["tlg"]) == (6.0, 5.0, 0.4)
    # Canonical x = 2.5 of 6 is index 2.5 from the other side.
    assert (first["x_mm"], first["y_mm"], first["z_mm"]) == (95.0, -8.0, 17.0)
    assert second["suv_max"] == 3.0 and math.isclose(second["volume_ml"], 0.04)
    assert lesion_table(0 * mask, suv, grid) == []
    assert lesion_table(mask, None, grid)[0]["tlg"] is None
