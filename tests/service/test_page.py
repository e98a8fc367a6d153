"""The page in a real headless Chromium: upload, overlay, turning, downloads, bad files."""

import base64
import contextlib
import os
import socket
import threading
import time
import zipfile
from pathlib import Path

import httpx
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from nnunetv2_mip.fusion.rules import FusionRule
from nnunetv2_mip.io.png import decode_mask_png
from nnunetv2_mip.io.read_study import Study
from nnunetv2_mip.io.volumes import read_suv
from nnunetv2_mip.service.settings import Settings

DATA = os.environ.get("NNUNETV2_MIP_TEST_DATA")


@pytest.fixture
def page(browser, service):
    """The page, with every request it makes and everything it complains of."""
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
    """Pixels of the canvas that are coloured."""
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


@pytest.fixture
def image(tmp_path) -> Path:
    grey = np.full((97, 61), 255, np.uint8)
    grey[10:-10, 12:-12] = 200
    grey[30:42, 20:30] = 10
    path = tmp_path / "a patient <1>.png"
    Image.fromarray(np.repeat(grey[..., None], 3, axis=2)).save(path)
    return path


@pytest.fixture
def volume(tmp_path) -> Path:
    z, y, x = np.mgrid[:40, :32, :32]
    body = ((y - 16) / 12) ** 2 + ((x - 16) / 14) ** 2 < 1
    suv = np.where(body, 1.0, 0.0).astype(np.float32)
    suv[(z - 20) ** 2 + (y - 12) ** 2 + (x - 20) ** 2 < 16] = 9.0
    # The sitk axes are x, y, z; nothing symmetric, so that a turned header would show.
    picture = sitk.GetImageFromArray(suv)
    picture.SetSpacing((4.0, 4.0, 5.0))
    picture.SetOrigin((-10.0, 20.0, 30.0))
    path = tmp_path / "SUV.nii.gz"
    sitk.WriteImage(picture, str(path))
    return path


def test_it_says_what_it_is_for(page):
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
    # What the page marks is what the interface answers.
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
    # The name came from outside; the report fetches nothing.
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
    # Below 0° the views of the other side come, mirrored.
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
    # Nothing of this machine.
    assert "/tmp" not in message
    assert page.is_visible("#drop") and not page.is_visible("#result")


def test_a_dropped_file_is_taken_too(page, image):
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
    # Only now the server takes the first one, if the browser still sent it.
    with contextlib.suppress(playwright_error()):
        held[0].fulfill(status=202, json={"key": "late"})
    page.wait_for_timeout(300)
    assert page.inner_text("#name") == image.name and page.inner_text("#message") == ""
    assert not [url for url in page.asked if url.endswith("/cases/late")]
    assert page.complaints == []


def playwright_error():
    return pytest.importorskip("playwright.sync_api").Error


def test_recipes_of_other_arcs_and_thresholds(
    browser, run_service, tiny_predictor, image, volume, tmp_path
):
    other = tiny_predictor.override(arc_deg=360.0, threshold=0.0321, views=4, tta=False)
    with run_service(other, Settings()) as service, open_page(browser, service) as page:
        page.set_input_files("#file", str(image))
        wait_for_result(page)
        # The model's own threshold, beyond the slider's usual end: what /predict answers.
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
        # The last of the whole turn; behind it nothing is mirrored.
        assert page.inner_text("#angle") == "270°"
        assert page.complaints == []


def test_a_server_that_is_gone_is_told(page, image):
    page.route("**/page/cases*", lambda route: route.abort())
    page.set_input_files("#file", str(image))
    page.wait_for_selector("#message:not([hidden])")
    assert "does not answer" in page.inner_text("#message")


# Without a browser: the page's own interface.


def wait(url: str) -> dict:
    for _ in range(600):
        state = httpx.get(url).json()
        if state["state"] in ("done", "failed"):
            return state
        time.sleep(0.1)
    raise AssertionError(state)


def upload(service, path: Path, name: str | None = None) -> str:
    answer = httpx.post(
        f"{service.url}/page/cases",
        params={"name": name or path.name},
        content=path.read_bytes(),
        timeout=60,
    )
    assert answer.status_code == 202, answer.text
    return f"{service.url}/page/cases/{answer.json()['key']}"


