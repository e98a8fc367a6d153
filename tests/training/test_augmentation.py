"""Augmentations of views: noise, another window, pasted lesions."""

import numpy as np
import pytest
import torch

from nnunetv2_mip.training.augmentation import (
    ImpulseNoiseTransform,
    LesionPasteTransform,
    SaturationTransform,
    lesions_of,
)


def test_impulse_noise_takes_the_share_asked_for():
    torch.manual_seed(0)
    image = torch.rand(1, 200, 200)
    noised = ImpulseNoiseTransform((0.08, 0.08), [-3.0], [7.0])(image=image.clone())["image"]
    changed = noised != image
    assert changed.float().mean() == pytest.approx(0.08, abs=0.01)
    assert set(noised[changed].tolist()) == {-3.0, 7.0}
    assert (noised == 7).float().mean() == pytest.approx(0.04, abs=0.01)


def test_saturation_keeps_the_ends():
    image = torch.linspace(-1, 3, 50).reshape(1, 5, 10)
    brighter = SaturationTransform((2.0, 2.0), [-1.0], [3.0])(image=image.clone())["image"]
    assert (brighter.min(), brighter.max()) == (-1, 3)
    assert (brighter == 3).float().mean() == pytest.approx(0.5, abs=0.05)
    darker = SaturationTransform((0.5, 0.5), [-1.0], [3.0])(image=image.clone())["image"]
    torch.testing.assert_close(darker, -1 + (image + 1) / 2)


def body_image(size=(60, 40), level=0.0):
    image = np.full((1, *size), -1.0, np.float32)
    image[:, 5:-5, 5:-5] = level
    return image


def test_lesions_are_pasted_as_a_maximum_and_on_the_body():
    source = body_image()
    mask = np.zeros(source.shape[1:], np.int16)
    mask[20:26, 15:20] = 1
    mask[40, 30] = 1  # too small to be worth it
    source[0][mask == 1] = 4.0
    (lesion,) = lesions_of(source, mask, source[0] > -0.5)
    assert (int(lesion.mask.sum()), lesion.place[0]) == (30, pytest.approx((23 - 5) / 49))

    paste = LesionPasteTransform([[lesion], []], body_above=-0.5)
    generator = np.random.default_rng(0)
    for _ in range(20):
        image, labels = body_image(level=0.2), np.zeros(mask.shape, np.int16)
        before = image.copy()
        assert paste.paste(image, labels, generator) == 1
        assert labels.sum() == 30
        assert (image >= before).all()
        assert (image[0][labels == 1] == 4).all()
        # Only the lesion and its halo changed, where the body is.
        assert (before[0][labels == 1] == np.float32(0.2)).mean() >= 0.8
    bright, labels = body_image(level=9.0), np.zeros(mask.shape, np.int16)
    paste.paste(bright, labels, generator)
    hidden = body_image(level=9.0)[0] == 9
    assert (bright[0][hidden] == 9).all()
    assert not labels[hidden].any(), "hidden behind brighter uptake"


def test_paste_leaves_an_image_without_body_alone():
    lesion_source = body_image()
    mask = np.zeros(lesion_source.shape[1:], np.int16)
    mask[20:26, 15:20] = 1
    bank = [lesions_of(lesion_source, mask, lesion_source[0] > -0.5)]
    image = torch.full((1, 30, 30), -1.0)
    data = {"image": image, "segmentation": torch.zeros((1, 30, 30), dtype=torch.int16)}
    result = LesionPasteTransform(bank, body_above=-0.5)(**data)
    assert torch.equal(result["image"], image)
    assert not result["segmentation"].any()
