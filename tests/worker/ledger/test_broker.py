"""Which broker is chosen, and that the one we start is private and the one we think it is."""

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from worker.ledger import broker


def test_a_configured_url_wins_and_its_password_stays_out_of_the_log(tmp_path):
    """The operator's word; the sentence for the log must not carry the secret."""
    chosen = broker.configured_broker("redis://user:hunter2@10.0.0.7:6379/0", tmp_path)
    assert chosen.url == "redis://user:hunter2@10.0.0.7:6379/0"
    assert "hunter2" not in chosen.said
    assert (
        chosen.transport_options["unacked_restore_interval"],
        chosen.transport_options["unacked_restore_throttle"],
    ) == (2, 1)


def test_without_anything_the_filesystem_carries_the_hints(tmp_path, monkeypatch):
    """The embedded default needs no server."""
    monkeypatch.setattr(broker, "REDIS_SERVERS", (tmp_path / "absent",))
    with broker.launched_broker(None, tmp_path) as chosen:
        assert chosen.url.startswith("filesystem:")
        assert Path(chosen.transport_options["data_folder_in"]).is_dir()


def test_a_redis_on_the_path_is_not_taken(tmp_path, monkeypatch):
    """Python packages bring old servers under that name; absolute paths count, and an old version is none."""
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho 'Redis server v=5.0.3 sha=00000000:0 malloc=libc bits=64 build=0'\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(broker, "REDIS_SERVERS", ())
    assert broker.find_redis_server() is None
    monkeypatch.setattr(broker, "REDIS_SERVERS", (old,))
    assert broker.redis_version(old) == (5, 0, 3)
    assert broker.find_redis_server() is None


def test_a_server_that_never_answers_is_ended_and_named(tmp_path):
    """A launcher that hangs, or leaves a process behind, is worse than one that says what to do."""
    mute = tmp_path / "redis-server"
    mute.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 60\n")
    mute.chmod(0o755)
    with pytest.raises(RuntimeError, match="MONONPHM_BROKER_URL"):
        broker.start_redis(mute, tmp_path / "redis.sock", timeout_s=0.5)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.skipif(broker.find_redis_server() is None, reason="no redis-server is installed")
def test_a_launched_redis_is_private_and_ends_with_its_launcher():
    """No TCP port, a directory for its owner alone, and no process left behind."""
    with tempfile.TemporaryDirectory(prefix="mono") as folder:
        with broker.launched_broker(None, Path(folder)) as chosen:
            socket = Path(chosen.url.removeprefix("redis+socket://"))
            assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
            import redis

            with redis.Redis(unix_socket_path=str(socket)) as client:
                assert client.config_get("port") == {"port": "0"}
                process = client.info("server")["process_id"]
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_the_ledger_knows_neither_torch_nor_celery():
    """It is the service's one door into worker/: the service must start without either."""
    code = "import sys, worker.ledger.broker; print({'torch', 'celery', 'kombu', 'numpy'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "set()"
