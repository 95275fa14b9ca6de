"""The sample clip in two parts, for real: the same files as any clip's, whole and in agreement."""

from pathlib import Path

import av
import numpy as np
import pytest

from mononphm_core.io.artifacts import verify_artifacts
from mononphm_core.io.manifest import sha256_of_file
from mononphm_core.types import StepReport
from worker import long_clip
from worker.ledger.options import ReconstructionOptions
from worker.ledger.order import Order

SAMPLE = Path(__file__).parents[2] / "examples/sample.mp4"
FRAMES = 9


@pytest.fixture(scope="module")
def delivered(tmp_path_factory):
    """The manifest and the folder of a run in parts, and every report that it made."""
    folder, reports = tmp_path_factory.mktemp("long"), list[StepReport]()
    options = ReconstructionOptions(quality="draft", max_frames=FRAMES, part_frames=8, mesh_resolution=24)
    order = Order("local", SAMPLE, SAMPLE.name, "video/mp4", sha256_of_file(SAMPLE), options)
    return long_clip.run_here(order, folder, reports.append), folder, reports


@pytest.mark.slow
def test_a_divided_clip_is_delivered_like_any_other(delivered):
    """Every artifact is there, checksums and tables agree, the film has every picture, nothing is left over."""
    manifest, folder, _ = delivered
    assert verify_artifacts(folder) == []
    names = {entry["name"] for entry in manifest["artifacts"]}
    tracked = manifest["frames"]["tracked"]
    assert len(tracked) == FRAMES and {f"meshes/frame_{index:05d}.ply" for index in tracked} <= names
    assert {
        "animation.glb",
        "head_arkit.glb",
        "neutral.glb",
        "preview.mp4",
        "thumbnail.jpg",
        "blendshapes.csv",
    } <= names
    assert manifest["division"] == {"frames": 8, "stretches": 2, "key_frames": 8}
    assert [seen["frame_index"] for seen in manifest["observations"]["frames"]] == tracked
    assert not (folder / "materials").exists()
    with av.open(str(folder / "preview.mp4")) as film:
        assert sum(1 for _ in film.decode(video=0)) == FRAMES
    assert manifest["quality"]["frames_tracked"] == FRAMES
    assert manifest["texture"]["from_frames"], "the person's own colours, from key frames"


@pytest.mark.slow
def test_the_blend_is_what_meshes_and_tables_both_show(delivered):
    """A mesh part joins by itself: the head of each mesh must lie where the tables of the whole say that it is."""
    from mononphm_core.io.mesh_files import read_mesh

    manifest, folder, _ = delivered
    with np.load(folder / "expressions.npz") as table:
        rotation, shift = table["rotation"].astype(float), table["translation"].astype(float)
    middles = []
    for row, index in enumerate(manifest["frames"]["tracked"]):
        vertices = read_mesh(folder / f"meshes/frame_{index:05d}.ply").vertices.astype(float)
        middles.append((vertices @ rotation[row].T + shift[row]).mean(0))
    assert np.ptp(np.array(middles), axis=0).max() < 6.0  # millimetres: a mouth that opens moves the mean a little
