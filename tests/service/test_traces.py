"""One trace from the client's request through the queue to the stages of the work, in two real processes."""

import json
from pathlib import Path

import httpx
import pytest

from tests.service.beside import worker_beside
from tests.service.files import png
from tests.service.test_process import Api, until
from worker.ledger import tracing

pytest.importorskip("opentelemetry.sdk")

CLIENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
"""Example of the W3C Trace Context recommendation, section 3.2."""


def spans_of(log: Path) -> list[dict]:
    """What the console exporter wrote among the lines of the log."""
    text, decoder, found = log.read_text(), json.JSONDecoder(), []
    at = text.find('{\n    "name"')
    while at >= 0:
        span, end = decoder.raw_decode(text, at)
        found.append(span)
        at = text.find('{\n    "name"', end)
    return found


@pytest.mark.slow
def test_a_job_is_one_trace_from_the_request_to_its_stages(tmp_path):
    """Parents as they should be: client -> request -> (queued, attempt -> stage); the hint carries nothing."""
    api = Api(tmp_path, OTEL_TRACES_EXPORTER="console", MONONPHM_FREE_SPACE_RESERVE_BYTES="0")
    exporter = {"OTEL_TRACES_EXPORTER": "console", "MONONPHM_WORKER_NAME": "traced"}
    try:
        with (
            worker_beside(api, "tests.chaos.pipeline:run", **exporter),
            httpx.Client(base_url=api.url, headers={"traceparent": CLIENT}) as http,
        ):
            job = http.post("/reconstructions", files={"file": ("a.png", png(), "image/png")}).json()
            until(lambda: http.get(f"/reconstructions/{job['id']}").json()["state"] == "succeeded")
            http.get("/health/live")
        api.stop()
    finally:
        api.process.kill()
    spans = spans_of(api.log) + spans_of(tmp_path / "worker.log")
    ours = [span for span in spans if span["context"]["trace_id"] == "0x0af7651916cd43dd8448eb211c80319c"]
    by_name = {span["name"]: span for span in ours}
    request = by_name["POST /reconstructions"]
    assert request["parent_id"] == "0xb7ad6b7169203331"
    for name in ("queued", "attempt"):
        assert by_name[name]["parent_id"] == request["context"]["span_id"], name
        assert by_name[name]["attributes"]["mononphm.job_id"] == job["id"]
    assert by_name["attempt"]["attributes"]["mononphm.outcome"] == "done"
    assert by_name["stage1"]["parent_id"] == by_name["attempt"]["context"]["span_id"]
    assert by_name["attempt"]["resource"]["attributes"]["service.name"] == "mononphm-worker"
    assert not any("/health" in span["name"] for span in spans), "probes are no work to trace"


def test_an_exporter_that_is_not_installed_stops_nothing(monkeypatch, caplog):
    """The log says what is missing and how to get it; the service runs."""
    monkeypatch.setenv(tracing.EXPORTER, "carrier_pigeon")
    assert not tracing.begin("test")
    assert "mononphm[telemetry]" in caplog.text


def test_without_a_wish_nothing_is_traced(monkeypatch):
    monkeypatch.delenv(tracing.EXPORTER, raising=False)
    assert not tracing.begin("test")
    assert tracing.traceparent() is None
