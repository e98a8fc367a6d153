"""Web page in headless Chromium: upload, overlay, rotation, downloads, bad files."""

import base64
import contextlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from nnunetv2_mip.io.png_masks import decode_mask_png
from nnunetv2_mip.service.settings import Settings

pytestmark = pytest.mark.browser


@pytest.fixture
def page(browser, service):
    """Open page that records its requests (`asked`) and its errors (`complaints`)."""
    with open_page(browser, service) as page:
        yield page


@contextlib.contextmanager
def open_page(browser, service):
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.set_default_timeout(60_000)
    page.asked, page.complaints = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on(
        "console",
        lambda line: page.complaints.append(line.text) if line.type == "error" else None,
    )
    page.goto(f"{service.url}/page/")
    yield page
    own = (service.url + "/", f"blob:{service.url}", "data:")
    assert [url for url in page.asked if not url.startswith(own)] == []
    page.close()


def wait_for_result(page) -> None:
    page.wait_for_selector("#result:not([hidden]), #message:not([hidden])")
    assert page.inner_text("#message") == ""


def wait_for_threshold(page, value: str) -> None:
    page.wait_for_selector(f"#canvas[data-threshold='{value}']")


def slide(page, name: str, value: float) -> None:
    page.locator(f"#{name}").evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }",
        value,
    )


def orange(page) -> int:
    """Number of coloured pixels on the canvas."""
    return page.evaluate(
        """() => { const c = document.getElementById('canvas');
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let n = 0;
        for (let i = 0; i < d.length; i += 4) n += d[i] !== d[i + 2]; return n; }"""
    )


def download(page, name: str, folder: Path) -> Path:
    with page.expect_download() as found:
        page.click(f"#{name}")
    path = folder / found.value.suggested_filename
    found.value.save_as(path)
    return path


def test_it_shows_its_intended_use(page):
    assert "Research use only" in page.inner_text("#research")
    assert page.complaints == []


def test_an_image_from_upload_to_mask(page, service, image, tmp_path):
    page.set_input_files("#file", str(image))
    wait_for_result(page)
    assert page.inner_text("#name") == image.name
    shown = orange(page)
    assert shown == int(page.get_attribute("#canvas", "data-marked")) > 0
    assert "regions" in page.inner_text("#total")
    assert page.locator("#table tbody tr").count() >= 1

    mask = decode_mask_png(download(page, "mask", tmp_path))
    assert mask.shape == (97, 61) and int(mask.sum()) == shown
    # The page and the interface give the same mask.
    sent = service.predict(image.read_bytes()).json()["img"]
    (tmp_path / "own.png").write_bytes(base64.b64decode(sent))
    assert np.array_equal(decode_mask_png(tmp_path / "own.png"), mask)

    slide(page, "opacity", 0)
    assert orange(page) == 0
    slide(page, "opacity", 1)
    assert orange(page) == shown

    slide(page, "threshold", 0.95)
    wait_for_threshold(page, "0.95")
    assert orange(page) < shown
    strict = decode_mask_png(download(page, "mask", tmp_path))
    assert int(strict.sum()) == orange(page)

    report = download(page, "report", tmp_path).read_text("utf-8")
    assert "Research use only" in report and "threshold 0.95" in report
    # The name is escaped, and the report loads nothing.
    assert "<1>" not in report and "&lt;1&gt;" in report
    assert "http://" not in report and "https://" not in report
    assert page.complaints == []


def test_a_volume_turns_and_has_a_table_of_lesions(page, volume, tmp_path):
    page.set_input_files("#file", str(volume))
    wait_for_result(page)
    assert page.inner_text("#angle") == "0°"
    slide(page, "threshold", 0.3)
    wait_for_threshold(page, "0.3")
    mask = sitk.ReadImage(str(download(page, "mask", tmp_path)))
    source = sitk.ReadImage(str(volume))
    assert mask.GetSize() == source.GetSize() and mask.GetOrigin() == source.GetOrigin()
    found = sitk.GetArrayFromImage(mask)
    assert set(np.unique(found)) <= {0, 1}
    assert found.any()
    titles = page.locator("#table thead").inner_text()
    assert "Volume (ml)" in titles and "SUVmax" in titles
    ml = sum(map(float, page.locator("#table tbody td:nth-child(2)").all_inner_texts()))
    assert ml == pytest.approx(found.sum() * 0.08, rel=1e-3)

    box = page.locator("#canvas").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + box["width"] / 3, middle[1], steps=4)
    page.mouse.up()
    # A third of the width is a third of 180°: two of six views.
    assert page.get_attribute("#canvas", "data-view") == "2"
    assert page.inner_text("#angle") == "60°"
    page.focus("#canvas")
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    # Below 0° the mirrored views of the other side follow.
    assert page.inner_text("#angle") == "330°"
    assert page.complaints == []


