"""MakeHuman's shapes and skins from files as its repositories publish them. The files here are made by the test."""

import gzip

import numpy as np
import pytest
from PIL import Image

from mononphm_cli import main
from mononphm_core.errors import AssetError
from mononphm_core.training import makehuman, makehuman_skins
from mononphm_core.training.makehuman_files import POINTER
from tests.core.training import hm08


@pytest.fixture
def folder(tmp_path):
    """A checkout."""
    return hm08.write_makehuman(tmp_path / "checkout")


@pytest.fixture
def small_tiles(monkeypatch):
    """Pictures of a size that takes no time."""
    monkeypatch.setattr(makehuman_skins, "TILES", {"face": (0, 96), "backhead": (1, 64)})
    monkeypatch.setattr(makehuman_skins, "SKINS", makehuman_skins.SKINS[-3:])


@pytest.fixture
def data(tmp_path):
    """A data folder with ICT's arrays."""
    return hm08.write_ict(tmp_path / "data")


def test_every_kind_of_shape_is_carried_as_its_target_says(folder, data):
    """Average, macro, body, sliders, both sides of an asymmetry against numbers written down; half precision."""
    report = makehuman.rebuild(folder, data, hm08.table(folder))
    made = np.load(data / "makehuman_shapes.npz")
    np.testing.assert_allclose(made["displacement"], hm08.displacements(), atol=2e-3)
    assert made["names"].tolist() == hm08.NAMES
    assert made["follow_vertex"].tolist() == [4, 0]
    assert made["follow_range"].tolist() == [27, 29]
    assert report.shapes == 8
    assert report.mirrored == 4
    assert report.difference_mm[1] < 0.02


def test_mirror_images_are_exact(folder, data):
    """Symmetric people must come out of symmetric weights, to the last bit."""
    makehuman.rebuild(folder, data, hm08.table(folder))
    made = np.load(data / "makehuman_shapes.npz")
    x = made["displacement"].astype(np.float32)
    assert np.array_equal(x[made["partner"]][:, hm08.MIRROR] * [-1, 1, 1], x)


def test_eyeballs_move_and_grow_as_the_base_meshs_do(folder, data):
    """The left one moves by half a centimetre and grows by a half; the right one in the mirrored shape alone."""
    makehuman.rebuild(folder, data, hm08.table(folder))
    eye = np.load(data / "makehuman_shapes.npz")["eye"]
    np.testing.assert_allclose(eye[4, 0], [0.5, 0, 0, 0.5], atol=1e-6)
    np.testing.assert_allclose(eye[5, 1], [-0.5, 0, 0, 0.5], atol=1e-6)
    assert not eye[4, 1].any()
    assert not eye[5, 0].any()


def test_targets_may_be_gzipped(folder, data):
    """mpfb2 ships them so, makehuman does not."""
    for path in list(folder.rglob("*.target")):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    makehuman.rebuild(folder, data, hm08.table(folder))
    np.testing.assert_allclose(np.load(data / "makehuman_shapes.npz")["displacement"], hm08.displacements(), atol=2e-3)


def test_wrong_and_missing_files_are_named_with_the_next_step(folder, data):
    """Each is what somebody with half a download has; nothing is written."""
    table = hm08.table(folder)
    chin = next(folder.rglob("chin-up.target"))
    whole = chin.read_text()
    for content, words in (
        ("2 0 much 0\n", "chin-up.target is no target"),
        (POINTER.decode() + "/spec/v1\n", "git lfs pull"),
        ("27 0 0 1\n", "moves vertex 27"),
    ):
        chin.write_text(content)
        with pytest.raises(AssetError, match=words):
            makehuman.rebuild(folder, data, table)
    chin.unlink()
    with pytest.raises(AssetError, match="checkout of github.com/makehumancommunity/makehuman"):
        makehuman.rebuild(folder, data, table)
    chin.write_text(whole)
    mesh = next(folder.rglob("base.obj"))
    text = mesh.read_text()
    mesh.write_text(text.replace("f 1/1 2/2", "f 2/2 1/1"))
    with pytest.raises(AssetError, match="not those of MakeHuman's hm08"):
        makehuman.rebuild(folder, data, table)
    mesh.write_text(text.replace("v 2.0000 8.0000", "v 2.1000 8.0000"))
    with pytest.raises(AssetError, match="no mirror image"):
        makehuman.rebuild(folder, data, table)
    mesh.unlink()
    with pytest.raises(AssetError, match=r"holds no 3dobjs/base\.obj"):
        makehuman.rebuild(folder, data, table)
    assert not (data / "makehuman_shapes.npz").exists()


def test_the_order_of_polygons_and_of_their_corners_does_not_matter(folder):
    """Editions differ in it; the topology is the same."""
    mesh = next(folder.rglob("base.obj"))
    before = hm08.table(folder).known["polygons_sha256"]
    lines = mesh.read_text().splitlines()
    faces = [line for line in lines if line.startswith("f ")]
    turned = [" ".join(["f", *face.split()[2:], face.split()[1]]) for face in reversed(faces)]
    mesh.write_text("\n".join([line for line in lines if not line.startswith("f ")] + turned) + "\n")
    assert hm08.table(folder).known["polygons_sha256"] == before


