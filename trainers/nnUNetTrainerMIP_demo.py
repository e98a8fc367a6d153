"""The trainer of `nnUNetv2_mip_demo`: a few minutes on two CPU cores."""

from nnunetv2_mip.trainers.nnUNetTrainerMIP import nnUNetTrainerMIP


class nnUNetTrainerMIP_demo(nnUNetTrainerMIP):
    """A short schedule that learns fast from few patients: Muon for the kernels.

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
        """Left out: the demo judges the model on patients that training never saw."""
        self.print_to_log_file("The final validation is left out in the demo.")
