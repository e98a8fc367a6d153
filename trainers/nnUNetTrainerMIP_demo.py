"""Trainer of `nnUNetv2_mip_demo`: a few minutes on two CPU cores."""

from nnunetv2_mip.trainers.nnUNetTrainerMIP import nnUNetTrainerMIP


class nnUNetTrainerMIP_demo(nnUNetTrainerMIP):
    """Short schedule with Muon, for few patients.

    Patients stay upright, so that where an organ lies can be learned early.
    """

    epochs = 10
    iterations_per_epoch = 100
    val_iterations_per_epoch = 4
    learning_rate = 2e-3
    muon_factor = 10.0
    mirrored_axes = (1,)
    rotation_deg = 10.0

    def perform_actual_validation(self, save_probabilities: bool = False):
        """Nothing: the demo scores the model on patients outside of the training data."""
        self.print_to_log_file("The final validation is left out in the demo.")