def test_shapes_of_another_edition_are_refused(folder, data):
    """A prior trained on them would not be comparable, and nobody would know why."""
    chin = next(folder.rglob("chin-up.target"))
    chin.write_text("2 0 9.5 0\n")
    with pytest.raises(AssetError, match="chin-up most"):
        makehuman.rebuild(folder, data, hm08.table(folder))


def test_a_triangle_that_turns_over_is_counted(folder, data):
    """Pulling one corner of the mask across the next vertex turns the triangles between them, and no other."""
    ict = np.load(data / "ict_facekit.npz")
    shape = np.zeros((15, 3))
    assert makehuman.turned_over(ict, np.zeros((15, 3)), shape) == 0
    shape[0] = [25.0, 12.0, 0.0]
    assert makehuman.turned_over(ict, np.zeros((15, 3)), shape) == 2


def test_the_shipped_table_is_whole():
    """398 shapes, partners and antagonists that agree, shares that sum to one, vertices of the body and the eyes."""
    table = makehuman.load_table()
    known = table.known
    assert len(set(known["names"])) == 398
    partner, antagonist = np.array(known["partner"]), np.array(known["antagonist"])
    assert np.array_equal(partner[partner], np.arange(398))
    assert np.array_equal(antagonist[antagonist], np.arange(398))
    np.testing.assert_allclose(table.share.sum(1), 1.0, atol=1e-12)
    assert table.near.max() < 14742
    assert len(table.expected) == 398
    assert set(known["placements"]) == {
        n for n, g in zip(known["names"], known["groups"], strict=True) if g in ("macro", "body")
    }
    assert all(0 < r <= 1 and 2 * s <= r + 1e-4 for r, s in zip(known["range_max"], known["sigma"], strict=True))


def test_skins_look_the_same_in_the_other_layout(folder, data, tmp_path, small_tiles):
    """The mask's two layouts agree but for the tile, so the front half of each picture shows its own place."""
    makehuman.rebuild(folder, data, hm08.table(folder))
    skins = hm08.write_skins(tmp_path / "skins")
    made = makehuman_skins.rebuild(skins, folder, data, hm08.table(folder))
    assert {path.name for path in made} == {
        *(f"{name}_{tile}.jpg" for name in makehuman_skins.SKINS for tile in ("face", "backhead")),
        *(f"mask_{name}.png" for name in ("brow0", "brow1", "brow2", "brow3", "lips", "lashline")), "vertex_extras.npz",
    }  # fmt: skip
    for tile, size, row in (("face", 96, 84), ("backhead", 64, 12)):
        picture = np.asarray(Image.open(data / "skins" / f"{makehuman_skins.SKINS[0]}_{tile}.jpg"), float)
        assert picture.shape == (size, size, 3)
        u = (np.arange(size) + 0.5) / size
        inner = (u > 0.2) & (u < 0.8)
        np.testing.assert_allclose(picture[row, inner, 0], 200 * u[inner], atol=6)  # JPEG, and the average's breadth
        np.testing.assert_allclose(picture[row, inner, 1], 200 * (1 - (row + 0.5) / size), atol=6)
    eye = np.load(data / "skins" / "vertex_extras.npz")["eye_local"]
    assert eye[15:21].tolist() == [[0.25, 0.25, 0.25]] * 6
    assert eye[21:27].tolist() == [[-0.25, 0.25, 0.25]] * 6


def test_a_missing_or_unfetched_picture_is_named(folder, data, tmp_path, small_tiles):
    """git-lfs leaves pointers behind; that is the likeliest mistake here."""
    makehuman.rebuild(folder, data, hm08.table(folder))
    skins = hm08.write_skins(tmp_path / "skins")
    path = skins / "textures" / "young_lightskinned_male_diffuse2.png"
    path.write_bytes(POINTER + b"/spec/v1\n")
    with pytest.raises(AssetError, match="git lfs pull"):
        makehuman_skins.rebuild(skins, folder, data, hm08.table(folder))
    path.write_bytes(b"\x89PNG but no more")
    with pytest.raises(AssetError, match="no picture"):
        makehuman_skins.rebuild(skins, folder, data, hm08.table(folder))
    path.unlink()
    with pytest.raises(AssetError, match="makehuman-assets"):
        makehuman_skins.rebuild(skins, folder, data, hm08.table(folder))


def test_texels_find_their_triangle_and_place():
    """One triangle over half of a picture: barycentric coordinates are closed form, and outside there is none."""
    triangle, share = makehuman_skins.rasterise(np.array([[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]]), 8)
    centre = (np.arange(8) + 0.5) / 8
    u, v = np.meshgrid(centre, centre[::-1])
    assert np.array_equal(triangle >= 0, u + v <= 1)
    np.testing.assert_allclose(share[triangle >= 0], np.stack([1 - u - v, u, v], -1)[triangle >= 0], atol=1e-12)


def test_the_command_says_what_it_needs_and_what_it_lacks(tmp_path, data, capsys):
    """Exit code 2 for options that make no sense together, 4 for a file that is not there."""
    to, here = ["train", "data", "--to", str(data)], str(tmp_path)
    assert main.run([*to, "--skins", here]) == 2
    assert main.run([*to[:3], str(tmp_path / "none")]) == 2
    assert main.run([*to, "--makehuman", here]) == 4
    assert "3dobjs/base.obj" in capsys.readouterr().err
