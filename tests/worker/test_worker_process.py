"""A worker as a real process, with real signals. The oracle is a journal outside the system, kept by the pipeline."""

import hashlib
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from tests.worker.helpers import path_of
from worker.ledger import State

both_brokers = pytest.mark.parametrize("crew", ["filesystem", "redis"], indirect=True)
"""For what depends on how hints travel: the same test passes on either transport."""


@both_brokers
def test_a_hinted_job_becomes_checked_artifacts(crew):
    """The whole road once: hint, lease, child, progress, seal, one fenced publication."""
    crew.hire()
    job = crew.submit(steps=5, warnings=["the tail of the clip is damaged"])
    done = crew.wait(job, State.SUCCEEDED)
    assert done.percent == 100.0
    assert done.model == {"name": "tiny", "version": "1", "sha256": "0" * 64, "licence": "MIT"}
    assert done.warnings == ("the tail of the clip is damaged",)
    assert [item.name for item in crew.ledger.artifacts(job.id)] == ["manifest.json", "result.bin"]
    for item in crew.ledger.artifacts(job.id):
        path = path_of(crew.ledger, job, item.name)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == item.sha256
    left = [path for path in crew.ledger.storage.artifacts.rglob("*") if path.is_file()]
    assert sorted(path.name for path in left) == ["manifest.json", "result.bin"], "scratch files are orphan bytes"


@both_brokers
def test_a_worker_without_a_single_hint_still_finds_the_job(crew, submit):
    """A hint may get lost anywhere; the reconciler of an idle worker finds the row in the database."""
    crew.hire()
    job = submit({})
    crew.wait(job, State.SUCCEEDED)


@both_brokers
def test_a_wiped_broker_loses_nothing(crew):
    """The broker is disposable: every accepted job is done although all messages, and their folder, are gone."""
    jobs = [crew.submit(steps=3) for _ in range(3)]
    wipe(crew)
    crew.hire()
    for job in jobs:
        crew.wait(job, State.SUCCEEDED)
    wipe(crew)  # under a worker that listens
    last = crew.submit(steps=3)
    wipe(crew)
    crew.wait(last, State.SUCCEEDED)
    assert all(crew.attempts(job) == [1] for job in [*jobs, last])


@pytest.mark.parametrize("crew", ["redis"], indirect=True)
def test_a_broker_that_dies_and_comes_back_empty_does_not_leave_the_worker_deaf(crew):
    """kill -9 of Redis under a listening worker: without touching the worker, the next job is done."""
    crew.hire()
    crew.wait(crew.submit(steps=2), State.SUCCEEDED)
    crew.restart_broker()
    crew.wait(crew.submit(steps=2), State.SUCCEEDED)


@both_brokers
def test_a_killed_worker_loses_its_job_to_another_which_finishes_it_once(crew):
    """kill -9 in mid-job: the lease expires, the other worker runs the next attempt, one result is published."""
    first = crew.hire()
    job = crew.submit(steps=70, pause_s=0.03)
    crew.wait_for_progress(job)
    before = crew.ledger.get(job.id)
    children = crew.children_of(first)
    crew.hire()
    first.kill()
    done = crew.wait(job, State.SUCCEEDED, within_s=40)
    assert crew.attempts(job) == [2]
    assert done.published_fence == 2
    assert done.percent >= before.percent
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children), (
        "the device stays taken"
    )


@both_brokers
def test_a_killed_child_costs_one_attempt_and_not_the_worker(crew):
    """A native crash takes the child only: the worker starts another and the job runs again."""
    worker = crew.hire()
    job = crew.submit(steps=6, misfortune="SIGSEGV", misfortunes=1)
    done = crew.wait(job, State.SUCCEEDED)
    assert done.attempts == 2
    assert worker.poll() is None


