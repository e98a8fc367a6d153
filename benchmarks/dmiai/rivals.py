"""Two published recipes, retrained on the folds of `recipes.py` and scored by the same code.

    python benchmarks/dmiai/rivals.py -d 10 -o recipes_out --folds 0 --iterations 1200 attention smp

- `attention`: MONAI's AttentionUnet, 96 x 96 crops around lesions and elsewhere, Dice and focal
  loss 1 : 10, Adam, sliding window (entry "MIP-PET attention U-Net" of DM-i-AI 2023).
- `smp`: U-Net with an EfficientNet-B3 encoder and scSE decoder, Dice loss, AdamW on a cosine,
  mirroring, brightness, contrast, blur, Gaussian and salt-and-pepper noise (DM-i-AI 2025; the only
  published score on the final test, 0.73, by three such networks). Needs
  `pip install -r benchmarks/requirements.txt`.

Both start from random weights and see patients and controls of the training cases. What their
authors did not publish is chosen here: learning rates (1e-3), batches (8 crops; 4 images of
512 x 416), widths of the AttentionUnet (16 to 256), inputs divided by 255. Test-time mirroring in
both axes and a threshold of 0.5 for both, as for all recipes.

--reduce 2 trains and predicts on pixels twice as large, which is what the 4 mm plans have; the
probabilities are brought back to the image's pixels. OUT gets what `recipes.py` writes for a
recipe; `table.md` then holds all recipes in OUT. A fold that is done is not trained again.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import recipe_scores as scores
import torch
from torch import nn
from torch.nn import functional

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.nnunet.paths import raw_dataset

LEARNING_RATE = 1e-3
CROP = 96
CROPS = 8
SMP_SIZE = (512, 416)
SMP_BATCH = 4
FLIPS = ((), (0,), (1,), (0, 1))


class Crops:
    """Random crops of the training cases, mirrored at random; every other holds a lesion pixel."""

    def __init__(self, images: list, size: tuple[int, int], count: int, seed: int):
        self.images = [(image.levels.astype(np.float32) / 255, image.truth) for image in images]
        self.sick = [pair for pair in self.images if pair[1].any()]
        self.size = size
        self.count = count
        self.generator = np.random.default_rng(seed)

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 1, h, w) float32 image and truth."""
        pairs = [self._one(number % 2 == 0) for number in range(self.count)]
        return tuple(torch.from_numpy(np.stack(part)[:, None].copy()) for part in zip(*pairs))

    def _one(self, on_lesion: bool) -> tuple[np.ndarray, np.ndarray]:
        generator, pool = self.generator, self.sick if on_lesion else self.images
        levels, truth = pool[generator.integers(len(pool))]
        margins = [(0, max(0, want - have)) for want, have in zip(self.size, levels.shape)]
        levels, truth = np.pad(levels, margins), np.pad(truth, margins)
        corner = []
        target = None
        if on_lesion:
            places = np.argwhere(truth)
            target = places[generator.integers(len(places))]
        for axis, want in enumerate(self.size):
            last = levels.shape[axis] - want
            start = generator.integers(last + 1)
            if target is not None:
                start = np.clip(target[axis] - generator.integers(want), 0, last)
            corner.append(slice(int(start), int(start) + want))
        levels, truth = levels[tuple(corner)], truth[tuple(corner)].astype(np.float32)
        axes = FLIPS[generator.integers(len(FLIPS))]
        return np.flip(levels, axes), np.flip(truth, axes)


