"""Command `nnUNetv2_mip_serve`: options, a process killed and restarted under load."""

import os
import re
import socket
import subprocess
import sys
import threading
import time

import httpx
import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from nnunetv2_mip.commands import serve as command
from nnunetv2_mip.dmiai.rehearsal import check_reply

from .conftest import KINDS, accepted, image_body


def start(model, *options, env=None) -> tuple[subprocess.Popen, str]:
    """Process of the command and its address, once it listens."""
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
            # Keep reading: a full pipe would stop the process.
            threading.Thread(target=read_to_end, args=[process.stderr], daemon=True).start()
            return process, found.group(1)
    raise AssertionError(f"it ended: {''.join(lines)}")


def read_to_end(stream) -> None:
    with stream:
        stream.read()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_killed_and_restarted_under_load_it_never_gives_a_wrong_mask(tiny):
    sent = KINDS["RGB"]
    port = free_port()
    model = tiny.model
    named = {"MODEL_NAME": "some/where/mine"}
    process, url = start(model, "--port", str(port), "--no_page", env=named)
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
        process, _ = start(model, "--port", str(port), "--no_page")
        before = counts["answered"]
        time.sleep(1)
        # On SIGTERM it finishes the running requests and exits with code 0.
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


def test_a_port_in_use_is_reported(capsys):
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
    # By default not open to the network.
    assert (args.host, command.check_arguments(args)) == ("127.0.0.1", 9051)
