"""`nnUNetTrainerMIP` for volumes: a plain 3D nnU-Net under the same loss and splits."""

from nnunetv2_mip.trainers.nnUNetTrainerMIP import nnUNetTrainerMIP


class nnUNetTrainerMIP_volumes(nnUNetTrainerMIP):
    """DiceFocal on the data sets of `nnUNetv2_mip_convert_stage2`, with a cue or without."""

    # Left and right alone: a body is not the same upside down.
    mirrored_axes = (1,)

    def _write_inference_config(self) -> None:
        """Nothing: the settings of the views are in the model that made the cue."""
