"""What `mononphm demo` calls success, and that it cleans up."""

import hashlib
import socket
import subprocess

import pytest

from mononphm_cli.client.models import Artifact
from mononphm_cli.commands.demo import verify
from mononphm_cli.failures import RemoteFailure
from mononphm_cli.local_server import LocalServer, free_port

FILES = {
    "manifest.json": b"{}",
    "identity.npz": b"who",
    "expressions.npz": b"what",
    "meshes/frame_00003.ply": b"ply",
}


@pytest.fixture
def delivered(tmp_path):
    """A folder with the promised files, and the listing of it."""
    listed = []
    for name, data in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        listed.append(Artifact(name=name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest()))
    return tmp_path, listed


def test_meshes_and_codes_with_right_checksums_are_success(delivered):
    """The promise of `make demo`, kept."""
    folder, listed = delivered
    verify(listed, folder)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_promise_is_no_success(delivered, name):
    """Exit 0 only if meshes and codes are there."""
    folder, listed = delivered
    with pytest.raises(RemoteFailure, match="succeeded without"):
        verify([artifact for artifact in listed if artifact.name != name], folder)


@pytest.mark.parametrize("name", FILES)
def test_one_altered_byte_is_no_success(delivered, name):
    """Compared on the disk, after the download, not only on the wire."""
    folder, listed = delivered
    (folder / name).write_bytes(b"x" * len(FILES[name]))
    with pytest.raises(RemoteFailure, match="checksums differ"):
        verify(listed, folder)


def test_an_empty_artifact_is_no_success(delivered):
    """Absent is allowed for the optional ones; empty never is."""
    folder, listed = delivered
    with pytest.raises(RemoteFailure, match="empty"):
        verify([*listed, Artifact(name="preview.png", bytes=0, sha256="")], folder)


def test_a_server_that_cannot_start_is_explained_and_leaves_nothing(tmp_path, monkeypatch):
    """The port is taken: the launcher's own words come through, its folder and processes are gone."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = pytest.raises(RemoteFailure, match="the server ended with code")
        with ended, LocalServer(taken.getsockname()[1], ready_seconds=60) as server:
            server.wait_until_ready()
    assert list(tmp_path.iterdir()) == []
    assert subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True).stdout == b""


def test_free_ports_are_free():
    """Bindable at once, and not always the same."""
    port = free_port()
    with socket.socket() as mine:
        mine.bind(("127.0.0.1", port))


def test_a_demo_without_its_clip_is_usage(mononphm, tmp_path):
    """Said before anything is started."""
    assert mononphm("demo", "--input", tmp_path / "nothing.mp4").code == 2
