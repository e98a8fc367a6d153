"""The trainer of `nnUNetv2_mip_demo`: a few minutes on two CPU cores."""

from nnunetv2_mip.trainers.nnUNetTrainerMIP import nnUNetTrainerMIP


class nnUNetTrainerMIP_demo(nnUNetTrainerMIP):
    """A short schedule, and a final validation without mirrored copies (a quarter of the time)."""

    epochs = 10
    iterations_per_epoch = 40
    val_iterations_per_epoch = 2

    def perform_actual_validation(self, save_probabilities: bool = False):
        axes = self.inference_allowed_mirroring_axes
        self.inference_allowed_mirroring_axes = None
        try:
            super().perform_actual_validation(save_probabilities)
        finally:
            self.inference_allowed_mirroring_axes = axes
