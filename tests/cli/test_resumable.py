"""The client against the real API process, over a network that breaks."""

import hashlib
import socket
import threading

import pytest

from mononphm_cli.client import Client, Retries, resumable
from mononphm_cli.client.events import events_in
from mononphm_cli.failures import ServerUnreachable
from tests.chaos.oracle import unique_png
from tests.service.test_process import Api


class BadNetwork:
    """A proxy that cuts each connection after so many bytes of upload, as long as it has cuts left."""

    def __init__(self, port: int, cut_after: int, cuts: int) -> None:
        self._target, self._cut_after, self.cuts, self.made = port, cut_after, cuts, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            cut_after = self._cut_after if self.made < self.cuts else None
            threading.Thread(target=self._pump, args=(client, server, cut_after), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, None), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, cut_after: int | None) -> None:
        sent = 0
        try:
            while data := source.recv(65536):
                sink.sendall(data)
                sent += len(data)
                if cut_after is not None and sent > cut_after:
                    self.made += 1
                    break
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            end.close()


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    started = Api(tmp_path_factory.mktemp("api"), MONONPHM_FREE_SPACE_RESERVE_BYTES="0")
    yield started
    started.process.kill()
    started.process.wait()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A picture with a long tail, and pieces small enough that a cut falls into the middle."""
    import random

    monkeypatch.setattr("mononphm_cli.client.http.RESUMABLE_BYTES", 1 << 20)
    monkeypatch.setattr(resumable, "PIECE_BYTES", 512 << 10)
    path = tmp_path / "größe.png"
    path.write_bytes(unique_png(random.Random(3)) + bytes(3 << 20))
    return path


def test_a_large_file_arrives_whole_over_a_network_that_breaks(api, large):
    """Four cuts in mid-piece: the job has the file's very checksum, and the bar ends at the file's size."""
    network, counted = BadNetwork(api.port, 700 << 10, 4), []
    try:
        with Client(network.url, retries=Retries(first_wait_s=0.01)) as client:
            job = client.submit(large, {"quality": "draft"}, on_bytes=counted.append)
    finally:
        network.close()
    assert network.made == 4
    assert (job.input.sha256, job.input.filename) == (hashlib.sha256(large.read_bytes()).hexdigest(), large.name)
    assert sum(counted) == large.stat().st_size


def test_the_next_run_of_the_command_goes_on_where_the_last_one_ended(api, large, monkeypatch):
    """A closed laptop: another process, the same file; what is safe on the server is not sent again."""
    monkeypatch.setattr(resumable, "PATIENCE", 0)
    network = BadNetwork(api.port, 1200 << 10, 99)
    with (
        Client(network.url, retries=Retries(attempts=2, first_wait_s=0.01)) as client,
        pytest.raises(ServerUnreachable, match="goes on there"),
    ):
        client.submit(large, {})
    network.close()
    store = resumable._store()
    store.write_text(store.read_text().replace(network.url, api.url))  # the same server by its other address
    counted = []
    with Client(api.url) as client:
        job = client.submit(large, {}, on_bytes=counted.append)
        assert counted[0] >= 512 << 10, "the first piece was safe"
        assert job.input.sha256 == hashlib.sha256(large.read_bytes()).hexdigest()
        again = client.submit(large, {}, "another-wish")
        assert again.id != job.id, "a finished upload is not taken for a new wish"


def test_every_fact_of_the_server_has_a_method(api):
    with Client(api.url) as client:
        assert client.facts("/limits")["upload"]["max_bytes"] > 0
        assert client.facts("/version")["name"] == "mononphm"
        assert "mononphm_jobs" in client.metrics()


def test_events_are_read_as_the_format_says():
    """Comments and retry lines are no events; a cut-off one is not half an event."""
    text = 'retry: 2000\n\n: still here\n\nid: 1\nevent: state\ndata: {"state": "queued"}\n\nid: 2\nevent: sta'
    assert [(event.id, event.type, event.data) for event in events_in(text.split("\n"))] == [
        (1, "state", {"state": "queued"})
    ]
