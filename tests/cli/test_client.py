"""The HTTP client against a real server process: what it repeats, what it verifies, what it refuses."""

from pathlib import Path

import pytest

from mononphm_cli.client import Artifact, Client, Retries
from mononphm_cli.client.download import fetch, fetch_all, local_name, sha256_of
from mononphm_cli.failures import RemoteFailure, ServerUnreachable


@pytest.fixture
def client(server):
    with Client(server.url, retries=Retries(first_wait_s=0.01)) as client:
        yield client


def test_the_server_receives_the_very_bytes_of_the_file(client, clip):
    """The upload is streamed from disk; the checksum at the other end says that nothing was lost on the way."""
    counted = []
    job = client.submit(clip, {"quality": "draft"}, on_bytes=counted.append)
    assert job.input.sha256 == sha256_of(clip)
    assert job.input.filename == "clip.mp4"
    assert job.options == {"quality": "draft"}
    assert sum(counted) == clip.stat().st_size


def test_a_busy_server_is_asked_again_under_the_same_key(client, server, clip):
    """503 with Retry-After is an invitation; another key on the second try could make two jobs of one wish."""
    server.faults(busy=2)
    client.submit(clip, {})
    tries = server.seen("POST", "/reconstructions")
    assert len(tries) == 3
    assert len({request["key"] for request in tries}) == 1


def test_a_lost_answer_makes_no_second_job(client, server, clip):
    """The server accepted, the connection broke before the 202: the repetition must find the job, not add one."""
    server.faults(lose_answer=True)
    counted = []
    job = client.submit(clip, {}, on_bytes=counted.append)
    assert [found.id for found in client.jobs()] == [job.id]
    assert sum(counted) == clip.stat().st_size  # the bar went back for the second try


def test_a_wait_between_tries_doubles_and_obeys_the_server():
    """Closed form: 0.5, 1, 2 ... seconds, at most shuffled down by half, capped; Retry-After wins."""
    retries = Retries(first_wait_s=0.5, longest_wait_s=3)
    for attempt, most in enumerate([0.5, 1, 2, 3, 3]):
        assert most / 2 <= retries.wait_s(attempt, None) <= most
    assert retries.wait_s(0, "2") == 2
    assert retries.wait_s(0, "600") == 3
    assert retries.wait_s(0, "Wed, 21 Oct 2026 07:28:00 GMT") <= 0.5


def test_nobody_there_says_what_to_do(clip):
    """Connection refused is the first thing that happens to a new user."""
    retries = Retries(attempts=2, first_wait_s=0.01)
    with Client("http://127.0.0.1:9", retries=retries) as client, pytest.raises(ServerUnreachable, match="mononphm up"):
        client.job("rec_1")


def test_a_page_that_is_no_service_is_recognised(server):
    """Any web server answers 200 to something; that is not a job."""
    with Client(f"{server.url}/page?") as client, pytest.raises(RemoteFailure, match="no JSON"):
        client._json(client._http.get(f"{server.url}/page"))


def test_a_listing_goes_over_pages_and_stops_at_the_limit(client, clip):
    """The server pages by two; the caller asked for three, newest first."""
    ids = [client.submit(clip, {"seed": number}).id for number in range(5)]
    assert [job.id for job in client.jobs(limit=3)] == ids[::-1][:3]
    assert [job.id for job in client.jobs(limit=50)] == ids[::-1]


def test_deleting_twice_is_deleting_once(client, clip):
    """Gone is what was wished for; 410 is no failure here."""
    job = client.submit(clip, {})
    client.delete(job.id)
    client.delete(job.id)


def test_waiting_sees_every_station_and_ends_with_the_job(server, clip):
    """Percent only grows, and the last look is at a job that can no longer change."""
    pauses, seen = [], []
    with Client(server.url, sleep=pauses.append) as client:
        job = client.wait(client.submit(clip, {}).id, seen.append)
    assert job.state == "succeeded"
    percents = [look.percent for look in seen]
    assert percents == sorted(percents)
    assert len(pauses) == len(seen) - 1
    assert all(0 < pause <= 3 for pause in pauses)


def test_waiting_gives_up_in_time_but_leaves_the_job_alone(server, clip):
    """A time limit is the caller's, not the job's."""
    server.faults(stay="running")
    with Client(server.url) as client:
        job = client.submit(clip, {})
        with pytest.raises(RemoteFailure, match="jobs wait"):
            client.wait(job.id, timeout_s=0.5)
        assert client.job(job.id).state == "running"


def test_every_artifact_arrives_with_its_checksum(client, clip, tmp_path):
    """The files on the disk are the files that the server listed, byte for byte."""
    job = client.wait(client.submit(clip, {}).id)
    files = fetch_all(client, job.id, tmp_path / "out")
    listed = {artifact.name: artifact.sha256 for artifact in client.artifacts(job.id)}
    assert {file.relative_to(tmp_path / "out").as_posix(): sha256_of(file) for file in files} == listed


def test_a_broken_transfer_goes_on_where_it_stopped(client, server, clip, tmp_path):
    """A mesh is megabytes: after a cut only the rest is asked for, and the whole must still match."""
    job = client.wait(client.submit(clip, {}).id)
    mesh = next(artifact for artifact in client.artifacts(job.id) if artifact.name.startswith("meshes/"))
    server.faults(drop_after=20_000)
    counted = []
    file = fetch(client, job.id, mesh, tmp_path, counted.append)
    assert sha256_of(file) == mesh.sha256
    assert sum(counted) == mesh.bytes


def test_altered_bytes_are_refused_and_not_kept(client, server, clip, tmp_path):
    """One wrong byte: no file under the name, no left-over beside it."""
    job = client.wait(client.submit(clip, {}).id)
    server.faults(alter="identity.npz")
    with pytest.raises(RemoteFailure, match=r"identity\.npz.*sha256"):
        fetch_all(client, job.id, tmp_path / "out")
    assert not list((tmp_path / "out").glob("**/*identity*"))


def test_a_file_that_is_there_is_not_fetched_again(client, server, clip, tmp_path):
    """A second download after a cut connection costs only what was missing."""
    job = client.wait(client.submit(clip, {}).id)
    fetch_all(client, job.id, tmp_path)
    fetch_all(client, job.id, tmp_path)
    assert len(server.seen("GET", f"/reconstructions/{job.id}/artifacts/identity.npz")) == 1


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/../../b", "", "a\\b", "a\0b"])
def test_an_artifact_cannot_leave_its_folder(name):
    """Names come from the network; a hostile server must not choose where a file goes."""
    with pytest.raises(RemoteFailure, match="no name inside a folder"):
        local_name(name)


def test_a_safe_name_keeps_its_folders():
    """The contract's names have one folder level."""
    assert local_name("meshes/frame_00000.ply") == Path("meshes/frame_00000.ply")


def test_an_unknown_field_in_a_reply_is_no_error():
    """A newer server may say more than this client knows."""
    assert Artifact.model_validate({"name": "a", "bytes": 1, "sha256": "0", "colour": "blue"}).name == "a"
