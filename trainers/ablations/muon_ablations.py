"""Ablations of `nnUNetTrainerMIP_muon`: those of the recipe, and other steps of Muon."""

from typing import Any

from nnunetv2_mip.trainers.ablations import variants
from nnunetv2_mip.trainers.ablations.recipe_ablations import CHANGES as RECIPE_CHANGES
from nnunetv2_mip.trainers.nnUNetTrainerMIP_muon import nnUNetTrainerMIP_muon

# Suffix of the trainer's name → settings that differ from those of `nnUNetTrainerMIP_muon`.
CHANGES: dict[str, dict[str, Any]] = {
    **{suffix: changes for suffix, changes in RECIPE_CHANGES.items() if suffix != "halfRate"},
    "half": {"muon_factor": 5.0},
    "double": {"muon_factor": 20.0},
    # As `nnUNetTrainerMIP_muon_fine`, but from random weights.
    "half_paste": {"muon_factor": 5.0, "batch_dice": False, "paste_probability": 0.3},
}

globals().update(variants(nnUNetTrainerMIP_muon, CHANGES, __name__))
