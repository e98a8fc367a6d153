"""Features of views from a trained segmentation network (torch).

One pass for each view and mirrored copy; the results are averaged. Of the encoder's last stages:
mean and maximum over the body, and the mean weighted by the lesion probability. Of the lesion
probability: the mean log odds of the 50, 200, 800 and 3200 mm² with the highest odds, and the
uptake there. The view is cropped to the body first. So no feature is a size or a count, none
includes air, and none holds the image's height or its margins directly.

The same is pooled over fixed vertical parts of the view (`BANDS`), which serve as training crops.
The passes of the network are shared, only the pooling is repeated.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from nnunetv2_mip.conventions import BODY_LEVEL
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import atomic_path
from nnunetv2_mip.inference.deadline import Deadline
from nnunetv2_mip.inference.predictor import MIPPredictor
from nnunetv2_mip.inference.sliding_window import mirrored_copies, pad_to_size

# Version of the computation of features: caches and heads of another one are refused.
FEATURES_VERSION = 2
# Share of pixels with uptake from which on a row or column belongs to the body.
BODY_SHARE = 0.02
STAGES = 3
AREAS_MM2 = (50.0, 200.0, 800.0, 3200.0)
# (first, last) share of the body's height, from the top; the whole body first.
BANDS = ((0.0, 1.0), (0.0, 0.9), (0.1, 1.0), (0.05, 0.95), (0.0, 0.8), (0.2, 1.0), (0.1, 0.9))
GROUPS = ("mean", "max", "suspect", "odds", "uptake")
# Groups that are comparable between the networks of several folds.
LESION_GROUPS = ("odds", "uptake")


@dataclass(frozen=True)
class FeatureLayout:
    """Columns of the features, by group.

    Attributes:
        channels: numbers of channels of the encoder's last `STAGES` stages, the deepest last.
    """

    channels: tuple[int, ...]

    @property
    def slices(self) -> dict[str, slice]:
        """Columns of every group: `mean`, `max`, `suspect` of the stages, then `odds`, `uptake`."""
        wide = sum(self.channels)
        sizes = (wide, wide, wide, len(AREAS_MM2), len(AREAS_MM2))
        ends = np.cumsum(sizes)
        return {name: slice(end - size, end) for name, size, end in zip(GROUPS, sizes, ends)}

    @property
    def width(self) -> int:
        """Number of columns."""
        return 3 * sum(self.channels) + 2 * len(AREAS_MM2)

    def columns(self, *groups: str) -> np.ndarray:
        """Columns of the named groups; of all groups without a name."""
        parts = [self.slices[name] for name in groups or GROUPS]
        return np.concatenate([np.arange(part.start, part.stop) for part in parts])


def body_window(levels: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of a stack of views that the body fills.

    Args:
        levels: (V, H, W), 0–255.

    Raises:
        MipError: no row or column has uptake.
    """
    body = levels > BODY_LEVEL
    box = _spans([np.any(body, axis=(0, axis)) for axis in (2, 1)])
    # Shares of the box, not of the image, so that margins of air do not count.
    inner = body[:, box[0], box[1]]
    spans = _spans([(inner.mean(axis=axis) >= BODY_SHARE).any(axis=0) for axis in (2, 1)])
    rows, columns = (
        slice(outer.start + span.start, outer.start + span.stop) for outer, span in zip(box, spans)
    )
    return rows, columns


def _spans(used: list[np.ndarray]) -> list[slice]:
    """Slice from the first to the last used place of each axis."""
    found = []
    for places in used:
        where = np.flatnonzero(places)
        if not len(where):
            raise MipError("the image is empty: it shows no body")
        found.append(slice(int(where[0]), int(where[-1]) + 1))
    return found


def cropped_to_body(levels: np.ndarray) -> np.ndarray:
    """Views (C, V, H, W) or (V, H, W) without the margins around the body of the first channel."""
    rows, columns = body_window(levels if levels.ndim == 3 else levels[0])
    return levels[..., rows, columns]


