"""What a trained segmentation network sees in a view, as a row of numbers (torch).

One pass a view and mirrored copy, averaged. Of the encoder's last stages: mean and maximum over the
body, and the mean weighted by the lesion probability (what the network sees where it suspects a
lesion). Of the lesion probability: the mean log odds of the most suspicious 50, 200, 800 and
3200 mm², and the uptake there. Nothing of it is a size or a count, and air is in none: the view is
cropped to the body first, so that neither the image's height nor its margins are told in plain
figures.

The same is pooled over fixed vertical parts of the view (`BANDS`), which training uses as crops:
the passes are the same, the pooling is repeated.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from nnunetv2_mip.conventions import BODY_LEVEL
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import atomic_path
from nnunetv2_mip.inference.predictor import MIPPredictor
from nnunetv2_mip.inference.sliding_window import mirrored_copies

# Of the way features are computed: caches and heads of another one are refused.
FEATURES_VERSION = 2
# A row or column of the body has uptake in at least this share of its pixels.
BODY_SHARE = 0.02
STAGES = 3
AREAS_MM2 = (50.0, 200.0, 800.0, 3200.0)
# (first, last) of the body's height, from the top; the whole body first.
BANDS = ((0.0, 1.0), (0.0, 0.9), (0.1, 1.0), (0.05, 0.95), (0.0, 0.8), (0.2, 1.0), (0.1, 0.9))
GROUPS = ("mean", "max", "suspect", "odds", "uptake")
# What the networks of several folds have in common.
LESION_GROUPS = ("odds", "uptake")


@dataclass(frozen=True)
class FeatureLayout:
    """Which column of the features is what.

    Attributes:
        channels: of the encoder's last `STAGES` stages, the deepest last.
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
        return 3 * sum(self.channels) + 2 * len(AREAS_MM2)

    def columns(self, *groups: str) -> np.ndarray:
        """Columns of some groups of features; of all without a name."""
        parts = [self.slices[name] for name in groups or GROUPS]
        return np.concatenate([np.arange(part.start, part.stop) for part in parts])


