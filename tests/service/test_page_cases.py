"""Cases of the web page, by its HTTP interface: masks, limits, expiry, temporary files."""

import os
import socket
import threading
import time
import zipfile
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from nnunetv2_mip.fusion.region_classifier import RegionClassifier
from nnunetv2_mip.fusion.rules import FusionRule
from nnunetv2_mip.io.png import decode_png
from nnunetv2_mip.io.read_study import Study
from nnunetv2_mip.io.volumes import read_suv
from nnunetv2_mip.lesions.healthy_images import HealthyRule
from nnunetv2_mip.service.settings import Settings

from .conftest import accepted, upload, wait_for_case

DATA = os.environ.get("NNUNETV2_MIP_TEST_DATA")


@pytest.mark.slow
def test_predictions_do_not_wait_for_volumes(run_service, tiny_predictor, volume, image):
    """A request during the prediction of a volume, run between two of its windows."""
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
        # Six views in four copies take at least 3.6 s, the passes of the request 0.6 s.
        assert httpx.get(case).json()["state"] == "running"
        assert took < 2.5
        assert wait_for_case(case)["state"] == "done"


@pytest.mark.parametrize("step", ["view_study", "mask_at"])
def test_predictions_do_not_wait_for_projection_or_fusion(
    run_service, tiny_predictor, volume, image, step
):
    """A request while the page projects or fuses, which leaves the device free."""
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
        assert wait_for_case(case)["state"] == "done"


def test_masks_at_other_thresholds_follow_the_method_of_the_model(tiny_predictor, volume):
    """Masks at other thresholds: of a second stage's probability, and of fused views."""
    study = Study(read_suv(volume))

    class Halves:
        channels = ()

        def predict(self, study, cue, deadline):
            found = np.zeros(study.suv.array.shape, np.float32)
            found[20:], found[30:] = 0.4, 0.8
            return (found > 0.5).astype(np.uint8), found

    both = tiny_predictor.override(tta=False).with_second_stage(Halves())
    prediction = both.predict_study(study)
    assert both.volume_threshold == 0.5
    for threshold, first in ((0.3, 20), (0.5, 30), (0.7, 30)):
        mask = both.mask_at(prediction, study, threshold)
        assert mask[first:].all() and not mask[:first].any()

    rule = FusionRule("mean", threshold=0.3)
    voted = tiny_predictor.override(tta=False, fusion=rule)
    prediction = voted.predict_study(study)
    assert voted.volume_threshold == 0.3 and prediction.mask.any()
    near = voted.mask_at(prediction, study, 0.3001)
    # No jump near the model's threshold, and a smaller mask at a higher one.
    assert (near != prediction.mask).sum() <= 0.01 * prediction.mask.sum()
    sizes = [voted.mask_at(prediction, study, t).sum() for t in (0.1, 0.3, 0.6, 0.9)]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > sizes[-1]


def test_a_lower_threshold_brings_doubtful_regions_back(tiny_predictor, volume):
    """A classifier that doubts every region: none at the model's threshold, all near 0."""
    study = Study(read_suv(volume))
    rule = FusionRule(view_threshold=0.3)
    plain = tiny_predictor.override(tta=False, fusion=rule)
    kept = plain.predict_study(study)
    assert kept.mask.any()
    doubting = RegionClassifier(("log_regions",), (0.0,), (1.0,), (0.0,), bias=-3.0, threshold=0.5)
    judged = plain.override(regions=doubting)
    found = judged.predict_study(study)
    assert not found.mask.any()
    assert not judged.mask_at(found, study, 0.29).any()
    # 0.05 / 0.3 of the classifier's 0.5 is 0.08, above its probability of 0.047; 0.02 / 0.3 below.
    assert not judged.mask_at(found, study, 0.05).any()
    np.testing.assert_array_equal(
        judged.mask_at(found, study, 0.02), plain.mask_at(kept, study, 0.02)
    )
    # The same mask as of the whole way, from the views alone.
    context = plain.region_context(study)
    np.testing.assert_array_equal(context.views, judged.region_context(study).views)


def test_a_healthy_image_is_empty_unless_more_is_asked_for(run_service, tiny_predictor, image):
    levels = decode_png(image.read_bytes())
    threshold = float(np.quantile(tiny_predictor.predict_image(levels)[1], 0.9))
    marking = tiny_predictor.override(threshold=threshold)
    assert marking.predict_image(levels)[0].any()
    healthy = marking.override(healthy_image=HealthyRule(800.0, 20.0))
    assert not healthy.predict_image(levels)[0].any()
    with run_service(healthy, Settings()) as service:
        assert not accepted(service.predict(image.read_bytes()), image.read_bytes()).any()
        case = upload(service, image)
        wait_for_case(case)
        usual, more = (
            httpx.get(f"{case}/table", params={"threshold": value}).json()["rows"]
            for value in (threshold, threshold * 0.9)
        )
        assert not usual and more


