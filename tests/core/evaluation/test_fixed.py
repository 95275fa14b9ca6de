"""The fixed triangles against meshes of the same run, with errors that are known."""

import json

import numpy as np
import pytest
import trimesh
from balls import ball_head, two_frames

from mononphm_cli import main
from mononphm_core.errors import InputError
from mononphm_core.evaluation.delivery import read_delivery
from mononphm_core.evaluation.fixed import score
from mononphm_core.io.animated import Animated
from mononphm_core.io.head_files import animated_glb
from mononphm_core.types import HeadMesh
from tests.core.evaluation.runs import write_run

W2C = np.broadcast_to(np.eye(4), (2, 4, 4))


def a_run(folder, grown_mm=0.0, frames=(3, 8)):
    """The ball's animation, and meshes that are the same balls, larger by `grown_mm` all around."""
    head = Animated.read(animated_glb(ball_head(), two_frames(), W2C))
    meshes = {}
    for row, index in enumerate(head.frame_index):
        if index in frames:
            at = 1000 * head.world(row) * [1, -1, -1]
            normals = trimesh.Trimesh(at, head.faces, process=False).vertex_normals
            meshes[index] = HeadMesh(at + grown_mm * normals, head.faces)
    folder.mkdir(exist_ok=True)
    write_run(folder, meshes)
    (folder / "animation.glb").write_bytes(animated_glb(ball_head(), two_frames(), W2C))
    return head


def test_the_same_surface_is_at_no_distance(tmp_path):
    """Shapes, weights, motion and axes of the file end where the meshes lie, in both directions."""
    head = a_run(tmp_path)
    found = score(head, np.ones(len(head.vertices), bool), read_delivery(tmp_path))
    assert [frame.frame_index for frame in found.frames] == [3, 8]
    for row in found.mean().values():
        assert row is not None and row["p95"] < 1e-3  # float32 of both files


def test_half_a_millimetre_all_around_is_half_a_millimetre(tmp_path):
    """Both directions see a known gap; only frames in both files count."""
    head = a_run(tmp_path, 0.5, frames=(8,))
    found = score(head, np.ones(len(head.vertices), bool), read_delivery(tmp_path))
    assert len(found.frames) == 1
    for row in found.mean().values():
        assert row is not None and row["mean"] == pytest.approx(0.5, abs=0.03)  # flat triangles on a round ball


def test_a_run_of_other_frames_is_refused(tmp_path):
    """Nothing to compare is an error of the input, not a mean over nothing."""
    head = a_run(tmp_path)
    for path in (tmp_path / "meshes").iterdir():
        path.rename(path.with_name(path.name.replace("0000", "0010")))
    cameras = json.loads((tmp_path / "cameras.json").read_text())
    for row in cameras["frames"]:
        row["frame_index"] += 100
    (tmp_path / "cameras.json").write_text(json.dumps(cameras))
    with pytest.raises(InputError, match="no frame"):
        score(head, np.ones(len(head.vertices), bool), read_delivery(tmp_path))


def test_the_command_says_it_in_words_and_as_json(tmp_path, capsys):
    """A file that is not there is a usage error with its name."""
    a_run(tmp_path, 0.5)
    assert main.run(["evaluate", "animation", str(tmp_path)]) == 0
    assert "face -> meshes" in capsys.readouterr().out
    assert main.run(["evaluate", "animation", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mean"]["to_meshes"]["mean"] == pytest.approx(0.5, abs=0.03)
    assert main.run(["evaluate", "animation", str(tmp_path), "--of", "arkit"]) == 2
    assert "head_arkit.glb" in capsys.readouterr().err
