"""A database that an older version made: upgraded in place, with everything in it."""

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command

from tests.chaos.postgres import private_postgres, programs
from tests.service.published import ordinary_files, published_for, waiting
from worker.ledger import Keys, Ledger, State, database
from worker.ledger.backup import agree


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


# ---- upgrade and rollback -----------------------------------------------------------------------------------------


def revisions() -> list[str]:
    """Oldest first."""
    from alembic.script import ScriptDirectory

    walked = ScriptDirectory.from_config(database.migration_config()).walk_revisions()
    return [script.revision for script in walked][::-1]


def moved(engine: sa.Engine, revision: str) -> None:
    """One step up."""
    config = database.migration_config()
    with engine.connect().execution_options(**{database.WRITE: True}) as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def shape(engine: sa.Engine) -> dict[str, dict[str, bool]]:
    """Table -> column -> whether an insert must name it."""
    inspector = sa.inspect(engine)
    return {
        table: {
            column["name"]: not column["nullable"] and column["default"] is None
            for column in inspector.get_columns(table)
        }
        for table in inspector.get_table_names()
    }


def test_a_revision_only_adds_what_older_code_may_ignore(tmp_path):
    """Old and new processes share the database while one takes the other's place: nothing vanishes, and no column is
    added that an older program's INSERT would have to name."""
    engine = database.make_engine(database.default_url(tmp_path))
    moved(engine, revisions()[0])
    before = shape(engine)
    for revision in revisions()[1:]:
        moved(engine, revision)
        after = shape(engine)
        for table, columns in before.items():
            assert columns.keys() <= after[table].keys(), f"{revision} drops from {table}"
            added = {name: must for name, must in after[table].items() if name not in columns}
            assert not any(added.values()), f"{revision} adds to {table} what older code cannot fill: {added}"
        before = after
    engine.dispose()


def test_an_older_program_works_on_with_a_newer_schema(tmp_path, caplog):
    """Its process is started again in the middle of a deploy: it must serve, and leave the schema alone."""
    ledger = Ledger(None, tmp_path)
    with ledger.writing() as tx:
        tx.execute(sa.text("alter table jobs add column of_tomorrow text"))
        tx.execute(sa.text("update alembic_version set version_num = 'tomorrow'"))
    ledger.close()
    older = Ledger(None, tmp_path)
    job = waiting(older)
    assert older.claim("w", job.id) is not None
    assert database.current_revision(older.engine) == "tomorrow"
    assert "newer than this program" in caplog.text
    older.close()


def there_and_back(engine: sa.Engine, ledger: Ledger) -> None:
    """Down to each older revision and up again, with jobs in every state; whatever the older one knows is kept."""
    job, done = waiting(ledger, labels=["kept"]), published_for(ledger, "", ordinary_files())
    files = {artifact.name: artifact.sha256 for artifact in ledger.artifacts(done.id)}
    for revision in revisions()[:-1]:
        database.downgrade(engine, revision)
        assert database.current_revision(engine) == revision
        with engine.connect() as connection:
            states = {row.id: row.state for row in connection.execute(sa.text("select id, state from jobs"))}
        assert states == {job.id: "queued", done.id: "succeeded"}
        database.upgrade(engine)
        assert database.current_revision(engine) == database.head_revision()
        assert ledger.get(job.id).options.labels == ["kept"]
        assert {artifact.name: artifact.sha256 for artifact in ledger.artifacts(done.id)} == files
    lease = ledger.claim("w", job.id)
    assert lease is not None and lease.order.job_id == job.id


def test_a_rollback_and_the_upgrade_after_it_keep_every_job_on_sqlite(tmp_path):
    """A bad release is taken back with users' jobs in the database."""
    ledger = Ledger(None, tmp_path)
    there_and_back(ledger.engine, ledger)
    ledger.close()


@pytest.mark.skipif(programs() is None, reason="postgresql is not installed")
@pytest.mark.skipif(importlib.util.find_spec("psycopg") is None, reason="the extra `postgres` is not installed")
def test_the_same_on_postgresql_and_through_pg_dump(tmp_path):
    """There and back, then the documented dump into an empty database: the same jobs, and bytes that agree."""
    with private_postgres() as url, private_postgres() as empty:
        ledger = Ledger(url, tmp_path)
        there_and_back(ledger.engine, ledger)
        before = {job.id: (job.state, job.options) for job in ledger.list().jobs}
        ledger.close()
        dump = tmp_path / "ledger.dump"
        place, other = (sa.make_url(each).query["host"] for each in (url, empty))
        common = ["-U", "mononphm", "-d", "postgres"]
        tools = programs()
        assert tools is not None
        subprocess.run([tools / "pg_dump", "-h", place, *common, "-Fc", "-f", dump], check=True, timeout=60)
        subprocess.run(
            [tools / "pg_restore", "-h", other, *common, "--exit-on-error", "--no-owner", dump], check=True, timeout=60
        )
        again = Ledger(empty, tmp_path)
        assert {job.id: (job.state, job.options) for job in again.list().jobs} == before
        assert agree(again).holds
        again.close()
