"""Wholes and parts in the state of record, without any process."""

import pytest

from tests.worker.helpers import step, written
from worker.ledger import Cancelled, JobNotFound, LeaseLost, State, schema
from worker.ledger.failure import worker_lost
from worker.ledger.records import PartSpec

SPECS = [PartSpec(1, number, {"n": number}, (), "stage2", (10.0, 50.0), 20) for number in range(3)]


def divided(ledger, job, specs=SPECS):
    """The job after its first attempt, which divided it."""
    lease = ledger.claim("planner", job.id)
    lease.new_workspace()
    lease.divide(specs)
    return ledger.parts(job.id)


def finish(ledger, part_id, content=b"done"):
    lease = ledger.claim("worker", part_id)
    workspace = lease.new_workspace()
    lease.publish({"artifacts": [written(workspace, "result.bin", content)]})


def test_a_whole_waits_without_a_lease_and_goes_on_after_its_last_part(ledger, submit):
    """Nothing expires, its attempt does not count; and the last part queues it, whichever that is."""
    job = submit()
    parts = divided(ledger, job)
    waiting = ledger.get(job.id)
    assert (waiting.state, waiting.attempts, waiting.frames_total) == (State.RUNNING, 0, 60)
    assert [part.part for part in parts] == SPECS
    for part in (parts[2], parts[0]):
        finish(ledger, part.id)
    assert not ledger.reap() and not ledger.tend()
    assert ledger.get(job.id).state is State.RUNNING
    finish(ledger, parts[1].id)
    assert ledger.get(job.id).state is State.QUEUED
    lease = ledger.claim("merger", job.id)
    workspace = lease.new_workspace()
    lease.bring_input(lambda: None)
    assert sorted(path.parent.name for path in workspace.glob("materials/*/result.bin")) == ["1.0", "1.1", "1.2"]
    lease.publish({"artifacts": [written(workspace, "all.bin", b"all")]})
    assert ledger.tend() == 3
    assert not ledger.parts(job.id) and set(ledger.storage.held()) == {job.id}


def test_a_late_heartbeat_does_not_give_a_waiting_whole_a_lease(ledger, submit):
    """The pulse is a thread of its own: it may come after the division, and a lease would run out and end the whole."""
    job = submit()
    lease = ledger.claim("planner", job.id)
    lease.new_workspace()
    lease.divide(SPECS)
    with pytest.raises(LeaseLost):
        lease.heartbeat()
    finish(ledger, ledger.parts(job.id)[0].id)
    assert not ledger.reap() and ledger.get(job.id).state is State.RUNNING
    ledger.request_cancel(job.id)
    assert ledger.get(job.id).state is State.CANCELLED


def test_parts_are_hidden_and_not_counted(ledger, submit):
    job = submit({"n": 1}, owner="me")
    parts = divided(ledger, job)
    with pytest.raises(JobNotFound):
        ledger.get(parts[0].id)
    assert [found.id for found in ledger.list().jobs] == [job.id]
    assert ledger.counts("me").running == 1 and ledger.counts().queued == 0
    assert ledger.counts(parts=True).queued == 3, "what workers have to do"
    assert ledger.stored_bytes("me") == job.input.bytes


def test_progress_of_the_parts_is_progress_of_the_whole(ledger, submit):
    """Each part counts alike; the percent never goes back, whatever a part's second attempt says."""
    job = submit()
    parts = divided(ledger, job)
    finish(ledger, parts[0].id)
    lease = ledger.claim("worker", parts[1].id)
    lease.report(step("exporting", 1, 2))
    seen = ledger.get(job.id)
    assert seen.stage == "stage2" and 10 + 40 / 3 < seen.percent < 10 + 80 / 3
    assert (seen.step, seen.total, seen.frames_total) == (1, 3, 60) and 20 < seen.frames_done < 40
    lease.release()
    lease = ledger.claim("worker", parts[1].id)
    lease.report(step("decoding", 0, 2))
    assert ledger.get(job.id).percent >= seen.percent


def test_a_failed_part_ends_the_whole_once_the_others_have_stopped(ledger, submit):
    job = submit()
    parts = divided(ledger, job)
    running = ledger.claim("worker", parts[1].id)
    ledger.claim("other", parts[0].id).fail(worker_lost(1))
    assert ledger.get(job.id).state is State.RUNNING
    assert ledger.tend() == 2
    assert running.cancel_requested() and ledger.get(job.id).state is State.RUNNING
    running.cancelled()
    ended = ledger.get(job.id)
    assert ended.state is State.FAILED and ended.error.code == "worker_lost"


def test_a_retry_takes_over_what_succeeded(ledger, submit):
    job = submit()
    parts = divided(ledger, job)
    finish(ledger, parts[0].id)
    ledger.claim("other", parts[1].id).fail(worker_lost(1))
    ledger.tend()
    again = ledger.retry(job.id)
    assert [part.id for part in ledger.parts(again.id)] == [parts[0].id]
    opened = divided(ledger, again)
    assert [part.part.number for part in opened] == [0, 1, 2] and opened[0].state is State.SUCCEEDED
    ledger.delete(job.id)
    assert [part.state for part in ledger.parts(again.id)] == [State.SUCCEEDED, State.QUEUED, State.QUEUED]


def test_cancelling_while_the_whole_divides_itself_opens_no_part(ledger, submit):
    job = submit()
    lease = ledger.claim("planner", job.id)
    ledger.request_cancel(job.id)
    with pytest.raises(Cancelled):
        lease.divide(SPECS)
    lease.cancelled()
    assert ledger.get(job.id).state is State.CANCELLED and not ledger.parts(job.id)


def test_cancelling_a_waiting_whole_cancels_it_at_once_when_no_part_runs(ledger, submit):
    job = submit()
    parts = divided(ledger, job)
    finish(ledger, parts[0].id)
    assert ledger.request_cancel(job.id).state is State.CANCELLED
    assert [part.state for part in ledger.parts(job.id)] == [State.SUCCEEDED, State.CANCELLED, State.CANCELLED]


def test_deleting_a_whole_deletes_its_parts_and_fences_off_those_that_run(ledger, submit):
    job = submit()
    parts = divided(ledger, job)
    finish(ledger, parts[0].id)
    running = ledger.claim("worker", parts[1].id)
    workspace = running.new_workspace()
    assert ledger.delete(job.id).gone
    with pytest.raises(LeaseLost):
        running.publish({"artifacts": [written(workspace, "late.bin", b"late")] if workspace.exists() else []})
    running.abandon()
    assert not ledger.storage.held()


def test_nobody_is_lost_between_two_commits(ledger, submit):
    """A worker that died before it could wake the whole leaves that to the next one's chores."""
    job = submit()
    parts = divided(ledger, job, SPECS[:1])
    with ledger.writing() as tx:  # as if a part had ended and nobody had looked
        tx.execute(schema.jobs.update().where(schema.jobs.c.id == parts[0].id).values(state="succeeded"))
    assert ledger.tend() == 1
    assert ledger.get(job.id).state is State.QUEUED
