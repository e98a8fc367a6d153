"""`nnUNetTrainerMIP_recipe` with Muon, which needs far fewer iterations; also in three parts.

The first part trains on coarse pixels, the second starts from its network on finer pixels, the
third from the second's network with more augmentation.
"""

from nnunetv2_mip.trainers.nnUNetTrainerMIP_recipe import nnUNetTrainerMIP_recipe


class nnUNetTrainerMIP_muon(nnUNetTrainerMIP_recipe):
    """The recipe with Muon for the kernels."""

    muon_factor = 10.0


class nnUNetTrainerMIP_muon_3epochs(nnUNetTrainerMIP_muon):
    """750 iterations, minutes on a CPU."""

    epochs = 3


class nnUNetTrainerMIP_muon_10epochs(nnUNetTrainerMIP_muon):
    epochs = 10


class nnUNetTrainerMIP_muon_100epochs(nnUNetTrainerMIP_muon):
    epochs = 100


class nnUNetTrainerMIP_muon_coarse(nnUNetTrainerMIP_muon):
    """First part: 2250 iterations on pixels of 4 mm (preset `cpu_4mm`)."""

    epochs = 9


class nnUNetTrainerMIP_muon_fine(nnUNetTrainerMIP_muon):
    """Second part: 1500 iterations on pixels of 3 mm (preset `cpu_3mm`), from the first's network.

    Lesions of other patients are pasted, more controls are drawn, and the loss has the Dice of each
    image.
    """

    starts_from = ("nnUNetTrainerMIP_muon_coarse", "nnUNetMIPPlans_cpu_4mm")

    epochs = 6
    learning_rate = 1e-3
    batch_dice = False
    paste_probability = 0.3
    control_share = 0.3


class nnUNetTrainerMIP_muon_third(nnUNetTrainerMIP_muon_fine):
    """Third part: 1500 iterations from the second's network, with more augmentation."""

    starts_from = ("nnUNetTrainerMIP_muon_fine", "nnUNetMIPPlans_cpu_3mm")
    warmup = 0.05
    deformation = (0.7, 0.7, 0.4)
    saturation_probability = 0.4
    paste_probability = 0.5
