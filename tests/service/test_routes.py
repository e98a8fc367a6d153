"""Routes of the service: status, metrics, OpenAPI document, limits of bodies, internal errors."""

import re
import socket

import httpx
import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from nnunetv2_mip.service.settings import Settings

from .conftest import KINDS, accepted


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


def test_too_large_bodies_are_refused_with_and_without_a_length(service):
    size = Settings().max_body_bytes + 1
    with socket.create_connection(service.url.removeprefix("http://").split(":")) as caller:
        # The Content-Length alone is enough: no byte of the body has to be sent.
        caller.sendall(
            f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode()
        )
        assert b" 413 " in caller.recv(1000)

    def pieces():
        for _ in range(size // 2**20 + 1):
            yield b" " * 2**20

    answer = service.post(pieces(), **{"Transfer-Encoding": "chunked"})
    assert answer.status_code == 413 and "bytes" in answer.json()["detail"]


def test_slow_bodies_get_408(run_service, tiny_predictor):
    with (
        run_service(tiny_predictor, Settings(deadline_s=0.4)) as service,
        socket.create_connection(service.url.removeprefix("http://").split(":")) as caller,
    ):
        caller.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
        assert b" 408 " in caller.recv(1000)


def test_an_internal_error_is_a_500_and_the_service_keeps_running(run_service, tiny_predictor):
    broken = type(tiny_predictor)(tiny_predictor._nnunet, tiny_predictor.config)
    # Weights of a wrong shape: the network cannot be loaded for the first request.
    broken._network.engine, broken._network.folds = "torch", [{}]
    with run_service(broken, Settings(page=False)) as service:
        answer = service.predict(KINDS["RGB"])
        assert answer.status_code == 500, answer.text
        assert answer.json() == {"detail": "an internal error; see the log"}
        assert service.predict(KINDS["RGB"]).status_code == 500
        assert httpx.get(service.url + "/health").json()["status"] == "ok"
        assert httpx.get(service.url + "/page/").status_code == 404


@pytest.mark.slow
def test_answers_agree_with_the_openapi_document(service):
    """Answers to requests generated from the OpenAPI document: as documented, never a 5xx."""
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
            # A text that is no image agrees with the schema and is refused.
            case.call_and_validate(excluded_checks=[positive_data_acceptance])

        holds()
