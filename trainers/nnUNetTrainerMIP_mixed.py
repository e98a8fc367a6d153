"""`nnUNetTrainerMIP_muon` in parts on MIP-PET images and views of PET/CT studies together.

The data set is one of `nnUNetv2_mip_merge_datasets`. The first part trains on coarse pixels, the
second starts from its network on finer pixels, the third from the second's network with more
augmentation. The third's network is for volumes; a last part makes one for images of it.
"""

from nnunetv2_mip.trainers.nnUNetTrainerMIP_muon import (
    nnUNetTrainerMIP_muon,
    nnUNetTrainerMIP_muon_fine,
)

# Repetitions of cases with lesions and of cases without. `phantom`: simulated patients, where
# `--sources` of the merge tells them from real studies.
SOURCE_REPEATS = {"dmiai": (4, 1), "autopet": (3, 2), "phantom": (3, 2)}
# Images alone.
IMAGE_REPEATS = {"dmiai": (5, 1), "autopet": (0, 0), "phantom": (0, 0)}


class nnUNetTrainerMIP_mixed_coarse(nnUNetTrainerMIP_muon):
    """First part: 2500 iterations on pixels of 4 mm (preset `cpu_4mm`)."""

    epochs = 10
    source_repeats = SOURCE_REPEATS


class nnUNetTrainerMIP_mixed_fine(nnUNetTrainerMIP_muon_fine):
    """Second part: 1500 iterations on pixels of 3 mm (preset `cpu_3mm`), from the first's network.

    Windows differ between scans more than between images: other upper ends are drawn more often.
    """

    starts_from = ("nnUNetTrainerMIP_mixed_coarse", "nnUNetMIPPlans_cpu_4mm")
    epochs = 6
    saturation_probability = 0.4
    source_repeats = SOURCE_REPEATS


class nnUNetTrainerMIP_mixed_third(nnUNetTrainerMIP_mixed_fine):
    """Third part: 1500 iterations from the second's network, with more augmentation."""

    starts_from = ("nnUNetTrainerMIP_mixed_fine", "nnUNetMIPPlans_cpu_3mm")
    warmup = 0.05
    deformation = (0.7, 0.7, 0.4)
    saturation_probability = 0.5
    paste_probability = 0.5


class nnUNetTrainerMIP_mixed_images(nnUNetTrainerMIP_mixed_third):
    """Last part: 1500 iterations on MIP-PET images alone, from the third's network.

    What it learned of studies goes in part: for volumes the third's network stays the better one.
    """

    starts_from = ("nnUNetTrainerMIP_mixed_third", "nnUNetMIPPlans_cpu_3mm")
    source_repeats = IMAGE_REPEATS