def body_window(levels: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns that the body fills in a stack of views.

    Args:
        levels: (V, H, W), 0–255.

    Raises:
        MipError: no row or column has uptake.
    """
    body = levels > BODY_LEVEL
    box = _spans([body.any(axis=(0, axis)) for axis in (2, 1)])
    # Shares of the box, not of the image: margins of air must not count.
    inner = body[:, box[0], box[1]]
    spans = _spans([(inner.mean(axis=axis) >= BODY_SHARE).any(axis=0) for axis in (2, 1)])
    rows, columns = (
        slice(outer.start + span.start, outer.start + span.stop) for outer, span in zip(box, spans)
    )
    return rows, columns


def _spans(used: list[np.ndarray]) -> list[slice]:
    """From the first to the last place in use of each axis."""
    found = []
    for places in used:
        where = np.flatnonzero(places)
        if not len(where):
            raise MipError("the image is empty: it shows no body")
        found.append(slice(int(where[0]), int(where[-1]) + 1))
    return found


def cropped_to_body(levels: np.ndarray) -> np.ndarray:
    """(C, V, H, W) or (V, H, W) without the margins around the body (of the first channel)."""
    rows, columns = body_window(levels if levels.ndim == 3 else levels[0])
    return levels[..., rows, columns]


class FeatureExtractor:
    """Features by a predictor's networks, kept in a folder where there is one.

    Args:
        predictor: the trained model.
        cache: folder for the features of every image, by content: they are computed once.
        networks: how many of the predictor's. The log odds are the mean over them; an encoder's
            stages, which no two networks have in common, are the first one's.

    Raises:
        MipError: the network has no encoder and decoder, or works on volumes.
    """

    def __init__(self, predictor: MIPPredictor, cache: Path | None = None, networks: int = 1):
        if predictor.windows is None:
            raise MipError("a classifier needs a 2D network; this model's works on volumes")
        self.predictor = predictor
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
            MipError: an empty image, or channels that the model has not.
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
        found = self._compute(cropped_to_body(levels), pixel_mm)
        if path is not None:
            with atomic_path(path) as partial:
                np.save(partial, found)
        return found

    @torch.inference_mode()
    def _compute(self, levels: np.ndarray, pixel_mm: tuple[float, float]) -> np.ndarray:
        data = self.predictor.network_input(levels, pixel_mm)
        suv = levels if levels.ndim == 3 else levels[0]
        body = torch.from_numpy((suv > BODY_LEVEL).astype(np.float32))[:, None]
        body = functional.interpolate(body, data.shape[2:], mode="area")
        views = []
        for view in range(data.shape[1]):
            padded, inner = pad_to_window(data[:, view], self.predictor)
            stages, odds = self._passes(padded)
            views.append(self._pooled(stages, odds, data[0, view], body[view, 0], inner))
        return np.stack(views, axis=1)

    def _passes(self, image: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """The encoder's last stages, each (C, h, w), and the log odds of a lesion (H, W).

        Means over the mirrored copies, each turned back, the log odds over the networks too.
        """
        copies = mirrored_copies(self.predictor.mirrored_axes)
        stages, odds = [], []
        for fold in range(self.networks):
            for axes in copies:
                # Of (C, H, W) and, from behind, of (H, W).
                flips = [axis - 2 for axis in axes]
                parts = self._pass(image.flip(flips) if flips else image, fold)
                *maps, odd = (part.flip(flips) if flips else part for part in parts)
                odds.append(odd)
                if fold == 0:
                    stages.append(maps)
        return [torch.stack(maps).mean(0) for maps in zip(*stages)], torch.stack(odds).mean(0)

    def _pass(self, image: torch.Tensor, fold: int) -> list[torch.Tensor]:
        """Of one image by one network: the encoder's last stages, then the log odds."""
        kept: list[torch.Tensor] = []
        # Asked for each time: another fold may have been loaded meanwhile.
        module = self.predictor.network.torch_module(fold)
        hook = module.encoder.register_forward_hook(lambda own, given, answer: kept.extend(answer))
        try:
            logits = module(image[None].to(self.predictor.device))
        finally:
            hook.remove()
        logits = logits[0] if isinstance(logits, list | tuple) else logits
        logits = logits[0].float().cpu()
        odds = logits[1] - torch.logsumexp(torch.cat([logits[:1], logits[2:]]), dim=0)
        return [*(stage[0].float().cpu() for stage in kept[-STAGES:]), odds]

    def _pooled(
        self,
        stages: list[torch.Tensor],
        odds: torch.Tensor,
        uptake: torch.Tensor,
        body: torch.Tensor,
        inner: tuple[slice, slice],
    ) -> np.ndarray:
        """(B, F): every band of one view. `uptake`, `body` (h, w) lie at `inner` of `odds`."""
        rows = inner[0]
        height = rows.stop - rows.start
        area = float(np.prod(self.predictor.pixel_mm))
        bands = []
        for first, last in BANDS:
            part = slice(
                round(first * height), max(round(last * height), round(first * height) + 1)
            )
            mask = torch.zeros_like(odds)
            mask[rows.start + part.start : rows.start + part.stop, inner[1]] = (
                body[part] > 0.5
            ).float()
            if not mask.any():
                # A part without body (an odd image): what is there counts.
                mask[rows.start + part.start : rows.start + part.stop, inner[1]] = 1.0
            suspicion = torch.sigmoid(odds) * mask
            means, peaks, suspects = [], [], []
            for stage in stages:
                weight = functional.adaptive_avg_pool2d(mask[None], stage.shape[1:])[0]
                suspect = functional.adaptive_avg_pool2d(suspicion[None], stage.shape[1:])[0]
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
            bands.append(torch.cat([*means, *peaks, *suspects, torch.stack(tops)]))
        return torch.stack(bands).numpy().astype(np.float32)


def pad_to_window(
    image: torch.Tensor, predictor: MIPPredictor
) -> tuple[torch.Tensor, tuple[slice, slice]]:
    """An image (C, h, w) in one piece, padded as in training; also where it lies in it."""
    windows = predictor.windows
    size = [
        max(p, -(-n // m) * m) for n, m, p in zip(image.shape[1:], windows.multiple, windows.patch)
    ]
    missing = [want - have for want, have in zip(size, image.shape[1:])]
    before = [m // 2 for m in missing]
    widths = (before[1], missing[1] - before[1], before[0], missing[0] - before[0])
    inner = tuple(slice(b, b + n) for b, n in zip(before, image.shape[1:]))
    return functional.pad(image, widths), (inner[0], inner[1])


def network_fingerprint(predictor: MIPPredictor, networks: int = 1) -> str:
    """What a head belongs to: a hash of the networks' weights, pixels and way of features."""
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
