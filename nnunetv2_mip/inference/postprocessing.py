"""Mask of a view or image from its probabilities: threshold, small components, healthy images."""

import cc3d
import numpy as np

from nnunetv2_mip.conventions import PNG_PIXEL_MM
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


def mask_of_image(probability: np.ndarray, config: InferenceConfig) -> np.ndarray:
    """Mask of one MIP-PET image (pixels of 2 mm): `mask_of_view`, empty for a healthy one.

    Args:
        probability: (H, W) in [0, 1].
        config: `healthy_image` is used too, but not together with `never_empty`.

    Returns:
        (H, W) uint8 of 0 and 1.
    """
    rule = None if config.never_empty else config.healthy_image
    if rule is not None and rule.is_healthy(probability, (PNG_PIXEL_MM, PNG_PIXEL_MM)):
        return np.zeros(probability.shape, np.uint8)
    return mask_of_view(probability, config)
