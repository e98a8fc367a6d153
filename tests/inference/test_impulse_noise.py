"""Salt and pepper goes, everything else stays."""

import os
from pathlib import Path

import numpy as np
import pytest

from nnunetv2_mip.inference.impulse_noise import NOISY_SHARE, impulse_share, without_impulses
from nnunetv2_mip.io.png import decode_png


def view() -> np.ndarray:
    """A smooth body with a saturated tumour, in empty air."""
    levels = np.zeros((120, 90), np.uint8)
    rows, columns = np.mgrid[:100, :70]
    levels[10:110, 10:80] = (60 + 30 * np.sin(rows / 9) + 20 * np.cos(columns / 7)).astype(np.uint8)
    levels[50:60, 40:48] = 255
    return levels


def noised(levels: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).random(levels.shape)
    return np.where(drawn < share / 2, 0, np.where(drawn > 1 - share / 2, 255, levels)).astype(
        np.uint8
    )


def test_a_clean_view_is_the_same_array():
    levels = view()
    assert without_impulses(levels) is levels


@pytest.mark.parametrize("share", [0.07, 0.11])
def test_noise_is_removed_and_the_tumour_stays(share):
    levels = view()
    noisy = noised(levels, share)
    cleaned = without_impulses(noisy)
    wrong = np.abs(noisy.astype(int) - levels).mean()
    assert np.abs(cleaned.astype(int) - levels).mean() < wrong / 20
    assert (cleaned[52:58, 42:46] == 255).all()
    # Pixels that are no impulse are not touched.
    inside = (noisy > 0) & (noisy < 255)
    assert (cleaned[inside] == noisy[inside]).all()


def test_no_clean_real_image_is_altered():
    """All 432 images, and the same with the least noise of the 2025 evaluation."""
    data = Path(os.environ.get("NNUNETV2_MIP_TEST_DATA", "/nowhere")) / "dmiai"
    if not data.is_dir():
        pytest.skip("real MIP-PET images lie in NNUNETV2_MIP_TEST_DATA/dmiai")
    paths = sorted(data.glob("*/imgs/*.png"))
    assert len(paths) > 100
    for number, path in enumerate(paths):
        levels = decode_png(path)
        assert without_impulses(levels) is levels, path
        if number % 20 == 0:
            assert impulse_share(noised(levels, 0.07)) > 2 * NOISY_SHARE, path


def test_the_predictor_filters_where_its_recipe_says_so(tiny_model):
    from nnunetv2_mip.inference.predictor import MIPPredictor

    plain = MIPPredictor.from_model_folder(tiny_model, device="cpu").override(tta=False)
    filtering = plain.override(prefilter="impulse")
    levels = view()
    _, expected = plain.predict_image(levels)
    assert np.array_equal(filtering.predict_image(levels)[1], expected)
    noisy = noised(levels, 0.09)
    without, with_filter = (
        np.abs(predictor.predict_image(noisy)[1] - expected).mean()
        for predictor in (plain, filtering)
    )
    assert with_filter < without / 2
