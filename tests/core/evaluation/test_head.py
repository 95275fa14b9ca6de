"""The `head` protocol on runs whose errors are known, and beside the outside scorer where that is there."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mononphm_core.errors import InputError
from mononphm_core.evaluation.delivery import read_delivery
from mononphm_core.evaluation.head import score
from mononphm_core.evaluation.truth import read_truth
from mononphm_core.meshing.clean import vertex_normals
from mononphm_core.types import HeadMesh
from tests.core.evaluation import runs

SHARED = Path(__file__).resolve().parents[4] / "shared"


@pytest.fixture
def truth(tmp_path):
    runs.write_truth(tmp_path / "gt")
    return read_truth(tmp_path / "gt", "video")


def scored(truth, folder, meshes):
    runs.write_run(folder, meshes)
    return score(truth, read_delivery(folder)).mean()


def test_the_truth_in_another_unit_has_no_error_at_all(truth, tmp_path):
    """A monocular run is known up to scale; that must cost nothing."""
    mean = scored(truth, tmp_path / "run", {i: runs.before_camera(runs.head(), i, 0.004) for i in range(3)})
    for alignment in ("clip", "frame"):
        for region in ("face", "mouth", "eyes_brows", "head", "to_truth"):
            assert mean[alignment][region]["p95"] < 0.02, (alignment, region)  # float32 of the file
        assert mean[alignment]["face_normals"] > 0.9999
    assert mean["iou"] > 0.999
    assert mean["rotation_deg"] < 0.02
    assert mean["jitter_mm"] < 0.02


def test_bumps_along_the_normals_come_back_at_their_height(truth, tmp_path):
    """A known surface error, of a kind that no similarity absorbs: mean |bump| over the face."""
    mesh = runs.head()
    bump = 1.5 * np.sin(mesh.vertices[:, 0] / 4) * np.sin(mesh.vertices[:, 1] / 4)
    bumpy = HeadMesh(mesh.vertices + bump[:, None] * vertex_normals(mesh), mesh.faces)
    frame = truth.frame(0)
    faces, barycentric = frame.picks(1)
    expected = np.abs((bump[mesh.faces[faces]] * barycentric).sum(-1)).mean()
    mean = scored(truth, tmp_path / "run", {i: runs.before_camera(bumpy, i) for i in range(3)})
    # Between the bumps the nearest point is not the one along the normal: a tenth less.
    assert mean["clip"]["face"]["mean"] == pytest.approx(expected, rel=0.12)
    assert mean["frame"]["to_truth"]["mean"] == pytest.approx(expected, rel=0.12)


def test_one_frame_turned_and_moved_shows_in_the_clip_figures_alone(truth, tmp_path):
    """That is the difference between the two alignments, and the rotation error is the turn."""
    meshes = {i: runs.before_camera(runs.head(), i) for i in range(3)}
    centre = truth.frame(1).face.points.mean(0)
    meshes[1] = HeadMesh((meshes[1].vertices - centre) @ runs.turn_y(2).T + centre + [3.0, 0, 0], meshes[1].faces)
    runs.write_run(tmp_path / "run", meshes)
    row = score(truth, read_delivery(tmp_path / "run")).frames[1]
    assert row.frame.face["mean"] < 0.05
    assert row.clip.face["mean"] > 0.5
    assert row.rotation_deg == pytest.approx(2.0, abs=0.1)
    assert row.drift_lateral_mm == pytest.approx(2.0, abs=0.7)  # a third of it moved the clip's alignment


def test_a_shake_of_half_a_millimetre_is_a_jitter_of_two(truth, tmp_path):
    """|-1/2 - 2 * 1/2 - 1/2| = 2: the second difference of an alternating shift."""
    meshes = {i: runs.before_camera(runs.head(), i) for i in range(3)}
    meshes = {i: HeadMesh(m.vertices + np.array([0.5 * (-1) ** i, 0, 0]), m.faces) for i, m in meshes.items()}
    mean = scored(truth, tmp_path / "run", meshes)
    assert mean["jitter_mm"] == pytest.approx(2.0, abs=0.05)
    assert mean["jitter_lateral_mm"] == pytest.approx(2.0, abs=0.05)


def test_a_hole_is_an_error_of_the_truth_and_not_of_what_is_there(truth, tmp_path):
    """GT -> surface sees what is missing, surface -> GT does not."""
    mesh = runs.head()
    kept = (np.linalg.norm(mesh.vertices[mesh.faces].mean(1) - [10, 10, 80], axis=-1) > 30).nonzero()[0]
    holed = HeadMesh(mesh.vertices, mesh.faces[kept])
    mean = scored(truth, tmp_path / "run", {i: runs.before_camera(holed, i) for i in range(2)})
    assert mean["clip"]["face"]["mean"] > 0.3
    assert mean["clip"]["to_truth"]["mean"] < 0.05
    assert mean["clip"]["coverage"] < 0.95


def test_meshes_laid_out_as_a_delivery_serve_as_truth(tmp_path):
    """Anybody's scans can be the truth; without regions all of them is face."""
    runs.write_run(tmp_path / "gt", {i: runs.before_camera(runs.head(), i) for i in (0, 3)})
    runs.write_run(tmp_path / "run", {i: runs.before_camera(runs.head(), i, 0.5) for i in (0, 3)})
    found = score(read_truth(tmp_path / "gt", "video"), read_delivery(tmp_path / "run"))
    assert found.mean()["clip"]["face"]["p95"] < 0.02
    assert found.mean()["iou"] > 0.999
    assert found.mean()["clip"]["mouth"] is None


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda run: (run / "cameras.json").unlink(), "cameras.json"),
        (lambda run: (run / "cameras.json").write_text('{"fx": 1}'), "cameras.json"),
        (lambda run: (run / "meshes" / "frame_00001.ply").write_bytes(b"ply\nnonsense"), "frame_00001.ply"),
        (lambda run: (run / "expressions.npz").write_bytes(b"PK"), "expressions.npz"),
    ],
)
def test_a_damaged_run_is_refused_by_the_name_of_the_file(truth, tmp_path, spoil, said):
    """A traceback tells nobody which of a hundred files is broken."""
    run = tmp_path / "run"
    runs.write_run(run, {i: runs.before_camera(runs.head(), i) for i in range(2)})
    spoil(run)
    with pytest.raises(InputError, match=said):
        score(truth, read_delivery(run))


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "tools" / "score_recon.py").is_file(), reason="the outside scorer is not here")
def test_the_figures_are_those_of_the_outside_scorer(tmp_path):
    """Two programs, one definition: sampling noise of 4000 points is all that may lie between them."""
    folder = SHARED / "data" / "synthetic_dev"
    known = np.load(folder / "id00" / "video_gt.npz")
    faces = np.load(folder / "topology.npz")["faces"].astype(np.int64)
    gt = tmp_path / "gt"
    gt.mkdir()
    np.savez(gt / "video_gt.npz", **{name: known[name][:3] for name in ("verts_mm", "head_to_cam")}, K=known["K"])
    np.savez(gt / "topology.npz", faces=faces)
    meshes = {}
    for i in range(3):
        mesh = HeadMesh(known["verts_mm"][i].astype(float), faces)
        bump = 1.5 * np.sin(mesh.vertices[:, 0] / 6)
        e = known["head_to_cam"][i].astype(float)
        moved = (mesh.vertices + bump[:, None] * vertex_normals(mesh)) @ runs.turn_y(0.7 * i).T
        meshes[i] = HeadMesh(0.9 * (moved @ e[:3, :3].T + e[:3, 3] + [0.5, i % 2, 2.0 * i]), faces)
    runs.write_run(tmp_path / "run", meshes)
    camera = json.loads((tmp_path / "run" / "cameras.json").read_text())
    k = known["K"].astype(float)
    camera |= {"fx": k[0, 0], "fy": k[1, 1], "cx": k[0, 2], "cy": k[1, 2], "width": 512, "height": 512}
    (tmp_path / "run" / "cameras.json").write_text(json.dumps(camera))
    command = [sys.executable, SHARED / "tools" / "score_recon.py", "--gt", gt, "--pred", tmp_path / "run"]
    subprocess.run([*map(str, command), "--json", str(tmp_path / "out.json")], check=True, stdout=subprocess.DEVNULL)
    theirs = json.loads((tmp_path / "out.json").read_text())["mean"]
    found = score(read_truth(gt, "video"), read_delivery(tmp_path / "run")).mean()
    for ours, other in (("clip", "seq"), ("frame", "frame_aligned")):
        for region, name in (("face", "face"), ("mouth", "mouth"), ("eyes_brows", "eyes_brows"), ("head", "head")):
            for figure in ("mean", "median", "p90"):
                expected = theirs[other][name][figure]
                assert found[ours][region][figure] == pytest.approx(expected, rel=0.08), (ours, region, figure)
            for limit in ("within_1", "within_1.5", "within_2.5", "within_5"):
                assert found[ours][region][limit] == pytest.approx(theirs[other][name][limit], abs=0.05)
        assert found[ours]["to_truth"]["mean"] == pytest.approx(theirs[other]["p2g"]["mean"], rel=0.03)
        assert found[ours]["face_normals"] == pytest.approx(theirs[other]["face"]["nc"], abs=0.002)
    assert found["iou"] == pytest.approx(theirs["iou"], abs=0.001)
    assert found["rotation_deg"] == pytest.approx(theirs["rot_deg"], abs=0.05)
    assert found["jitter_mm"] == pytest.approx(theirs["jitter_mm"], rel=0.02)
