"""The ablations of the recipe, trained with Muon: `nnUNetTrainerMIP_muon`, one thing changed."""

from nnunetv2_mip.trainers.nnUNetTrainerMIP_muon import nnUNetTrainerMIP_muon
from nnunetv2_mip.trainers.nnUNetTrainerMIP_recipe_ablations import (
    nnUNetTrainerMIP_recipe_allControls,
    nnUNetTrainerMIP_recipe_diceCE,
    nnUNetTrainerMIP_recipe_halfPatients,
    nnUNetTrainerMIP_recipe_imageDice,
    nnUNetTrainerMIP_recipe_noAverage,
    nnUNetTrainerMIP_recipe_noControls,
    nnUNetTrainerMIP_recipe_noImpulse,
    nnUNetTrainerMIP_recipe_noSaturation,
    nnUNetTrainerMIP_recipe_paste,
    nnUNetTrainerMIP_recipe_poly,
    nnUNetTrainerMIP_recipe_quarterPatients,
)


class nnUNetTrainerMIP_muon_noAverage(nnUNetTrainerMIP_recipe_noAverage, nnUNetTrainerMIP_muon):
    pass


class nnUNetTrainerMIP_muon_noImpulse(nnUNetTrainerMIP_recipe_noImpulse, nnUNetTrainerMIP_muon):
    pass


class nnUNetTrainerMIP_muon_noSaturation(
    nnUNetTrainerMIP_recipe_noSaturation, nnUNetTrainerMIP_muon
):
    pass


class nnUNetTrainerMIP_muon_paste(nnUNetTrainerMIP_recipe_paste, nnUNetTrainerMIP_muon):
    pass


class nnUNetTrainerMIP_muon_allControls(nnUNetTrainerMIP_recipe_allControls, nnUNetTrainerMIP_muon):
    pass


class nnUNetTrainerMIP_muon_noControls(nnUNetTrainerMIP_recipe_noControls, nnUNetTrainerMIP_muon):
    pass


class nnUNetTrainerMIP_muon_poly(nnUNetTrainerMIP_recipe_poly, nnUNetTrainerMIP_muon):
    pass


class nnUNetTrainerMIP_muon_diceCE(nnUNetTrainerMIP_recipe_diceCE, nnUNetTrainerMIP_muon):
    pass


class nnUNetTrainerMIP_muon_imageDice(nnUNetTrainerMIP_recipe_imageDice, nnUNetTrainerMIP_muon):
    pass


class nnUNetTrainerMIP_muon_halfPatients(
    nnUNetTrainerMIP_recipe_halfPatients, nnUNetTrainerMIP_muon
):
    pass


class nnUNetTrainerMIP_muon_quarterPatients(
    nnUNetTrainerMIP_recipe_quarterPatients, nnUNetTrainerMIP_muon
):
    pass