@pytest.mark.parametrize(
    "name, content, reason",
    [
        ("notes.txt", b"not an image", "none of the kinds"),
        ("empty.png", b"", "empty"),
        ("cut.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "cannot be read as an image"),
        ("volume.nii.gz", b"\x1f\x8b rubbish", "volume.nii.gz"),
        ("study.zip", b"PK\x03\x04 rubbish", "cannot be unpacked"),
    ],
)
def test_a_bad_file_gets_a_clear_message_and_another_can_follow(
    page, tmp_path, name, content, reason
):
    path = tmp_path / name
    path.write_bytes(content)
    page.set_input_files("#file", str(path))
    page.wait_for_selector("#message:not([hidden])")
    message = page.inner_text("#message")
    assert reason in message and message.startswith(name), message
    # No path of this machine.
    assert "/tmp" not in message
    assert page.is_visible("#drop") and not page.is_visible("#result")


def test_a_dropped_file_is_accepted_too(page, image):
    handle = page.evaluate_handle(
        """async (bytes) => { const t = new DataTransfer();
        t.items.add(new File([new Uint8Array(bytes)], 'dropped.png')); return t; }""",
        list(image.read_bytes()),
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": handle})
    wait_for_result(page)
    assert page.inner_text("#name") == "dropped.png"
    page.click("#again")
    assert page.is_visible("#drop") and not page.is_visible("#result")


def test_a_file_that_was_stopped_does_not_come_back(page, image, tmp_path):
    late = tmp_path / "late.png"
    late.write_bytes(image.read_bytes())
    held = []
    page.route(lambda url: "name=late" in url, lambda route: held.append(route))
    page.set_input_files("#file", str(late))
    while not held:
        page.wait_for_timeout(20)
    page.click("#stop")
    assert page.is_visible("#drop") and not page.is_visible("#working")
    page.set_input_files("#file", str(image))
    wait_for_result(page)
    # Only now the server accepts the first file, if the browser still sent it.
    with contextlib.suppress(playwright_error()):
        held[0].fulfill(status=202, json={"key": "late"})
    page.wait_for_timeout(300)
    assert page.inner_text("#name") == image.name and page.inner_text("#message") == ""
    assert not [url for url in page.asked if url.endswith("/cases/late")]
    assert page.complaints == []


def playwright_error():
    return pytest.importorskip("playwright.sync_api").Error


def test_models_with_another_arc_and_threshold(
    browser, run_service, tiny_predictor, image, volume, tmp_path
):
    other = tiny_predictor.override(arc_deg=360.0, threshold=0.0321, views=4, tta=False)
    with run_service(other, Settings()) as service, open_page(browser, service) as page:
        page.set_input_files("#file", str(image))
        wait_for_result(page)
        # The model's own threshold, outside the slider's usual range, as for /predict.
        sent = service.predict(image.read_bytes()).json()["img"]
        (tmp_path / "own.png").write_bytes(base64.b64decode(sent))
        mask = decode_mask_png(download(page, "mask", tmp_path))
        assert np.array_equal(decode_mask_png(tmp_path / "own.png"), mask)
        assert page.inner_text("#threshold-value") == "0.03"
        page.click("#again")
        page.set_input_files("#file", str(volume))
        wait_for_result(page)
        page.focus("#canvas")
        page.keyboard.press("ArrowLeft")
        assert page.inner_text("#angle") == "0°"
        for _ in range(5):
            page.keyboard.press("ArrowRight")
        # Last view of a full rotation; no mirrored views follow.
        assert page.inner_text("#angle") == "270°"
        assert page.complaints == []


def test_a_stopped_server_is_reported(page, image):
    page.route("**/page/cases*", lambda route: route.abort())
    page.set_input_files("#file", str(image))
    page.wait_for_selector("#message:not([hidden])")
    assert "does not answer" in page.inner_text("#message")
