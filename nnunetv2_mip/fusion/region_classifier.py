"""Classifier of the regions of a fused mask: lesion or not, by logistic regression.

Its numbers are part of `inference.json`. It is trained on patients whom the network has not seen
(see `evaluation.region_calibration`) and only removes regions.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.fusion.region_features import FEATURES, RegionContext, region_features

# Standardised features count at most so much: no single one decides.
LIMIT = 3.0


def standardised(values: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Features (R, F) in scales from their mean, at most `LIMIT`."""
    return np.clip((values - mean) / scale, -LIMIT, LIMIT)


def products_of(values: np.ndarray) -> np.ndarray:
    """Products (R, F (F + 1) / 2) of two features of (R, F), squares included."""
    first, second = np.triu_indices(values.shape[1])
    return values[:, first] * values[:, second]


@dataclass(frozen=True)
class RegionClassifier:
    """Logistic regression on features of regions, their squares and products.

    Attributes:
        features: names of the features used, of `region_features.FEATURES`.
        mean, scale: of each feature where it was trained; features count at most `LIMIT` scales.
        weights: of the standardised features.
        products: weights of the products of two of them, in the order (0, 0), (0, 1) … (1, 1) …;
            empty for none.
        bias: of the log odds.
        threshold: probability below which a region is removed.

    Raises:
        MipError: an unknown feature, or numbers that do not fit together.
    """

    features: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float
    threshold: float
    products: tuple[float, ...] = ()

    def __post_init__(self):
        for name in ("features", "mean", "scale", "weights"):
            value = getattr(self, name)
            if not isinstance(value, list | tuple) or len(value) != len(self.features):
                raise MipError(f"regions: {name} must be a list, one entry a feature")
            object.__setattr__(self, name, tuple(value))
        unknown = [name for name in self.features if name not in FEATURES]
        if not self.features:
            raise MipError("regions: features must name at least one")
        if unknown:
            raise MipError(f"regions: unknown feature {', '.join(map(repr, unknown))}")
        pairs = len(self.features) * (len(self.features) + 1) // 2
        if not isinstance(self.products, list | tuple) or len(self.products) not in (0, pairs):
            raise MipError(f"regions: products must be a list of {pairs} numbers, or empty")
        object.__setattr__(self, "products", tuple(self.products))
        numbers = [*self.mean, *self.scale, *self.weights, *self.products]
        numbers += [self.bias, self.threshold]
        if not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
            raise MipError("regions: mean, scale, weights, bias and threshold must be numbers")
        if min(self.scale) <= 0:
            raise MipError("regions: scale must be above 0")
        if not 0 <= self.threshold <= 1:
            raise MipError(f"regions: threshold {self.threshold} must lie in [0, 1]")

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Probability that each region is a lesion, (R,), from all features (R, `FEATURES`)."""
        columns = [FEATURES.index(name) for name in self.features]
        values = standardised(features[:, columns], np.array(self.mean), np.array(self.scale))
        odds = values @ np.array(self.weights) + self.bias
        if self.products:
            odds = odds + products_of(values) @ np.array(self.products)
        return expit(odds)

    def keep_lesions(
        self, mask: np.ndarray, context: RegionContext, leniency: float = 1.0
    ) -> np.ndarray:
        """Mask without the regions that are probably no lesion.

        Args:
            mask: (z, y, x), non-zero is lesion.
            context: of the study.
            leniency: factor of the threshold, 0 keeps all regions.

        Returns:
            (z, y, x) uint8 of 0 and 1.
        """
        limit = self.threshold * leniency
        if limit <= 0 or not mask.any():
            return (mask != 0).astype(np.uint8)
        regions, features = region_features(mask, context)
        kept = np.concatenate([[False], self.probabilities(features) >= limit])
        return kept[regions].astype(np.uint8)