def test_a_poison_job_stops_after_three_attempts(crew):
    """A job that kills every process that touches it must end, and say why."""
    crew.hire()
    job = crew.submit(steps=4, misfortune="SIGKILL")
    failed = crew.wait(job, State.FAILED)
    assert (failed.attempts, failed.error.code, failed.error.retryable) == (3, "worker_lost", True)
    assert "SIGKILL" in failed.error.detail
    assert crew.attempts(job, "begins") == [1, 2, 3]
    after = crew.submit(steps=2)
    crew.wait(after, State.SUCCEEDED)


def stopped_between_transactions(worker, database: Path) -> bool:
    """Stop it; if it holds the database's lock at that moment, let it go on."""
    worker.send_signal(signal.SIGSTOP)
    with closing(sqlite3.connect(database, timeout=0.3, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            worker.send_signal(signal.SIGCONT)
            return False
        connection.execute("ROLLBACK")
    return True


@both_brokers
def test_a_stopped_worker_that_wakes_too_late_cannot_publish(crew):
    """SIGSTOP past the lease, SIGCONT after the other one won: the stale writer is fenced off and cleans up.

    It is stopped between two transactions: within one it would hold SQLite's only lock until it wakes.
    """
    first = crew.hire(housekeeping_s=1.0)
    job = crew.submit(steps=8, pause_s=0.4)
    crew.wait_for_progress(job)
    (child, *_) = crew.children_of(first)
    child.suspend()
    crew.until(lambda: stopped_between_transactions(first, crew.data_dir / "ledger.sqlite3"))
    crew.hire()
    done = crew.wait(job, State.SUCCEEDED)
    child.resume()
    first.send_signal(signal.SIGCONT)
    crew.until(lambda: crew.ledger.storage.attempts(job.id) == [2])
    again = crew.submit(steps=2)
    crew.wait(again, State.SUCCEEDED)
    now = crew.ledger.get(job.id)
    assert (now.published_fence, now.state, now.finished_at) == (2, State.SUCCEEDED, done.finished_at)
    assert [event.type for event in crew.ledger.events_after(job.id)].count("artifact") == 2


@both_brokers
def test_cancel_frees_the_child_and_keeps_it_warm(crew):
    """A pipeline that listens stops at its next step; its process, with the model in it, takes the next job."""
    worker = crew.hire()
    job = crew.submit(steps=1000, pause_s=0.02)
    crew.wait_for_progress(job)
    (child, *_) = crew.children_of(worker)
    assert crew.ledger.request_cancel(job.id).state is State.CANCELLING
    crew.wait(job, State.CANCELLED, within_s=5.0)
    crew.wait(crew.submit(steps=2), State.SUCCEEDED)
    assert child in crew.children_of(worker)
    assert crew.attempts(job) == []
    assert crew.ledger.storage.attempts(job.id) == []


def test_cancel_ends_a_child_that_does_not_listen_before_it_says_cancelled(crew):
    """`cancelled` promises a free device: a deaf pipeline is killed first, and within seconds."""
    worker = crew.hire()
    job = crew.submit(steps=1000, pause_s=0.02, deaf=True)
    crew.wait_for_progress(job)
    (child, *_) = crew.children_of(worker)
    crew.ledger.request_cancel(job.id)
    crew.wait(job, State.CANCELLED, within_s=8.0)
    assert not child.is_running()
    crew.wait(crew.submit(steps=2), State.SUCCEEDED)


def test_cancel_does_not_wait_for_a_child_that_is_still_loading_its_model(crew, monkeypatch):
    """After a forced cancel the next child is a while in coming; a job claimed meanwhile can be cancelled at once."""
    monkeypatch.setenv("TINY_LOADS_S", "30")
    crew.hire()
    job = crew.submit(steps=2)
    crew.wait(job, State.RUNNING)
    crew.ledger.request_cancel(job.id)
    crew.wait(job, State.CANCELLED, within_s=8.0)
    assert crew.attempts(job, "begins") == []


def test_a_hanging_child_is_found_out_although_the_pulse_goes_on(crew):
    """The lease is prolonged by a thread that a hung kernel does not stop; the watchdog looks at progress instead."""
    crew.hire(no_progress_s=0.8)
    job = crew.submit(steps=4, misfortune="hang", misfortunes=1)
    done = crew.wait(job, State.SUCCEEDED)
    assert done.attempts == 2


@both_brokers
def test_a_worker_that_is_asked_to_stop_gives_its_job_back_untouched(crew):
    """SIGTERM is no failure: the lease is released, no attempt is counted, nobody waits for the lease to expire."""
    worker = crew.hire()
    job = crew.submit(steps=1000, pause_s=0.02)
    crew.wait_for_progress(job)
    worker.terminate()
    assert worker.wait(10) == 0
    assert (crew.ledger.get(job.id).state, crew.ledger.get(job.id).attempts) == (State.QUEUED, 0)
    assert crew.ledger.workers() == []


def test_a_worker_that_is_asked_to_stop_may_finish_its_job_but_begins_no_other(crew):
    """A deploy or a shrinking fleet wastes nothing: within the drain time the job at hand ends as it would have."""
    worker = crew.hire(drain_s=60)
    job, other = crew.submit(steps=30, pause_s=0.05), crew.submit()
    crew.wait_for_progress(job)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    ended = crew.ledger.get(job.id)
    assert (ended.state, ended.attempts, crew.attempts(job)) == (State.SUCCEEDED, 1, [1])
    assert crew.ledger.get(other.id).state is State.QUEUED and crew.attempts(other, "begins") == []


def test_failures_of_every_kind_become_their_public_code(crew):
    """The input's fault is final at once; no memory is tried once more; a bug shows an incident and no path."""
    crew.hire()
    faceless, hungry = crew.submit(misfortune="NoFaceFound"), crew.submit(misfortune="OutOfDeviceMemory")
    buggy, liar = crew.submit(misfortune="bug"), crew.submit(lie=True)
    job = crew.wait(faceless, State.FAILED)
    assert (job.error.code, job.error.stage, job.error.retryable, job.attempts) == ("no_face", "stage1", False, 1)
    job = crew.wait(hungry, State.FAILED)
    assert (job.error.code, job.attempts) == ("out_of_memory", 2)
    job = crew.wait(buggy, State.FAILED)
    assert (job.error.code, job.attempts) == ("internal_error", 1)
    assert "inc_" in job.error.detail
    assert "secret" not in json.dumps(job.error.to_json())
    assert crew.wait(liar, State.FAILED).error.code == "internal_error", "bytes that differ from their checksum"


def test_a_workspace_that_cannot_be_made_fails_the_job_and_not_the_worker(crew, submit):
    """Disk trouble is the job's end, with a reason; the next job finds a worker."""
    job = submit({})
    (crew.ledger.storage.artifacts / job.id).write_text("a file where a folder must be")
    crew.hire()
    assert crew.wait(job, State.FAILED).error.code == "internal_error"
    crew.wait(crew.submit(steps=2), State.SUCCEEDED)


def test_deleting_a_running_job_stops_it_and_leaves_no_byte(crew):
    """The tombstone is written at once; the attempt finds itself fenced off, and what it wrote goes too."""
    crew.hire()
    job = crew.submit(steps=1000, pause_s=0.02)
    crew.wait_for_progress(job)
    assert crew.ledger.delete(job.id).gone
    crew.wait(crew.submit(steps=2), State.SUCCEEDED)
    assert not [path for path in crew.data_dir.rglob(f"*{job.id}*/**/*") if path.is_file()]


def test_the_worker_process_never_imports_torch():
    """CUDA dies in forked processes and torch costs a second and 300 MB: only the child may know it."""
    code = "import sys, worker.main, worker.tasks, worker.housekeeping; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"


def wipe(crew) -> None:
    """Everything that the broker knows, gone."""
    if crew.broker.url.startswith("filesystem:"):
        shutil.rmtree(crew.data_dir / "broker", ignore_errors=True)  # a worker may be making it anew
        return
    import redis

    with redis.Redis(unix_socket_path=crew.broker.url.removeprefix("redis+socket://")) as client:
        client.flushall()
