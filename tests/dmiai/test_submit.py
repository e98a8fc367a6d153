"""Command `nnUNetv2_mip_submit` against a server with the documented replies of the platform."""

import sys

import pytest
from helpers import run

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from nnunetv2_mip.commands import rehearse, submit
from nnunetv2_mip.dmiai import platform_client as platform_module

from .conftest import Server

UUID = "11111111-2222-3333-4444-555555555555"


@pytest.mark.parametrize("command", [rehearse, submit])
def test_a_missing_package_is_named(monkeypatch, capsys, command):
    monkeypatch.setitem(sys.modules, "httpx", None)
    assert run(command, *(["--data", "."] if command is rehearse else ["validate"])) == 2
    assert "needs httpx" in capsys.readouterr().err


@pytest.fixture
def account(monkeypatch):
    monkeypatch.setenv("EVAL_API_TOKEN", "secret-token")
    monkeypatch.setenv("TUMOR_SEGMENTATION_SERVICE_URL", "https://example.org/predict")
    pauses = []
    real = platform_module.PlatformClient.__init__

    def quick(self, account, sleep=pauses.append):
        real(self, account, sleep)

    monkeypatch.setattr(platform_module.PlatformClient, "__init__", quick)
    return pauses


def platform(states, refusals=0, retry_after=None):
    """Replies as documented by DM i AI: a queue, then one of `states` after another."""
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
    # The pauses grow.
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


def test_without_waiting_the_next_command_is_printed(account, capsys):
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
def test_an_evaluation_that_may_have_been_counted_is_reported(account, capsys, status, unknown):
    with Server(lambda *_: (status, {}, {"detail": "no"})) as server:
        assert run(submit, "evaluate", "--yes", "--platform", server.url) == 2
        assert len(server.seen) == 1
    assert ("may have been counted" in capsys.readouterr().err) == unknown


def test_the_evaluation_asks_and_is_never_sent_twice(account, capsys, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda _: "yes")
    with Server(platform([DONE])) as server:
        # Another word than `evaluate`.
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


def test_missing_arguments_and_variables_are_named(account, capsys, monkeypatch):
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
