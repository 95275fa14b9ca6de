"""One job on many workers: its parts are claimed by anybody, and the whole ends as if one had done it all."""

import pytest

from worker.ledger import State

PATIENCE_S = 240
"""A busy machine may be slow; only one that hangs is not waited for."""
ROUNDS = [1, 4, 3]


def results(crew, job):
    """Name -> sha256 of what was published."""
    return {item.name: item.sha256 for item in crew.ledger.artifacts(job.id)}


def no_part_is_left(crew, job):
    return not crew.ledger.parts(job.id) and set(crew.ledger.storage.held()) == {job.id}


def test_the_bytes_are_the_same_with_one_worker_and_with_two(crew):
    """Three rounds, eight parts: who does which, and in which order, leaves no trace in the result."""
    crew.hire()
    alone = crew.wait(crew.submit(rounds=ROUNDS), State.SUCCEEDED, within_s=PATIENCE_S)
    crew.hire()
    crew.until(lambda: len(crew.ledger.workers()) == 2, within_s=PATIENCE_S)
    script = {"rounds": ROUNDS, "pause_s": 0.1}
    shared = crew.wait(crew.submit(**script), State.SUCCEEDED, within_s=PATIENCE_S)
    again = crew.wait(crew.submit(**script), State.SUCCEEDED, within_s=PATIENCE_S)
    assert results(crew, shared) == results(crew, again)
    assert shared.attempts == alone.attempts == 1
    workers = {line.split()[2] for line in crew.journal.read_text().splitlines() if line.split()[0] != alone.id}
    assert len(workers) == 2, "both took part"
    percents = [event.data["percent"] for event in crew.ledger.events_after(shared.id) if event.type == "progress"]
    assert percents == sorted(percents) and len(set(percents)) > 8
    assert crew.ledger.counts().by_state == {State.SUCCEEDED: 3}, "nobody sees the parts"
    assert {found.id for found in crew.ledger.list().jobs} == {alone.id, shared.id, again.id}
    crew.until(lambda: not crew.ledger.parts(shared.id), within_s=PATIENCE_S)


def test_a_part_that_crashes_is_done_again_and_no_other_one(crew):
    """kill -9 in the middle of one part of four: that one has a second attempt, the whole has lost nothing else."""
    crew.hire()
    crash = {"misfortune": "SIGKILL", "misfortunes": 1}
    job = crew.submit(rounds=ROUNDS, parts={"2.1": crash})
    done = crew.wait(job, State.SUCCEEDED, within_s=PATIENCE_S)
    assert done.attempts == 1
    begun = [line.split()[:2] for line in crew.journal.read_text().splitlines() if line.endswith("begins")]
    assert [attempt for job_id, attempt in begun if job_id != job.id].count("2") == 1
    assert len([job_id for job_id, _ in begun if job_id != job.id]) == sum(ROUNDS) + 1
    crew.until(lambda: no_part_is_left(crew, job), within_s=PATIENCE_S)


def test_a_part_that_cannot_be_done_ends_the_whole_and_a_retry_does_only_what_is_missing(crew):
    crew.hire()
    job = crew.submit(rounds=ROUNDS, parts={"2.3": {"misfortune": "NoSurface"}})
    failed = crew.wait(job, State.FAILED, within_s=PATIENCE_S)
    assert failed.error.code == "no_surface"
    crew.until(lambda: all(part.is_terminal for part in crew.ledger.parts(job.id)), within_s=PATIENCE_S)
    before = len(crew.journal.read_text().splitlines())
    again = crew.ledger.retry(job.id)
    crew.hint(again)
    crew.wait(again, State.FAILED, within_s=PATIENCE_S)
    begun = [line.split()[0] for line in crew.journal.read_text().splitlines()[before:] if line.endswith("begins")]
    assert len(begun) <= 3 and begun[0] == again.id, "the plan was made anew, and the part that failed"
    crew.ledger.delete(job.id)
    assert crew.ledger.delete(again.id).gone
    assert not crew.ledger.storage.held()


@pytest.mark.parametrize("deaf", [False, True])
def test_cancelling_the_whole_stops_every_part(crew, deaf):
    """Waiting parts end at once, running ones as soon as their process is free; only then is the whole cancelled."""
    for _ in range(2):
        crew.hire()
    job = crew.submit(rounds=[6], steps=1000, pause_s=0.1, deaf=deaf)
    crew.until(lambda: sum(part.state is State.RUNNING for part in crew.ledger.parts(job.id)) == 2, within_s=PATIENCE_S)
    assert crew.ledger.request_cancel(job.id).state is State.CANCELLING
    crew.wait(job, State.CANCELLED, within_s=PATIENCE_S)
    assert {part.state for part in crew.ledger.parts(job.id)} == {State.CANCELLED}
    assert crew.ledger.delete(job.id).gone and not crew.ledger.storage.held()


def test_a_worker_that_dies_leaves_its_part_to_the_other(crew):
    first, _ = crew.hire(), crew.hire()
    job = crew.submit(rounds=[4], steps=20, pause_s=0.1)
    crew.until(lambda: sum(part.state is State.RUNNING for part in crew.ledger.parts(job.id)) == 2, within_s=PATIENCE_S)
    first.kill()
    done = crew.wait(job, State.SUCCEEDED, within_s=PATIENCE_S)
    assert done.attempts == 1
    crew.until(lambda: no_part_is_left(crew, job), within_s=PATIENCE_S)
