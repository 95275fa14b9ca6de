"""The object store behind a network that misbehaves: everything arrives, or we say that it did not."""

import random
import socket
import threading

import pytest

from tests.support.object_store import FAULTS, Weather
from worker.ledger import StorageUnavailable, sha256_of

MIB = 1 << 20
PART = 5 * MIB


@pytest.fixture
def weather(object_store):
    """A proxy in front of the server."""
    between = Weather(object_store.endpoint)
    yield between
    between.close()


def behind(weather, object_store, url, **more):
    """A bucket that is reached through the weather, by a client that waits 0.6 s for a byte."""
    quick = {"timeout_s": 0.6, "patience_s": 120.0, "part_bytes": PART, "endpoint": weather.endpoint}
    return object_store.bucket(url.split("/")[2], **(quick | more))


def some_files(folder, sizes, seed=3):
    made = []
    for number, size in enumerate(sizes):
        path = folder / f"file-{number}"
        path.write_bytes(random.Random(seed + number).randbytes(size))
        made.append((path, f"artifacts/job@1/{path.name}", sha256_of(path), {}))
    return made


def in_truth(object_store, url, key):
    """What lies in the store, asked without us and without the weather."""
    return object_store.client().get_object(Bucket=url.split("/")[2], Key=f"heads/{key}")["Body"].read()


@pytest.mark.parametrize("fault", FAULTS)
def test_one_kind_of_fault_in_two_requests_of_five_loses_nothing(fault, weather, object_store, bucket_url, tmp_path):
    """Timeouts, 5xx, connections cut half-way there and back, lost answers, trickles, flipped bits: each alone."""
    bucket = behind(weather, object_store, bucket_url)
    weather.faults, weather.badness, weather.hang_s = (fault,), 0.4, 0.8
    files = some_files(tmp_path, [1000, PART + 1000])
    bucket.put_files(files)
    for path, key, sha256, _ in files:
        assert in_truth(object_store, bucket_url, key) == path.read_bytes()
        bucket.fetch(key, tmp_path / "back", sha256)
        assert (tmp_path / "back").read_bytes() == path.read_bytes()
    assert bucket.remove("artifacts/job@1/").gone
    assert object_store.keys(bucket_url) == [] and object_store.unfinished(bucket_url) == []
    assert weather.met[fault] > 0


@pytest.mark.slow
def test_in_all_weathers_at_once_every_file_arrives_whole(weather, object_store, bucket_url, tmp_path):
    """Every third request meets some fault. 0 lost, 0 changed, and nothing unfinished stays after the removal."""
    bucket = behind(weather, object_store, bucket_url)
    weather.badness, weather.hang_s = 1 / 3, 0.8
    sizes = [random.Random(1).randrange(200_000) for _ in range(10)] + [2 * PART + 17, PART + 1]
    files = some_files(tmp_path, sizes)
    bucket.put_files(files)
    assert sorted(item.key for item in bucket.objects("artifacts/")) == sorted(key for _, key, _, _ in files)
    for path, key, sha256, _ in files:
        assert in_truth(object_store, bucket_url, key) == path.read_bytes()
        bucket.fetch(key, tmp_path / "back", sha256)
    assert sum(count for fault, count in weather.met.items() if fault != "none") > 8, weather.met
    assert bucket.remove("artifacts/job@1/").gone
    assert object_store.keys(bucket_url) == [] and object_store.unfinished(bucket_url) == []


def test_a_download_goes_on_where_it_broke(weather, object_store, bucket_url, tmp_path):
    """From any byte on, through cut connections: the same bytes, none twice, none left out."""
    bucket = behind(weather, object_store, bucket_url)
    weather.badness = 0.0
    [(path, key, sha256, headers)] = some_files(tmp_path, [3 * MIB])
    bucket.put_file(path, key, sha256, headers)
    weather.faults, weather.badness = ("cut_answer",), 0.7
    reader = bucket.open(key, first=1234)
    assert b"".join(iter(lambda: reader.read(100_000), b"")) == path.read_bytes()[1234:]
    assert weather.met["cut_answer"] > 0


def test_a_store_that_is_away_is_reported_once_patience_is_over(weather, object_store, bucket_url, tmp_path):
    """And not a moment before somebody has looked whether the job is still wanted."""
    weather.faults, weather.badness = ("error",), 1.0
    bucket = behind(weather, object_store, bucket_url, patience_s=1.0)
    [(path, key, sha256, headers)] = some_files(tmp_path, [PART + 1])
    asked = []
    with pytest.raises(StorageUnavailable, match="tried for 1 s"):
        bucket.put_file(path, key, sha256, headers, lambda: asked.append(1))
    assert len(asked) > 1
    assert object_store.keys(bucket_url) == []


def test_a_transfer_that_nobody_wants_any_more_ends_at_once(weather, object_store, bucket_url, tmp_path):
    """A cancelled job must not wait ten minutes for a store that is away; what it sent is taken back."""
    bucket = behind(weather, object_store, bucket_url, patience_s=600.0)
    weather.badness = 0.0
    [(path, key, sha256, headers)] = some_files(tmp_path, [3 * PART])

    class Unwanted(Exception):
        pass

    def check():
        if weather.met["none"]:  # the upload has begun
            weather.faults, weather.badness = ("error",), 1.0
            raise Unwanted

    with pytest.raises(Unwanted):
        bucket.put_file(path, key, sha256, headers, check)
    weather.badness = 0.0
    bucket.abort("artifacts/job@1/")
    assert object_store.keys(bucket_url) == [] and object_store.unfinished(bucket_url) == []


def test_a_store_that_trickles_for_ever_counts_as_away(object_store):
    """A byte now and then defeats every timeout of a socket; the pace is watched."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def trickle():
        while not ended.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    def serve(connection):
        with connection:
            connection.recv(65536)
            connection.sendall(b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: 1000000\r\n\r\n')
            while not ended.wait(0.05):
                try:
                    connection.sendall(b"x")
                except OSError:
                    return

    threading.Thread(target=trickle, daemon=True).start()
    bucket = object_store.bucket(
        "any", endpoint="http://{}:{}".format(*listener.getsockname()), timeout_s=0.4, patience_s=1.5
    )
    reader = bucket.open("key")
    with pytest.raises(StorageUnavailable, match="trickles"):
        list(iter(lambda: reader.read(MIB), b""))
    ended.set()
    listener.close()