def test_answers_of_the_interface_do_not_wait_for_volumes(
    run_service, tiny_predictor, volume, image
):
    """A volume takes long; requests go between any two of its windows."""
    from nnunetv2_mip.inference.engine import Network

    class Slow(Network):
        def logits(self, images, fold):
            time.sleep(0.15)
            return super().logits(images, fold)

    inner = tiny_predictor._network
    network = Slow(inner.module, inner.folds, inner.device, inner.patch, inner.multiple)
    slow = type(tiny_predictor)(tiny_predictor._nnunet, tiny_predictor.config, network=network)
    with run_service(slow, Settings()) as service:
        case = upload(service, volume)
        while httpx.get(case).json()["progress"] < 0.12:
            time.sleep(0.02)
        start = time.perf_counter()
        assert service.predict(image.read_bytes()).status_code == 200
        took = time.perf_counter() - start
        # Six views in four copies take 3.6 s at least; the request's own passes 0.6 s.
        assert httpx.get(case).json()["state"] == "running"
        assert took < 2.5
        assert wait(case)["state"] == "done"


@pytest.mark.parametrize("step", ["_views_of", "mask_at"])
def test_answers_do_not_wait_for_projection_or_fusion(
    run_service, tiny_predictor, volume, image, step
):
    """What the page does without the network leaves the device to requests."""
    began, go_on = threading.Event(), threading.Event()

    class Held(type(tiny_predictor)):
        pass

    def held(self, *arguments):
        began.set()
        assert go_on.wait(60)
        return getattr(type(tiny_predictor), step)(self, *arguments)

    setattr(Held, step, held)
    predictor = Held(tiny_predictor._nnunet, tiny_predictor.config, network=tiny_predictor._network)
    with run_service(predictor, Settings()) as service:
        case = upload(service, volume)
        try:
            assert began.wait(60)
            assert service.predict(image.read_bytes()).status_code == 200
        finally:
            go_on.set()
        assert wait(case)["state"] == "done"


def test_the_slider_keeps_to_the_method(tiny_predictor, volume):
    """A second stage's own probability is cut; views' are moved to the threshold of the fusion."""
    suv = read_suv(volume)

    class Halves:
        channels = ()

        def predict(self, study, cue, deadline):
            found = np.zeros(study.suv.array.shape, np.float32)
            found[20:], found[30:] = 0.4, 0.8
            return (found > 0.5).astype(np.uint8), found

    both = tiny_predictor.override(tta=False).with_second_stage(Halves())
    study = both.predict_study(Study(suv))
    assert both.volume_threshold == 0.5
    for threshold, first in ((0.3, 20), (0.5, 30), (0.7, 30)):
        mask = both.mask_at(study, Study(suv), threshold)
        assert mask[first:].all() and not mask[:first].any()

    rule = FusionRule("mean", threshold=0.3)
    voted = tiny_predictor.override(tta=False, fusion=rule)
    study = voted.predict_study(Study(suv))
    assert voted.volume_threshold == 0.3 and study.mask.any()
    beside = voted.mask_at(study, Study(suv), 0.3001)
    # No jump beside the threshold of the recipe, and less the higher it is.
    assert (beside != study.mask).sum() <= 0.01 * study.mask.sum()
    sizes = [voted.mask_at(study, Study(suv), t).sum() for t in (0.1, 0.3, 0.6, 0.9)]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > sizes[-1]


def test_cases_are_forgotten_and_strangers_cannot_guess_them(service, image):
    case = upload(service, image)
    assert wait(case)["state"] == "done"
    assert httpx.get(f"{case}/mask").status_code == 200
    assert httpx.get(f"{case}/mask", params={"threshold": 5}).status_code == 422
    assert httpx.delete(case).status_code == 204
    assert httpx.get(case).status_code == 404
    assert httpx.get(f"{service.url}/page/cases/anything").status_code == 404


def test_only_so_many_files_are_kept_and_worked_on(run_service, tiny_predictor, image):
    with run_service(tiny_predictor, Settings(max_cases=2)) as service:
        with service.desk.device.use(urgent=True):
            first, _ = upload(service, image), upload(service, image)
            third = httpx.post(f"{service.url}/page/cases", content=image.read_bytes())
            assert third.status_code == 422 and "come again later" in third.json()["detail"]
        assert wait(first)["state"] == "done"
        upload(service, image)
        assert httpx.get(first).status_code == 404


