"""nnU-Net planner for the volumes of the second stage."""

import numpy as np

from nnunetv2_mip.conventions import STACK_SPACING_MM
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.plans.mip_planner import MIPExperimentPlanner


class MIPVolumePlanner(MIPExperimentPlanner):
    """Planner of `3d_fullres` of a data set of `nnUNetv2_mip_convert_stage2`.

    The preset's `finest_spacing_mm` and `max_patch_px` have three numbers, (z, y, x).

    Raises:
        MipError: the cases are stacks of views, or the preset is one for views.
    """

    dimensions = 3
    configuration = "3d_fullres"

    def _check_cases(self, spacings: np.ndarray) -> None:
        if (spacings[:, 0] >= STACK_SPACING_MM).any():
            raise MipError(f"{self.raw_dataset_folder}: holds stacks of views, not volumes")

    def determine_fullres_target_spacing(self) -> np.ndarray:
        """(z, y, x) mm: the median, no finer than the preset says."""
        if self.overwrite_target_spacing is not None:
            return np.array(self.overwrite_target_spacing)
        spacing = np.median(np.vstack(self.dataset_fingerprint["spacings"]), 0)
        return np.maximum(spacing, self.preset.finest_spacing_mm or 0)
