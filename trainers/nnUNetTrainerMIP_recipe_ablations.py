"""`nnUNetTrainerMIP_recipe` with one thing changed each, for comparison, and other lengths."""

from nnunetv2_mip.trainers.nnUNetTrainerMIP_recipe import nnUNetTrainerMIP_recipe


class nnUNetTrainerMIP_recipe_noAverage(nnUNetTrainerMIP_recipe):
    ema_decay = None


class nnUNetTrainerMIP_recipe_noImpulse(nnUNetTrainerMIP_recipe):
    impulse_probability = 0.0


class nnUNetTrainerMIP_recipe_noSaturation(nnUNetTrainerMIP_recipe):
    saturation_probability = 0.0


class nnUNetTrainerMIP_recipe_paste(nnUNetTrainerMIP_recipe):
    paste_probability = 0.3


class nnUNetTrainerMIP_recipe_allControls(nnUNetTrainerMIP_recipe):
    """Controls as often as the data set has them."""

    control_share = None


class nnUNetTrainerMIP_recipe_noControls(nnUNetTrainerMIP_recipe):
    control_share = 0.0


class nnUNetTrainerMIP_recipe_poly(nnUNetTrainerMIP_recipe):
    """nnU-Net's polynomial schedule."""

    warmup = None


class nnUNetTrainerMIP_recipe_halfRate(nnUNetTrainerMIP_recipe):
    """The learning rate of `nnUNetTrainerMIP`."""

    learning_rate = 1e-3


class nnUNetTrainerMIP_recipe_diceCE(nnUNetTrainerMIP_recipe):
    """Dice and cross-entropy with equal weights."""

    weight_focal = 1.0
    gamma = 0.0


class nnUNetTrainerMIP_recipe_imageDice(nnUNetTrainerMIP_recipe):
    """The mean of the images' Dice, which is what is judged, instead of one for the batch."""

    batch_dice = False


class nnUNetTrainerMIP_recipe_halfPatients(nnUNetTrainerMIP_recipe):
    """For learning curves: half of the fold's patients with lesions, all controls."""

    patient_share = 0.5


class nnUNetTrainerMIP_recipe_quarterPatients(nnUNetTrainerMIP_recipe):
    """A quarter of them, who are among the half."""

    patient_share = 0.25


class nnUNetTrainerMIP_recipe_10epochs(nnUNetTrainerMIP_recipe):
    epochs = 10


class nnUNetTrainerMIP_recipe_15epochs(nnUNetTrainerMIP_recipe):
    epochs = 15


class nnUNetTrainerMIP_recipe_100epochs(nnUNetTrainerMIP_recipe):
    epochs = 100
