"""The same state of record on PostgreSQL: same migrations, same promises."""

import importlib.util
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from tests.chaos.postgres import private_postgres, programs
from tests.service.published import ordinary_files, published_for, waiting
from worker.ledger import Keys, LeaseLost, Ledger, Outbox, State, Uploads, database, failure_of, schema

pytestmark = [
    pytest.mark.skipif(programs() is None, reason="postgresql is not installed"),
    pytest.mark.skipif(importlib.util.find_spec("psycopg") is None, reason="the extra `postgres` is not installed"),
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with private_postgres() as made:
        yield made


@pytest.fixture
def ledger(url: str, tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(url, tmp_path, lease_s=5.0)
    yield opened
    with opened.writing() as tx:
        for table in reversed(schema.metadata.sorted_tables):
            tx.execute(table.delete())
    opened.close()


def test_the_migrations_make_the_schema_of_the_code(ledger):
    with ledger.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []


def test_a_process_that_sleeps_in_a_transaction_does_not_keep_its_rows(url, ledger):
    """A host that was suspended or cut off half-way: the server ends its transaction, and others go on."""
    job = waiting(ledger)
    with ledger.engine.connect() as connection:
        assert connection.execute(sa.text("show idle_in_transaction_session_timeout")).scalar_one() == "1min"
    hasty = database.make_engine(url, idle_in_transaction_s=0.2)
    mine = sa.select(schema.jobs.c.id).where(schema.jobs.c.id == job.id).with_for_update()
    with hasty.connect() as sleeper:
        sleeper.execute(mine)
        ledger.request_cancel(job.id)  # waits for the lock, which is gone with the sleeper's transaction
        with pytest.raises(sa.exc.DBAPIError):
            sleeper.execute(mine)
    hasty.dispose()
    assert ledger.get(job.id).state is State.CANCELLED


def test_a_job_from_its_opening_to_its_deletion(ledger):
    """Claim, publish, list, count, delete; quotas and outcomes are sums that the two databases write differently."""
    job = published_for(ledger, "me", ordinary_files())
    assert ledger.get(job.id, "me").state is State.SUCCEEDED
    assert [found.id for found in ledger.list(owner="me", state=State.SUCCEEDED).jobs] == [job.id]
    assert ledger.stored_bytes("me") == job.input.bytes + sum(item.bytes for item in ledger.artifacts(job.id))
    assert ledger.attempt_outcomes() == {"succeeded": 1}
    assert ledger.delete(job.id).gone and ledger.stored_bytes("me") == 0


def test_a_stale_writer_is_fenced_off(ledger):
    job = waiting(ledger)
    stale = ledger.claim("sleeps", job.id)
    stale.new_workspace()
    with ledger.writing() as tx:
        past = ledger.now(tx).replace(year=2020)
        tx.execute(schema.jobs.update().where(schema.jobs.c.id == job.id).values(lease_until=past))
    assert ledger.reap() == [job.id]
    fresh = ledger.claim("awake", job.id)
    fresh.new_workspace()
    with pytest.raises(LeaseLost):
        stale.publish({"artifacts": []})
    fresh.publish({"artifacts": []})
    assert ledger.get(job.id).published_fence == fresh.fence


def test_one_waiting_job_is_taken_by_one_of_many(ledger):
    """SKIP LOCKED keeps the others going instead of queueing behind the row."""
    jobs = {waiting(ledger).id for _ in range(4)}
    taken: list[str] = []
    barrier = threading.Barrier(8)

    def take(number: int) -> None:
        barrier.wait()
        lease = ledger.claim(f"w{number}")
        if lease is not None:
            taken.append(lease.job_id)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(set(taken)) and set(taken) <= jobs


def test_keys_uploads_and_outbox_work_there_too(ledger):
    _, text = Keys(ledger).create("k", owner="me")
    assert Keys(ledger).find(text) is not None and Keys(ledger).find(text + "x") is None
    uploads = Uploads(ledger, 60.0)
    upload = uploads.create("me", 3)
    assert uploads.advance(upload.id, 3).is_complete and uploads.open_ones("me") == 1
    job = waiting(ledger, webhook_url="https://hooks.example.com/x")
    ledger.claim("w", job.id).fail(failure_of(MemoryError(), "stage1"))
    outbox = Outbox(ledger)
    (message,) = outbox.take()
    assert outbox.take() == [] and not outbox.failed(message, "down")
    assert outbox.backlog().waiting == 1


def test_dates_come_back_as_they_went_in(ledger):
    """Two databases, one meaning of a moment."""
    job = waiting(ledger)
    with ledger.reading() as tx:
        assert tx.execute(sa.select(schema.jobs.c.created_at)).scalar_one() == job.created_at
    assert job.created_at.utcoffset().total_seconds() == 0
