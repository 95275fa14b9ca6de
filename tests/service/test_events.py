"""GET …/events: the whole story, once, in order, from wherever the listener left off."""

import json

import pytest

from service.events import event_text
from tests.service.published import finished, ordinary_files, waiting
from tests.service.test_jobs import Step
from worker.ledger import Event

pytestmark = pytest.mark.anyio


def told(text: str) -> list[dict]:
    """What a listener understands: blocks between empty lines, fields before the colon."""
    events = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if "event" in fields:
            events.append({"id": int(fields["id"]), "type": fields["event"], **json.loads(fields["data"])})
    return events


async def test_the_story_of_a_job_is_told_to_its_end(api, book):
    job = finished(book, ordinary_files(), warnings=["dark"])
    answer = await api.get(f"/reconstructions/{job.id}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = told(answer.text)
    assert [event["id"] for event in events] == list(range(1, job.event_seq + 1))
    assert [event["state"] for event in events if event["type"] == "state"] == ["queued", "running", "succeeded"]
    assert [event["message"] for event in events if event["type"] == "warning"] == ["dark"]
    artifacts = [event for event in events if event["type"] == "artifact"]
    assert {event["name"] for event in artifacts} == {*ordinary_files(), "manifest.json"}
    for event in artifacts:
        assert (await api.get(event["href"])).status_code == 200


async def test_a_listener_who_comes_back_hears_exactly_the_rest(api, book):
    """Whatever the number of the last event was: no gap, no repetition."""
    job = finished(book, ordinary_files())
    everything = told((await api.get(f"/reconstructions/{job.id}/events")).text)
    for seen in range(job.event_seq):
        answer = await api.get(f"/reconstructions/{job.id}/events", headers={"Last-Event-ID": str(seen)})
        assert told(answer.text) == everything[seen:]


async def test_a_listener_who_has_heard_all_is_told_not_to_come_back(api, book):
    """204 is the one answer after which an EventSource stops reconnecting."""
    job = finished(book, ordinary_files())
    answer = await api.get(f"/reconstructions/{job.id}/events", headers={"Last-Event-ID": str(job.event_seq)})
    assert answer.status_code == 204


@pytest.mark.parametrize("last", ["x", "-1", "1.5", "9" * 30, "1 OR 1=1"])
async def test_a_last_event_id_that_is_no_number_is_refused(api, book, last):
    answer = await api.get(f"/reconstructions/{waiting(book).id}/events", headers={"Last-Event-ID": last})
    assert answer.status_code == 422


async def test_no_text_can_forge_an_event(api, book):
    """A message with line breaks stays inside its own data line."""
    job = waiting(book)
    book.claim("w", job.id).report(
        Step("stage1", 1, 2, 'done\n\nid: 99\nevent: state\ndata: {"state": "succeeded"}\n\n')
    )
    for event in book.events_after(job.id):
        assert len(told(event_text(event))) == 1
        assert event_text(event).count("\n") == 4


def test_an_event_is_written_as_the_standard_says(book_free_event):
    """Three fields and an empty line."""
    assert event_text(book_free_event) == (
        'id: 4\nevent: warning\ndata: {"at": "2026-11-22T21:00:00.000Z", "message": "d\\u00fcster"}\n\n'
    )


@pytest.fixture
def book_free_event() -> Event:
    from datetime import UTC, datetime

    return Event("rec_x", 4, datetime(2026, 11, 22, 21, tzinfo=UTC), "warning", {"message": "düster"})


async def test_too_many_listeners_hear_503(api, book, context):
    """A stream costs a connection and polls; the others must still get answers."""
    context.streams.taken = context.streams.total
    answer = await api.get(f"/reconstructions/{waiting(book).id}/events")
    assert (answer.status_code, answer.json()["code"]) == (503, "busy")
    assert "retry-after" in answer.headers
