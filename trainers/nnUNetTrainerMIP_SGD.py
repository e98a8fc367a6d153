"""`nnUNetTrainerMIP` with nnU-Net's own optimiser, for comparison."""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_mip.trainers.nnUNetTrainerMIP import nnUNetTrainerMIP


class nnUNetTrainerMIP_SGD(nnUNetTrainerMIP):
    """SGD with Nesterov momentum 0.99 and learning rate 0.01, as nnU-Net trains."""

    learning_rate = 1e-2
    weight_decay = 3e-5

    def configure_optimizers(self):
        return nnUNetTrainer.configure_optimizers(self)
