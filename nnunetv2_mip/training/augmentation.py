"""Augmentations of MIP views, in the form of batchgenerators-v2.

Images are (C, H, W), segmentations (1, H, W).
They work on standardised images: the values that levels 0 and 255 have there are given.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cc3d
import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, ImageOnlyTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from scipy import ndimage

# Pixels of uptake around a lesion that move with it.
HALO_PX = 2
# Components smaller than this are not pasted.
SMALLEST_PASTED_PX = 12
# Share of a pasted lesion that must lie on the body it is pasted on.
SHARE_ON_BODY = 0.8
PLACEMENT_TRIES = 6
JITTER_PX = 12
# Elastic deformation: σ of the field of shifts (share of the patch), and the largest shift.
ELASTIC_SHARE_OF_PATCH = (0.04, 0.12)
ELASTIC_PX = (2.0, 10.0)


class ImpulseNoiseTransform(ImageOnlyTransform):
    """Salt-and-pepper noise: a share of the pixels becomes the lowest or the highest value.

    Args:
        share: (least, most) share of all pixels, drawn uniformly for each image.
        low, high: the values, one for each channel.
    """

    def __init__(
        self, share: tuple[float, float], low: Sequence[float], high: Sequence[float]
    ) -> None:
        super().__init__()
        self.share = share
        self.low = torch.tensor(list(low), dtype=torch.float32)
        self.high = torch.tensor(list(high), dtype=torch.float32)

    def get_parameters(self, **data_dict) -> dict:
        least, most = self.share
        share = least + (most - least) * torch.rand(1).item()
        drawn = torch.rand(data_dict["image"].shape[1:])
        return {"pepper": drawn < share / 2, "salt": drawn > 1 - share / 2}

    def _apply_to_image(self, img: torch.Tensor, **params) -> torch.Tensor:
        shape = (-1,) + (1,) * (img.ndim - 1)
        img = torch.where(params["pepper"], self.low.view(shape).to(img), img)
        return torch.where(params["salt"], self.high.view(shape).to(img), img)


class SaturationTransform(ImageOnlyTransform):
    """Another upper end of the window: values are stretched from the lowest one, and clipped.

    Half of the tumour pixels of the DM-i-AI images are at the upper end; with another window they
    would not be.

    Args:
        factor: (least, most) factor of the distance to the lowest value, drawn uniformly in its
            logarithm.
        low, high: the values of level 0 and 255, one for each channel.
    """

    def __init__(
        self, factor: tuple[float, float], low: Sequence[float], high: Sequence[float]
    ) -> None:
        super().__init__()
        self.factor = factor
        self.low = torch.tensor(list(low), dtype=torch.float32)
        self.high = torch.tensor(list(high), dtype=torch.float32)

    def get_parameters(self, **data_dict) -> dict:
        least, most = np.log(self.factor)
        return {"factor": float(np.exp(least + (most - least) * torch.rand(1).item()))}

    def _apply_to_image(self, img: torch.Tensor, **params) -> torch.Tensor:
        shape = (-1,) + (1,) * (img.ndim - 1)
        low, high = self.low.view(shape).to(img), self.high.view(shape).to(img)
        return torch.minimum(low + (img - low) * params["factor"], high)


def deform_more(
    transforms: Sequence[BasicTransform], probabilities: tuple[float, float, float]
) -> None:
    """Set nnU-Net's spatial transform to deform more often, and elastically too.

    Args:
        transforms: a composition with nnU-Net's `SpatialTransform`, which is changed.
        probabilities: of a rotation, of a scaling (the axes each by a factor of its own, as bodies
            differ), and of an elastic deformation.
    """
    spatial = next(t for t in transforms if isinstance(t, SpatialTransform))
    spatial.p_rotation, spatial.p_scaling, spatial.p_elastic_deform = probabilities
    spatial.p_synchronize_scaling_across_axes = 0.5
    spatial.elastic_deform_scale = ELASTIC_SHARE_OF_PATCH
    spatial.elastic_deform_magnitude = ELASTIC_PX


@dataclass(frozen=True)
class Lesion:
    """One lesion cut out of a training image.

    Attributes:
        image: (C, h, w) float32, the values of the box around it.
        mask: (h, w) bool, the lesion.
        halo: (h, w) bool, the lesion and the uptake close to it.
        place: (row, column) of its centre in the body's box, 0 to 1.
    """

    image: np.ndarray
    mask: np.ndarray
    halo: np.ndarray
    place: tuple[float, float]


def lesions_of(image: np.ndarray, mask: np.ndarray, body: np.ndarray) -> list[Lesion]:
    """The lesions (8-connected) of one view that are large enough to be pasted.

    Args:
        image: (C, H, W), standardised.
        mask: (H, W), 1 is lesion.
        body: (H, W) bool.
    """
    box = _box(body)
    labels, count = cc3d.connected_components(
        (mask == 1).astype(np.uint8), connectivity=8, return_N=True
    )
    found: list[Lesion] = []
    if box is None or not count:
        return found
    sizes = cc3d.statistics(labels)["voxel_counts"]
    for number, where in enumerate(ndimage.find_objects(labels), start=1):
        if sizes[number] < SMALLEST_PASTED_PX:
            continue
        rows, columns = (
            slice(max(0, part.start - HALO_PX), min(size, part.stop + HALO_PX))
            for part, size in zip(where, mask.shape)
        )
        own = labels[rows, columns] == number
        # The uptake around another lesion stays where it is.
        halo = ndimage.binary_dilation(own, iterations=HALO_PX) & (
            own | (labels[rows, columns] == 0)
        )
        centre = ((rows.start + rows.stop) / 2, (columns.start + columns.stop) / 2)
        place = tuple((c - start) / max(1, stop - start) for c, (start, stop) in zip(centre, box))
        found.append(
            Lesion(np.ascontiguousarray(image[:, rows, columns], np.float32), own, halo, place)
        )
    return found


class LesionPasteTransform(BasicTransform):
    """Paste lesions of one other patient onto the image, at about their place in the body.

    A MIP shows the brightest value along a ray, so what is pasted is the maximum of both images;
    pixels where the image is brighter than the lesion by more than `hidden_by` are not labelled.

    Args:
        bank: lesions of the training fold, a list for each patient. Never of a validation fold.
        body_above: value above which a pixel is body (of the first channel).
        most: most lesions pasted at once.
        hidden_by: see above, in standardised units.
    """

    def __init__(
        self,
        bank: Sequence[Sequence[Lesion]],
        body_above: float,
        most: int = 6,
        hidden_by: float = 0.5,
    ):
        super().__init__()
        self.bank = [lesions for lesions in bank if lesions]
        self.body_above = body_above
        self.most = most
        self.hidden_by = hidden_by

    def get_parameters(self, **data_dict) -> dict:
        # torch's generator, which nnU-Net's workers seed apart, as its own transforms do.
        return {"generator": np.random.default_rng(int(torch.randint(2**31, (1,))))}

    def apply(self, data_dict: dict, **params) -> dict:
        if self.bank:
            image, segmentation = data_dict["image"].clone(), data_dict["segmentation"].clone()
            self.paste(image.numpy(), segmentation.numpy()[0], params["generator"])
            data_dict["image"], data_dict["segmentation"] = image, segmentation
        return data_dict

    def paste(
        self, image: np.ndarray, segmentation: np.ndarray, generator: np.random.Generator
    ) -> int:
        """Paste into image (C, H, W) and segmentation (H, W) in place; number of lesions pasted."""
        body = (image[0] > self.body_above) & (segmentation >= 0)
        box = _box(body)
        if box is None:
            return 0
        lesions = self.bank[generator.integers(len(self.bank))]
        wanted = min(len(lesions), int(generator.integers(1, self.most + 1)))
        chosen = generator.choice(len(lesions), wanted, replace=False)
        mirrored = generator.random() < 0.5
        return sum(
            self._paste_one(lesions[index], mirrored, image, segmentation, body, box, generator)
            for index in chosen
        )

    def _paste_one(self, lesion, mirrored, image, segmentation, body, box, generator) -> bool:
        values, mask, halo = lesion.image, lesion.mask, lesion.halo
        row, column = lesion.place
        if mirrored:
            values, mask, halo = values[:, :, ::-1], mask[:, ::-1], halo[:, ::-1]
            column = 1 - column
        height, width = mask.shape
        for _ in range(PLACEMENT_TRIES):
            top, left = (
                round(
                    start
                    + share * (stop - start)
                    - size / 2
                    + generator.integers(-JITTER_PX, JITTER_PX + 1)
                )
                for share, (start, stop), size in zip((row, column), box, (height, width))
            )
            if top < 0 or left < 0 or top + height > len(body) or left + width > body.shape[1]:
                continue
            here = (slice(top, top + height), slice(left, left + width))
            if body[here][mask].mean() < SHARE_ON_BODY:
                continue
            below = image[0][here]
            shown = mask & (values[0] >= below - self.hidden_by) & (segmentation[here] >= 0)
            image[:, here[0], here[1]] = np.where(
                halo & (values[0] > below), values, image[:, here[0], here[1]]
            )
            segmentation[here][shown & (segmentation[here] == 0)] = 1
            return True
        return False


def _box(body: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """((first row, last row), (first column, last column)) of the True pixels, or None."""
    if not body.any():
        return None
    rows, columns = (np.flatnonzero(body.any(axis)) for axis in (1, 0))
    return (int(rows[0]), int(rows[-1])), (int(columns[0]), int(columns[-1]))


class DetachCueTransform(BasicTransform):
    """Moves the last channel out of the image, so that only spatial transforms change it.

    `AttachCueTransform` puts it back. In between it is nnU-Net's regression target: spatial
    transforms move it with the image, intensity transforms do not change it.
    """

    def apply(self, data_dict: dict, **params) -> dict:
        image = data_dict["image"]
        data_dict["image"], data_dict["regression_target"] = image[:-1], image[-1:]
        return data_dict


class AttachCueTransform(BasicTransform):
    """Appends the channel that `DetachCueTransform` took out as the last channel again."""

    def apply(self, data_dict: dict, **params) -> dict:
        cue = data_dict.pop("regression_target")
        data_dict["image"] = torch.cat([data_dict["image"], cue.to(data_dict["image"].dtype)])
        return data_dict
