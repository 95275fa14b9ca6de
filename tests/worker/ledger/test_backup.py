"""The restore drill, on real files: a server is saved while it works, lost, and brought back."""

import json
import shutil
import subprocess
import threading
import time

import pytest
from click.testing import CliRunner

from mononphm_cli.commands.database import command
from tests.service.published import ordinary_files, published_for, waiting
from worker.ledger import JobDeleted, Keys, Ledger, State
from worker.ledger.backup import BackupError, agree, make, restore


@pytest.fixture
def server(tmp_path):
    """A server with a finished, a waiting, a running and a deleted job, and a key."""
    book = Ledger(None, tmp_path / "data", lease_s=0.2)
    made = {
        "done": published_for(book, "ann", ordinary_files()).id,
        "deleted": published_for(book, "ann", ordinary_files()).id,
        "runs": waiting(book, b"a clip", owner="bob").id,
    }
    assert book.claim("a worker that is lost with the machine", made["runs"]) is not None
    made["waits"] = waiting(book, b"another clip", labels=["mine"]).id
    assert book.delete(made["deleted"]).gone
    Keys(book).create("laptop", ("read",), "ann", None)
    yield book, made
    book.close()


def test_a_lost_server_comes_back_with_everything_it_promised(server, tmp_path):
    """Every state, every byte by checksum, keys and options; what ran runs again, and the tombstone stays one."""
    book, made = server
    files = {artifact.name: artifact.sha256 for artifact in book.artifacts(made["done"])}
    account = make(tmp_path / "data", tmp_path / "saved")
    assert account["jobs"] == {"succeeded": 1, "queued": 1, "running": 1, "deleted": 1}
    book.close()
    shutil.rmtree(tmp_path / "data")
    found = restore(tmp_path / "saved", tmp_path / "new")
    assert found.holds and found.jobs == 3 and found.files == 3 + len(files)
    again = Ledger(None, tmp_path / "new", lease_s=0.2)
    try:
        assert {artifact.name: artifact.sha256 for artifact in again.artifacts(made["done"])} == files
        assert again.get(made["waits"]).options.labels == ["mine"]
        assert again.storage.input_path(made["runs"]).read_bytes() == b"a clip"
        assert [key.name for key in Keys(again).list()] == ["laptop"]
        with pytest.raises(JobDeleted):
            again.delete(made["deleted"])
        until = time.monotonic() + 30
        while made["runs"] not in again.reap():
            assert time.monotonic() < until
            time.sleep(0.05)
        assert again.get(made["runs"]).state is State.QUEUED
        assert again.claim("a new worker", made["runs"]) is not None
    finally:
        again.close()


def test_what_was_deleted_after_the_backup_is_deleted_again_where_its_bytes_are_gone(server, tmp_path):
    """Between the copy of the database and that of the files somebody deletes: no row may promise what is not there."""
    _, made = server
    make(tmp_path / "data", tmp_path / "saved")
    shutil.rmtree(tmp_path / "saved" / "artifacts" / made["done"])
    found = restore(tmp_path / "saved", tmp_path / "new")
    assert found.damaged == (made["done"],)
    again = Ledger(None, tmp_path / "new")
    try:
        assert agree(again).holds
        with pytest.raises(JobDeleted):
            again.delete(made["done"])
    finally:
        again.close()


def test_bytes_of_a_deleted_job_in_a_backup_do_not_come_back_to_life(server, tmp_path):
    """The files were copied before a deletion that the database already tells."""
    _, made = server
    make(tmp_path / "data", tmp_path / "saved")
    remains = tmp_path / "saved" / "inputs" / made["deleted"]
    remains.mkdir()
    (remains / "input").write_bytes(b"a face")
    assert restore(tmp_path / "saved", tmp_path / "new").undead == (made["deleted"],)
    assert not (tmp_path / "new" / "inputs" / made["deleted"]).exists()


def test_a_backup_that_was_made_beside_writers_is_whole(server, tmp_path):
    """The service need not stop: whatever is in the copy of the database has its bytes in the copy of the files."""
    book, _ = server
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            published_for(book, "busy", ordinary_files())

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(3):
            make(tmp_path / "data", tmp_path / f"saved{number}")
    finally:
        stop.set()
        writer.join()
    for number in range(3):
        assert restore(tmp_path / f"saved{number}", tmp_path / f"new{number}").holds


def test_nothing_is_written_over_and_nothing_altered_is_restored(server, tmp_path):
    """The drill is done under stress: a wrong folder must cost nothing."""
    make(tmp_path / "data", tmp_path / "saved")
    with pytest.raises(BackupError, match="never writes over"):
        make(tmp_path / "data", tmp_path / "saved")
    with pytest.raises(BackupError, match="holds a server already"):
        restore(tmp_path / "saved", tmp_path / "data")
    with (tmp_path / "saved" / "ledger.sqlite3").open("r+b") as file:
        file.seek(5000)
        file.write(b"\xff\xff\xff")
    with pytest.raises(BackupError, match="altered"):
        restore(tmp_path / "saved", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(BackupError, match="pg_dump"):
        make(tmp_path, tmp_path / "other")


def test_a_changed_byte_and_a_forgotten_file_are_found(server, tmp_path):
    """`mononphm database check` reads everything: disks forget quietly, and deleted means gone."""
    book, made = server
    assert agree(book).holds
    artifact = book.artifact(made["done"], "manifest.json")
    path = book.storage.artifact_path(made["done"], artifact.fence, artifact.name)
    path.write_bytes(path.read_bytes().replace(b"tiny", b"tinY"))
    left = book.storage.inputs / made["deleted"]
    left.mkdir()
    found = agree(book)
    assert (found.damaged, found.undead) == ((made["done"],), (made["deleted"],))


def test_the_commands_do_the_drill(server, tmp_path):
    """As docs/operations.md has it, word for word."""
    run = CliRunner()

    def said(*words: str, code: int = 0) -> str:
        done = run.invoke(command, [str(word) for word in words], standalone_mode=True)
        assert done.exit_code == code, done.output
        return done.output

    account = json.loads(said("backup", tmp_path / "saved", "--data-dir", tmp_path / "data", "--json"))
    assert account["revision"] in said("revision", "--data-dir", tmp_path / "data")
    assert "3 jobs" in said("restore", tmp_path / "saved", "--data-dir", tmp_path / "new")
    said("check", "--data-dir", tmp_path / "new")
    shutil.rmtree(tmp_path / "new" / "inputs")
    said("restore", tmp_path / "saved", "--data-dir", tmp_path / "new", code=1)
    assert "missing" in run.invoke(command, ["check", "--data-dir", str(tmp_path / "new")]).output
    said("downgrade", "9999", "--data-dir", tmp_path / "data", code=2)


def test_the_saved_database_is_one_plain_file(server, tmp_path):
    """No write-ahead log beside it that a copy could forget; any SQLite opens it."""
    make(tmp_path / "data", tmp_path / "saved")
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {
        "ledger.sqlite3", "backup.json", "inputs", "artifacts", "uploads",
    }  # fmt: skip
    shell = shutil.which("sqlite3")
    if shell:
        subprocess.run([shell, tmp_path / "saved" / "ledger.sqlite3", "PRAGMA integrity_check"], check=True, timeout=20)
