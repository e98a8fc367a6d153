"""Rehearsal of DM i AI: a service is called, and its replies are checked, as the platform does.

The requests are sent one after another, each with a time limit. Every reply must pass the checks of
the platform (decoded, same shape, three equal channels, only 0 and 255) and is then scored by Dice.
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
from nnunetv2_mip.io.png_masks import decode_truth_png

# The platform gives up on a request after this time.
REQUEST_LIMIT_S = 10.0
# Header in which the service reports copies and folds averaged, if it left out some.
DEGRADED_HEADER = "X-MIP-Degraded"


@dataclass(frozen=True)
class RehearsalCase:
    """Image of a patient, and its label if there is one."""

    name: str
    image: Path
    label: Path | None


@dataclass(frozen=True)
class Outcome:
    """Outcome of one request.

    Attributes:
        name: of the case.
        seconds: from sending to the last byte.
        failure: reason for which the platform would reject the reply, or None.
        dice: Dice score; 0 for a rejected reply, None without a label.
        degraded: copies and folds averaged, if the service left out some for lack of time.
    """

    name: str
    seconds: float
    failure: str | None
    dice: float | None
    degraded: str | None = None


def find_cases(folder: Path | str) -> list[RehearsalCase]:
    """Cases of a folder, sorted by file name.

    Args:
        folder: folder that holds `patients/{imgs,labels}` as DM i AI publishes it, `imgs` and
            `labels`, or PNGs without labels.

    Raises:
        MipError: the folder does not exist, or holds no PNG.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MipError(f"{folder}: no such folder")
    parents = (folder / PATIENTS, folder)
    parent = next((path for path in parents if (path / IMAGES).is_dir()), None)
    images = images_in(folder if parent is None else parent / IMAGES)
    if not images:
        raise MipError(f"{folder}: holds no PNG (looked for patients/imgs, imgs, and PNGs in it)")
    labels = None if parent is None else parent / LABELS
    return [
        RehearsalCase(path.stem, path, None if labels is None else mask_of_image(path, labels))
        for path in images
    ]


def rehearse(
    url: str, cases: list[RehearsalCase], limit_s: float = REQUEST_LIMIT_S
) -> Iterator[Outcome]:
    """Outcomes of the requests, in the order of the cases.

    Args:
        url: address of the service's prediction.
        cases: images to send.
        limit_s: seconds that a request may take.

    Raises:
        MipError: a label cannot be read, or differs in size from its image; before any request.
    """
    for case in cases:
        _check_label(case)
    with httpx.Client(timeout=limit_s, trust_env=False) as client:
        for case in cases:
            yield _send(client, url, case, limit_s)


def _check_label(case: RehearsalCase) -> None:
    if case.label is None:
        return
    rows, columns = decode_truth_png(case.label).shape
    try:
        with Image.open(case.image) as image:
            size = image.size
    except OSError:
        # The service must refuse it.
        return
    if size != (columns, rows):
        raise MipError(
            f"{case.label}: has {columns}x{rows} pixels, its image {case.image.name} "
            f"{size[0]}x{size[1]}"
        )


def _send(client: httpx.Client, url: str, case: RehearsalCase, limit_s: float) -> Outcome:
    content = case.image.read_bytes()
    truth = None if case.label is None else decode_truth_png(case.label)
    start = time.perf_counter()
    degraded = mask = None
    try:
        # As the platform: bytes of the file, base64, in JSON.
        answer = client.post(url, json={"img": base64.b64encode(content).decode("ascii")})
        seconds = time.perf_counter() - start
        degraded = answer.headers.get(DEGRADED_HEADER)
        mask, failure = check_reply(answer, content)
    except httpx.TimeoutException:
        seconds, failure = time.perf_counter() - start, f"no answer within {limit_s:g} s"
    except httpx.HTTPError as error:
        seconds, failure = time.perf_counter() - start, f"no connection ({error})"
    if failure is None and seconds > limit_s:
        failure = f"answered after {seconds:.1f} s, the limit is {limit_s:g} s"
        mask = None
    dice = None
    if truth is not None:
        dice = 0.0 if mask is None else metrics.dice(mask, truth, metrics.EmptyTruth.AGREEMENT)
    return Outcome(case.name, seconds, failure, dice, degraded)


def check_reply(answer: httpx.Response, sent: bytes) -> tuple[np.ndarray | None, str | None]:
    """Mask of a reply that passes the checks of the platform.

    Args:
        answer: reply of the service.
        sent: bytes of the image.

    Returns:
        Mask (H, W) bool and None, or None and the reason for which the reply is rejected.
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
    """Summary of a rehearsal: requests, failures, mean Dice, and p50, p95 and max of seconds."""
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
