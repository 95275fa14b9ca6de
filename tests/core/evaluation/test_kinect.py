"""The published evaluation, in closed form: spheres and planes before a depth camera."""

import json

import cv2
import numpy as np
import pytest
import torch
import trimesh

from mononphm_cli import main
from mononphm_core.errors import InputError
from mononphm_core.evaluation.kinect.figures import published_figures, strict_figures
from mononphm_core.evaluation.kinect.icp import aligned, euler_xyz
from mononphm_core.evaluation.kinect.protocol import scaled, score
from mononphm_core.evaluation.kinect.region import evaluated
from mononphm_core.evaluation.kinect.scan import ScanPoints, backproject, normals_of, scan_points
from mononphm_core.types import HeadMesh
from tests.core.evaluation.runs import write_run

K = np.array([[220.0, 0, 60], [0, 220, 60], [0, 0, 1]])
RADIUS, DISTANCE = 0.09, 0.5


def sphere_depth(size: int = 121) -> np.ndarray:
    """A sphere on the axis, seen by a perfect depth camera; millimetres, not rounded."""
    v, u = np.mgrid[:size, :size]
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(K).T
    a, b, c = (rays**2).sum(-1), -2 * rays[..., 2] * DISTANCE, DISTANCE**2 - RADIUS**2
    under = b**2 - 4 * a * c
    return np.where(under > 0, (-b - np.sqrt(np.maximum(under, 0))) / (2 * a), 0) * 1000


def ball(radius: float = RADIUS, z: float = DISTANCE, squash: float = 1.0) -> HeadMesh:
    made = trimesh.creation.icosphere(subdivisions=3, radius=radius)
    return HeadMesh(np.asarray(made.vertices) * [1, squash, 1] + [0, 0, z], np.asarray(made.faces, np.int64))


def write_kinect(root, frames=(0, 9)):
    (root / "depth").mkdir(parents=True)
    (root / "seg").mkdir()
    depth = np.rint(sphere_depth()).astype(np.uint16)
    labels = np.where(depth > 0, 2, 0).astype(np.uint8)
    for t in frames:
        cv2.imwrite(str(root / "depth" / f"{t}.png"), depth)
        cv2.imwrite(str(root / "seg" / f"{t}.png"), labels)
    (root / "kinect_intrinsics.txt").write_text("60 60 220 220 0 0")
    return root


def test_points_of_a_depth_picture_lie_where_the_sphere_is():
    """|X - centre| = r for every pixel that hits; normals point from the camera into the sphere."""
    depth = sphere_depth()
    x = backproject(depth, K)
    hit = depth > 0
    inner = np.hypot(*(np.mgrid[:121, :121] - 60.0)) < 25  # away from the rim, where differences see the edge
    np.testing.assert_allclose(np.linalg.norm(x[hit] - [0, 0, DISTANCE], axis=-1), RADIUS, atol=1e-9)
    inward = ([0, 0, DISTANCE] - x[inner]) / RADIUS
    assert (normals_of(x)[inner] * inward).sum(-1).min() > 0.995  # an 11-pixel derivative smooths the curvature


def test_the_normal_of_a_tilted_plane_is_exact():
    """z = 0.5 + 0.3 x + 0.2 y: n ~ (-0.3, -0.2, 1)."""
    v, u = np.mgrid[:60, :60]
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(K).T
    z = 0.5 / (1 - 0.3 * rays[..., 0] - 0.2 * rays[..., 1])
    normal = normals_of(rays * z[..., None])[20:40, 20:40]
    # The quotient dz/dx at constant v is not the plane's slope at constant y: 0.2 dy/dx of perspective stays in it.
    slope = 0.3 / (1 - 0.2 * rays[20:40, 20:40, 1])
    assert normal[..., 0] / normal[..., 2] == pytest.approx(-slope, rel=0.02)


def test_only_the_facing_near_part_of_the_region_is_kept():
    """Depth from 0.01 to 0.8 m, cosine above 0.2, region true."""
    depth = sphere_depth()
    region = np.zeros(depth.shape, bool)
    region[:, :60] = True
    found = scan_points(depth, K, region)
    assert found.points[:, 0].max() < 0
    cosine = (found.points * found.normals).sum(-1) / np.linalg.norm(found.points, axis=-1)
    assert cosine.min() > 0.2
    assert len(scan_points(depth + 500 * (depth > 0), K, region).points) == 0


