"""An animation job in the worker: the bundle of two deliveries becomes a delivery."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from mononphm_core.errors import UnreadableMedia
from mononphm_core.io.artifacts import verify_artifacts
from mononphm_core.types import ignore_steps
from tests.worker.test_transfer import finished, someone
from worker import animation, pipeline
from worker.ledger import Order, ReconstructionOptions, bundle


def order_of(archive: Path, **options) -> Order:
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    return Order("rec_x", archive, "a+b.zip", bundle.MEDIA_TYPE, digest, ReconstructionOptions(**options))


def test_the_pipeline_takes_a_bundle_for_an_animation(tmp_path):
    """The same entry as for clips: the child needs no second pipeline. What was unpacked does not stay."""
    archive = tmp_path / "input"
    with zipfile.ZipFile(archive, "w") as bundled:
        for part, seed in ((bundle.IDENTITY, 1), (bundle.EXPRESSIONS, 2)):
            folder = finished(tmp_path / part, someone(seed, [0.0, 0.8]))
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    bundled.write(path, f"{bundle.ROOT}/{part}/{path.relative_to(folder).as_posix()}")
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    options = {"outputs": ["manifest", "identity", "expressions", "cameras"], "mesh_resolution": 16}
    manifest = pipeline.run(order_of(archive, **options), workspace, ignore_steps)
    assert {"identity.npz", "expressions.npz", "cameras.json"} <= {entry["name"] for entry in manifest["artifacts"]}
    assert not (workspace / "sources").exists()
    verify_artifacts(workspace)


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside", "a\\..\\b", "animation/./x"])
def test_a_name_in_the_bundle_cannot_leave_its_folder(tmp_path, name):
    """Zip slip: the service makes the bundle, and a worker still believes no name."""
    archive = tmp_path / "input"
    with zipfile.ZipFile(archive, "w") as bundled:
        bundled.writestr(name, b"x")
    with pytest.raises(UnreadableMedia):
        animation.unpack(archive, tmp_path / "folder")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [archive]


def test_what_is_no_archive_is_said_so(tmp_path):
    (tmp_path / "input").write_bytes(b"no archive")
    with pytest.raises(UnreadableMedia):
        animation.unpack(tmp_path / "input", tmp_path / "folder")
