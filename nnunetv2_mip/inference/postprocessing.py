"""Mask of a view from its probabilities: threshold, smallest component, the non-empty mode."""

import cc3d
import numpy as np

from nnunetv2_mip.inference.config import InferenceConfig
from nnunetv2_mip.lesions.components import remove_small_components


def mask_of_view(probability: np.ndarray, config: InferenceConfig) -> np.ndarray:
    """Mask of one view by the settings of inference.

    Args:
        probability: (H, W) in [0, 1].
        config: `threshold`, `min_component_px`, `never_empty` are used.

    Returns:
        (H, W) uint8 of 0 and 1. With `never_empty`, the most likely region if nothing else is left
        (the pixels above half of the highest probability that hang together with it).
    """
    mask = remove_small_components(probability >= config.threshold, config.min_component_px)
    if config.never_empty and not mask.any() and probability.max() > 0:
        likely = cc3d.connected_components(
            (probability >= probability.max() / 2).astype(np.uint8), connectivity=8
        )
        mask = likely == likely[np.unravel_index(probability.argmax(), probability.shape)]
    return mask.astype(np.uint8)
