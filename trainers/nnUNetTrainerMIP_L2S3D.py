"""Trainer of the second stage in 3D: SUV (and CT), with the cue of the views as spatial weight.

Trains on the data sets of `nnUNetv2_mip_convert_stage2`. The network is described in
`nnunetv2_mip.networks.cue`.
"""

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.networks.cue import CUED
from nnunetv2_mip.networks.replacement import ReplacesNetworks
from nnunetv2_mip.nnunet.second_stage_data import CUE
from nnunetv2_mip.trainers.nnUNetTrainerMIP_volumes import nnUNetTrainerMIP_volumes
from nnunetv2_mip.training.augmentation import AttachCueTransform, DetachCueTransform


class nnUNetTrainerMIP_L2S3D(ReplacesNetworks, nnUNetTrainerMIP_volumes):
    """DiceFocal on volumes, the last channel being the cue."""

    # Share of the training samples whose cue is dropped.
    cue_dropout = 0.3

    networks = CUED

    def initialize(self):
        channels = list(self.dataset_json["channel_names"].values())
        if channels[-1] != CUE:
            raise MipError(
                f"{self.plans_manager.dataset_name}: its last channel is {channels[-1]}, not the "
                f"{CUE}: make a data set with nnUNetv2_mip_convert_stage2"
            )
        super().initialize()
        network = self.network.module if self.is_ddp else self.network
        getattr(network, "_orig_mod", network).cue_dropout = self.cue_dropout

    def get_training_transforms(self, *args, **kwargs):
        composed = super().get_training_transforms(*args, **kwargs)
        composed.transforms.insert(0, DetachCueTransform())
        composed.transforms.append(AttachCueTransform())
        return composed
