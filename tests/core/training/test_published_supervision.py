"""Supervision files of small scans, in closed form."""

import numpy as np
import pytest
import trimesh
from PIL import Image

from mononphm_core.errors import AssetError, InputError
from mononphm_core.training.published.config import Lambdas, PublishedTraining, document, training_of
from mononphm_core.training.published.correspondences import sample_correspondences
from mononphm_core.training.published.fields import FieldCounts, above_throat, cleaned, sample_fields
from mononphm_core.training.published.files import Files, find_scans
from mononphm_core.training.published.items import Items, splits
from mononphm_core.training.published.scans import Assets, mean_anchors, read_scan, write_supervision
from mononphm_core.training.published.textured import TexturedScan, nearest_texel, read_textured
from mononphm_core.types import HeadMesh
from tests.core.training.balls import VALIDATION, ball, small_document, write_scans

COUNTS = FieldCounts(surface=3000, non_face=400, off=300, files=2)


def sphere(radius: float = 0.4) -> HeadMesh:
    made = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    x = np.asarray(made.vertices)
    return HeadMesh(x, np.asarray(made.faces, np.int64), np.clip(128 + 200 * x, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def supervision(tmp_path_factory):
    scans = write_scans(tmp_path_factory.mktemp("scans"), (3, 7, VALIDATION))
    target = tmp_path_factory.mktemp("supervision")
    write_supervision(scans, Assets.read(scans / "assets"), target, lambda s: True, COUNTS, 200, 2)
    return scans, target


def test_samples_of_a_sphere_lie_on_it_with_its_normals_and_colours():
    """Closed form: |x| = r, n = x / r, colour a linear function of x; regions by the distance to the face's points."""
    mesh = sphere()
    face = mesh.vertices[mesh.vertices[:, 2] > 0.2]
    found = sample_fields(TexturedScan(mesh), face, None, FieldCounts(20000, 500, 500, 1), np.random.default_rng(0))
    for kind in ("face", "def_region", "non_face"):
        x, n, rgb = found[kind][:, :3], found[kind][:, 3:6], found[kind][:, 6:]
        np.testing.assert_allclose(np.linalg.norm(x, axis=-1), 0.4, atol=1e-3)  # facets of the sphere
        np.testing.assert_allclose(n, x / 0.4, atol=0.02)
        np.testing.assert_allclose(rgb, 128 + 200 * x, atol=1.5)  # bytes
    away = {kind: np.linalg.norm(found[kind][:, None, :3] - face[None], axis=-1).min(-1) for kind in found}
    assert away["face"].max() < 0.01
    assert away["def_region"].min() >= 0.01 and away["def_region"].max() < 0.2
    assert away["non_face"].min() >= 0.01 and away["non_face"].max() > 0.2


def test_points_off_the_surface_carry_the_colour_and_normal_of_the_nearest_place():
    """For a sphere that is the place in the same direction; the spread is the published 0.05."""
    mesh = sphere()
    face = mesh.vertices[mesh.vertices[:, 2] > 0]
    found = sample_fields(TexturedScan(mesh), face, None, FieldCounts(4000, 10, 4000, 1), np.random.default_rng(0))[
        "off"
    ]
    x = found[:, :3].astype(float)
    direction = x / np.linalg.norm(x, axis=-1, keepdims=True)
    np.testing.assert_allclose(found[:, 3:6], direction, atol=0.06)
    np.testing.assert_allclose(found[:, 6:], 128 + 80 * direction, atol=8)
    assert np.std(np.linalg.norm(x, axis=-1) - 0.4) == pytest.approx(0.05, rel=0.1)


def textured_tube(folder, end):
    """An open tube of radius 0.4 around y, unrolled on a picture of 8 x 4 fields, in the two formats of scans.

    The seam tears its first column of vertices apart; u turns once around, v goes up.
    """
    across, up = 96, 40
    u, v = np.meshgrid(np.linspace(0, 1, across + 1), np.linspace(0, 1, up + 1), indexing="ij")
    x = 0.4 * np.stack([np.sin(2 * np.pi * u), 2 * v - 1, np.cos(2 * np.pi * u)], -1).reshape(-1, 3)
    x[-(up + 1) :] = x[: up + 1]  # the last column lies on the first one
    i, j = np.meshgrid(np.arange(across), np.arange(up), indexing="ij")
    first = (i * (up + 1) + j).reshape(-1)
    faces = np.concatenate(
        [np.stack([first, first + up + 1, first + up + 2], -1), np.stack([first, first + up + 2, first + 1], -1)]
    )
    fields = np.random.default_rng(0).integers(0, 256, (4, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(fields.repeat(16, 0).repeat(16, 1))
    visual = trimesh.visual.TextureVisuals(np.stack([u, v], -1).reshape(-1, 2), image=picture)
    made = trimesh.Trimesh(x, faces, visual=visual, process=False)
    folder.mkdir(exist_ok=True)
    made.export(folder / f"scan.{end}")
    if end == "ply":  # trimesh writes s and t, but not whose picture they belong to
        text = (folder / "scan.ply").read_bytes()
        (folder / "scan.ply").write_bytes(
            text.replace(b"element vertex", b"comment TextureFile t.png\nelement vertex", 1)
        )
        picture.save(folder / "t.png")
    return fields


@pytest.mark.parametrize("end", ["obj", "ply"])
def test_a_textured_scan_gives_the_colour_of_the_nearest_texel_and_has_no_seam(tmp_path, end):
    """Closed form: the field of the picture in which angle and height lie, to the byte; colours at vertices would mix
    neighbouring fields. The torn column neither divides the surface nor bends its normals."""
    fields = textured_tube(tmp_path / end, end)
    scan = read_textured(tmp_path / end / f"scan.{end}")
    assert len(scan.mesh.vertices) == 96 * 41
    face = scan.mesh.vertices[scan.mesh.vertices[:, 2] > 0.2]
    found = sample_fields(scan, face, None, FieldCounts(6000, 500, 2000, 1), np.random.default_rng(0))
    for kind in ("face", "def_region", "non_face"):
        x, normal, rgb = found[kind][:, :3], found[kind][:, 3:6], found[kind][:, 6:]
        share = np.stack([np.arctan2(x[:, 0], x[:, 2]) / 2 / np.pi % 1 * 8, (0.4 - x[:, 1]) / 0.8 * 4], -1)
        inside = (np.abs(share - np.rint(share)) > 0.02).all(-1)  # chords against arcs, files of six digits
        row, column = np.floor(share[inside, 1]).astype(int), np.floor(share[inside, 0]).astype(int)
        np.testing.assert_array_equal(rgb[inside], fields[row, column])
        assert inside.mean() > 0.85
        assert (normal * x * [1, 0, 1]).sum(-1).min() > 0.399 * 0.99
    assert {tuple(c) for c in found["off"][:, 6:].astype(int)} <= {tuple(c) for c in fields.reshape(-1, 3).astype(int)}


def test_texels_are_counted_from_the_top_and_repeat():
    """The corners of a 2 x 3 picture, and one turn further."""
    texels = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    uv = np.array([[0, 1], [1, 1], [0, 0], [1, 0], [0.5, 0.75], [1.1, 0.9], [-0.1, 1.9]])
    expected = texels[[0, 0, 1, 1, 0, 0, 0], [0, 2, 0, 2, 1, 0, 2]]
    np.testing.assert_array_equal(nearest_texel(texels, uv), expected)


def test_a_scan_without_its_picture_is_named(tmp_path):
    """Half of a download is the usual reason."""
    textured_tube(tmp_path / "obj", "obj")
    next((tmp_path / "obj").glob("*.png")).unlink()
    with pytest.raises(InputError, match=r"scan\.obj has texture coordinates, but its picture"):
        read_textured(tmp_path / "obj" / "scan.obj")


def test_bridges_of_the_scanner_and_loose_parts_are_not_sampled():
    """A triangle across the hair teaches a wall that is not there."""
    mesh = sphere()
    vertices = np.concatenate(
        [mesh.vertices, mesh.vertices[:3] + np.array([2.0, 0, 0]), [[0, 0, 0.4], [0.4, 0, 0], [0, 0.4, 0]]]
    )
    count = len(mesh.vertices)
    faces = np.concatenate([mesh.faces, [[count, count + 1, count + 2], [count + 3, count + 4, count + 5]]])
    colours = np.full((len(vertices), 3), 100, np.uint8)
    scan = TexturedScan(HeadMesh(vertices, faces, colours))
    assert len(cleaned(scan).mesh.faces) == len(mesh.faces)


def test_nothing_below_the_throat_plane_is_kept():
    """n . (p - v1) > 0 with the published vertices."""
    flame = np.zeros((5023, 3))
    flame[[3276, 3207, 3310]] = [[0, -0.5, 0], [0, -0.5, 1], [1, -0.5, 0]]
    assert above_throat(np.array([[0.3, -0.4, 0.2], [0.3, -0.6, 0.2]]), flame).tolist() == [True, False]


def test_pairs_lie_at_the_same_place_and_height_of_both_shapes():
    """Between a sphere and its double, the partner of a point at height h is in the same direction at height h."""
    neutral, posed = sphere(0.3), sphere(0.6)
    found = sample_correspondences(neutral, posed, np.ones(len(neutral.vertices), bool), np.random.default_rng(0), 500)
    assert found.shape == (2000, 6)
    first, second = np.linalg.norm(found[:, :3], axis=-1), np.linalg.norm(found[:, 3:], axis=-1)
    np.testing.assert_allclose(first - 0.3, second - 0.6, atol=2e-3)  # facets
    cosine = (found[:, :3] * found[:, 3:]).sum(-1) / first / second
    assert cosine.min() > 0.9999


def test_files_have_the_published_names_shapes_and_numbers(supervision):
    """The published reader must find them."""
    _, target = supervision
    face = np.load(target / "surface_pointclouds" / "003" / "face_1_0.npy")
    assert face.dtype == np.float32 and face.shape[1] == 9
    assert np.load(target / "deformations" / "003" / "001" / "corresp_1.npy").shape == (400, 6)
    assert not (target / "deformations" / "003" / "000").exists()
    expected = ball(3, 0).vertices[np.linspace(0, 641, 65).astype(int)]
    np.testing.assert_allclose(np.load(target / "anchors" / "003.npy"), expected, atol=1e-6)
    assert mean_anchors(target).shape == (65, 3)


def test_an_interrupted_generation_goes_on_and_leaves_finished_scans_alone(supervision):
    """Some gigabytes a scan are not made twice."""
    scans, target = supervision
    before = (target / "surface_pointclouds" / "003" / "face_0_0.npy").stat().st_mtime_ns
    again = write_supervision(scans, Assets.read(scans / "assets"), target, lambda s: True, COUNTS, 200, 2)
    assert again == 0
    assert (target / "surface_pointclouds" / "003" / "face_0_0.npy").stat().st_mtime_ns == before


def test_the_published_names_of_older_files_are_preferred(supervision, tmp_path):
    """`<expression>_<i>_face.npy` goes before `face_<expression>_<i>.npy`."""
    _, target = supervision
    scan = find_scans(target)[0]
    folder = tmp_path / "surface_pointclouds" / f"{scan.subject:03d}"
    folder.mkdir(parents=True)
    np.save(folder / f"{scan.expression}_0_face.npy", np.full((5, 9), 7, np.float32))
    np.save(folder / f"face_{scan.expression}_0.npy", np.zeros((5, 9), np.float32))
    assert (Files(tmp_path).points("face", scan, 3, np.random.default_rng(0)) == 7).all()


def test_validation_subjects_are_those_of_the_published_split(supervision):
    """And excluded ones are in neither part."""
    _, target = supervision
    train, val = splits(find_scans(target), frozenset({7}))
    assert {s.subject for s in train.scans} == {3}
    assert {s.subject for s in val.scans} == {VALIDATION}


def test_a_further_hairstyle_is_a_further_person(supervision, tmp_path):
    """id + 10000 * k, with the style's first scan as the one whose hair is taught."""
    _, target = supervision
    (target / "hairstyles.json").write_text('{"3": [[1]]}')
    try:
        scans = [s for s in find_scans(target) if s.subject == 3]
    finally:
        (target / "hairstyles.json").unlink()
    assert [(s.expression, s.person, s.is_neutral, s.hair) for s in scans] == [
        (0, 3, True, True),
        (1, 10003, False, True),
    ]


def test_an_item_has_the_published_numbers_of_points(supervision):
    """750 + 250, 250, 250, 125, 250 in the release."""
    _, target = supervision
    train, _ = splits(find_scans(target))
    items = Items(Files(target), train, PublishedTraining(), 65)
    batch = items.batch(list(train.scans[:2]), np.random.default_rng(0))
    assert batch.surface.shape == (2, 1000, 3)
    assert (batch.outer.shape[1], batch.off.shape[1], batch.far.shape[1], batch.corresp_posed.shape[1]) == (
        250,
        250,
        125,
        250,
    )
    assert batch.far.norm(dim=-1).max() <= 1
    assert batch.surface_colour.abs().max() <= 1
    assert batch.has_anchors.all()


def test_devices_share_an_epoch_without_gap_or_double(supervision):
    """Two devices see together what one would see."""
    _, target = supervision
    train, _ = splits(find_scans(target))
    config = training_of(small_document(batch_size=1))
    items = Items(Files(target), train, config, 65)
    seen = [int(batch.scan) for rank in (0, 1) for batch in items.epoch(0, 1, rank, 2)]
    neutral_rows = {train.scans.index(train.neutral_of(scan)) for scan in train.scans}
    assert len(seen) == len(train.scans)
    assert set(seen) | neutral_rows == set(range(len(train.scans)))


def test_learning_rates_fall_at_the_published_epochs():
    """350, 700, 1050, then every 250 from 1300."""
    config = PublishedTraining()
    assert [config.rate(e) for e in (1, 349, 350, 700, 1050, 1299)] == [1, 1, 0.5, 0.25, 0.125, 0.125]
    assert [config.rate(e) for e in (1300, 1549, 1550, 2500)] == [0.5**4, 0.5**4, 0.5**5, 0.5**8]


def test_the_release_configuration_is_read_and_a_misspelt_key_is_named():
    """A silent default in the place of a weight costs weeks."""
    assert training_of(document()) == PublishedTraining(lambdas=Lambdas())
    made = document()
    made["training"]["lambdas"]["eikonall"] = 1.0
    with pytest.raises(Exception, match="eikonall"):
        training_of(made)


def test_what_is_missing_is_named(tmp_path):
    """Scans of one's own rarely fit at once."""
    scans = write_scans(tmp_path / "scans", (3,))
    assets = Assets.read(scans / "assets")
    (scans / "003" / "001" / "registration.ply").unlink()
    with pytest.raises(InputError, match=r"registration\.ply is missing"):
        write_supervision(scans, assets, tmp_path / "out", lambda s: True, COUNTS, 10, 1)
    (scans / "assets" / "lm_inds_65.npy").unlink()
    with pytest.raises(AssetError, match="lm_inds_65"):
        Assets.read(scans / "assets")
    (tmp_path / "x.ply").write_bytes(b"ply\nno")
    with pytest.raises(InputError, match=r"x\.ply"):
        read_scan(tmp_path / "x.ply")
