"""Mesh files: what is written is what is read, by us and by others."""

import json
import struct

import numpy as np
import pytest
import trimesh

from mononphm_core.errors import ConfigError
from mononphm_core.io.mesh_files import glb_bytes, linear_from_bytes, obj_bytes, read_mesh, srgb_bytes, write_mesh
from mononphm_core.types import HeadMesh

TOLERANCE = {"ply": 0.0, "glb": 0.0, "obj": 1e-5}
"""Binary files keep float32 exactly; OBJ has five decimals of a millimetre."""


@pytest.fixture
def mesh() -> HeadMesh:
    sphere = trimesh.creation.icosphere(subdivisions=3, radius=90.0)
    colours = np.random.default_rng(1).integers(0, 256, sphere.vertices.shape, np.uint8)
    return HeadMesh(
        np.asarray(sphere.vertices + np.array([1.0, 2.0, 600.0]), np.float32),
        np.asarray(sphere.faces, np.int64),
        colours,
    )


@pytest.mark.parametrize("kind", ["ply", "obj", "glb"])
@pytest.mark.parametrize("coloured", [True, False])
def test_a_mesh_returns_from_its_file_vertex_for_vertex(mesh, kind, coloured, tmp_path):
    """Order, orientation and every colour byte: frames of one topology must stay one topology."""
    if not coloured:
        mesh = HeadMesh(mesh.vertices, mesh.faces)
    write_mesh(tmp_path / f"frame.{kind}", mesh)
    back = read_mesh(tmp_path / f"frame.{kind}")
    assert np.abs(back.vertices - mesh.vertices).max() <= TOLERANCE[kind]
    assert np.array_equal(back.faces, mesh.faces)
    assert np.array_equal(back.colours, mesh.colours) if coloured else back.colours is None


@pytest.mark.parametrize("kind", ["ply", "obj", "glb"])
def test_a_general_reader_sees_the_same_shape(mesh, kind, tmp_path):
    """Files are for other programs: area, volume and bounds as trimesh computes them from the file."""
    write_mesh(tmp_path / f"frame.{kind}", mesh)
    loaded = trimesh.load_mesh(tmp_path / f"frame.{kind}")
    assert loaded.is_watertight
    assert loaded.volume == pytest.approx(4 / 3 * np.pi * 90.0**3, rel=0.02)
    assert loaded.bounds.mean(axis=0) == pytest.approx([1.0, 2.0, 600.0], abs=0.01)


def test_a_glb_is_laid_out_as_the_format_demands(mesh):
    """Header, chunk lengths of multiples of four, accessors inside their buffer, bounds of the positions."""
    data = glb_bytes(mesh)
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data))
    (text_size,) = struct.unpack_from("<I", data, 12)
    (binary_size,) = struct.unpack_from("<I", data, 20 + text_size)
    assert text_size % 4 == binary_size % 4 == 0
    assert 28 + text_size + binary_size == len(data)
    document = json.loads(data[20 : 20 + text_size])
    for view in document["bufferViews"]:
        assert view["byteOffset"] % 4 == 0
        assert view["byteOffset"] + view["byteLength"] <= document["buffers"][0]["byteLength"] <= binary_size
    position = document["accessors"][document["meshes"][0]["primitives"][0]["attributes"]["POSITION"]]
    assert position["max"] == pytest.approx(mesh.vertices.max(0).tolist())
    assert position["min"] == pytest.approx(mesh.vertices.min(0).tolist())


def test_glb_colours_are_linear_light():
    """Mid grey of sRGB (188) is half the light; a viewer that gets 188/255 instead shows a washed-out face."""
    assert linear_from_bytes(np.array([188, 188, 188], np.uint8)) == pytest.approx(0.5, abs=0.005)
    every = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    assert np.array_equal(srgb_bytes(linear_from_bytes(every)), every)


def test_obj_text_is_short_lines_of_numbers():
    """One triangle, known by heart."""
    mesh = HeadMesh(np.array([[0, 0, 1], [1.5, 0, 0], [0, -2, 0]], np.float32), np.array([[0, 1, 2]]))
    assert obj_bytes(mesh).decode().splitlines()[1:] == [
        "v 0.00000 0.00000 1.00000",
        "v 1.50000 0.00000 0.00000",
        "v 0.00000 -2.00000 0.00000",
        "f 1 2 3",
    ]


def test_other_formats_are_refused_in_words(mesh, tmp_path):
    with pytest.raises(ConfigError, match="choose ply, obj or glb"):
        write_mesh(tmp_path / "frame.stl", mesh)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match=r"frame\.stl is no ply"):
        read_mesh(tmp_path / "frame.stl")
