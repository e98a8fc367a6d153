"""`nnUNetTrainerMIP` with a localization head whose cue weights the segmentation in space.

The network and its loss are described in `nnunetv2_mip.networks.localization`. Model folders work
with `nnUNetv2_predict` and everything of this package like any other.
"""

from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.networks.localization import LOCALIZING, LocalizationLoss
from nnunetv2_mip.networks.replacement import ReplacesNetworks
from nnunetv2_mip.trainers.nnUNetTrainerMIP import nnUNetTrainerMIP
from nnunetv2_mip.trainers.nnUNetTrainerMIP_recipe import nnUNetTrainerMIP_recipe


class nnUNetTrainerMIP_L2S(ReplacesNetworks, nnUNetTrainerMIP):
    """Localization and segmentation, trained together from the first iteration."""

    # Factor of the cue's loss, and weight of a missed region in it (0.5: as a false one).
    cue_weight = 0.5
    cue_recall_weight = 0.7

    networks = LOCALIZING

    def _build_loss(self):
        segmentation = super()._build_loss()
        if not isinstance(segmentation, DeepSupervisionWrapper):
            raise MipError("the localization head is trained with deep supervision only")
        cue = self._dice_focal(recall_weight=self.cue_recall_weight)
        return LocalizationLoss(segmentation, cue, self.cue_weight, self.label_manager.ignore_label)


class nnUNetTrainerMIP_recipe_L2S(nnUNetTrainerMIP_L2S, nnUNetTrainerMIP_recipe):
    """The recipe with a localization head."""
