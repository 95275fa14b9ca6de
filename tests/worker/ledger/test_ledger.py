"""The state of record: leases, fences, events, listing, deletion. Real SQLite, real threads, real files."""

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from tests.worker.helpers import LEASE_S, open_script, path_of, step, written
from worker.ledger import (
    Cancelled,
    Failure,
    IdempotencyConflict,
    IllegalTransition,
    InvalidCursor,
    JobDeleted,
    JobNotFound,
    LeaseLost,
    Ledger,
    State,
    UnsealedArtifact,
    database,
    new_job_id,
    schema,
)
from worker.ledger.progress import SHARES, overall_percent, stages_of
from worker.ledger.states import TERMINAL, TRANSITIONS

FAILURE = Failure("no_face", "No face found", "Send another clip.", "preprocessing", False)


def expire(lease):
    """Let the lease run out without waiting for it."""
    with lease.ledger.writing() as tx:
        past = lease.ledger.now(tx) - timedelta(seconds=1)
        tx.execute(schema.jobs.update().where(schema.jobs.c.id == lease.job_id).values(lease_until=past))


def finish(ledger, lease, content=b"result"):
    lease.publish({"artifacts": [written(lease.new_workspace(), "meshes/frame_00000.ply", content)]})


def test_the_schema_of_the_migrations_is_that_of_the_code(ledger):
    """Two descriptions of one thing drift unless they are compared."""
    with ledger.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []


def test_the_migrations_can_be_taken_back(tmp_path):
    """An operator who must go back a version needs the way down."""
    from alembic import command

    engine = database.make_engine(database.default_url(tmp_path))
    database.upgrade(engine)
    config = database.migration_config()
    with engine.connect() as connection, connection.begin():
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert set(sa.inspect(engine).get_table_names()) <= {"alembic_version"}
    database.upgrade(engine)
    assert database.current_revision(engine) == database.head_revision()
    engine.dispose()


def test_processes_that_start_together_migrate_once(tmp_path):
    """API and worker open the same empty database at the same moment."""
    url = database.default_url(tmp_path)
    barrier = threading.Barrier(8)

    def open_it(_):
        engine = database.make_engine(url)
        barrier.wait()
        database.upgrade(engine)
        revision = database.current_revision(engine)
        engine.dispose()
        return revision

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(open_it, range(8))) == {database.head_revision()}


def test_commits_are_on_the_disk_and_deleted_rows_are_overwritten(ledger):
    """202 promises durability: WAL with synchronous=FULL (2); deletion promises that the facts leave the file."""
    with ledger.reading() as tx:
        pragmas = [
            tx.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "secure_delete")
        ]
    assert pragmas == ["wal", 2, 1]