def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Brightness, contrast, blur, Gaussian and impulse noise, each on a part of the images."""
    images = images.clone()
    for image in images:
        chance, amount = torch.rand(5, generator=generator), torch.rand(5, generator=generator)
        if chance[0] < 0.5:
            mean = image.mean()
            image.copy_((image - mean) * (0.8 + 0.4 * amount[0]) + mean + 0.2 * (amount[1] - 0.5))
        if chance[1] < 0.2:
            sigma = float(0.5 + amount[2])
            line = torch.exp(-(torch.arange(-3, 4) ** 2) / (2 * sigma**2))
            kernel = torch.outer(line, line) / line.sum() ** 2
            image.copy_(functional.conv2d(image[None], kernel[None, None], padding=3)[0])
        if chance[2] < 0.2:
            image.add_(torch.randn(image.shape, generator=generator), alpha=0.05 * float(amount[3]))
        if chance[3] < 0.2:
            drawn, share = torch.rand(image.shape, generator=generator), 0.12 * amount[4]
            image[drawn < share / 2] = 0
            image[drawn > 1 - share / 2] = 1
    return images.clamp_(0, 1)


def attention_network() -> tuple[nn.Module, Callable]:
    from monai.losses import DiceFocalLoss
    from monai.networks.nets import AttentionUnet

    network = AttentionUnet(2, 1, 1, channels=(16, 32, 64, 128, 256), strides=(2, 2, 2, 2))
    return network, DiceFocalLoss(sigmoid=True, lambda_dice=1, lambda_focal=10)


def smp_network() -> tuple[nn.Module, Callable]:
    try:
        import segmentation_models_pytorch as smp
    except ImportError:
        raise MipError("rival smp: needs pip install -r benchmarks/requirements.txt") from None

    network = smp.Unet(
        "efficientnet-b3",
        encoder_weights=None,
        decoder_attention_type="scse",
        in_channels=1,
        classes=1,
    )
    return network, smp.losses.DiceLoss("binary")


def reduced(levels: np.ndarray, factor: int) -> np.ndarray:
    """(H, W) on pixels `factor` times as large: means of blocks, edges repeated."""
    height, width = levels.shape
    padding = ((0, -height % factor), (0, -width % factor))
    padded = np.pad(levels.astype(np.float32), padding, "edge")
    blocks = padded.reshape(padded.shape[0] // factor, factor, -1, factor)
    return blocks.mean((1, 3))


def train(name: str, images: list, args: argparse.Namespace) -> nn.Module:
    """A trained network.

    Args:
        images: `recipe_scores.Image`s of the training cases.
        args: the command line.
    """
    iterations, seed, device = args.iterations, args.seed, args.device
    torch.manual_seed(seed)
    if args.reduce > 1:
        images = [
            replace(
                image,
                levels=reduced(image.levels, args.reduce),
                truth=reduced(image.truth, args.reduce) >= 0.5,
            )
            for image in images
        ]
    if name == "attention":
        network, loss = attention_network()
        source = Crops(images, (CROP, CROP), CROPS, seed)
        optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
        schedule = None
    else:
        network, loss = smp_network()
        source = Crops(images, tuple(args.smp_size), args.smp_batch, seed)
        optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    network.to(device).train()
    generator = torch.Generator().manual_seed(seed)
    for _ in range(iterations):
        image, truth = source.batch()
        if name == "smp":
            image = augment(image, generator)
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=args.bfloat16):
            answer = network(image.to(device))
        loss(answer.float(), truth.to(device)).backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()
    return network.eval()


@torch.inference_mode()
def probability(
    name: str,
    network: nn.Module,
    levels: np.ndarray,
    device: str,
    factor: int = 1,
    tta: bool = True,
) -> np.ndarray:
    """(H, W) of an image (H, W), the mean over four mirrored copies.

    Args:
        factor: the network works on pixels so many times as large.
        tta: whether it is mirrored.
    """
    small = reduced(levels, factor)
    image = torch.from_numpy(small.astype(np.float32) / 255)[None, None].to(device)
    total = torch.zeros_like(image)
    flips = FLIPS if tta else FLIPS[:1]
    for axes in flips:
        turned = [axis + 2 for axis in axes]
        answer = torch.sigmoid(_logits(name, network, image.flip(turned)))
        total += answer.flip(turned)
    total = functional.interpolate(total, scale_factor=factor, mode="bilinear")
    height, width = levels.shape
    return (total / len(flips))[0, 0, :height, :width].cpu().numpy()


def _logits(name: str, network: nn.Module, image: torch.Tensor) -> torch.Tensor:
    if name == "attention":
        from monai.inferers import sliding_window_inference

        return sliding_window_inference(image, (CROP, CROP), 4, network, overlap=0.5)
    height, width = image.shape[2:]
    padding = (0, -width % 32, 0, -height % 32)
    return network(functional.pad(image, padding))[:, :, :height, :width]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-d", type=int, required=True, help="data set id in nnUNet_raw")
    parser.add_argument("-o", type=Path, required=True, help="folder for scores")
    parser.add_argument("--folds", type=int, nargs="+", default=[0])
    parser.add_argument("--iterations", type=int, default=1200)
    parser.add_argument("--copies", nargs="+", choices=scores.COPIES, default=list(scores.COPIES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reduce", type=int, default=1, help="larger pixels: 2 of 2 mm are 4 mm")
    parser.add_argument("--scores", type=Path, help="keep scores here, as recipes.py does")
    parser.add_argument("--no_tta", action="store_true", help="no mirroring at prediction")
    parser.add_argument("--bfloat16", action="store_true", help="train in mixed precision")
    parser.add_argument("--smp_size", type=int, nargs=2, default=SMP_SIZE, help="image of smp")
    parser.add_argument("--smp_batch", type=int, default=SMP_BATCH)
    parser.add_argument("-device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("rivals", nargs="+", choices=("attention", "smp"))
    args = parser.parse_args()
    raw = raw_dataset(args.d)
    notes = scores.read_notes(args.o / "notes.json")
    kept = scores.ScoreFolder(args.scores) if args.scores else None
    for name in args.rivals:
        for fold in args.folds:
            out = args.o / name / f"fold_{fold}.csv"
            if kept and kept.has(name, fold, args.iterations):
                continue
            clock = out.with_suffix(".json")
            if out.is_file():
                if kept:
                    about = scores.read_notes(clock)
                    kept.add(scores.read_rows(out), args.iterations, **about)
                continue
            split = scores.folds_of(raw)[fold]
            started = time.monotonic()
            images = list(scores.images_of(raw, split["train"]))
            network = train(name, images, args)
            minutes = (time.monotonic() - started) / 60
            parameters = sum(weight.numel() for weight in network.parameters())
            note = notes.setdefault(name, {"training_minutes": 0.0})
            note["training_minutes"] += minutes / len(args.folds)
            note["parameters"] = parameters
            rows = []
            for image in scores.images_of(raw, split["val"]):
                for kind in args.copies:
                    copy = scores.copy_of(image, kind)
                    began = time.perf_counter()
                    answer = probability(
                        name, network, copy.levels, args.device, args.reduce, not args.no_tta
                    )
                    answer = copy.back(answer)
                    seconds = round(time.perf_counter() - began, 3)
                    probabilities = args.o / name / "probabilities" / kind
                    scores.save_probability(answer, probabilities / f"{image.case}.npz")
                    about = {"recipe": name, "fold": fold, "case": image.case}
                    about |= {"patient": image.patient, "copy": kind}
                    scored = scores.score(image, answer >= 0.5)
                    rows.append(about | scored | {"seconds": seconds})
            scores.write_text(clock, scores.as_json({"parameters": parameters, "minutes": minutes}))
            scores.write_rows(rows, out)
            if kept:
                kept.add(scores.read_rows(out), args.iterations, parameters, minutes)
    scores.write_text(args.o / "notes.json", scores.as_json(notes))
    rows = [row for path in sorted(args.o.glob("*/fold_*.csv")) for row in scores.read_rows(path)]
    reference = "recipe" if any(row["recipe"] == "recipe" for row in rows) else rows[0]["recipe"]
    text = scores.table(rows, reference, notes)
    scores.write_text(args.o / "table.md", text + "\n")
    print(text)


if __name__ == "__main__":
    try:
        main()
    except MipError as error:
        raise SystemExit(f"rivals.py: {error}") from None
