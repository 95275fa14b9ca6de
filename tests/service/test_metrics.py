"""Figures for Prometheus: true, well-formed, and bounded in number."""

import re

import pytest

from service.metrics import BOUNDS_S, HELP, Figures, text_of
from tests.service.published import ordinary_files, published_for, waiting

pytestmark = pytest.mark.anyio


def values(text: str) -> dict[str, float]:
    """Prometheus text as series -> value; anything that is not of its grammar fails."""
    found = {}
    for line in text.splitlines():
        if line.startswith("#"):
            assert re.fullmatch(r"# (HELP mononphm_\w+ .+|TYPE mononphm_\w+ (counter|gauge|histogram))", line), line
            continue
        match = re.fullmatch(r'(mononphm_\w+(?:\{(?:\w+="(?:[^"\\\n]|\\.)*",?)+\})?) (\S+)', line)
        assert match, line
        assert match[1] not in found, "a series stands once"
        found[match[1]] = float(match[2])
    return found


async def test_the_figures_are_those_of_the_record(api, book):
    """Jobs by state, workers, attempts, requests by route pattern: ids are no labels, or a series is born a job."""
    published_for(book, "", ordinary_files())
    job = waiting(book)
    book.worker_seen("w", None, {"child_ready": True, "busy": False, "queues": ["mononphm"]})
    for _ in range(3):
        await api.get(f"/reconstructions/{job.id}")
    await api.get("/nothing/of/the/kind")
    answer = await api.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = values(answer.text)
    assert found['mononphm_jobs{state="queued"}'] == 1 and found['mononphm_jobs{state="succeeded"}'] == 1
    assert found['mononphm_attempts{outcome="succeeded"}'] == 1
    assert (found["mononphm_workers"], found["mononphm_workers_ready"], found["mononphm_workers_busy"]) == (1, 1, 0)
    route = 'route="/reconstructions/{job_id}"'
    assert found[f'mononphm_http_requests_total{{method="GET",{route},status="200"}}'] == 3
    assert found[f'mononphm_http_request_seconds_bucket{{{route},le="+Inf"}}'] == 3
    assert found['mononphm_http_requests_total{method="GET",route="unmatched",status="404"}'] == 1
    assert job.id not in answer.text
    assert found['mononphm_queue_jobs{queue="mononphm"}'] == 1
    assert found['mononphm_queue_jobs{queue="mononphm-gpu"}'] == 0
    assert found['mononphm_queue_workers{queue="mononphm"}'] == 1
    assert found["mononphm_free_bytes"] > 0


def test_a_histogram_counts_what_is_at_most_its_bound():
    """Cumulative, the last bucket is all: as Prometheus defines it."""
    figures = Figures()
    for seconds in (0.001, 0.005, 0.0051, 3, 1000):
        figures.note("GET", "/x", 200, seconds)
    found = values(text_of(figures.samples()))
    buckets = [found[f'mononphm_http_request_seconds_bucket{{route="/x",le="{le}"}}'] for le in (*BOUNDS_S, "+Inf")]
    assert buckets[:2] == [2, 3] and buckets[-1] == 5 and buckets == sorted(buckets)
    assert found['mononphm_http_request_seconds_sum{route="/x"}'] == pytest.approx(1003.0111)


def test_every_figure_says_what_it_is():
    assert all(kind in ("counter", "gauge", "histogram") and said.endswith(".") for kind, said in HELP.values())


async def test_a_method_that_nobody_knows_makes_no_series_of_its_own(api):
    for method in ("BREW", "X" * 40):
        await api.request(method, "/limits")
    text = (await api.get("/metrics")).text
    assert "BREW" not in text and "XXX" not in text and 'method="other"' in text
