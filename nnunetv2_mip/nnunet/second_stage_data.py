"""Input of the second stage in 3D: SUV, perhaps CT, and the cue of the views.

The cue is the lesion probability of every voxel by a 2D model's views (`fusion`, before the
threshold). L2SNet (arXiv 2309.05446) gives its 3D network such a cue.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from nnunetv2_mip.errors import MipError

# dataset.json["mip"]["source"] of its data sets.
STAGE2 = "stage2"
CUE = "cue"
CHANNELS = ("suv", "ct", CUE)
# Fixed for all data sets: the same voxel value means the same everywhere. nnU-Net's scheme "CT"
# clips to low and high and divides by std; what it subtracts is low, by our plans, so that 0 is air
# (mean only describes the channel). SUV: the mean and spread of a body are near 1; HU: ±1000 is air
# to bone; the cue stays what it is.
INTENSITY: Mapping[str, Mapping[str, float]] = {
    "suv": {"mean": 1.0, "std": 2.0, "low": 0.0, "high": 30.0},
    "ct": {"mean": 0.0, "std": 500.0, "low": -1000.0, "high": 1000.0},
    CUE: {"mean": 0.0, "std": 1.0, "low": 0.0, "high": 1.0},
}


def stage2_input(
    channels: Sequence[str],
    suv: np.ndarray,
    ct: np.ndarray | None,
    cue: np.ndarray,
    source: str,
) -> np.ndarray:
    """Array of the second stage's input channels, in their order.

    Args:
        channels: some of `CHANNELS`.
        suv, ct, cue: (z, y, x), canonical axes; SUV, HU, probability.
        source: name of the study, for messages.

    Returns:
        (C, z, y, x) float32.

    Raises:
        MipError: the second stage wants a CT and there is none, or it wants something else.
    """
    at_hand = {"suv": suv, "ct": ct, CUE: cue}
    unknown = [channel for channel in channels if channel not in at_hand]
    if unknown:
        raise MipError(f"the second stage wants the channel {unknown[0]}, which is not known here")
    if "ct" in channels and ct is None:
        raise MipError(f"{source}: the second stage wants the CT too, and there is none")
    return np.stack([np.asarray(at_hand[channel], np.float32) for channel in channels])
