"""Ablations of `nnUNetTrainerMIP_recipe`: one setting changed each."""

from typing import Any

from nnunetv2_mip.trainers.ablations import variants
from nnunetv2_mip.trainers.nnUNetTrainerMIP_recipe import nnUNetTrainerMIP_recipe

# Suffix of the trainer's name → settings that differ from the recipe's.
CHANGES: dict[str, dict[str, Any]] = {
    "noAverage": {"ema_decay": None},
    "noImpulse": {"impulse_probability": 0.0},
    "noSaturation": {"saturation_probability": 0.0},
    "paste": {"paste_probability": 0.3},
    # Controls as often as the data set has them.
    "allControls": {"control_share": None},
    "noControls": {"control_share": 0.0},
    # nnU-Net's polynomial schedule.
    "poly": {"warmup": None},
    # The learning rate of `nnUNetTrainerMIP`.
    "halfRate": {"learning_rate": 1e-3},
    # Dice and cross-entropy with equal weights.
    "diceCE": {"weight_focal": 1.0, "gamma": 0.0},
    # The mean of the images' Dice, which is what is scored, instead of one Dice for the batch.
    "imageDice": {"batch_dice": False},
    # Learning curves: a share of the fold's patients with lesions, and all controls. The quarter is
    # a part of the half.
    "halfPatients": {"patient_share": 0.5},
    "quarterPatients": {"patient_share": 0.25},
}

globals().update(variants(nnUNetTrainerMIP_recipe, CHANGES, __name__))