class FeatureExtractor:
    """Feature extractor on a predictor's networks, with an optional cache on disk.

    Args:
        predictor: the trained model.
        cache: folder for the features of every image, named by a hash of its content.
        networks: number of the predictor's networks in use. The log odds are the mean over them.
            The encoder's stages are those of the first one: they are not comparable between
            networks.

    Raises:
        MipError: the network has no encoder and decoder, or works on volumes.
    """

    def __init__(self, predictor: MIPPredictor, cache: Path | None = None, networks: int = 1):
        if predictor.windows is None:
            raise MipError("a classifier needs a 2D network; this model's works on volumes")
        self.predictor, self._windows = predictor, predictor.windows
        module = predictor.network.torch_module(0)
        encoder = getattr(module, "encoder", None)
        if encoder is None or not hasattr(encoder, "output_channels"):
            raise MipError(
                f"a classifier needs a network with an encoder; {type(module).__name__} has "
                "none that nnU-Net's networks have"
            )
        self.layout = FeatureLayout(tuple(int(n) for n in encoder.output_channels[-STAGES:]))
        self.networks = networks
        self.fingerprint = network_fingerprint(predictor, networks)
        self._cache = cache
        if cache is not None:
            cache.mkdir(parents=True, exist_ok=True)

    def features(self, levels: np.ndarray, pixel_mm: tuple[float, float]) -> np.ndarray:
        """Features of a stack: (B, V, F) float32, B as `BANDS`, F as `layout.width`.

        Args:
            levels: (C, V, H, W) or (V, H, W), 0–255, bright is uptake.
            pixel_mm: (row, column) spacing.

        Raises:
            MipError: an empty image, or channels that the model does not have.
        """
        if levels.ndim == 4 and len(levels) == 1:
            levels = levels[0]
        path = None
        if self._cache is not None:
            text = f"{self.fingerprint} {levels.shape} {levels.dtype} {pixel_mm}".encode()
            name = hashlib.sha256(text + np.ascontiguousarray(levels).tobytes()).hexdigest()
            path = self._cache / f"{name[:40]}.npy"
            if path.is_file():
                return np.load(path)
        found = self._compute(cropped_to_body(levels), pixel_mm, BANDS, Deadline())
        if path is not None:
            with atomic_path(path) as partial:
                np.save(partial, found)
        return found

    def features_of_whole_body(
        self,
        levels: np.ndarray,
        pixel_mm: tuple[float, float],
        deadline: Deadline | None = None,
    ) -> np.ndarray:
        """Features of the first band alone: (V, F) float32, never cached.

        Args:
            levels, pixel_mm: as of `features`.
            deadline: asked before each pass of the network.

        Raises:
            MipError: as of `features`.
            Cancelled: raised by the deadline.
        """
        if levels.ndim == 4 and len(levels) == 1:
            levels = levels[0]
        deadline = deadline or Deadline()
        return self._compute(cropped_to_body(levels), pixel_mm, BANDS[:1], deadline)[0]

    @torch.inference_mode()
    def _compute(
        self,
        levels: np.ndarray,
        pixel_mm: tuple[float, float],
        bands: Sequence[tuple[float, float]],
        deadline: Deadline,
    ) -> np.ndarray:
        data = self.predictor.network_input(levels, pixel_mm)
        suv = levels if levels.ndim == 3 else levels[0]
        body = torch.from_numpy((suv > BODY_LEVEL).astype(np.float32))[:, None]
        body = functional.interpolate(body, data.shape[2:], mode="area")
        views = []
        copies = mirrored_copies(self.predictor.mirrored_axes)
        deadline.windows += data.shape[1] * self.networks * len(copies)
        for view in range(data.shape[1]):
            padded, inner = pad_to_size(data[:, view], self._windows.whole_size(data.shape[2:]))
            stages, odds = self._passes(padded, copies, deadline)
            views.append(self._pooled(stages, odds, data[0, view], body[view, 0], inner, bands))
        return np.stack(views, axis=1)

    def _passes(
        self, image: torch.Tensor, copies: Sequence[tuple[int, ...]], deadline: Deadline
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Encoder's last stages, each (C, h, w), and log odds of a lesion (H, W).

        Means over the mirrored copies, each flipped back; the log odds also over the networks.
        """
        stages, odds = [], []
        for fold in range(self.networks):
            for axes in copies:
                # Negative axes: valid for (C, H, W) and for (H, W).
                flips = [axis - 2 for axis in axes]
                deadline.check()
                parts = self._pass(image.flip(flips) if flips else image, fold)
                *maps, odd = (part.flip(flips) if flips else part for part in parts)
                odds.append(odd)
                if fold == 0:
                    stages.append(maps)
        return [torch.stack(maps).mean(0) for maps in zip(*stages)], torch.stack(odds).mean(0)

    def _pass(self, image: torch.Tensor, fold: int) -> list[torch.Tensor]:
        """Encoder's last stages and then the log odds, of one image by one network."""
        network = self.predictor.network
        *stages, logits = (part[0] for part in network.stages_and_logits(image[None], fold, STAGES))
        odds = logits[1] - torch.logsumexp(torch.cat([logits[:1], logits[2:]]), dim=0)
        return [*stages, odds]

    def _pooled(
        self,
        stages: list[torch.Tensor],
        odds: torch.Tensor,
        uptake: torch.Tensor,
        body: torch.Tensor,
        inner: tuple[slice, slice],
        bands: Sequence[tuple[float, float]],
    ) -> np.ndarray:
        """Features (B, F) of every band of one view.

        Args:
            stages: (C, h, w) each.
            odds: (H, W) of the padded view.
            uptake, body: of the view, which fills `inner` of the padded one.
            inner: rows and columns.
            bands: as `BANDS`.
        """
        rows = inner[0]
        height = rows.stop - rows.start
        area = float(np.prod(self.predictor.pixel_mm))
        found = []
        for first, last in bands:
            part = slice(
                round(first * height), max(round(last * height), round(first * height) + 1)
            )
            mask = torch.zeros_like(odds)
            mask[rows.start + part.start : rows.start + part.stop, inner[1]] = (
                body[part] > 0.5
            ).float()
            if not mask.any():
                # A part without body, in an unusual image: all of it counts.
                mask[rows.start + part.start : rows.start + part.stop, inner[1]] = 1.0
            suspicion = torch.sigmoid(odds) * mask
            means, peaks, suspects = [], [], []
            for stage in stages:
                size = (stage.shape[1], stage.shape[2])
                weight = functional.adaptive_avg_pool2d(mask[None], size)[0]
                suspect = functional.adaptive_avg_pool2d(suspicion[None], size)[0]
                means.append((stage * weight).sum((1, 2)) / weight.sum())
                peaks.append(stage[:, weight > 0].amax(1))
                suspects.append((stage * suspect).sum((1, 2)) / suspect.sum().clamp_min(1e-12))
            inside = mask.bool()
            values, order = odds[inside].sort(descending=True)
            levels = torch.zeros_like(odds)
            levels[inner] = uptake
            levels = levels[inside][order]
            counts = [min(len(values), max(1, round(size / area))) for size in AREAS_MM2]
            tops = [values[:n].mean() for n in counts] + [levels[:n].mean() for n in counts]
            found.append(torch.cat([*means, *peaks, *suspects, torch.stack(tops)]))
        return torch.stack(found).numpy().astype(np.float32)


def network_fingerprint(predictor: MIPPredictor, networks: int = 1) -> str:
    """Hash of the networks' weights, of their input and of the computation of features."""
    digest = hashlib.sha256()
    for fold in predictor.network.folds[:networks]:
        for name, value in sorted(fold.items()):
            array = np.ascontiguousarray(torch.as_tensor(value).detach().cpu().numpy())
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(array.tobytes())
    about = {
        "features": FEATURES_VERSION,
        "pixel_mm": predictor.pixel_mm,
        "channels": predictor.config.channels,
        "prefilter": predictor.config.prefilter,
        "patch": predictor.windows.patch if predictor.windows else None,
    }
    digest.update(json.dumps(about, sort_keys=True).encode())
    return digest.hexdigest()[:32]