def test_ids_sort_by_time_even_within_a_millisecond():
    """Newest first and cursors rest on it."""
    ids = [new_job_id() for _ in range(2000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 2000
    assert {len(name) for name in ids} == {30}


# ---------------------------------------------------------------- states


def test_terminal_states_lead_nowhere_but_to_the_tombstone():
    """The contract: terminal states never change."""
    assert all(TRANSITIONS[state] == {State.DELETED} for state in TERMINAL)
    assert set(TRANSITIONS) == set(State)
    assert TRANSITIONS[State.DELETED] == frozenset()


def test_a_finished_job_can_be_neither_cancelled_nor_published_again(ledger, submit):
    """No second ending."""
    job = submit()
    lease = ledger.claim("worker")
    finish(ledger, lease)
    with pytest.raises(IllegalTransition):
        ledger.request_cancel(job.id)
    with pytest.raises(LeaseLost):
        lease.fail(FAILURE)
    assert ledger.get(job.id).state is State.SUCCEEDED


def test_cancel_is_idempotent_and_waits_for_the_device(ledger, submit):
    """A waiting job is cancelled at once; a running one only when its worker says that the device is free."""
    waiting, running = submit(), submit(options={"priority": "high"})
    lease = ledger.claim("worker")
    assert lease.job_id == running.id
    for _ in range(2):
        assert ledger.request_cancel(waiting.id).state is State.CANCELLED
        assert ledger.request_cancel(running.id).state is State.CANCELLING
    assert lease.cancel_requested()
    with pytest.raises(Cancelled):
        finish(ledger, lease)
    assert ledger.artifacts(running.id) == []
    lease.cancelled()
    assert ledger.get(running.id).state is State.CANCELLED
    assert ledger.storage.attempts(running.id) == []


def test_a_job_that_fails_while_being_cancelled_is_cancelled(ledger, submit):
    """What the user asked for wins over what happened in the meantime."""
    submit()
    lease = ledger.claim("worker")
    ledger.request_cancel(lease.job_id)
    assert lease.fail(FAILURE) is State.CANCELLED


def test_retry_makes_a_new_job_of_the_same_input_and_options(ledger, submit):
    """Terminal states never change, so the failed job stays as it was and the new one points to it."""
    job = submit({"steps": 1}, options={"seed": 7, "labels": ["x"]}, owner="ann")
    ledger.claim("worker").fail(FAILURE)
    again = ledger.retry(job.id)
    assert (again.state, again.retry_of, again.owner) == (State.QUEUED, job.id, "ann")
    assert again.options == job.options
    assert ledger.get(job.id).error == FAILURE
    ledger.delete(job.id)
    assert ledger.storage.input_path(again.id).read_bytes() == b'{"steps": 1}', "it has its own name for the bytes"
    with pytest.raises(IllegalTransition):
        ledger.retry(again.id)


# ---------------------------------------------------------------- leases


def test_one_job_is_claimed_by_exactly_one_of_many_workers(ledger, submit):
    """The heart of at-most-one-at-a-time: twelve threads, five jobs, five leases."""
    jobs = {submit().id for _ in range(5)}
    with ThreadPoolExecutor(12) as pool:
        leases = [lease for lease in pool.map(lambda n: ledger.claim(f"worker-{n}"), range(12)) if lease]
    assert sorted(lease.job_id for lease in leases) == sorted(jobs)


def test_a_hint_for_a_taken_job_finds_nothing(ledger, submit):
    """Duplicate hints are normal."""
    job = submit()
    assert ledger.claim("one", job.id).job_id == job.id
    assert ledger.claim("two", job.id) is None


def test_priority_is_a_head_start_so_nobody_starves(ledger, submit):
    """High comes first, but a low job that has waited long enough comes before a fresh high one."""
    low, normal = submit(options={"priority": "low"}), submit()
    high = submit(options={"priority": "high"})
    assert [ledger.queue_position(job.id) for job in (high, normal, low)] == [1, 2, 3]
    with ledger.writing() as tx:
        column = schema.jobs.c.rank_at
        long_ago = ledger.now(tx) - timedelta(hours=1)
        tx.execute(schema.jobs.update().where(schema.jobs.c.id == low.id).values({column: long_ago}))
    assert [ledger.claim("worker").job_id for _ in range(3)] == [low.id, high.id, normal.id]
    assert ledger.queue_position(low.id) is None


def test_a_worker_takes_only_jobs_of_its_queues(ledger, submit):
    """A queue per capability: a small machine must not get the big job."""
    job = submit(queue="gpu.full")
    assert ledger.claim("small", queues=["gpu.small"]) is None
    assert ledger.claim("full", queues=["gpu.full", "gpu.small"]).job_id == job.id


def test_a_stale_writer_can_do_nothing(ledger, submit):
    """After its lease expired and another worker took over, each of its writes must bounce off the fence."""
    job = submit()
    stale = ledger.claim("one")
    stale_workspace = stale.new_workspace()
    expire(stale)
    assert ledger.reap() == [job.id]
    fresh = ledger.claim("two")
    assert fresh.fence == stale.fence + 1
    entry = written(stale_workspace, "a.bin", b"stale")
    writes = [
        stale.heartbeat,
        stale.cancel_requested,
        stale.cancelled,
        stale.release,
        lambda: stale.report(step("stage1", 1, 2)),
        lambda: stale.publish({"artifacts": [entry]}),
        lambda: stale.fail(FAILURE),
        lambda: stale.try_again(FAILURE),
    ]
    for write in writes:
        with pytest.raises(LeaseLost):
            write()
    fresh.publish({"artifacts": [written(fresh.new_workspace(), "a.bin", b"fresh")]})
    path = path_of(ledger, job, "a.bin")
    assert path.read_bytes() == b"fresh"
    assert ledger.storage.attempts(job.id) == [fresh.fence], "the loser's bytes are gone"


def test_an_attempt_that_was_published_after_all_is_not_thrown_away(ledger, submit):
    """The commit succeeded but its answer got lost: the worker believes that it lost, and must not clean up."""
    job = submit()
    lease = ledger.claim("worker")
    finish(ledger, lease)
    with pytest.raises(LeaseLost):
        lease.publish({"artifacts": []})
    lease.abandon()
    path = path_of(ledger, job, "meshes/frame_00000.ply")
    assert path.read_bytes() == b"result"


def test_a_heartbeat_keeps_the_lease_from_the_reaper(ledger, submit):
    """A living worker keeps its job for as long as it wants."""
    submit()
    lease = ledger.claim("worker")
    expire(lease)
    lease.heartbeat()
    assert ledger.reap() == []
    time.sleep(LEASE_S + 0.1)
    assert ledger.reap() == [lease.job_id]


def test_three_expired_leases_are_enough(ledger, submit):
    """A poison job must not circle for ever."""
    job = submit()
    for attempt in (1, 2, 3):
        lease = ledger.claim("worker")
        assert lease.order.attempt == attempt
        expire(lease)
        ledger.reap()
    failed = ledger.get(job.id)
    assert (failed.state, failed.error.code, failed.attempts) == (State.FAILED, "worker_lost", 3)
    assert ledger.claim("worker") is None


def test_a_released_lease_does_not_count_as_an_attempt(ledger, submit):
    """Restarting workers is routine; it must not use up a job's lives."""
    submit()
    for _ in range(5):
        ledger.claim("worker").release()
    assert ledger.claim("worker").order.attempt == 1


def test_the_next_attempt_is_told_why_the_last_one_ended(ledger, submit):
    """After a lack of memory the pipeline takes a smaller budget."""
    submit()
    ledger.claim("worker").try_again(Failure("out_of_memory", "Out of memory", "…", "stage1", True))
    assert ledger.claim("worker").order.previous_failure == "out_of_memory"


# ---------------------------------------------------------------- progress and events


def test_shares_add_up_and_skipped_stages_leave_no_gap():
    """Every road goes from 0 to 100, without jumps at the joints."""
    assert sum(SHARES.values()) == 100.0
    for stages in (stages_of(None), stages_of([1])):
        assert overall_percent(stages[0], 0, 5, stages) == 0.0
        assert overall_percent(stages[-1], 5, 5, stages) == pytest.approx(100.0)
        for left, right in zip(stages, stages[1:], strict=False):
            assert overall_percent(left, 9, 9, stages) == pytest.approx(overall_percent(right, 0, 9, stages))
    assert "stage2" not in stages_of([1])
    assert overall_percent("stage1", 1, 2) == pytest.approx(3 + 10 + 20)


def test_percent_never_goes_back_not_even_in_the_next_attempt(ledger, submit):
    """A bar that jumps back is a broken promise; a retry starts over inside, not outside."""
    job = submit()
    first = ledger.claim("one")
    first.report(step("stage2", 1, 2))
    first.try_again(FAILURE)
    second = ledger.claim("two")
    for report in (step("decoding", 1, 1), step("stage1", 1, 9), step("stage2", 2, 2), step("meshing", 1, 9)):
        second.report(report)
    finish(ledger, second)
    percents = [event.data["percent"] for event in ledger.events_after(job.id) if "percent" in event.data]
    assert percents == sorted(percents)
    assert percents[-1] == 100.0
    assert max(percents[:-1]) < 100.0, "100 means done"


def test_progress_is_written_at_most_twice_a_second_and_nothing_is_lost(ledger, submit):
    """Thousands of steps a second must not become thousands of transactions; the last one appears with the pulse."""
    job = submit()
    lease = ledger.claim("worker")
    begin = time.monotonic()
    for number in range(1, 1001):
        lease.report(step("stage1", number, 1000))
    lease.heartbeat()
    allowed = 2 + (time.monotonic() - begin) / 0.5
    reports = [event for event in ledger.events_after(job.id) if event.type == "progress"]
    assert len(reports) <= allowed
    assert ledger.get(job.id).step == 1000


def test_event_numbers_have_no_gap_and_resuming_misses_nothing(ledger, submit):
    """`Last-Event-ID` resumes without loss: whatever number a listener saw last, the rest follows."""
    job = submit()
    lease = ledger.claim("worker")

    def report(stage):
        lease.report(step(stage, 1, 2))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(report, SHARES))
    finish(ledger, lease)
    events = ledger.events_after(job.id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    for seen in range(len(events)):
        assert list(ledger.events_after(job.id, seen)) == list(events[seen:])
    assert [event.data["state"] for event in events if event.type == "state"] == ["queued", "running", "succeeded"]


# ---------------------------------------------------------------- publication


@pytest.mark.parametrize("damage", ["missing", "changed", "outside", "absolute", "link", "twice"])
def test_what_is_not_exactly_what_the_manifest_says_is_not_published(ledger, submit, damage, tmp_path):
    """A published checksum is a promise about bytes; a name is a path only inside its attempt."""
    job = submit()
    lease = ledger.claim("worker")
    workspace = lease.new_workspace()
    entry = written(workspace, "meshes/a.ply", b"vertices")
    entries = [entry]
    if damage == "missing":
        (workspace / "meshes/a.ply").unlink()
    elif damage == "changed":
        (workspace / "meshes/a.ply").write_bytes(b"Vertices")
    elif damage == "outside":
        entry["name"] = "../1/meshes/a.ply"
    elif damage == "absolute":
        entry["name"] = str(workspace / "meshes/a.ply")
    elif damage == "link":
        (tmp_path / "elsewhere").write_bytes(b"vertices")
        (workspace / "meshes/a.ply").unlink()
        (workspace / "meshes/a.ply").symlink_to(tmp_path / "elsewhere")
    else:
        entries = [entry, entry]
    with pytest.raises(UnsealedArtifact):
        lease.publish({"artifacts": entries})
    assert ledger.get(job.id).state is State.RUNNING
    assert ledger.artifacts(job.id) == []


def test_only_listed_files_and_the_manifest_stay(ledger, submit):
    """Scratch files are orphan bytes; the manifest cannot list itself."""
    job = submit()
    lease = ledger.claim("worker")
    workspace = lease.new_workspace()
    entry = written(workspace, "identity.npz", b"codes")
    written(workspace, "scratch/deep/half.tmp", b"x")
    written(workspace, "manifest.json", b"{}")
    lease.publish({"artifacts": [entry]})
    files = sorted(path.relative_to(workspace).as_posix() for path in workspace.rglob("*"))
    assert files == ["identity.npz", "manifest.json"]
    assert [item.name for item in ledger.artifacts(job.id)] == files[::-1]


def test_what_the_pipeline_learnt_is_echoed_in_the_job(ledger, submit):
    """Model, counted frames and the options that were really used; what was known before stays."""
    job = submit()
    lease = ledger.claim("worker")
    lease.new_workspace()
    used = job.options.model_copy(update={"max_frames": 24}).to_json()
    model = {"name": "prior", "version": "2", "sha256": "ab", "licence": "MIT", "device": "cpu"}
    lease.publish({"model": model, "input": {"frames": 90, "filename": "other"}, "options": used, "artifacts": []})
    done = ledger.get(job.id)
    assert done.options.max_frames == 24
    assert done.model == {"name": "prior", "version": "2", "sha256": "ab", "licence": "MIT"}
    assert (done.input.frames, done.input.filename) == (90, "clip.mp4")


# ---------------------------------------------------------------- idempotency


def test_a_key_gives_the_same_job_for_the_same_body_and_a_conflict_for_another(ledger):
    """The client that lost our answer may ask again; the client that mixes up its keys must hear of it."""
    job = open_script(ledger, {"a": 1}, idempotency_key="k", owner="ann")
    assert open_script(ledger, {"a": 1}, idempotency_key="k", owner="ann").id == job.id
    assert open_script(ledger, {"a": 1}, idempotency_key="k", owner="bob").id != job.id, "keys belong to their owner"
    for other in ({"script": {"a": 2}}, {"script": {"a": 1}, "options": {"seed": 1}}):
        with pytest.raises(IdempotencyConflict):
            open_script(ledger, idempotency_key="k", owner="ann", **other)


def test_many_requests_with_one_key_at_once_open_one_job(ledger):
    """A client that retries too eagerly."""
    with ThreadPoolExecutor(8) as pool:
        jobs = list(pool.map(lambda _: open_script(ledger, {"a": 1}, idempotency_key="k").id, range(8)))
    assert len(set(jobs)) == 1
    assert ledger.counts().queued == 1


# ---------------------------------------------------------------- listing and counting


def test_pages_show_every_job_once_newest_first_while_new_ones_arrive(ledger, submit):
    """A cursor is a place in time, not an offset."""
    jobs = [submit().id for _ in range(7)]
    seen, cursor = [], None
    while True:
        page = ledger.list(limit=2, cursor=cursor)
        seen += [job.id for job in page.jobs]
        submit()
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == jobs[::-1]


def test_filters_narrow_the_list(ledger, submit):
    """By state, label, time and owner."""
    first = submit(options={"labels": ["red", "blue"]}, owner="ann")
    second = submit(options={"labels": ["red"]})
    ledger.request_cancel(second.id)
    assert [job.id for job in ledger.list(label="red").jobs] == [second.id, first.id]
    assert [job.id for job in ledger.list(label="blue").jobs] == [first.id]
    assert [job.id for job in ledger.list(state=State.CANCELLED).jobs] == [second.id]
    assert [job.id for job in ledger.list(created_after=first.created_at).jobs] == [second.id]
    assert [job.id for job in ledger.list(owner="ann").jobs] == [first.id]
    assert ledger.counts("ann").by_state == {State.QUEUED: 1}
    with pytest.raises(JobNotFound):
        ledger.get(first.id, owner="bob")


@pytest.mark.parametrize("cursor", ["", "x", "rec_1", "////", "MTo", "é", "Mjpy" * 9])
def test_a_cursor_of_somebody_else_is_refused(ledger, cursor):
    """Never an internal error for a mangled query string."""
    with pytest.raises(InvalidCursor):
        ledger.list(cursor=cursor)


def test_hints_are_sent_again_only_for_jobs_that_had_none_lately(ledger, submit):
    """What the reconciler works from."""
    lost, hinted = submit(), submit()
    ledger.mark_dispatched(hinted.id)
    assert ledger.undispatched(60.0) == [lost.id]
    assert ledger.undispatched(0.0) == [lost.id, hinted.id]
    ledger.claim("worker", lost.id).release()
    ledger.mark_dispatched(lost.id)
    assert ledger.undispatched(60.0) == []


def test_workers_are_seen_while_they_live(ledger):
    """Readiness asks for a fresh sign of life from a worker with a model."""
    ledger.worker_seen("one")
    ledger.worker_seen("one", {"name": "prior"}, {"queues": ["mononphm"]})
    (worker,) = ledger.workers(5.0)
    assert (worker.name, worker.model) == ("one", {"name": "prior"})
    time.sleep(0.05)
    assert ledger.workers(0.01) == []
    ledger.worker_gone("one")
    assert ledger.workers(5.0) == []


# ---------------------------------------------------------------- deletion


def test_deletion_leaves_a_tombstone_and_no_byte(ledger, submit, tmp_path):
    """Faces are biometric data: neither the files nor the database file may remember them."""
    job = submit({"secret": "0xFACE"}, options={"labels": ["grandmother"]})
    lease = ledger.claim("worker")
    finish(ledger, lease, b"0xFACE")
    proof = ledger.delete(job.id)
    assert (proof.files, proof.gone) == (2, True)
    with pytest.raises(JobDeleted):
        ledger.get(job.id)
    with pytest.raises(JobDeleted):
        ledger.delete(job.id)
    with pytest.raises(JobNotFound):
        ledger.delete("rec_unknown")
    assert ledger.list().jobs == ()
    assert [event.data["state"] for event in ledger.events_after(job.id)] == ["deleted"], "a listener hears the end"
    ledger.close()
    with sqlite3.connect(tmp_path / "ledger.sqlite3") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert not any(word in path.read_bytes() for word in (b"0xFACE", b"grandmother", b"clip.mp4")), path


def test_deleting_a_running_job_fences_its_worker_off(ledger, submit):
    """The user does not wait for the worker."""
    job = submit()
    lease = ledger.claim("worker")
    workspace = lease.new_workspace()
    ledger.delete(job.id)
    workspace.mkdir(parents=True)
    entry = written(workspace, "a.bin", b"late")
    with pytest.raises(LeaseLost):
        lease.publish({"artifacts": [entry]})
    ledger.sweep()
    assert set(ledger.storage.held()) == set()


def test_the_sweep_finishes_what_a_crash_left_and_touches_nothing_else(ledger, submit, monkeypatch):
    """Orphan bytes are removed, and only they: a published result and a running attempt stay."""
    published, running, doomed = submit(), submit(), submit()
    stale = ledger.claim("one", published.id)
    stale.new_workspace()
    expire(stale)
    ledger.reap()
    finish(ledger, ledger.claim("two", published.id))
    stale.new_workspace()  # a stale writer that is not yet aware
    workspace = ledger.claim("three", running.id).new_workspace()
    orphan = new_job_id()
    ledger.storage.input_path(orphan).parent.mkdir()
    ledger.storage.input_path(orphan).write_bytes(b"never committed")
    monkeypatch.setattr(type(ledger.storage), "remove_job", crash)
    with pytest.raises(InterruptedError):
        ledger.delete(doomed.id)
    monkeypatch.undo()
    assert ledger.storage.input_path(doomed.id).exists()
    ledger.sweep()
    assert set(ledger.storage.held()) == {published.id, running.id, orphan}, "an orphan may be a job being accepted"
    assert ledger.storage.attempts(published.id) == [2]
    assert workspace.is_dir()
    ledger.sweep(orphan_grace_s=-1.0)
    assert set(ledger.storage.held()) == {published.id, running.id}
    path = path_of(ledger, published, "meshes/frame_00000.ply")
    assert path.read_bytes() == b"result"


def crash(*_):
    raise InterruptedError("the process dies here")


def test_retention_ends_in_deletion(ledger, submit):
    """`expires_at` counts from the end of the job, and the sweep keeps the promise."""
    kept, short = submit(), submit(options={"retention_hours": 0.00001})
    for _ in range(2):
        ledger.claim("worker").fail(FAILURE)
    expiry = ledger.get(kept.id)
    assert expiry.expires_at - expiry.finished_at == timedelta(hours=168)
    time.sleep(0.05)
    ledger.sweep()
    assert [job.id for job in ledger.list().jobs] == [kept.id]
    with pytest.raises(JobDeleted):
        ledger.get(short.id)


def test_a_ledger_in_memory_is_refused(tmp_path):
    """Several processes share it, or it is no state of record."""
    with pytest.raises(ValueError, match="file"):
        Ledger("sqlite://", tmp_path)
