"""`nnUNetTrainerMIP` with other training lengths, an epoch being 250 iterations."""

from nnunetv2_mip.trainers.nnUNetTrainerMIP import nnUNetTrainerMIP


class nnUNetTrainerMIP_1epoch(nnUNetTrainerMIP):
    epochs = 1


class nnUNetTrainerMIP_5epochs(nnUNetTrainerMIP):
    epochs = 5


class nnUNetTrainerMIP_10epochs(nnUNetTrainerMIP):
    epochs = 10


class nnUNetTrainerMIP_20epochs(nnUNetTrainerMIP):
    epochs = 20


class nnUNetTrainerMIP_50epochs(nnUNetTrainerMIP):
    epochs = 50


class nnUNetTrainerMIP_100epochs(nnUNetTrainerMIP):
    epochs = 100


class nnUNetTrainerMIP_250epochs(nnUNetTrainerMIP):
    epochs = 250


class nnUNetTrainerMIP_500epochs(nnUNetTrainerMIP):
    epochs = 500
