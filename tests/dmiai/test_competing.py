"""Rehearsal and submission, against services and a platform that stand in on 127.0.0.1."""

import base64
import io
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from nnunetv2_mip.commands import rehearse, submit
from nnunetv2_mip.dmiai import platform_client as platform_module

UUID = "11111111-2222-3333-4444-555555555555"


def run(command, *argv) -> int:
    with pytest.raises(SystemExit) as ended:
        command.main([str(part) for part in argv])
    return ended.value.code


class Server:
    """Answers by `answer(method, path, headers, body) -> (status, headers, content)`."""

    def __init__(self, answer):
        self.seen = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                content = json.loads(body) if body else None
                outer.seen.append((self.command, self.path, dict(self.headers), content))
                found = answer(self.command, self.path, dict(self.headers), content)
                if found is None:
                    # A connection that breaks.
                    self.close_connection = True
                    return
                status, headers, reply = found
                data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = _serve

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


# The rehearsal


@pytest.fixture
def data(tmp_path):
    """Two patients as the competition hands them out."""
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


def kit(change=lambda mask: mask, status: int = 200, wait: float = 0.0):
    """The kit's threshold rule as a service, spoiled by `change`."""

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
    with Server(kit()) as server:
        assert run(rehearse, "--url", f"{server.url}/predict", "--data", data) == 0
    assert "mean Dice  1.0000 over 2 images" in capsys.readouterr().out

    def half(mask):
        mask[:, mask.shape[1] // 2 :] = 0
        return mask

    with Server(kit(half)) as server:
        assert run(rehearse, "--url", server.url, "--data", data, "--min-dice", 0.99) == 1
    assert "mean Dice below 0.99" in capsys.readouterr().out
    # It sent what the platform sends.
    _, _, headers, body = server.seen[0]
    assert headers["Content-Type"] == "application/json" and list(body) == ["img"]
    sent = base64.b64decode(body["img"], validate=True)
    assert sent == (data / "patients" / "imgs" / "patient_001.png").read_bytes()


SPOILED = {
    "grey instead of RGB": (kit(lambda mask: mask[..., 0]), "shape"),
    "another size": (kit(lambda mask: mask[1:]), "shape"),
    "another value": (kit(lambda mask: mask // 2), "0 and 255"),
    "unequal channels": (kit(lambda mask: mask * np.array([1, 0, 0], np.uint8)), "equal"),
    "an error": (kit(status=500), "status 500"),
    "too late": (kit(wait=0.7), "within 0.5 s"),
    "no PNG": (lambda *_: (200, {}, {"img": "AAAA"}), "base64 PNG"),
    "no JSON": (lambda *_: (200, {}, b"hello"), "no JSON"),
    "no answer": (lambda *_: None, "no connection"),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_replies_that_the_platform_rejects_fail(data, capsys, kind):
    answer, reason = SPOILED[kind]
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
def test_rehearsals_that_cannot_be_held(tmp_path, monkeypatch, capsys, argv, reason):
    monkeypatch.chdir(tmp_path)
    assert run(rehearse, *argv) == 2
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize("spoil", ["another size", "no mask"])
def test_a_bad_truth_is_told_before_anything_is_sent(data, capsys, spoil):
    label = data / "patients" / "labels" / "segmentation_002.png"
    array = np.zeros((97, 60), np.uint8) if spoil == "another size" else np.full((97, 61), 7)
    Image.fromarray(array.astype(np.uint8)).save(label)
    with Server(kit()) as server:
        assert run(rehearse, "--url", server.url, "--data", data) == 2
        assert server.seen == []
    assert "segmentation_002.png" in capsys.readouterr().err


@pytest.mark.parametrize("command", [rehearse, submit])
def test_what_is_not_installed_is_named(monkeypatch, capsys, command):
    monkeypatch.setitem(sys.modules, "httpx", None)
    assert run(command, *(["--data", "."] if command is rehearse else ["validate"])) == 2
    assert "needs httpx" in capsys.readouterr().err


# The platform


@pytest.fixture
def account(monkeypatch):
    monkeypatch.setenv("EVAL_API_TOKEN", "secret-token")
    monkeypatch.setenv("TUMOR_SEGMENTATION_SERVICE_URL", "https://example.org/predict")
    pauses = []
    real = platform_module.Platform.__init__

    def quick(self, account, sleep=pauses.append):
        real(self, account, sleep)

    monkeypatch.setattr(platform_module.Platform, "__init__", quick)
    return pauses


def platform(states, refusals=0, retry_after=None):
    """The documented JSON: a queue, then one of `states` after another."""
    states, left = iter(states), [refusals]

    def answer(method, path, headers, body):
        if headers.get("x-token") != "secret-token":
            return 401, {}, {"detail": "bad token"}
        if left[0]:
            left[0] -= 1
            return 503, {"Retry-After": retry_after} if retry_after else {}, {"detail": "busy"}
        if method == "POST":
            return 200, {}, {"queued_attempt_uuid": UUID, "position_in_queue": 3}
        if not path.endswith(UUID):
            return 404, {}, {"detail": "no such attempt"}
        return 200, {}, next(states)

    return answer


DONE = {"status": "done", "attempt": {"score": 0.7321, "errors": []}}
PREFIX = "/api/v1/usecases/tumor-segmentation"


def test_a_validation_from_queue_to_score(account, capsys):
    states = [
        {"status": "queued", "position_in_queue": 2},
        {"status": "running", "attempt": None},
        DONE,
    ]
    with Server(platform(states)) as server:
        assert run(submit, "validate", "--platform", server.url, "--wait") == 0
    found = capsys.readouterr()
    assert f"{UUID}: done, score 0.7321" in found.out
    assert "queued (position 2)" in found.err and "running" in found.err
    method, path, headers, body = server.seen[0]
    assert (method, path) == ("POST", f"{PREFIX}/validate/queue")
    assert headers["x-token"] == "secret-token"
    assert body == {"url": "https://example.org/predict"}
    assert server.seen[1][:2] == ("GET", f"{PREFIX}/validate/queue/{UUID}")
    # It asks at growing distances.
    assert account == sorted(account) and len(account) == 2
    assert "secret-token" not in found.out + found.err


def test_a_busy_platform_is_asked_again(account, capsys, monkeypatch):
    with Server(platform([DONE], refusals=2, retry_after="7")) as server:
        monkeypatch.setenv("EVAL_API_URL", server.url)
        assert run(submit, "status", UUID) == 0
    assert account == [7.0, 7.0]
    assert "score 0.7321" in capsys.readouterr().out
    account.clear()
    with Server(platform([DONE], refusals=99)) as server:
        assert run(submit, "status", UUID, "--platform", server.url) == 2
    assert len(account) == platform_module.ATTEMPTS - 1
    assert account == sorted(account)
    assert "503" in capsys.readouterr().err


def test_without_waiting_the_next_command_is_told(account, capsys):
    with Server(platform([])) as server:
        assert run(submit, "validate", "--platform", server.url) == 0
    found = capsys.readouterr().out
    assert "position 3" in found and f"nnUNetv2_mip_submit status {UUID} --wait" in found


def test_a_failed_attempt_says_why(account, capsys):
    failed = {"status": "failed", "attempt": {"score": None, "errors": ["timeout on image 3"]}}
    with Server(platform([failed])) as server:
        assert run(submit, "status", UUID, "--platform", server.url) == 1
    found = capsys.readouterr()
    assert "timeout on image 3" in found.err and "failed" in found.out


def test_waiting_ends(account, capsys):
    with Server(platform([{"status": "running"}] * 9)) as server:
        argv = ["status", UUID, "--wait", "--timeout", "1", "--platform", server.url]
        assert run(submit, *argv) == 2
    assert "still running" in capsys.readouterr().err
    with Server(platform([{"status": "running"}] * 9)) as server:
        argv = ["--wait", "--timeout", "1", "--platform", server.url]
        assert run(submit, "evaluate", "--yes", *argv) == 2
    assert f"nnUNetv2_mip_submit status {UUID} --evaluation" in capsys.readouterr().err


@pytest.mark.parametrize(("status", "unknown"), [(502, True), (504, True), (422, False)])
def test_an_evaluation_that_may_have_arrived_is_told(account, capsys, status, unknown):
    with Server(lambda *_: (status, {}, {"detail": "no"})) as server:
        assert run(submit, "evaluate", "--yes", "--platform", server.url) == 2
        assert len(server.seen) == 1
    assert ("may have been counted" in capsys.readouterr().err) == unknown


def test_the_evaluation_asks_and_is_never_sent_twice(account, capsys, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda _: "yes")
    with Server(platform([DONE])) as server:
        # Not the word that was asked for.
        assert run(submit, "evaluate", "--platform", server.url) == 2
        assert server.seen == []
        monkeypatch.setattr("builtins.input", lambda _: "evaluate")
        assert run(submit, "evaluate", "--platform", server.url, "--wait") == 0
        assert server.seen[0][1] == f"{PREFIX}/evaluate/queue"
    with Server(platform([], refusals=9)) as server:
        assert run(submit, "evaluate", "--yes", "--platform", server.url) == 2
        assert len(server.seen) == 1
    with Server(lambda *_: None) as server:
        assert run(submit, "evaluate", "--yes", "--platform", server.url) == 2
        assert len(server.seen) == 1
    assert "may have been counted" in capsys.readouterr().err


def test_without_a_terminal_nothing_is_evaluated(account, monkeypatch):
    def ended(_):
        raise EOFError

    monkeypatch.setattr("builtins.input", ended)
    with Server(platform([DONE])) as server:
        assert run(submit, "evaluate", "--platform", server.url) == 2
        assert server.seen == []


def test_what_is_missing_is_named(account, capsys, monkeypatch):
    with Server(platform([])) as server:
        assert run(submit, "status", "--platform", server.url) == 2
        assert run(submit, "validate", UUID, "--platform", server.url) == 2
        monkeypatch.setenv("EVAL_API_TOKEN", "wrong")
        assert run(submit, "validate", "--platform", server.url) == 2
        assert "refuses the token" in capsys.readouterr().err
    for variable in ("TUMOR_SEGMENTATION_SERVICE_URL", "EVAL_API_TOKEN"):
        monkeypatch.delenv(variable)
        assert run(submit, "validate", "--platform", "http://127.0.0.1:9") == 2
        assert variable in capsys.readouterr().err
    monkeypatch.setenv("EVAL_API_TOKEN", "t")
    monkeypatch.delenv("EVAL_API_URL", raising=False)
    assert run(submit, "status", UUID) == 2
    assert "EVAL_API_URL" in capsys.readouterr().err
    assert run(submit, "status", UUID, "--platform", "example.org") == 2
    assert "http" in capsys.readouterr().err
