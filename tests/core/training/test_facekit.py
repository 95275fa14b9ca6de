"""The data that training reads, from files as ICT-FaceKit publishes them. The files here are made by the test."""

import numpy as np
import pytest

from mononphm_cli import main
from mononphm_core.errors import AssetError
from mononphm_core.training import facekit
from mononphm_core.training.obj_files import read_points, read_polygons

POINTS = np.array(
    [[-2, 0, 0], [0, 0, 0], [2, 0, 0], [-2, 1, 0], [0, 1.5, 0.5], [2, 1, 0], [0, 3, 0], [1, 4, 0], [-1, 4, 0]], float
)
"""A face of two quads and two triangles, then a left and a right part of one vertex each."""
POLYGONS = [[1, 2, 5, 4], [2, 3, 6, 5], [4, 5, 7], [5, 6, 7], [3, 6, 8], [1, 9, 4]]
PARTS = ["face", "head_neck", "mouth_socket", "left", "right"]


def write_obj(path, points, polygons=()):
    """Positions with six decimals, texture corners, two materials, as the published files have them."""
    lines = ["# made by a test", *(f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in points)]
    if polygons:
        lines += [f"vt {x / 10:.4f} {y / 10:.4f}" for x, y, _ in points] + ["vt 0.5 0.5", "usemtl M_Face"]
        for number, polygon in enumerate(polygons):
            lines += ["usemtl M_BackHead"] if number == 4 else []
            lines.append("f " + " ".join(f"{v}/{10 if number == 2 and v == 7 else v}/1" for v in polygon))
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def folder(tmp_path):
    """Neutral, two identities, two expressions."""
    rng = np.random.default_rng(0)
    write_obj(tmp_path / facekit.NEUTRAL, POINTS, POLYGONS)
    for name in ("identity000", "identity001", "jawOpen", "eyeBlink_L"):
        write_obj(tmp_path / f"{name}.obj", POINTS + 0.1 * rng.standard_normal(POINTS.shape), POLYGONS)
    return tmp_path


@pytest.fixture
def known(folder):
    """Tables of that little head."""
    triangles, corner = facekit.triangulate(read_polygons(folder / facekit.NEUTRAL))
    texture = read_polygons(folder / facekit.NEUTRAL).uv_corners[corner]
    return {
        **facekit.tables(), "identities": 2, "expression_names": ["jawOpen", "eyeBlink_L"], "part_names": PARTS,
        "part_vertices": [0, 7, 7, 7, 8], "part_polygons": [0, 4, 4, 4, 5], "ibug68": [0], "ibug68_jaw_alt": [1],
        "anchors65": [2], "triangles_sha256": facekit.sha256(triangles), "texture_sha256": facekit.sha256(texture),
    }  # fmt: skip


def test_displacements_triangles_parts_and_mirror_come_out_of_the_files(folder, known, tmp_path):
    """Every array against what the files were written from."""
    known["detector478"] = {"triangle": [1, 0], "share": [[0.25, 0.5], [1.0, 0.0]], "spread_mm": [1.5, 2.0]}
    made = np.load(facekit.rebuild(folder, tmp_path / "data", known))
    points = np.load(facekit.landmark_table(tmp_path / "data", known))
    assert np.array_equal(points["vertex_index"], made["tri"][[1, 0]])
    assert points["bary"].tolist() == [[0.25, 0.5, 0.25], [1.0, 0.0, 0.0]]
    np.testing.assert_allclose(made["neutral"], POINTS, atol=1e-6)
    for kind, names in (("identity", ["identity000", "identity001"]), ("expression", ["jawOpen", "eyeBlink_L"])):
        for row, name in enumerate(names):
            np.testing.assert_allclose(
                made["neutral"] + made[kind][row], read_points(folder / f"{name}.obj"), atol=2e-4
            )
    assert made["tri"].tolist()[:2] in ([[0, 1, 4], [0, 4, 3]], [[0, 1, 3], [1, 4, 3]])
    assert made["tri_quad"].tolist() == [0, 0, 1, 1, 2, 3, 4, 5]
    assert made["tri_part"].tolist() == [0, 0, 0, 0, 0, 0, 3, 4]
    assert made["vert_part"].tolist() == [0] * 7 + [3, 4]
    assert made["sym"].tolist() == [2, 1, 0, 5, 4, 3, 6, 8, 7]
    assert made["material_names"].tolist() == ["M_Face", "M_BackHead"]
    assert made["tri_material"].tolist() == [0] * 6 + [1, 1]
    assert made["tri_uv"][4].tolist() == [3, 4, 9]


def test_quads_are_cut_along_the_shorter_diagonal(tmp_path):
    """A kite both ways round."""
    kite = np.array([[0, 0, 0], [1, -3, 0], [2, 0, 0], [1, 3, 0]], float)
    write_obj(tmp_path / "a.obj", kite, [[1, 2, 3, 4], [2, 3, 4, 1]])
    triangles, _ = facekit.triangulate(read_polygons(tmp_path / "a.obj"))
    assert triangles.tolist() == [[0, 1, 2], [0, 2, 3], [1, 2, 0], [2, 3, 0]]


def test_another_topology_a_missing_shape_and_a_lopsided_head_are_refused(folder, known, tmp_path):
    """Training on a wrong edition would go wrong late and silently."""
    with pytest.raises(AssetError, match="not those of the published"):
        facekit.rebuild(folder, tmp_path / "data")
    write_obj(folder / "jawOpen.obj", POINTS[:5])
    with pytest.raises(AssetError, match=r"jawOpen\.obj has 5 vertices"):
        facekit.rebuild(folder, tmp_path / "data", known)
    (folder / "jawOpen.obj").unlink()
    with pytest.raises(AssetError, match="can't be read"):
        facekit.rebuild(folder, tmp_path / "data", known)
    write_obj(folder / facekit.NEUTRAL, POINTS + np.array([0.5, 0, 0]), POLYGONS)
    with pytest.raises(AssetError, match="symmetric"):
        facekit.mirror(read_points(folder / facekit.NEUTRAL), np.zeros(9, int))
    (folder / facekit.NEUTRAL).write_text("v a b c\nf 1 2 3\n")
    with pytest.raises(AssetError, match="no numbers"):
        read_polygons(folder / facekit.NEUTRAL)
    assert not (tmp_path / "data" / "ict_facekit.npz").exists()


def test_the_command_names_the_file_that_it_lacks(tmp_path, capsys):
    """Exit code 4: an asset is missing."""
    assert main.run(["train", "data", "--ict", str(tmp_path), "--to", str(tmp_path / "data")]) == 4
    assert facekit.NEUTRAL in capsys.readouterr().err
