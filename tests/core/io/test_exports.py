"""The animated head in other formats, read back by those formats' own readers."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh
from balls import ball_head, two_frames
from players import played

from mononphm_core.errors import ConfigError
from mononphm_core.io.animated import Animated
from mononphm_core.io.exports import TICKS_PER_S, write_obj_sequence, write_usdz
from mononphm_core.io.head_files import animated_glb
from mononphm_core.io.mesh_files import linear_from_bytes


@pytest.fixture
def data() -> bytes:
    return animated_glb(ball_head(), two_frames(), np.broadcast_to(np.eye(4), (2, 4, 4)))


@pytest.mark.parametrize("frame", [0, 1])
def test_what_is_read_back_is_what_any_player_shows(data, frame):
    """The reader and the players of the tests were written apart."""
    np.testing.assert_allclose(Animated.read(data).world(frame), played(data, frame), atol=1e-6)


def test_other_bytes_are_refused_in_words():
    with pytest.raises(ConfigError, match="no animated head"):
        Animated.read(b"glTF but not really, with enough bytes to look")


def test_an_obj_a_frame_has_the_same_triangles_and_each_frame_its_place(data, tmp_path):
    """trimesh reads vertices, texture coordinates and picture; vertex k is the same spot in all of them."""
    head = Animated.read(data)
    written = write_obj_sequence(head, tmp_path)
    assert [path.name for path in written] == ["frame_00003.obj", "frame_00008.obj"]
    for frame, path in enumerate(written):
        mesh = trimesh.load_mesh(path, process=False, maintain_order=True)
        assert np.array_equal(mesh.faces, head.faces)
        np.testing.assert_allclose(mesh.vertices, head.world(frame), atol=1e-6)
        np.testing.assert_allclose(mesh.visual.uv, head.uv, atol=1e-5)
        assert mesh.visual.material.image.size == (16, 16)


def test_openusd_plays_the_same_vertices(data, tmp_path):
    """Skinning by OpenUSD's own code at both key frames: shapes, weights and motion; metres, y up, milliseconds."""
    pytest.importorskip("pxr", reason="USD needs usd-core: pip install usd-core")
    from pxr import Usd, UsdGeom, UsdShade, UsdSkel

    head = Animated.read(data)
    path = tmp_path / "head.usdz"
    write_usdz(head, path)
    stage = Usd.Stage.Open(str(path))
    assert UsdGeom.GetStageMetersPerUnit(stage) == 1.0
    assert UsdGeom.GetStageUpAxis(stage) == "Y"
    root = UsdSkel.Root(stage.GetPrimAtPath("/head"))
    mesh = UsdGeom.Mesh(stage.GetPrimAtPath("/head/skin"))
    assert UsdShade.MaterialBindingAPI(mesh.GetPrim()).ComputeBoundMaterial()[0]
    ticks = [TICKS_PER_S * seconds for seconds in head.timestamp_s]
    assert [stage.GetStartTimeCode(), stage.GetEndTimeCode()] == pytest.approx(ticks)
    assert UsdSkel.BakeSkinning(Usd.PrimRange(root.GetPrim()))
    for frame, tick in enumerate(ticks):
        points = np.array(mesh.GetPointsAttr().Get(tick))
        place = np.array(UsdGeom.Xformable(mesh).ComputeLocalToWorldTransform(tick))
        world = np.concatenate([points, np.ones((len(points), 1))], 1) @ place
        np.testing.assert_allclose(world[:, :3], head.world(frame), atol=1e-5)


def test_colours_at_the_vertices_go_along(tmp_path):
    """A published checkpoint's head has no texture: its bytes are in the OBJ, its linear light in the USD."""
    colours = np.random.default_rng(0).integers(0, 256, (len(ball_head().vertices), 3), dtype=np.uint8)
    painted = replace(ball_head(), uv=None, texture=None, colours=colours)
    head = Animated.read(animated_glb(painted, two_frames(), np.broadcast_to(np.eye(4), (2, 4, 4))))
    path = write_obj_sequence(head, tmp_path)[0]
    mesh = trimesh.load_mesh(path, process=False, maintain_order=True)
    np.testing.assert_array_equal(mesh.visual.vertex_colors[:, :3], colours)
    assert not (tmp_path / "albedo.mtl").exists()
    pytest.importorskip("pxr", reason="USD needs usd-core: pip install usd-core")
    from pxr import Usd, UsdGeom

    write_usdz(head, tmp_path / "head.usdz")
    stage = Usd.Stage.Open(str(tmp_path / "head.usdz"))
    skin = UsdGeom.Mesh(stage.GetPrimAtPath("/head/skin"))
    np.testing.assert_allclose(np.array(skin.GetDisplayColorAttr().Get()), linear_from_bytes(colours), atol=1e-6)
    assert skin.GetDisplayColorPrimvar().GetInterpolation() == UsdGeom.Tokens.vertex


def test_the_command_writes_beside_the_run(data, tmp_path, capsys):
    """`--obj` alone needs nothing that is not installed; nothing asked for is a usage error."""
    from mononphm_cli import main

    (tmp_path / "animation.glb").write_bytes(data)
    assert main.run(["export", str(tmp_path)]) == 2
    assert main.run(["export", str(tmp_path), "--obj"]) == 0
    assert (tmp_path / "obj" / "frame_00008.obj").is_file()
    assert main.run(["export", str(tmp_path), "--obj", "--of", "arkit"]) == 2
    assert "head_arkit.glb" in capsys.readouterr().err
