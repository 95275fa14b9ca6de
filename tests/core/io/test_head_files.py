"""Animated heads as files: a two-frame head whose shapes are known, by arithmetic, by trimesh and by Khronos."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh
from balls import ball_head, two_frames
from players import khronos_issues, played

from mononphm_core.io.gltf import parts, rows_of
from mononphm_core.io.head_files import animated_glb, camera_in_gltf, neutral_glb, texture_of
from mononphm_core.io.mesh_files import read_mesh, srgb_bytes
from mononphm_core.meshing.place import to_world_mm
from mononphm_core.types import HeadMesh, MorphHead, TrackedSequence


@pytest.fixture
def sequence() -> TrackedSequence:
    """Two frames of a moving head, not evenly spaced in time."""
    return two_frames()


@pytest.fixture
def head() -> MorphHead:
    """A ball with two shapes."""
    return ball_head()


def still_camera(frames: int = 2) -> np.ndarray:
    return np.broadcast_to(np.eye(4), (frames, 4, 4))


@pytest.mark.parametrize("frame", [0, 1])
def test_a_player_shows_what_the_meshes_of_the_frame_are(head, sequence, frame):
    """Shapes, weights and the node's motion together are the per-frame mesh, in metres and with y up."""
    data = animated_glb(head, sequence, still_camera())
    posed = head.vertices + np.tensordot(head.weights[frame], head.shapes, 1)
    world_mm = to_world_mm(HeadMesh(posed, head.faces), sequence.poses, frame).vertices
    np.testing.assert_allclose(played(data, frame), world_mm * [1, -1, -1] / 1000, atol=1e-6)  # float32 metres


def test_key_frames_are_the_input_s_own_times_and_start_where_the_clip_starts(head, sequence):
    """Never index / fps: a player in step with the film shows the right frame."""
    data = animated_glb(head, sequence, still_camera())
    animation = parts(data)[0]["animations"][0]
    times = rows_of(data, animation["samplers"][0]["input"])[:, 0]
    np.testing.assert_allclose(times, sequence.timestamp_s, atol=1e-7)
    assert animation["extras"]["frame_index"] == [3, 8]


def test_the_camera_sees_what_the_picture_shows(head, sequence):
    """yfov and aspect ratio from K (the principal point apart, which glTF cannot say); at rest where w2c is."""
    document, _ = parts(animated_glb(head, sequence, still_camera()))
    lens = document["cameras"][0]["perspective"]
    assert np.tan(lens["yfov"] / 2) == pytest.approx(240 / 910)
    assert lens["aspectRatio"] == pytest.approx((640 / 900) / (480 / 910))
    assert document["cameras"][0]["extras"]["cx"] == 330.0
    node = document["nodes"][1]
    assert node["translation"] == [0.0, 0.0, 0.0] and np.abs(node["rotation"]) == pytest.approx([0, 0, 0, 1])


def test_a_moving_camera_becomes_a_track(head, sequence):
    """w2c of a camera that stepped 100 mm to its right: the node moves 0.1 m along x, and nothing turns."""
    w2c = np.stack([np.eye(4), np.eye(4)])
    w2c[1, 0, 3] = -100.0
    rotation, translation = camera_in_gltf(w2c)
    np.testing.assert_allclose(translation, [[0, 0, 0], [0.1, 0, 0]], atol=1e-12)
    np.testing.assert_allclose(np.abs(rotation), [[0, 0, 0, 1]] * 2, atol=1e-12)
    channels = parts(animated_glb(head, sequence, w2c))[0]["animations"][0]["channels"]
    assert [c["target"]["path"] for c in channels if c["target"]["node"] == 1] == ["rotation", "translation"]


