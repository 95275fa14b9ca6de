"""The claim asks the ordering function: the same jobs in the same order on SQLite and PostgreSQL, and quickly."""

import importlib.util
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.chaos.postgres import private_postgres, programs
from tests.worker.helpers import open_script
from worker.ledger import Ledger, lines, schema
from worker.ledger.scheduling import MEMORY_PATIENCE

LATER = datetime(2026, 11, 25, 13, tzinfo=UTC)
HAS_POSTGRES = programs() is not None and importlib.util.find_spec("psycopg") is not None


@pytest.fixture
def two_ledgers(tmp_path: Path) -> Iterator[tuple[Ledger, Ledger]]:
    if not HAS_POSTGRES:
        pytest.skip("postgresql or the extra `postgres` is not installed")
    with private_postgres() as url:
        pair = Ledger(None, tmp_path / "a"), Ledger(url, tmp_path / "b")
        yield pair
        for ledger in pair:
            ledger.close()


def fill(ledger: Ledger, jobs: int, seed: int = 0, owners: int = 7) -> None:
    """So many waiting jobs of these owners, three models and all priorities, the same for every ledger."""
    chance, noon = random.Random(seed), datetime(2026, 11, 25, 12, tzinfo=UTC)
    rows = []
    for number in range(jobs):
        owner, model = f"owner{chance.randrange(owners)}", chance.choice(["", "m", "n"])
        rows.append(
            {
                "id": f"rec_{number:06}", "kind": "reconstruction", "owner": owner, "queue": "mononphm",
                "state": "queued", "percent": 0.0, "step": 0, "total": 0, "frames_done": 0, "frames_total": 0,
                "input": {"filename": "a", "media_type": "video/mp4", "bytes": 1, "sha256": "0"},
                "options": {"quality": "draft"},
                "warnings": [], "retention_s": 1e9, "created_at": noon, "attempts": 0, "fence": 0, "event_seq": 0,
                "rank_at": noon + timedelta(seconds=chance.randrange(900)), "line": lines.line_of(owner, model),
                "expected_s": float(chance.choice([15, 28, 92])), "memory_bytes": 1,
            }
        )  # fmt: skip
    with ledger.writing() as tx:
        tx.execute(schema.jobs.insert(), rows)


def test_both_databases_give_the_jobs_out_in_the_same_order(two_ledgers):
    """One function decides, and rows reach it in any order; warm models come and go as workers do."""
    orders = []
    for ledger in two_ledgers:
        fill(ledger, 60)
        claims = [ledger.claim("w", queues=["mononphm"], warm=frozenset({"m"} if n % 2 else {""})) for n in range(60)]
        orders.append([lease.job_id for lease in claims])
        assert ledger.claim("w") is None
    assert orders[0] == orders[1] and len(set(orders[0])) == 60


def test_an_owner_is_charged_what_the_job_took_and_not_for_the_fleet(ledger, submit):
    """A job that was given back, or whose worker was lost, costs its owner nothing."""
    job = submit(owner="me")
    lease = ledger.claim("w", job.id)
    with ledger.reading() as tx:
        expected = tx.execute(sa.select(schema.jobs.c.expected_s)).scalar_one()
        assert tx.execute(sa.select(schema.accounts.c.finish_s)).scalar_one() == expected
    lease.release()
    with ledger.reading() as tx:
        assert tx.execute(sa.select(schema.accounts.c.finish_s)).scalar_one() == 0.0
    lease = ledger.claim("w", job.id)
    lease.new_workspace()
    lease.publish({"artifacts": []})
    with ledger.reading() as tx:
        assert 0.0 <= tx.execute(sa.select(schema.accounts.c.finish_s)).scalar_one() < 30.0


def test_a_job_too_large_for_this_worker_is_left_to_others_but_not_for_ever(ledger, submit):
    """A small worker takes what fits; what fits nowhere is tried in the end and gets an answer."""
    large, small = submit(options={"max_frames": 4000, "part_frames": 1000}), submit()
    lease = ledger.claim("tiny", memory_bytes=4 << 30)
    assert lease.job_id == small.id
    assert ledger.claim("tiny", memory_bytes=4 << 30) is None
    with ledger.writing() as tx:
        column = schema.jobs.c.rank_at
        old = large.created_at - MEMORY_PATIENCE
        tx.execute(schema.jobs.update().where(schema.jobs.c.id == large.id).values({column: old}))
    assert ledger.claim("tiny", memory_bytes=4 << 30).job_id == large.id


