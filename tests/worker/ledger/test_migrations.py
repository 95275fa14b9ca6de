"""A database that an older version made: upgraded in place, with everything in it."""

import json
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command

from worker.ledger import Keys, Ledger, State, database


def made_by_the_first_version(folder: Path) -> str:
    """A database at revision 0001 with a waiting and a finished job, written without today's code."""
    engine = database.make_engine(database.default_url(folder))
    config = database.migration_config()
    at = "2026-11-01 12:00:00.000000"
    row = {
        "kind": "reconstruction", "owner": "", "queue": "mononphm", "percent": 0.0, "step": 0, "total": 0,
        "frames_done": 0, "frames_total": 0, "warnings": "[]", "retention_s": 1e9, "rank_at": at, "created_at": at,
        "attempts": 0, "fence": 0, "event_seq": 1,
        "input": json.dumps({"filename": "a.mp4", "media_type": "video/mp4", "bytes": 3, "sha256": "ab" * 32}),
        "options": json.dumps({"quality": "draft", "labels": ["old"]}),
    }  # fmt: skip
    later = "2090-01-01 00:00:00.000000"
    done = {"id": "rec_done", "state": "succeeded", "published_fence": 1, "finished_at": at, "expires_at": later}
    with engine.connect().execution_options(**{database.WRITE: True}) as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for job in ({"id": "rec_waits", "state": "queued"}, done):
            values = row | job
            names = ", ".join(values)
            connection.execute(sa.text(f"insert into jobs ({names}) values (:{', :'.join(values)})"), values)
            event = {"job_id": job["id"], "seq": 1, "at": at, "type": "state", "data": '{"state": "queued"}'}
            connection.execute(
                sa.text("insert into events (job_id, seq, at, type, data) values (:job_id, :seq, :at, :type, :data)"),
                event,
            )
    engine.dispose()
    return database.default_url(folder)


@pytest.fixture
def upgraded(tmp_path):
    made_by_the_first_version(tmp_path)
    ledger = Ledger(None, tmp_path)
    yield ledger
    ledger.close()


def test_an_old_database_keeps_its_jobs_and_gains_what_is_new(upgraded):
    """Nobody reinstalls to upgrade: waiting jobs are taken, finished ones still shown, new tables usable."""
    assert database.current_revision(upgraded.engine) == database.head_revision() != "0001"
    assert upgraded.get("rec_done").state is State.SUCCEEDED
    assert upgraded.get("rec_done").options.labels == ["old"]
    assert upgraded.events_after("rec_waits")[0].data == {"state": "queued"}
    lease = upgraded.claim("w")
    assert lease is not None and lease.job_id == "rec_waits"
    _, text = Keys(upgraded).create("first")
    assert Keys(upgraded).find(text) is not None


def test_an_upgrade_that_dies_half_way_leaves_the_old_database_whole(tmp_path, monkeypatch):
    """One transaction: the next start tries again from 0001, with every row."""
    url = made_by_the_first_version(tmp_path)
    real = command.upgrade

    def dies(config, revision):
        real(config, revision)
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "upgrade", dies)
    with pytest.raises(KeyboardInterrupt):
        Ledger(None, tmp_path)
    engine = database.make_engine(url)
    assert database.current_revision(engine) == "0001"
    assert "api_keys" not in sa.inspect(engine).get_table_names()
    engine.dispose()
    monkeypatch.undo()
    again = Ledger(None, tmp_path)
    assert again.get("rec_waits").state is State.QUEUED
    again.close()
