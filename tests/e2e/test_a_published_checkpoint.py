"""A checkpoint of the published code goes all the way: added by command, asked for over HTTP, artifacts delivered."""

from collections.abc import Iterator

import numpy as np
import pytest
from e2e import Delivered, follow, submit
from players import played
from scipy.spatial import cKDTree
from skimage import data

from mononphm_cli import main
from mononphm_cli.local_server import LocalServer
from mononphm_cli.probes import write_clip
from mononphm_core.io.artifacts import verify_artifacts
from mononphm_core.io.mesh_files import read_mesh
from tests.golden.checkpoints import anchors, configuration, states, write_experiment
from worker import transfer
from worker.ledger.options import ReconstructionOptions

pytestmark = pytest.mark.slow
NAME = "pretrained_tiny"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own whose models folder holds the tiny golden checkpoint."""
    home = tmp_path_factory.mktemp("published")
    experiment = home / "experiments" / NAME
    write_experiment(experiment, configuration("tiny"), states("tiny"), anchors())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONONPHM_MODELS_DIR", str(home / "models"))
        patch.setenv("MONONPHM_EXPERIMENT_DIR", str(home / "experiments"))
        assert main.run(["models", "add", NAME]) == 0
        with LocalServer() as running:
            running.wait_until_ready()
            yield running.url


@pytest.fixture(scope="module")
def delivered(server: str, tmp_path_factory: pytest.TempPathFactory) -> Delivered:
    """Two frames of a portrait seen by a panning camera, with hardly any steps: a road, not a likeness."""
    folder = tmp_path_factory.mktemp("delivered")
    picture = data.astronaut()
    clip = folder.parent / "pan.mp4"
    write_clip(clip, [np.ascontiguousarray(picture[:320, 60 + 6 * n : 380 + 6 * n]) for n in range(2)], fps=10)
    return Delivered(
        server, clip, folder, model=NAME, iterations_scale=0.004, mesh_resolution=32, downsample_factor=0.5, seed=1
    )


def test_every_artifact_that_the_model_can_have_is_there_and_whole(delivered):
    """Checksums, codes of the checkpoint's sizes, one mesh a frame; what it cannot have is absent with its reason."""
    assert verify_artifacts(delivered.folder) == []
    names = {artifact["name"] for artifact in delivered.artifacts}
    assert {"identity.npz", "expressions.npz", "expressions.json", "cameras.json", "preview.mp4"} <= names
    assert {"neutral.glb", "animation.glb"} <= names
    assert not names & {"blendshapes.csv", "head_arkit.glb"}
    assert any("blendshapes.csv and head_arkit.glb are not" in warning for warning in delivered.manifest["warnings"])
    with np.load(delivered.folder / "identity.npz") as identity:
        assert identity["z_geo"].shape == (272,)
        assert identity["anchors"].shape == (65, 3)
    with np.load(delivered.folder / "expressions.npz") as expressions:
        assert expressions["z_exp"].shape == (2, 12)
        assert np.abs(expressions["z_exp"]).max() > 0
    for frame in (0, 1):
        mesh = read_mesh(delivered.folder / "meshes" / f"frame_{frame:05d}.ply")
        assert 100 < np.ptp(mesh.vertices, axis=0).max() < 600  # millimetres: the size of a head
        assert 100 < mesh.vertices[:, 2].mean() < 5000  # in front of the camera


def test_one_topology_shows_each_frame_of_it_where_its_mesh_lies(delivered):
    """The neutral head's own triangles: moved by the file's shapes and node, they lie on the meshes of the frames."""
    film = (delivered.folder / "animation.glb").read_bytes()
    assert delivered.manifest["animation"]["largest_error_mm"] <= 0.2
    for row, frame in enumerate((0, 1)):
        acted = played(film, row)
        mesh = read_mesh(delivered.folder / "meshes" / f"frame_{frame:05d}.ply")
        away = cKDTree(acted * [1000, -1000, -1000]).query(mesh.vertices)[0]
        assert np.median(away) < 3.0  # millimetres; the grid's cells are 40, this head is wavy


def test_its_head_can_act_what_another_run_did(delivered, tmp_path):
    """Here its own run: the same codes give the same head again, one topology included."""
    small = ReconstructionOptions.from_json({"mesh_resolution": 32, "outputs": ["animation", "meshes"]})
    transfer.run(delivered.folder, delivered.folder, tmp_path / "acted", small)
    assert verify_artifacts(tmp_path / "acted") == []
    again, before = (folder / "animation.glb" for folder in (tmp_path / "acted", delivered.folder))
    np.testing.assert_allclose(played(again.read_bytes(), 1), played(before.read_bytes(), 1), atol=2e-3)  # metres


def test_the_published_solver_was_chosen_by_itself_and_says_what_it_did(delivered):
    """No template, so no other solver: the manifest names it, its share of the steps and every peculiarity."""
    assert delivered.job["model"]["name"] == NAME
    assert delivered.manifest["options"]["solver"] == "published"
    solver = delivered.manifest["solver"]
    assert (solver["name"], solver["iterations_scale"]) == ("published", 0.004)
    assert all(solver["quirks"].values())
    assert delivered.manifest["last_stage"] == "stage2"
    assert {"stage1", "stage2"} <= delivered.manifest["seconds"].keys()


def test_the_fast_solver_is_refused_for_it_with_a_reason(server, tmp_path):
    """It needs points on the model's surface; the job fails as a wrong option, not as a crash."""
    clip = tmp_path / "still.mp4"
    write_clip(clip, [data.astronaut()[:320, 60:380].copy()] * 2, fps=10)
    job = follow(server, submit(server, clip, model=NAME, solver="fast")["id"])[-1]
    assert job["state"] == "failed"
    assert "published" in job["error"]["detail"]
    assert job["error"]["retryable"] is False
