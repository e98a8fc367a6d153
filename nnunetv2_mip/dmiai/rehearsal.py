"""The rehearsal: a service called and checked as the competition does.

One request after another, each with its time limit; every reply goes through the caller's checks
(decoded, same shape, three equal channels, only 0 and 255) before it is scored by Dice.
"""

import base64
import binascii
import io
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.evaluation import metrics
from nnunetv2_mip.io.dmiai_layout import IMAGES, LABELS, PATIENTS, images_in, mask_of_image
from nnunetv2_mip.io.png import decode_mask_png
from nnunetv2_mip.service.settings import CALLER_LIMIT_S


@dataclass(frozen=True)
class Picture:
    """An image, and its truth where there is one."""

    name: str
    image: Path
    label: Path | None


@dataclass(frozen=True)
class Outcome:
    """What came of one request.

    Attributes:
        seconds: from sending to the last byte.
        failure: why the caller would reject the reply, or None.
        dice: None without a truth; 0 for a rejected reply.
        degraded: what the service said it left out for lack of time, or None.
    """

    name: str
    seconds: float
    failure: str | None
    dice: float | None
    degraded: str | None = None


def find_pictures(folder: Path | str) -> list[Picture]:
    """The images to send.

    Args:
        folder: `patients/{imgs,labels}` as the competition hands them out, or `imgs` and `labels`
            in it, or a folder of PNGs without truths.

    Raises:
        MipError: no PNG there.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MipError(f"{folder}: no such folder")
    parents = (folder / PATIENTS, folder)
    parent = next((path for path in parents if (path / IMAGES).is_dir()), None)
    images = images_in(folder if parent is None else parent / IMAGES)
    if not images:
        raise MipError(f"{folder}: holds no PNG (looked for patients/imgs, imgs, and PNGs in it)")
    return [
        Picture(path.stem, path, None if parent is None else mask_of_image(path, parent / LABELS))
        for path in images
    ]


def rehearse(
    url: str, pictures: list[Picture], limit_s: float = CALLER_LIMIT_S
) -> Iterator[Outcome]:
    """Send picture after picture to `url`; yields an outcome each.

    Raises:
        MipError: a truth cannot be read, or is of another size than its image; before any is sent.
    """
    for picture in pictures:
        _check_truth(picture)
    with httpx.Client(timeout=limit_s, trust_env=False) as client:
        for picture in pictures:
            yield _send(client, url, picture, limit_s)


def _check_truth(picture: Picture) -> None:
    if picture.label is None:
        return
    rows, columns = decode_mask_png(picture.label).shape
    try:
        with Image.open(picture.image) as image:
            size = image.size
    except OSError:
        # The service is to say what it is.
        return
    if size != (columns, rows):
        raise MipError(
            f"{picture.label}: has {columns}x{rows} pixels, its image {picture.image.name} "
            f"{size[0]}x{size[1]}"
        )


def _send(client: httpx.Client, url: str, picture: Picture, limit_s: float) -> Outcome:
    content = picture.image.read_bytes()
    truth = None if picture.label is None else decode_mask_png(picture.label)
    start = time.perf_counter()
    degraded = mask = None
    try:
        # As the platform does: the file's bytes, base64, in JSON.
        answer = client.post(url, json={"img": base64.b64encode(content).decode("ascii")})
        seconds = time.perf_counter() - start
        degraded = answer.headers.get("X-MIP-Degraded")
        mask, failure = check_reply(answer, content)
    except httpx.TimeoutException:
        seconds, failure = time.perf_counter() - start, f"no answer within {limit_s:g} s"
    except httpx.HTTPError as error:
        seconds, failure = time.perf_counter() - start, f"no connection ({error})"
    if failure is None and seconds > limit_s:
        failure = f"answered after {seconds:.1f} s, the limit is {limit_s:g} s"
    dice = None
    if truth is not None:
        dice = metrics.dice(mask, truth, metrics.EmptyTruth.AGREEMENT) if failure is None else 0.0
    return Outcome(picture.name, seconds, failure, dice, degraded)


def check_reply(answer: httpx.Response, sent: bytes) -> tuple[np.ndarray | None, str | None]:
    """The caller's checks.

    Args:
        answer: of the service.
        sent: the image's bytes.

    Returns:
        mask (H, W) bool and None, or None and the reason for which the caller rejects the reply.
    """
    if answer.status_code != 200:
        return None, f"status {answer.status_code}: {answer.text[:200]}"
    try:
        text = answer.json()["img"]
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True))) as image:
            reply = np.asarray(image)
    except (ValueError, KeyError, TypeError, binascii.Error, OSError) as error:
        return None, f'the reply is no JSON with a base64 PNG in "img" ({type(error).__name__})'
    with Image.open(io.BytesIO(sent)) as image:
        expected = (image.height, image.width, 3)
    if reply.shape != expected:
        return None, f"the reply has the shape {reply.shape}, {expected} is expected"
    if not (reply == reply[..., :1]).all():
        return None, "the reply's three channels are not equal"
    if not np.isin(np.unique(reply), (0, 255)).all():
        return None, "the reply holds other values than 0 and 255"
    return reply[..., 0] == 255, None


def summary(outcomes: list[Outcome]) -> dict:
    """Numbers of a rehearsal: requests, failures, mean Dice, seconds at p50, p95 and most."""
    seconds = np.array([outcome.seconds for outcome in outcomes])
    scores = [outcome.dice for outcome in outcomes if outcome.dice is not None]
    p50, p95 = np.percentile(seconds, (50, 95))
    return {
        "requests": len(outcomes),
        "failures": sum(outcome.failure is not None for outcome in outcomes),
        "degraded": sum(outcome.degraded is not None for outcome in outcomes),
        "scored": len(scores),
        "mean_dice": float(np.mean(scores)) if scores else None,
        "p50_s": float(p50),
        "p95_s": float(p95),
        "max_s": float(seconds.max()),
    }
