"""`nnUNetTrainerMIP_recipe` with Muon, which needs far fewer iterations, whole and in three parts.

The first part trains on coarse pixels, the second goes on from its network on finer ones, the third
from that one's with more augmentation.
"""

from nnunetv2_mip.trainers.nnUNetTrainerMIP_recipe import nnUNetTrainerMIP_recipe


class nnUNetTrainerMIP_muon(nnUNetTrainerMIP_recipe):
    """Muon for the kernels; all else as in the recipe."""

    muon_factor = 10.0


class nnUNetTrainerMIP_muon_3epochs(nnUNetTrainerMIP_muon):
    """750 iterations: minutes on a CPU."""

    epochs = 3


class nnUNetTrainerMIP_muon_10epochs(nnUNetTrainerMIP_muon):
    epochs = 10


class nnUNetTrainerMIP_muon_100epochs(nnUNetTrainerMIP_muon):
    epochs = 100


class nnUNetTrainerMIP_muon_coarse(nnUNetTrainerMIP_muon):
    """The first part, on pixels of 4 mm (preset `cpu_4mm`): 2250 iterations."""

    epochs = 9


class nnUNetTrainerMIP_muon_fine(nnUNetTrainerMIP_muon):
    """The second part, on pixels of 3 mm (preset `cpu_3mm`), from the first's network: 1500.

    With lesions of other patients pasted, more controls, and the Dice of each image in the loss.
    """

    starts_from = ("nnUNetTrainerMIP_muon_coarse", "nnUNetMIPPlans_cpu_4mm")

    epochs = 6
    learning_rate = 1e-3
    batch_dice = False
    paste_probability = 0.3
    control_share = 0.3


class nnUNetTrainerMIP_muon_third(nnUNetTrainerMIP_muon_fine):
    """The third part, from the second's network: 1500. More is deformed, stretched and pasted."""

    starts_from = ("nnUNetTrainerMIP_muon_fine", "nnUNetMIPPlans_cpu_3mm")
    warmup = 0.05
    deformation = (0.7, 0.7, 0.4)
    saturation_probability = 0.4
    paste_probability = 0.5
