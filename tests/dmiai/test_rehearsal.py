"""Command `nnUNetv2_mip_rehearse` against the service and against servers with wrong replies."""

import base64
import io
import json
import time

import numpy as np
import pytest
from helpers import run
from PIL import Image

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from nnunetv2_mip.commands import rehearse

from .conftest import Server


@pytest.fixture
def data(tmp_path):
    """Folder with two patients, as DM i AI publishes them."""
    for folder in ("imgs", "labels"):
        (tmp_path / "patients" / folder).mkdir(parents=True)
    for number, size in (("001", (60, 40)), ("002", (97, 61))):
        grey = np.full(size, 255, np.uint8)
        grey[10:-10, 8:-8] = 200
        truth = np.zeros(size, np.uint8)
        truth[20:30, 15:25] = 255
        grey[truth > 0] = 10
        for folder, name, array in (
            ("imgs", f"patient_{number}", grey),
            ("labels", f"segmentation_{number}", truth),
        ):
            rgb = np.repeat(array[..., None], 3, axis=2)
            Image.fromarray(rgb).save(tmp_path / "patients" / folder / f"{name}.png")
    return tmp_path


def png(array: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def starter_kit(change=lambda mask: mask, status: int = 200, wait: float = 0.0):
    """Threshold rule of DM i AI's starter kit as a service; `change` alters its mask."""

    def answer(method, path, headers, body):
        time.sleep(wait)
        image = np.asarray(Image.open(io.BytesIO(base64.b64decode(body["img"]))))
        mask = change((image < 50).astype(np.uint8) * 255)
        return status, {}, {"img": png(mask)}

    return answer


def test_a_rehearsal_of_our_own_service(service, data, tmp_path, capsys):
    out = tmp_path / "out" / "rehearsal.json"
    assert run(rehearse, "--url", f"{service.url}/predict", "--data", data, "-o", out) == 0
    printed = capsys.readouterr().out
    assert "requests   2, 0 failed" in printed and "PASS" in printed
    assert "p50" in printed and "p95" in printed and "max" in printed
    found = json.loads(out.read_text())
    assert found["summary"]["requests"] == 2 and len(found["outcomes"]) == 2


def test_the_dice_is_that_of_the_masks(data, capsys):
    with Server(starter_kit()) as server:
        assert run(rehearse, "--url", f"{server.url}/predict", "--data", data) == 0
    assert "mean Dice  1.0000 over 2 images" in capsys.readouterr().out

    def half(mask):
        mask[:, mask.shape[1] // 2 :] = 0
        return mask

    with Server(starter_kit(half)) as server:
        assert run(rehearse, "--url", server.url, "--data", data, "--min_dice", 0.99) == 1
    assert "mean Dice below 0.99" in capsys.readouterr().out
    # The request is that of the platform.
    _, _, headers, body = server.seen[0]
    assert headers["Content-Type"] == "application/json" and list(body) == ["img"]
    sent = base64.b64decode(body["img"], validate=True)
    assert sent == (data / "patients" / "imgs" / "patient_001.png").read_bytes()


REJECTED = {
    "grey instead of RGB": (starter_kit(lambda mask: mask[..., 0]), "shape"),
    "another size": (starter_kit(lambda mask: mask[1:]), "shape"),
    "another value": (starter_kit(lambda mask: mask // 2), "0 and 255"),
    "unequal channels": (starter_kit(lambda mask: mask * np.array([1, 0, 0], np.uint8)), "equal"),
    "an error": (starter_kit(status=500), "status 500"),
    "too late": (starter_kit(wait=0.7), "within 0.5 s"),
    "no PNG": (lambda *_: (200, {}, {"img": "AAAA"}), "base64 PNG"),
    "no JSON": (lambda *_: (200, {}, b"hello"), "no JSON"),
    "no answer": (lambda *_: None, "no connection"),
}


@pytest.mark.parametrize("kind", REJECTED)
def test_replies_that_the_platform_rejects_fail(data, capsys, kind):
    answer, reason = REJECTED[kind]
    with Server(answer) as server:
        limit = 0.5 if kind == "too late" else 10
        code = run(rehearse, "--url", server.url, "--data", data, "--limit", limit, "-n", 1)
    found = capsys.readouterr()
    assert code == 1
    assert reason in found.err and "patient_001" in found.err
    assert "1, 1 failed" in found.out and "FAIL" in found.out
    assert "mean Dice  0.0000" in found.out


@pytest.mark.parametrize(
    "argv, reason",
    [
        (["--data", "nowhere"], "nowhere"),
        (["--data", ".", "--url", "localhost:9051"], "--url"),
        (["--data", ".", "--url", "http://[::1/predict"], "--url"),
        (["--data", ".", "--url", "http://:9051/predict"], "--url"),
        (["--data", ".", "-n", "0"], "-n 0"),
        (["--data", ".", "--limit", "0"], "--limit"),
    ],
)
def test_bad_options_are_refused(tmp_path, monkeypatch, capsys, argv, reason):
    monkeypatch.chdir(tmp_path)
    assert run(rehearse, *argv) == 2
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize("spoil", ["another size", "no mask"])
def test_a_bad_label_is_reported_before_any_request(data, capsys, spoil):
    label = data / "patients" / "labels" / "segmentation_002.png"
    array = np.zeros((97, 60), np.uint8) if spoil == "another size" else np.full((97, 61), 7)
    Image.fromarray(array.astype(np.uint8)).save(label)
    with Server(starter_kit()) as server:
        assert run(rehearse, "--url", server.url, "--data", data) == 2
        assert server.seen == []
    assert "segmentation_002.png" in capsys.readouterr().err