def test_trimesh_opens_them_with_size_texture_and_triangles(head, sequence, tmp_path):
    """An ordinary reader that knows nothing of us."""
    for name, data in (("neutral", neutral_glb(head)), ("animation", animated_glb(head, sequence, still_camera()))):
        path = tmp_path / f"{name}.glb"
        path.write_bytes(data)
        scene = trimesh.load_scene(path)
        (mesh,) = scene.geometry.values()
        assert (len(mesh.vertices), len(mesh.faces)) == (len(head.vertices), len(head.faces))
        assert mesh.visual.uv.shape == (len(head.vertices), 2)
        size = np.ptp(scene.bounds, axis=0)
        np.testing.assert_allclose(size, 0.2 if name == "neutral" else 0.2 / 1.25, rtol=0.02)  # icosphere, turned


def test_a_head_that_never_moves_its_face_has_no_shapes(head, sequence):
    """Without shapes there are no targets, no weights and no track for them."""
    bare = replace(
        head, names=(), shapes=head.shapes[:0], shape_normals=head.shapes[:0], weights=np.zeros((2, 0), np.float32)
    )
    document, _ = parts(animated_glb(bare, sequence, still_camera()))
    assert "targets" not in document["meshes"][0]["primitives"][0]
    assert [c["target"]["path"] for c in document["animations"][0]["channels"]] == ["rotation", "translation"]


def coloured(head):
    """The same head with colours at its vertices instead of a texture."""
    colours = np.random.default_rng(1).integers(0, 256, (len(head.vertices), 3), dtype=np.uint8)
    return replace(head, uv=None, texture=None, colours=colours)


def test_colours_at_the_vertices_are_linear_light(head, sequence, tmp_path):
    """glTF's rule for COLOR_0; no picture is in such a file, and shapes and motion are as with one."""
    painted = coloured(head)
    whole = animated_glb(painted, sequence, still_camera())
    document, _ = parts(whole)
    assert "images" not in document and "textures" not in document
    attributes = document["meshes"][0]["primitives"][0]["attributes"]
    assert set(attributes) == {"POSITION", "NORMAL", "COLOR_0"}
    found = rows_of(whole, attributes["COLOR_0"])
    np.testing.assert_array_equal(srgb_bytes(found), painted.colours)
    assert len(document["animations"][0]["channels"]) == 3
    (tmp_path / "neutral.glb").write_bytes(neutral_glb(painted))
    np.testing.assert_array_equal(read_mesh(tmp_path / "neutral.glb").colours, painted.colours)


@pytest.mark.parametrize("look", [lambda head: head, coloured], ids=["texture", "colours"])
def test_the_khronos_validator_finds_nothing(head, sequence, tmp_path, look):
    """The format's own judge: no error, no warning, not even a hint."""
    head = look(head)
    for name, data in (("neutral", neutral_glb(head)), ("animation", animated_glb(head, sequence, still_camera()))):
        (tmp_path / f"{name}.glb").write_bytes(data)
        issues = khronos_issues(tmp_path / f"{name}.glb")
        assert issues["messages"] == []


def test_the_texture_can_be_taken_out_again(head):
    """For the head of one run that does what another one did; JPEG at this quality keeps a plain colour."""
    found = texture_of(neutral_glb(head))
    assert np.abs(found.astype(int) - head.texture).max() <= 2
    assert (
        texture_of(
            neutral_glb(replace(head, texture=None, uv=None, colours=np.full((len(head.vertices), 3), 9, np.uint8)))
        )
        is None
    )


def test_figures_of_the_corners_travel_under_names_of_their_own(head, sequence, tmp_path):
    """An underscore, as the format demands of attributes that it does not know."""
    figures = np.linspace(0, 1, len(head.vertices)).astype(np.float32)
    data = animated_glb(replace(head, measures={"uncertainty_mm": figures}), sequence, still_camera())
    attributes = parts(data)[0]["meshes"][0]["primitives"][0]["attributes"]
    np.testing.assert_array_equal(rows_of(data, attributes["_UNCERTAINTY_MM"])[:, 0], figures)
    (tmp_path / "head.glb").write_bytes(data)
    assert khronos_issues(tmp_path / "head.glb")["messages"] == []
