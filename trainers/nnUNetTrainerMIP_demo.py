"""The trainer of `nnUNetv2_mip_demo`: a few minutes on two CPU cores."""

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

from nnunetv2_mip.trainers.nnUNetTrainerMIP import nnUNetTrainerMIP


class nnUNetTrainerMIP_demo(nnUNetTrainerMIP):
    """A short schedule that learns fast from few patients.

    AdamW gets further than SGD in a thousand iterations; patients stay upright, so that where an
    organ lies can be learned early; the final validation is not mirrored (half of the time).
    """

    epochs = 10
    iterations_per_epoch = 100
    val_iterations_per_epoch = 4
    learning_rate = 2e-3
    foreground_share = 0.5
    mirrored_axes = (1,)
    rotation_deg = 10.0

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.network.parameters(), self.initial_lr, weight_decay=1e-2)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    def perform_actual_validation(self, save_probabilities: bool = False):
        axes = self.inference_allowed_mirroring_axes
        self.inference_allowed_mirroring_axes = None
        try:
            super().perform_actual_validation(save_probabilities)
        finally:
            self.inference_allowed_mirroring_axes = axes
