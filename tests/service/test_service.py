"""The service by real requests: the contract's images, load, deadlines, restarts."""

import base64
import io
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from PIL import Image

from nnunetv2_mip.inference.postprocessing import mask_of_view
from nnunetv2_mip.io.png import decode_png

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from nnunetv2_mip.commands import serve as command
from nnunetv2_mip.dmiai.rehearsal import check_reply
from nnunetv2_mip.service.monitoring import Measures
from nnunetv2_mip.service.request_queue import FINISH_S, Desk, Ticket
from nnunetv2_mip.service.settings import Settings

ROWS, COLUMNS = 97, 61


def grey_image(rows: int = ROWS, columns: int = COLUMNS, seed: int = 0) -> np.ndarray:
    """White air, a grey body, a dark lesion: (H, W) uint8."""
    rng = np.random.default_rng(seed)
    image = np.full((rows, columns), 255, np.uint8)
    image[rows // 10 : -rows // 10, columns // 5 : -columns // 5] = 200
    image[rows // 3 : rows // 3 + 12, columns // 3 : columns // 3 + 10] = 10
    noise = rng.integers(0, 6, image.shape).astype(np.uint8)
    return np.where(image == 255, image, image + noise)


def png(image, **options) -> bytes:
    stream = io.BytesIO()
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image.save(stream, options.pop("format", "PNG"), **options)
    return stream.getvalue()


def rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)


def accepted(answer: httpx.Response, sent: bytes) -> np.ndarray:
    """The mask, after the caller's checks."""
    assert answer.status_code == 200, answer.text
    with Image.open(io.BytesIO(base64.b64decode(answer.json()["img"]))) as image:
        reply = np.asarray(image)
    with Image.open(io.BytesIO(sent)) as image:
        assert reply.shape == (image.height, image.width, 3)
    assert reply.dtype == np.uint8
    assert (reply == reply[..., :1]).all()
    assert set(np.unique(reply)) <= {0, 255}
    return reply[..., 0] == 255


@pytest.fixture(scope="module")
def reference(tiny_predictor):
    """What the predictor itself says of an image."""

    def of(levels: np.ndarray) -> np.ndarray:
        return tiny_predictor.predict_image(levels)[0] == 1

    return of


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


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_png_means_the_same(service, reference, kind):
    levels = decode_png(KINDS[kind])
    assert np.array_equal(levels, 255 - GREY)
    assert np.array_equal(accepted(service.predict(KINDS[kind]), KINDS[kind]), reference(levels))


def test_the_reference_marks_something_and_not_everything(reference):
    assert 0 < reference(255 - GREY).sum() < GREY.size


ODD = {
    "1 bit": png(Image.fromarray(GREY).convert("1")),
    "unequal channels": png(np.stack([GREY, GREY // 2, 255 - GREY], axis=2)),
    "inverted": png(rgb(255 - GREY)),
    "all white": png(rgb(np.full_like(GREY, 255))),
    "all black": png(rgb(np.zeros_like(GREY))),
    "all grey": png(rgb(np.full_like(GREY, 128))),
    "one pixel": png(rgb(GREY[:1, :1])),
    "one row": png(rgb(GREY[:1])),
    "one column": png(rgb(GREY[:, :1])),
    "mirrored": png(rgb(GREY[:, ::-1])),
    "upside down": png(rgb(GREY[::-1])),
    "larger than in training": png(rgb(grey_image(991, 400))),
    "wider than high": png(rgb(grey_image(50, 333))),
    "interlaced JPEG": png(rgb(GREY), format="JPEG"),
    "transparent colour": png(Image.fromarray(rgb(GREY)), transparency=(200, 200, 200)),
    "impulse noise": png(
        rgb(np.where(np.random.default_rng(2).random(GREY.shape) < 0.1, 0, GREY).astype(np.uint8))
    ),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_images_get_a_valid_mask(service, kind):
    accepted(service.predict(ODD[kind]), ODD[kind])


TEXTS = {
    "data URI": lambda text: f"data:image/png;base64,{text}",
    "white space": lambda text: (
        " \n" + "\r\n".join(text[k : k + 76] for k in range(0, len(text), 76))
    ),
    "no padding": lambda text: text.rstrip("="),
    "surplus padding": lambda text: text + "===",
    "URL-safe": lambda text: text.replace("+", "-").replace("/", "_"),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_base64_of_every_kind(service, reference, kind):
    # Sizes that need padding, so that its absence shows.
    sent = next(
        png(rgb(grey_image(seed=s))) for s in range(9) if len(png(rgb(grey_image(seed=s)))) % 3
    )
    text = TEXTS[kind](base64.b64encode(sent).decode())
    found = accepted(service.post(json.dumps({"img": text}).encode()), sent)
    assert np.array_equal(found, reference(decode_png(sent)))


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_json_by_any_name(service, kind):
    headers = {"Content-Type": kind} if kind else {}
    url = service.url + "/predict"
    answer = httpx.post(url, content=image_body(KINDS["RGB"]), headers=headers)
    accepted(answer, KINDS["RGB"])


def bomb(side: int = 60_000) -> bytes:
    """A PNG that says it is `side` pixels wide and high."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1_000_000, 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def image_body(content: bytes) -> bytes:
    return json.dumps({"img": base64.b64encode(content).decode()}).encode()


BAD = {
    "empty body": (b"", 422, "img"),
    "no JSON": (b'{"img": ', 400, "JSON"),
    "deep JSON": (b"[" * 50_000, 400, "body"),
    "not UTF-8": (b'\xff\xfe{"img": "a"}', 400, "JSON"),
    "a list": (b'["a"]', 422, "img"),
    "no img": (b'{"image": "a"}', 422, "img"),
    "a number": (b'{"img": 5}', 422, "string"),
    "null": (b'{"img": null}', 422, "string"),
    "empty img": (b'{"img": ""}', 422, "empty"),
    "no base64": (b'{"img": "!!!!"}', 422, "base64"),
    "impossible length": (b'{"img": "AAAAA"}', 422, "base64"),
    "lone surrogate": (b'{"img": "\\ud800"}', 422, "base64"),
    "no image": (image_body(b"hello world, I am text"), 422, "image"),
    "truncated": (image_body(KINDS["RGB"][: len(KINDS["RGB"]) // 2]), 422, "truncated"),
    "decompression bomb": (image_body(bomb()), 422, "pixels"),
    "too many pixels": (image_body(bomb(2_000)), 422, "pixels"),
    "too long": (image_body(png(np.zeros((5_000, 3), np.uint8))), 422, "sides"),
    "SVG": (image_body(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), 422, "image"),
    "GIF": (image_body(png(Image.fromarray(GREY), format="GIF")), 422, "image"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_served_is_told_why(service, kind):
    body, status, reason = BAD[kind]
    answer = service.post(body)
    assert answer.status_code == status, answer.text
    detail = answer.json()["detail"]
    assert reason in detail
    # One line that echoes nothing of what was sent.
    assert len(detail) < 500 and "\n" not in detail and " object at 0x" not in detail


def test_too_large_bodies_are_refused_with_and_without_a_length(service):
    size = Settings().max_body_bytes + 1
    with socket.create_connection(service.url.removeprefix("http://").split(":")) as caller:
        # The announced length alone is enough: nothing of it has to be sent.
        caller.sendall(
            f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode()
        )
        assert b" 413 " in caller.recv(1000)

    def pieces():
        for _ in range(size // 2**20 + 1):
            yield b" " * 2**20

    answer = service.post(pieces(), **{"Transfer-Encoding": "chunked"})
    assert answer.status_code == 413 and "bytes" in answer.json()["detail"]


def test_many_callers_get_what_one_gets(service):
    sent = [png(rgb(grey_image(80 + 7 * k, 50 + 3 * k, seed=k))) for k in range(8)]
    alone = [accepted(service.predict(image), image) for image in sent]
    with ThreadPoolExecutor(16) as callers:
        answers = list(callers.map(service.predict, sent * 4))
    for k, answer in enumerate(answers):
        assert np.array_equal(accepted(answer, sent[k % 8]), alone[k % 8])


def test_the_other_routes(service):
    sent = KINDS["RGB"]
    first, second = (service.predict(sent, path) for path in ("/predict", "/tumor/predict"))
    assert np.array_equal(accepted(first, sent), accepted(second, sent))
    classification = first.json()["classification"]
    assert 0 <= classification["lesion_probability"] <= 1
    assert classification["regions"] >= 1
    api = httpx.get(service.url + "/api").json()
    assert set(api) == {"service", "uptime"}
    home = httpx.get(service.url + "/").text
    assert "running" in home and "/page/" in home and "research use only" in home
    health = httpx.get(service.url + "/health").json()
    assert health["status"] == "ok" and health["model"] == "tiny"
    metrics = httpx.get(service.url + "/metrics").text
    counted = re.search(
        r'mip_requests_total\{method="POST",route="/predict",status="200"\} (\S+)', metrics
    )
    assert float(counted.group(1)) >= 1
    assert httpx.get(service.url + "/docs").status_code == 404


def wait_for(service, line: str) -> None:
    """Until /metrics has a line."""
    for _ in range(600):
        metrics = httpx.get(service.url + "/metrics", timeout=60).text
        if line in metrics:
            return
        time.sleep(0.05)
    raise AssertionError(f"{line} is not in {metrics}")


def test_near_the_deadline_mirrored_copies_fall_away_and_it_says_so(
    run_service, tiny_predictor, monkeypatch
):
    sent = KINDS["RGB"]
    one_copy = tiny_predictor.override(tta=False).predict_image(255 - GREY)[0] == 1
    with run_service(tiny_predictor, Settings(deadline_s=60)) as service:
        assert "x-mip-degraded" not in service.predict(sent).headers
        monkeypatch.setattr(service.desk, "time_left", lambda ticket: 0.0)
        answer = service.predict(sent)
        assert answer.headers["x-mip-degraded"] == "copies=1/4 folds=1/1"
        assert np.array_equal(accepted(answer, sent), one_copy)
        wait_for(service, 'mip_degraded_total{dropped="tta"} 1.0')


def test_then_networks_fall_away(run_service, tiny, tmp_path, monkeypatch):
    """Two folds, and time for one pass."""
    from nnunetv2_mip.inference.predictor import MIPPredictor

    folder = tmp_path / "model"
    shutil.copytree(tiny.model, folder)
    shutil.copytree(folder / "fold_0", folder / "fold_1")
    both = MIPPredictor.from_model_folder(folder, device="cpu")
    assert both.folds == 2
    with run_service(both, Settings(deadline_s=60)) as service:
        monkeypatch.setattr(service.desk, "time_left", lambda ticket: 0.0)
        answer = service.predict(png(rgb(GREY[:32, :32])))
        assert answer.headers["x-mip-degraded"] == "copies=1/4 folds=1/2"
        wait_for(service, 'mip_degraded_total{dropped="folds"} 1.0')


def test_the_fair_part_of_the_time(tiny_predictor):
    """Whoever runs may take so long that all who wait can take as long, by their deadlines."""
    desk = Desk(tiny_predictor, 10, Measures())
    levels = np.zeros((4, 4), np.uint8)
    try:
        with desk.device.use(urgent=True):
            now = time.monotonic()
            running = Ticket(levels, now, now + 100)
            desk.submit(running)
            while not running.answer.running():
                time.sleep(0.01)
            assert 98 < desk.time_left(running) + FINISH_S <= 100
            for seconds in (100, 100, 100):
                desk.submit(Ticket(levels, now, now + seconds))
            # Four share 100 s.
            assert 24 < desk.time_left(running) + FINISH_S <= 25
            hurried = Ticket(levels, now, now + 50)
            desk.submit(hurried)
            assert 9 < desk.time_left(running) + FINISH_S <= 10
            # Who has gone needs nothing.
            hurried.gone.set()
            assert 24 < desk.time_left(running) + FINISH_S <= 25
    finally:
        desk.close()
    assert not desk.alive


def test_beyond_the_queue_callers_are_told_to_come_again(run_service, tiny_predictor):
    sent = KINDS["RGB"]
    with (
        run_service(tiny_predictor, Settings(queue=2, deadline_s=60)) as service,
        ThreadPoolExecutor(8) as callers,
    ):
        # Nobody is served while the device is taken; one runs into it, two wait.
        with service.desk.device.use(urgent=True):
            first = callers.submit(service.predict, sent)
            while not service.desk.busy:
                time.sleep(0.01)
            answers = [first] + [callers.submit(service.predict, sent) for _ in range(5)]
            wait_for(service, 'mip_refused_total{reason="queue"} 3.0')
        found = [answer.result() for answer in answers]
    assert sorted(answer.status_code for answer in found) == [200, 200, 200, 503, 503, 503]
    for answer in found:
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"]) >= 1
        else:
            accepted(answer, sent)


def test_who_waited_past_the_deadline_is_refused(run_service, tiny_predictor):
    with (
        run_service(tiny_predictor, Settings(deadline_s=2)) as service,
        ThreadPoolExecutor(2) as callers,
    ):
        with service.desk.device.use(urgent=True):
            first = callers.submit(service.predict, KINDS["RGB"])
            while not service.desk.busy:
                time.sleep(0.01)
            second = callers.submit(service.predict, KINDS["RGB"])
            wait_for(service, "mip_queue_length 1.0")
            time.sleep(2.1)
        # In line or waiting for the device: late is late.
        for answer in (first.result(), second.result()):
            assert answer.status_code == 503 and "deadline" in answer.json()["detail"]
        wait_for(service, 'mip_refused_total{reason="late"} 2.0')


def test_work_for_callers_who_have_gone_is_not_done(run_service, tiny_predictor):
    body = image_body(KINDS["RGB"])
    request = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: "
    with run_service(tiny_predictor, Settings(deadline_s=60)) as service:
        address = service.url.removeprefix("http://").split(":")
        with service.desk.device.use(urgent=True):
            callers = [socket.create_connection(address) for _ in range(3)]
            for caller in callers:
                caller.sendall(request + str(len(body)).encode() + b"\r\n\r\n" + body)
            wait_for(service, "mip_queue_length 2.0")
            for caller in callers:
                caller.close()
            wait_for(service, "mip_cancelled_total 3.0")
        accepted(service.predict(KINDS["RGB"]), KINDS["RGB"])
        # The device did nothing for the others.
        wait_for(service, "mip_inference_seconds_count 1.0")


def test_bodies_that_trickle_in_get_408(run_service, tiny_predictor):
    with (
        run_service(tiny_predictor, Settings(deadline_s=0.4)) as service,
        socket.create_connection(service.url.removeprefix("http://").split(":")) as caller,
    ):
        caller.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
        assert b" 408 " in caller.recv(1000)


def test_never_empty_marks_the_most_likely_region(run_service, tiny_predictor):
    strict = tiny_predictor.override(threshold=0.999)
    with run_service(strict, Settings()) as service:
        assert not accepted(service.predict(KINDS["RGB"]), KINDS["RGB"]).any()
        assert "mip_empty_masks_total 1.0" in httpx.get(service.url + "/metrics").text
    with run_service(strict, Settings(never_empty=True)) as service:
        assert accepted(service.predict(KINDS["RGB"]), KINDS["RGB"]).any()


def test_polarity_on_request(run_service, tiny_predictor, reference):
    inverted = png(rgb(255 - GREY))
    with run_service(tiny_predictor, Settings(polarity="auto")) as service:
        for sent in (inverted, KINDS["RGB"]):
            assert np.array_equal(accepted(service.predict(sent), sent), reference(255 - GREY))


def test_a_defect_is_a_500_and_the_service_lives_on(run_service, tiny_predictor):
    broken = type(tiny_predictor)(tiny_predictor._nnunet, tiny_predictor.config)
    # Weights that do not fit: the network cannot be loaded when the first request comes.
    broken._network.engine, broken._network.folds = "torch", [{}]
    with run_service(broken, Settings(page=False)) as service:
        answer = service.predict(KINDS["RGB"])
        assert answer.status_code == 500, answer.text
        assert answer.json() == {"detail": "an internal error; see the log"}
        assert service.predict(KINDS["RGB"]).status_code == 500
        assert httpx.get(service.url + "/health").json()["status"] == "ok"
        assert httpx.get(service.url + "/page/").status_code == 404


def test_openapi_holds_what_schemathesis_tries(service):
    """Requests made from the OpenAPI document get answers that it announces, never a 5xx."""
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, given, settings
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    schema = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
    paths = sorted({operation.ok().path for operation in schema.get_all_operations()})
    assert paths == ["/", "/api", "/health", "/metrics", "/predict", "/tumor/predict"]
    for operation in schema.get_all_operations():
        strategy = operation.ok().as_strategy()

        @given(case=strategy)
        @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
        def holds(case):
            # A text that is no image is valid by the schema, and refused.
            case.call_and_validate(excluded_checks=[positive_data_acceptance])

        holds()


# The command itself, in a process of its own.


def start(model, *options, env=None) -> tuple[subprocess.Popen, str]:
    """Start the command; gives the process and its address when it says that it listens."""
    code = "from nnunetv2_mip.commands.serve import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "--model", str(model), "--host", "127.0.0.1", *options],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    )
    lines = []
    for line in process.stderr:
        lines.append(line)
        found = re.search(r"listening on (\S+)", line)
        if found:
            # Read on, so that a full pipe never stops it.
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return process, found.group(1)
    raise AssertionError(f"it ended: {''.join(lines)}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_killed_and_restarted_under_load_it_never_gives_a_wrong_mask(tiny):
    sent = KINDS["RGB"]
    port = free_port()
    model = tiny.model
    named = {"MODEL_NAME": "some/where/mine"}
    process, url = start(model, "--port", str(port), "--no-page", env=named)
    stop = threading.Event()
    counts = {"answered": 0, "refused": 0, "wrong": 0}
    lock = threading.Lock()
    callers = []
    try:
        assert url.endswith(f":{port}")
        assert httpx.get(f"{url}/health").json()["model"] == "mine"
        expected = accepted(httpx.post(f"{url}/predict", content=image_body(sent)), sent)

        def call():
            while not stop.is_set():
                try:
                    answer = httpx.post(f"{url}/predict", content=image_body(sent), timeout=20)
                except httpx.TransportError:
                    kind = "refused"
                    time.sleep(0.05)
                else:
                    mask, failure = check_reply(answer, sent)
                    right = failure is None and np.array_equal(mask, expected)
                    kind = "answered" if right else "wrong"
                with lock:
                    counts[kind] += 1

        callers = [threading.Thread(target=call) for _ in range(3)]
        for caller in callers:
            caller.start()
        time.sleep(0.5)
        process.kill()
        process.wait()
        process, _ = start(model, "--port", str(port), "--no-page")
        before = counts["answered"]
        time.sleep(1)
        # Told to end, it answers whom it serves and ends well.
        process.terminate()
        assert process.wait(timeout=120) == 0
    finally:
        stop.set()
        for caller in callers:
            caller.join()
        process.kill()
    assert counts["wrong"] == 0
    assert counts["refused"] > 0 and counts["answered"] > before > 0, counts


def run_command(*argv) -> int:
    with pytest.raises(SystemExit) as ended:
        command.main([str(part) for part in argv])
    return ended.value.code


@pytest.mark.parametrize(
    "options, reason",
    [
        (["--port", "99999"], "--port 99999"),
        (["--port", "abc"], "--port abc"),
        (["--deadline", "0"], "--deadline 0"),
        (["--queue", "0"], "--queue 0"),
        (["--model", "nowhere"], "nowhere"),
        (["--host", "256.1.1.1"], "256.1.1.1"),
    ],
)
def test_options_that_cannot_be_served(capsys, options, reason):
    base = [] if "--port" in options else ["--port", "0"]
    host = [] if "--host" in options else ["--host", "127.0.0.1"]
    assert run_command(*base, *host, *options) == 2
    error = capsys.readouterr().err
    assert reason in error and error.count("\n") == 1


def test_a_taken_port_is_told(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert run_command("--host", "127.0.0.1", "--port", port) == 2
    assert f"127.0.0.1:{port}: cannot be listened on" in capsys.readouterr().err


def test_host_and_port_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("HOST_IP", "127.0.0.9")
    monkeypatch.setenv("CONTAINER_PORT", "1234")
    args = command.build_parser().parse_args([])
    assert (args.host, command.check_arguments(args)) == ("127.0.0.9", 1234)
    monkeypatch.delenv("HOST_IP")
    monkeypatch.delenv("CONTAINER_PORT")
    args = command.build_parser().parse_args([])
    # Nobody else on the network, unless asked for.
    assert (args.host, command.check_arguments(args)) == ("127.0.0.1", 9051)


def test_the_mask_is_that_of_the_recipe(service, tiny_predictor):
    """What the service answers is what `predict` writes: one predictor, one recipe."""
    sent = png(rgb(grey_image(120, 90, seed=5)))
    probability = tiny_predictor.predict_image(decode_png(sent))[1]
    expected = mask_of_view(probability, tiny_predictor.config) == 1
    assert np.array_equal(accepted(service.predict(sent), sent), expected)