def test_neck_mouth_and_eyes_are_kept_away_from():
    """Squares of 21, 21 and 13 pixels around them."""
    labels = np.full((101, 101), 2, np.uint8)
    labels[50, 50] = 1
    found = evaluated(labels, (101, 101))
    assert not found[40:61, 40:61].any() and found[39, 50] and found[50, 61]
    labels[50, 50] = 9
    found = evaluated(labels, (101, 101))
    assert not found[44:57, 44:57].any() and found[43, 50]
    assert not evaluated(np.full((10, 10), 14, np.uint8), (20, 20)).any()


def plane_scan() -> ScanPoints:
    x, y = np.meshgrid(np.linspace(-0.02, 0.02, 21), np.linspace(-0.02, 0.02, 21))
    points = np.stack([x, y, np.full_like(x, 0.5)], -1).reshape(-1, 3)
    return ScanPoints(points, np.tile([0.0, 0, 1], (len(points), 1)))


def plane_mesh(z: float, slope: float = 0.0) -> HeadMesh:
    """Facing the camera, large."""
    corners = np.array([[-1.0, -1, z - slope], [1, -1, z + slope], [1, 1, z + slope], [-1, 1, z - slope]])
    return HeadMesh(corners, np.array([[0, 2, 1], [0, 3, 2]]))


def test_figures_of_a_plane_at_a_known_distance():
    """3 mm in front: chamfer 0.003 in both norms, recall 0 up to 2.5 mm and 1 from 5 mm, normals 1."""
    found = published_figures(plane_mesh(0.497), plane_scan())
    assert found["chamfer_l1"] == pytest.approx(0.003, abs=1e-9)
    assert found["chamfer_l2"] == pytest.approx(0.003, abs=1e-9)
    assert found["normals"] == pytest.approx(1.0)
    assert [found[f"fscore_{t:g}"] for t in (0.001, 0.0025, 0.005, 0.01)] == [0, 0, 1, 1]


def test_figures_of_a_plane_that_is_tilted_by_a_known_angle():
    """|n . n'| = cos(angle); the l1 norm of a gap along n is |n|_1 times its length."""
    slope = np.tan(np.radians(20))
    found = published_figures(plane_mesh(0.45, slope), plane_scan())
    assert found["normals"] == pytest.approx(np.cos(np.radians(20)))
    x = plane_scan().points[:, 0]
    gap = (0.05 + slope * x * -1) * np.cos(np.radians(20))
    assert found["chamfer_l2"] == pytest.approx(np.abs(gap).mean())
    assert found["chamfer_l1"] == pytest.approx(np.abs(gap).mean() * (np.sin(np.radians(20)) + np.cos(np.radians(20))))


def test_what_is_too_much_costs_in_our_figures_and_not_in_the_published_ones():
    """A second sheet 20 mm in front of a perfect plane: recall stays 1, precision halves."""
    good, extra = plane_mesh(0.5), plane_mesh(0.48)
    both = HeadMesh(np.concatenate([good.vertices, extra.vertices]), np.concatenate([good.faces, extra.faces + 4]))
    scan = plane_scan()
    assert published_figures(both, scan)["fscore_0.001"] == 1
    dense = strict_figures(_small(both), scan)
    assert dense["recall_0.005"] == 1
    assert dense["precision_0.005"] == pytest.approx(0.5, abs=0.05)
    assert dense["f_0.005"] == pytest.approx(2 / 3, abs=0.05)


def _small(mesh: HeadMesh) -> HeadMesh:
    """The sheets as large as the scan, so that samples fall on it."""
    return HeadMesh(mesh.vertices * [0.02, 0.02, 1], mesh.faces)


def test_the_descent_takes_out_a_shift_and_a_turn():
    """An uneven ball, moved by 4 mm and 2 degrees, comes back to a tenth of that."""
    mesh = ball(squash=1.3)
    near = mesh.vertices[:, 2] < DISTANCE - 0.02
    inward = np.asarray(mesh.vertices) - [0, 0, DISTANCE]
    scan = ScanPoints(mesh.vertices[near], -(inward / np.linalg.norm(inward, axis=-1, keepdims=True))[near])
    turn = euler_xyz(torch.tensor([0.0, 0.0, np.radians(2)])).double().numpy()
    moved = HeadMesh((mesh.vertices - [0, 0, DISTANCE]) @ turn.T + [0.002, -0.001, DISTANCE + 0.003], mesh.faces)
    before = published_figures(moved, scan)["chamfer_l2"]
    after = published_figures(aligned(moved, scan), scan)["chamfer_l2"]
    assert before > 0.002
    assert after < 0.15 * before


