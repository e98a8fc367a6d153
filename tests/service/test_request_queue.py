"""Request queue of the service: load, deadlines, degraded answers, closed connections."""

import shutil
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from nnunetv2_mip.service.monitoring import Metrics
from nnunetv2_mip.service.request_queue import FINISH_S, PredictionRequest, RequestQueue
from nnunetv2_mip.service.settings import Settings

from .conftest import GREY, KINDS, accepted, grey_image, image_body, png, rgb, wait_for_metric


def test_parallel_requests_get_the_masks_of_sequential_ones(service):
    sent = [png(rgb(grey_image(80 + 7 * k, 50 + 3 * k, seed=k))) for k in range(8)]
    alone = [accepted(service.predict(image), image) for image in sent]
    with ThreadPoolExecutor(16) as callers:
        answers = list(callers.map(service.predict, sent * 4))
    for k, answer in enumerate(answers):
        assert np.array_equal(accepted(answer, sent[k % 8]), alone[k % 8])


def test_near_the_deadline_mirrored_copies_are_left_out_first(
    run_service, tiny_predictor, monkeypatch
):
    sent = KINDS["RGB"]
    one_copy = tiny_predictor.override(tta=False).predict_image(255 - GREY)[0] == 1
    with run_service(tiny_predictor, Settings(deadline_s=60)) as service:
        assert "x-mip-degraded" not in service.predict(sent).headers
        monkeypatch.setattr(service.queue, "time_left", lambda request: 0.0)
        answer = service.predict(sent)
        assert answer.headers["x-mip-degraded"] == "copies=1/4 folds=1/1"
        assert np.array_equal(accepted(answer, sent), one_copy)
        wait_for_metric(service, 'mip_degraded_total{dropped="tta"} 1.0')


def test_then_networks_are_left_out(run_service, tiny, tmp_path, monkeypatch):
    """Two folds and time for one pass: the first fold alone."""
    from nnunetv2_mip.inference.predictor import MIPPredictor

    folder = tmp_path / "model"
    shutil.copytree(tiny.model, folder)
    shutil.copytree(folder / "fold_0", folder / "fold_1")
    both = MIPPredictor.from_model_folder(folder, device="cpu")
    assert both.folds == 2
    with run_service(both, Settings(deadline_s=60)) as service:
        monkeypatch.setattr(service.queue, "time_left", lambda request: 0.0)
        answer = service.predict(png(rgb(GREY[:32, :32])))
        assert answer.headers["x-mip-degraded"] == "copies=1/4 folds=1/2"
        wait_for_metric(service, 'mip_degraded_total{dropped="folds"} 1.0')


def test_the_fair_share_of_the_time(tiny_predictor):
    """Fair share of the time: all waiting requests can take as long and meet their deadlines."""
    queue = RequestQueue(tiny_predictor, 10, Metrics())
    levels = np.zeros((4, 4), np.uint8)
    try:
        with queue.device_lock.hold(urgent=True):
            now = time.monotonic()
            running = PredictionRequest(levels, now, now + 100)
            queue.submit(running)
            while not running.answer.running():
                time.sleep(0.01)
            assert 98 < queue.time_left(running) + FINISH_S <= 100
            for seconds in (100, 100, 100):
                queue.submit(PredictionRequest(levels, now, now + seconds))
            # Four share 100 s.
            assert 24 < queue.time_left(running) + FINISH_S <= 25
            hurried = PredictionRequest(levels, now, now + 50)
            queue.submit(hurried)
            assert 9 < queue.time_left(running) + FINISH_S <= 10
            # A request whose client has gone needs no time.
            hurried.client_gone.set()
            assert 24 < queue.time_left(running) + FINISH_S <= 25
    finally:
        queue.close()
    assert not queue.alive


def test_a_full_queue_refuses_requests_with_retry_after(run_service, tiny_predictor):
    sent = KINDS["RGB"]
    with (
        run_service(tiny_predictor, Settings(queue=2, deadline_s=60)) as service,
        ThreadPoolExecutor(8) as callers,
    ):
        # While the device is held, one request waits for it and two wait in the queue.
        with service.queue.device_lock.hold(urgent=True):
            first = callers.submit(service.predict, sent)
            while not service.queue.busy:
                time.sleep(0.01)
            answers = [first] + [callers.submit(service.predict, sent) for _ in range(5)]
            wait_for_metric(service, 'mip_refused_total{reason="queue"} 3.0')
        found = [answer.result() for answer in answers]
    assert sorted(answer.status_code for answer in found) == [200, 200, 200, 503, 503, 503]
    for answer in found:
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"]) >= 1
        else:
            accepted(answer, sent)


@pytest.mark.slow
def test_requests_past_their_deadline_are_refused(run_service, tiny_predictor):
    with (
        run_service(tiny_predictor, Settings(deadline_s=2)) as service,
        ThreadPoolExecutor(2) as callers,
    ):
        with service.queue.device_lock.hold(urgent=True):
            first = callers.submit(service.predict, KINDS["RGB"])
            while not service.queue.busy:
                time.sleep(0.01)
            second = callers.submit(service.predict, KINDS["RGB"])
            wait_for_metric(service, "mip_queue_length 1.0")
            time.sleep(2.1)
        # In the queue or waiting for the device, both are refused.
        for answer in (first.result(), second.result()):
            assert answer.status_code == 503 and "deadline" in answer.json()["detail"]
        wait_for_metric(service, 'mip_refused_total{reason="late"} 2.0')


def test_requests_of_closed_connections_are_not_run(run_service, tiny_predictor):
    body = image_body(KINDS["RGB"])
    request = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: "
    with run_service(tiny_predictor, Settings(deadline_s=60)) as service:
        address = service.url.removeprefix("http://").split(":")
        with service.queue.device_lock.hold(urgent=True):
            callers = [socket.create_connection(address) for _ in range(3)]
            for caller in callers:
                caller.sendall(request + str(len(body)).encode() + b"\r\n\r\n" + body)
            wait_for_metric(service, "mip_queue_length 2.0")
            for caller in callers:
                caller.close()
            wait_for_metric(service, "mip_cancelled_total 3.0")
        accepted(service.predict(KINDS["RGB"]), KINDS["RGB"])
        # The device was not used for the others.
        wait_for_metric(service, "mip_inference_seconds_count 1.0")
