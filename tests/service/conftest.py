"""Images, volumes and requests shared by the tests of the service."""

import base64
import io
import json
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

ROWS, COLUMNS = 97, 61


def grey_image(rows: int = ROWS, columns: int = COLUMNS, seed: int = 0) -> np.ndarray:
    """MIP-PET image (H, W) uint8 with white air, a grey body and a dark lesion."""
    rng = np.random.default_rng(seed)
    image = np.full((rows, columns), 255, np.uint8)
    image[rows // 10 : -rows // 10, columns // 5 : -columns // 5] = 200
    image[rows // 3 : rows // 3 + 12, columns // 3 : columns // 3 + 10] = 10
    noise = rng.integers(0, 6, image.shape).astype(np.uint8)
    return np.where(image == 255, image, image + noise)


def png(image, **options) -> bytes:
    """File content of an image, PNG by default."""
    stream = io.BytesIO()
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image.save(stream, options.pop("format", "PNG"), **options)
    return stream.getvalue()


def rgb(grey: np.ndarray) -> np.ndarray:
    """Grey image (H, W) as (H, W, 3)."""
    return np.repeat(grey[..., None], 3, axis=2)


def with_alpha(grey: np.ndarray) -> np.ndarray:
    alpha = np.random.default_rng(1).integers(0, 256, grey.shape).astype(np.uint8)
    return np.concatenate([rgb(grey), alpha[..., None]], axis=2)


def palette(grey: np.ndarray) -> Image.Image:
    image = Image.fromarray(255 - grey).convert("P")
    image.putpalette([value for level in range(256) for value in [255 - level] * 3])
    return image


GREY = grey_image()
KINDS = {
    "RGB": png(rgb(GREY)),
    "RGBA with alpha": png(with_alpha(GREY)),
    "grey": png(GREY),
    "grey with alpha": png(Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(255 - GREY)])),
    "palette": png(palette(GREY)),
    "16 bit": png(Image.fromarray(GREY.astype(np.uint16) * 257)),
}


def image_body(content: bytes) -> bytes:
    """Body of a request for the prediction of an image file."""
    return json.dumps({"img": base64.b64encode(content).decode()}).encode()


def accepted(answer, sent: bytes) -> np.ndarray:
    """Mask (H, W) bool of a reply that is a valid mask for the image sent."""
    assert answer.status_code == 200, answer.text
    with Image.open(io.BytesIO(base64.b64decode(answer.json()["img"]))) as image:
        reply = np.asarray(image)
    with Image.open(io.BytesIO(sent)) as image:
        assert reply.shape == (image.height, image.width, 3)
    assert reply.dtype == np.uint8
    assert (reply == reply[..., :1]).all()
    assert set(np.unique(reply)) <= {0, 255}
    return reply[..., 0] == 255


def wait_for_metric(service, line: str) -> None:
    """Wait until /metrics has a line."""
    import httpx

    for _ in range(600):
        metrics = httpx.get(service.url + "/metrics", timeout=60).text
        if line in metrics:
            return
        time.sleep(0.05)
    raise AssertionError(f"{line} is not in {metrics}")


@pytest.fixture(scope="session")
def reference(tiny_predictor):
    """Function that returns the predictor's own mask (H, W) bool of levels (H, W)."""

    def of(levels: np.ndarray) -> np.ndarray:
        return tiny_predictor.predict_image(levels)[0] == 1

    return of


@pytest.fixture
def image(tmp_path) -> Path:
    """PNG file with a lesion, whose name must be escaped in HTML."""
    grey = np.full((97, 61), 255, np.uint8)
    grey[10:-10, 12:-12] = 200
    grey[30:42, 20:30] = 10
    path = tmp_path / "a patient <1>.png"
    Image.fromarray(np.repeat(grey[..., None], 3, axis=2)).save(path)
    return path


@pytest.fixture
def volume(tmp_path) -> Path:
    """NIfTI file of a SUV volume with a lesion."""
    z, y, x = np.mgrid[:40, :32, :32]
    body = ((y - 16) / 12) ** 2 + ((x - 16) / 14) ** 2 < 1
    suv = np.where(body, 1.0, 0.0).astype(np.float32)
    suv[(z - 20) ** 2 + (y - 12) ** 2 + (x - 20) ** 2 < 16] = 9.0
    # Axes of ITK: x, y, z. Nothing is symmetric, so that a swapped axis would show.
    picture = sitk.GetImageFromArray(suv)
    picture.SetSpacing((4.0, 4.0, 5.0))
    picture.SetOrigin((-10.0, 20.0, 30.0))
    path = tmp_path / "SUV.nii.gz"
    sitk.WriteImage(picture, str(path))
    return path


def upload(service, path: Path, name: str | None = None) -> str:
    """Upload a file to the page; returns the URL of its case."""
    import httpx

    answer = httpx.post(
        f"{service.url}/page/cases",
        params={"name": name or path.name},
        content=path.read_bytes(),
        timeout=60,
    )
    assert answer.status_code == 202, answer.text
    return f"{service.url}/page/cases/{answer.json()['key']}"


def wait_for_case(url: str) -> dict:
    """State of a case of the page when work on it has ended."""
    import httpx

    for _ in range(600):
        state = httpx.get(url).json()
        if state["state"] in ("done", "failed"):
            return state
        time.sleep(0.1)
    raise AssertionError(state)