def test_a_run_of_ours_is_scored_whatever_its_scale(tmp_path):
    """Monocular: 1.4 times as large and as far is the same picture. The rest is the depth's rounding to millimetres."""
    sequence = write_kinect(tmp_path / "seq")
    far = HeadMesh(ball().vertices * 1400, ball().faces)
    write_run(tmp_path / "run", {0: far, 1: far, 9: far})
    found = score(sequence, tmp_path / "run")
    assert found.frames == (0, 9)
    assert found.published["chamfer_l2"] < 0.001
    assert found.published["fscore_0.0025"] > 0.98
    assert found.strict["f_0.0025"] > 0.9


def test_the_depth_of_the_scan_gives_the_scale():
    """Median of the front vertices; exact for the same shape."""
    found = scaled(HeadMesh(ball().vertices * 3, ball().faces), sphere_depth(), K)
    assert np.median(found.vertices[:, 2]) == pytest.approx(DISTANCE, rel=0.01)


def test_a_run_of_the_published_program_is_placed_by_the_trackers_poses(tmp_path):
    """NPHM space, residual pose, FLAME metres, OpenCV camera; frame 9 with the pose of frame 8."""
    sequence = write_kinect(tmp_path / "seq", (9,))
    poses = sequence / "metrical_tracker" / "seq" / "checkpoint"
    poses.mkdir(parents=True)
    turn = np.diag([1.0, -1.0, -1.0])
    np.savez(poses / "00008_cam_params_opencv.npz", R=turn[None], t=np.array([[0.0, 0, DISTANCE]]), K=np.eye(3)[None])
    place = tmp_path / "run" / "00009"
    place.mkdir(parents=True)
    rotation = euler_xyz(torch.tensor([0.1, -0.2, 0.3])).double().numpy()
    shift, scale = np.array([0.01, 0.02, -0.03]), 1.0
    world = (ball().vertices - [0, 0, DISTANCE]) @ turn * 4  # the tracker's head space
    trimesh.Trimesh(scale * world @ rotation.T + shift, ball().faces, process=False).export(place / "mesh.ply")
    for name, value in (("rot", rotation[None]), ("trans", shift[None]), ("scale", np.array([scale]))):
        np.save(place / f"{name}.npy", value)
    found = score(sequence, tmp_path / "run")
    assert found.frames == (9,)
    assert found.published["chamfer_l2"] < 0.001


def test_frames_that_cannot_be_compared_are_named_and_not_swallowed(tmp_path):
    """The published program drops a whole sequence without a word (19)."""
    sequence = write_kinect(tmp_path / "seq")
    (sequence / "depth" / "9.png").write_bytes(b"no")
    far = HeadMesh(ball().vertices * 1000, ball().faces)
    write_run(tmp_path / "run", {0: far, 9: far})
    found = score(sequence, tmp_path / "run")
    assert found.frames == (0,) and "frame 9" in found.skipped[0]
    with pytest.raises(InputError, match="nothing can be compared"):
        score(sequence, tmp_path / "run", start=1)


def test_the_command_prints_both_kinds_of_figures_and_gathers_sequences(tmp_path, capsys):
    """`evaluate --protocol kinect`, then the mean over sequences."""
    sequence = write_kinect(tmp_path / "seq", (0,))
    write_run(tmp_path / "run", {0: HeadMesh(ball().vertices * 1000, ball().faces)})
    words = ["evaluate", str(tmp_path / "run"), "--truth", str(sequence), "--protocol", "kinect"]
    assert main.run(words) == 0
    assert "chamfer_l1" in capsys.readouterr().out
    assert main.run([*words, "--json"]) == 0
    text = capsys.readouterr().out
    (tmp_path / "a.json").write_text(text)
    assert main.run(["evaluate", "gather", str(tmp_path / "a.json"), str(tmp_path / "a.json"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["published"] == json.loads(text)["published"]