def test_forgotten_files_are_neither_kept_nor_worked_on(
    run_service, tiny_predictor, image, tmp_path, monkeypatch
):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with run_service(tiny_predictor, Settings(max_cases=2)) as service:
        with service.desk.device.use(urgent=True):
            first = upload(service, image)
            while httpx.get(first).json()["state"] == "waiting" or list(scratch.iterdir()):
                time.sleep(0.02)
            second = upload(service, image)
            assert len(list(scratch.iterdir())) == 1
            httpx.delete(second)
            assert list(scratch.iterdir()) == []
            # The first is being worked on, though nobody waits for it any more.
            httpx.delete(first)
            third = upload(service, image)
            full = httpx.post(f"{service.url}/page/cases", content=image.read_bytes())
            assert full.status_code == 422 and "come again later" in full.json()["detail"]
        assert wait(third)["state"] == "done"


def test_no_body_is_received_that_there_is_no_room_for(run_service, tiny_predictor, image):
    with run_service(tiny_predictor, Settings(max_cases=1)) as service:
        host = service.url.removeprefix("http://").split(":")
        with socket.create_connection(host) as caller:
            caller.sendall(b"POST /page/cases HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
            while not service.app.state.cases._pending:
                time.sleep(0.01)
            full = httpx.post(f"{service.url}/page/cases", content=image.read_bytes())
            assert full.status_code == 422
        # Who hung up gives the room back.
        while service.app.state.cases._pending:
            time.sleep(0.01)
        assert wait(upload(service, image))["state"] == "done"


def test_cases_are_forgotten_in_time_though_nobody_asks(run_service, tiny_predictor, image):
    with run_service(tiny_predictor, Settings(case_minutes=0.01)) as service:
        upload(service, image)
        kept = service.app.state.cases._cases
        for _ in range(200):
            if not kept:
                break
            time.sleep(0.05)
        assert not kept


def test_nothing_of_an_upload_stays_on_disk(
    run_service, tiny_predictor, image, tmp_path, monkeypatch
):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with run_service(tiny_predictor, Settings(max_upload_bytes=10_000)) as service:
        assert wait(upload(service, image))["state"] == "done"
        large = httpx.post(f"{service.url}/page/cases", content=b"\0" * 20_000)
        assert large.status_code == 413
        assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("name", ["../../evil.dcm", "/etc/evil.dcm", "a/" * 50 + "x"])
def test_a_zip_cannot_write_outside(service, tmp_path, name):
    path = tmp_path / "study.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, b"no DICOM")
    state = wait(upload(service, path))
    assert state["state"] == "failed"
    assert "study.zip" in state["reason"] and "/tmp" not in state["reason"]


def test_a_huge_volume_is_refused_by_its_header(run_service, tiny_predictor, volume):
    with run_service(tiny_predictor, Settings(max_voxels=1000)) as service:
        state = wait(upload(service, volume))
        assert state["state"] == "failed"
        assert "40960 voxels, at most 1000" in state["reason"]


def test_a_zipped_dicom_series_gives_what_its_suv_volume_gives(
    run_service, tiny_predictor, tmp_path
):
    if DATA is None:
        pytest.skip("NNUNETV2_MIP_TEST_DATA is not set: no real DICOM")
    study = Path(DATA) / "petct" / "STS_001"
    if not (study / "dicom").is_dir():
        pytest.skip(f"{study}: no DICOM there")
    path = tmp_path / "STS_001.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted((study / "dicom").iterdir()):
            archive.write(file, f"some study/{file.name}")
    few = tiny_predictor.override(views=2, tta=False, pixel_mm=8.0)
    with run_service(few, Settings()) as service:
        cases = (upload(service, path), upload(service, study / "SUV.nii.gz"))
        for case, name in zip(cases, ("a.png", "b.png")):
            state = wait(case)
            assert state["state"] == "done", state["reason"]
            (tmp_path / name).write_bytes(httpx.get(f"{case}/views.png", timeout=60).content)
    a, b = (np.asarray(Image.open(tmp_path / f"{n}.png")).astype(int) for n in "ab")
    assert a.shape == b.shape and np.abs(a - b).max() <= 1