def test_removed_and_unknown_cases_are_not_found(service, image):
    case = upload(service, image)
    assert wait_for_case(case)["state"] == "done"
    assert httpx.get(f"{case}/mask").status_code == 200
    assert httpx.get(f"{case}/mask", params={"threshold": 5}).status_code == 422
    assert httpx.delete(case).status_code == 204
    assert httpx.get(case).status_code == 404
    assert httpx.get(f"{service.url}/page/cases/anything").status_code == 404


def test_only_so_many_files_are_kept_and_worked_on(run_service, tiny_predictor, image):
    with run_service(tiny_predictor, Settings(max_cases=2)) as service:
        with service.queue.device_lock.hold(urgent=True):
            first, _ = upload(service, image), upload(service, image)
            third = httpx.post(f"{service.url}/page/cases", content=image.read_bytes())
            assert third.status_code == 422 and "come again later" in third.json()["detail"]
        assert wait_for_case(first)["state"] == "done"
        upload(service, image)
        assert httpx.get(first).status_code == 404


def test_removed_files_are_neither_kept_nor_worked_on(
    run_service, tiny_predictor, image, tmp_path, monkeypatch
):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with run_service(tiny_predictor, Settings(max_cases=2)) as service:
        with service.queue.device_lock.hold(urgent=True):
            first = upload(service, image)
            while httpx.get(first).json()["state"] == "waiting" or list(scratch.iterdir()):
                time.sleep(0.02)
            second = upload(service, image)
            assert len(list(scratch.iterdir())) == 1
            httpx.delete(second)
            assert list(scratch.iterdir()) == []
            # Work on the first goes on until its next check, though it was removed.
            httpx.delete(first)
            third = upload(service, image)
            full = httpx.post(f"{service.url}/page/cases", content=image.read_bytes())
            assert full.status_code == 422 and "come again later" in full.json()["detail"]
        assert wait_for_case(third)["state"] == "done"


def test_no_body_is_received_without_free_space(run_service, tiny_predictor, image):
    with run_service(tiny_predictor, Settings(max_cases=1)) as service:
        host = service.url.removeprefix("http://").split(":")
        with socket.create_connection(host) as caller:
            caller.sendall(b"POST /page/cases HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
            while not service.app.state.cases.pending:
                time.sleep(0.01)
            full = httpx.post(f"{service.url}/page/cases", content=image.read_bytes())
            assert full.status_code == 422
        # The closed connection ends its reservation.
        while service.app.state.cases.pending:
            time.sleep(0.01)
        assert wait_for_case(upload(service, image))["state"] == "done"


def test_cases_expire(run_service, tiny_predictor, image):
    with run_service(tiny_predictor, Settings(case_minutes=0.01)) as service:
        upload(service, image)
        kept = service.app.state.cases
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
        assert wait_for_case(upload(service, image))["state"] == "done"
        large = httpx.post(f"{service.url}/page/cases", content=b"\0" * 20_000)
        assert large.status_code == 413
        assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("name", ["../../evil.dcm", "/etc/evil.dcm", "a/" * 50 + "x"])
def test_a_zip_cannot_write_outside(service, tmp_path, name):
    path = tmp_path / "study.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, b"no DICOM")
    state = wait_for_case(upload(service, path))
    assert state["state"] == "failed"
    assert "study.zip" in state["reason"] and "/tmp" not in state["reason"]


def test_a_huge_volume_is_refused_by_its_header(run_service, tiny_predictor, volume):
    with run_service(tiny_predictor, Settings(max_voxels=1000)) as service:
        state = wait_for_case(upload(service, volume))
        assert state["state"] == "failed"
        assert "40960 voxels, at most 1000" in state["reason"]


@pytest.mark.slow
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
            state = wait_for_case(case)
            assert state["state"] == "done", state["reason"]
            (tmp_path / name).write_bytes(httpx.get(f"{case}/views.png", timeout=60).content)
    a, b = (np.asarray(Image.open(tmp_path / f"{n}.png")).astype(int) for n in "ab")
    assert a.shape == b.shape and np.abs(a - b).max() <= 1