def test_processors_take_short_jobs_and_gpus_long_ones_first(ledger):
    """A mixed fleet: two sorts of workers by the queues that they name, and no job that nobody takes."""
    short, long, more = (open_script(ledger, {}, queue=queue) for queue in ("mononphm", "mononphm-gpu", "mononphm"))
    gpu, processor = ["mononphm-gpu", "mononphm"], ["mononphm"]
    assert ledger.open_by_queue() == {"mononphm": 2, "mononphm-gpu": 1}
    assert ledger.claim("gpu", queues=gpu).job_id == long.id
    assert ledger.claim("cpu", queues=processor).job_id == short.id
    assert ledger.claim("gpu", queues=gpu).job_id == more.id, "an idle GPU helps"
    assert ledger.claim("cpu", queues=processor) is None


def test_a_flood_of_one_owner_does_not_hold_up_another(ledger):
    for number in range(6):
        open_script(ledger, {"n": number}, owner="flood")
    guest = open_script(ledger, {}, owner="guest")
    assert ledger.queue_position(guest.id) == 2
    first, second = ledger.claim("w"), ledger.claim("w")
    assert {first.job.owner, second.job.owner} == {"flood", "guest"}


def test_a_claim_sees_so_many_lines_and_no_more(ledger):
    """However many owners wait, the cost of a claim has a bound; up to that many it sees every line."""
    fill(ledger, 900, owners=300)
    with ledger.reading() as tx:
        waiting = set(tx.execute(sa.select(schema.jobs.c.line).distinct()).scalars())
        assert len(waiting) > 2 * lines.LINES_SEEN
        ends = lines.heads(tx, "mononphm", LATER), lines.heads(tx, "mononphm", LATER, middle="g")
        assert [len(seen) for seen in ends] == [lines.LINES_SEEN] * 2  # all lines are on one side of these two points
        seen = [head.job_id for head in lines.heads(tx, "mononphm", LATER, middle="8")]
        assert lines.LINES_SEEN <= len(seen) <= 2 * lines.LINES_SEEN and len(set(seen)) == len(seen)


def test_where_a_claim_cannot_see_all_owners_it_is_fair_over_time(ledger, monkeypatch):
    """A fifth of the lines is seen at a time: in the first round few are served twice, in two nobody is forgotten."""
    chance = random.Random(3)
    monkeypatch.setattr(lines, "LINES_SEEN", 4)
    monkeypatch.setattr(lines, "anywhere", lambda: f"{chance.getrandbits(32):08x}")
    for number in range(80):
        open_script(ledger, {"n": number}, owner=f"owner{number % 40}")
    served = [ledger.claim("w", queues=["mononphm"]).job.owner for _ in range(80)]
    assert len(set(served[:40])) >= 28
    assert len(set(served[:60])) >= 34
    assert sorted(served) == sorted(2 * list(set(served))) and len(set(served)) == 40


def test_a_claim_looks_at_heads_and_not_at_the_crowd(ledger):
    """The hot path: with 3,000 waiting jobs the plan still walks an index, never the table."""
    fill(ledger, 3000)
    seen = []

    def listen(connection, cursor, statement, parameters, context, executemany):
        seen.append((statement, parameters))

    sa.event.listen(ledger.engine, "before_cursor_execute", listen)
    assert ledger.claim("w", queues=["mononphm"], memory_bytes=1 << 30) is not None
    sa.event.remove(ledger.engine, "before_cursor_execute", listen)
    plans = []
    with ledger.engine.connect() as connection:
        for statement, parameters in seen:
            if "RECURSIVE" in statement:
                rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
                plans += [row[-1] for row in rows]
    assert any("ix_jobs_waiting" in line for line in plans)
    assert not [line for line in plans if line.startswith("SCAN jobs")]
