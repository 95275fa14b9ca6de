"""The person's own colours on a head whose true colours and light are known."""

import cv2
import numpy as np
import pytest
import torch

from mononphm_core.animation.photo import Photo, irradiance
from mononphm_core.animation.portrait import Portrait, portray
from mononphm_core.animation.topology import load_topology
from mononphm_core.meshing.clean import vertex_normals
from mononphm_core.meshing.raster import Raster, rasterise
from mononphm_core.rendering.light import GAMMA, sh_basis
from mononphm_core.types import HeadMesh, Intrinsics

SIZE = 256
CAMERA = Intrinsics(620.0, 620.0, 128.0, 128.0, SIZE, SIZE)
LIGHT = np.zeros((9, 3))
LIGHT[0], LIGHT[1], LIGHT[3] = [0.85, 0.8, 0.75], [0.35, 0.33, 0.3], [-0.25, -0.25, -0.25]
"""From the viewer's right and from in front, warm."""
SKIN = np.array([0.72, 0.55, 0.46])
PRIOR = np.full((256, 256, 3), [190, 150, 130], np.uint8)
MOLE_U, MOLE_V, MOLE = 0.29, 0.45, 0.02
"""On one cheek, and its size in the texture."""


def truth(strength: float = 0.5) -> np.ndarray:
    """Skin with a mole on one side only."""
    v, u = np.mgrid[0:512, 0:512] / 512 + 0.5 / 512
    mole = np.exp(-((u - MOLE_U) ** 2 + (1 - v - MOLE_V) ** 2) / MOLE**2)
    return (SKIN * (1 - strength * mole[..., None])).astype(np.float32)


def looked_up(texture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    height, width = texture.shape[:2]
    at = (uv * [width, -height] + [0, height] - 0.5).astype(np.float32)
    return cv2.remap(texture.astype(np.float32), at[..., 0], at[..., 1], cv2.INTER_LINEAR)


def stood() -> np.ndarray:
    """The average head before the camera, face to it."""
    table = load_topology()
    return table.mean[table.corner_vertex].astype(np.float64) * [1, -1, -1] + [0.0, 0.0, 2.6]


def seen_by_camera() -> tuple[Raster, np.ndarray]:
    table, x = load_topology(), stood()
    raster = rasterise(x, table.corner_faces, CAMERA)
    normals = vertex_normals(HeadMesh(table.mean.astype(np.float64) * [1, -1, -1], table.faces))[table.corner_vertex]
    return raster, normals


def taken(strength: float = 0.5) -> Photo:
    """A picture of the true head in the true light, on black."""
    table = load_topology()
    raster, normals = seen_by_camera()
    normal = raster.interpolate(normals, table.corner_faces)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    albedo = looked_up(truth(strength), raster.interpolate(table.corner_uv, table.corner_faces))
    light = np.maximum(sh_basis(torch.from_numpy(normal)).numpy() @ LIGHT, 0.02)
    rgb = np.where(raster.covered[..., None], np.clip(albedo * light ** (1 / GAMMA), 0, 1), 0)
    mask = raster.covered.astype(np.float32)
    return Photo((255 * rgb).round().astype(np.uint8), mask, mask, stood(), CAMERA, 7)


@pytest.fixture(scope="module")
def photo() -> Photo:
    return taken()


@pytest.fixture(scope="module")
def portrait(photo) -> Portrait:
    return portray(load_topology(), PRIOR, [photo])


def albedo_at(portrait: Portrait, u: float, v: float) -> np.ndarray:
    return looked_up(portrait.texture, np.array([[[u, v]]]))[0, 0] / 255


def test_light_is_taken_out_and_the_skin_remains(portrait):
    """One picture leaves one factor a channel open (brighter skin in darker light), which the prior decides; the rest
    of the face has one colour again, although the light came from one side."""
    factor = (PRIOR[0, 0] / 255) / SKIN
    for u, v in ((0.3, 0.62), (0.45, 0.62), (0.375, 0.8), (0.375, 0.32), (0.46, 0.45)):
        found = albedo_at(portrait, u, v)
        np.testing.assert_allclose(found, SKIN * factor, rtol=0.08)  # shadows that touch, and the mole's share


def test_what_the_prior_does_not_know_is_taken_from_the_picture_and_not_doubled(portrait):
    """A mole: dark where it is, and not on the other cheek, which was seen too."""
    here, there = albedo_at(portrait, MOLE_U, MOLE_V), albedo_at(portrait, 0.75 - MOLE_U, MOLE_V)
    assert here.mean() < 0.75 * there.mean()


def test_what_no_picture_shows_is_the_prior_in_the_picture_s_tone(portrait):
    """The back of the neck: no seam, no black background."""
    np.testing.assert_allclose(albedo_at(portrait, 0.88, 0.7), PRIOR[0, 0] / 255, rtol=0.22)


def test_the_result_reproduces_the_picture_and_says_how_well(portrait, photo):
    """Rendered in the fitted light: the figure of the manifest. The head without the mole is told apart from it."""
    assert portrait.psnr_db > 30
    assert 0.2 < portrait.seen_share < 0.6
    black = Photo(0 * photo.rgb, photo.person, photo.skin, photo.x_camera, photo.intrinsics, 8)
    assert portray(load_topology(), PRIOR, [photo, black]).psnr_db < portrait.psnr_db - 3


@pytest.mark.parametrize(("strength", "doubled"), [(0.12, True), (0.7, False)])
def test_faint_detail_is_lent_to_the_side_that_was_not_seen_and_a_strand_of_hair_is_not(strength, doubled):
    """With one half of the face hidden, a freckle stands on both cheeks; a dark stroke only where it was seen."""
    seen = taken(strength)
    half = seen.person.copy()
    half[:, SIZE // 2 :] = 0
    shown = portray(load_topology(), PRIOR, [Photo(seen.rgb, half, half, seen.x_camera, seen.intrinsics, 7)])
    first, second = (
        albedo_at(shown, u, MOLE_V).mean() / albedo_at(shown, u, MOLE_V + 2.5 * MOLE).mean()
        for u in (MOLE_U, 0.75 - MOLE_U)
    )
    assert min(first, second) < 1 - 0.4 * strength
    assert (max(first, second) < 1 - 0.25 * strength) == doubled


def test_a_picture_kept_aside_gives_no_colour_and_measures(portrait, photo):
    """The same picture as its own judge agrees with the figure of its use; another person's is told apart."""
    again = portray(load_topology(), PRIOR, [photo], photo)
    np.testing.assert_array_equal(again.texture, portrait.texture)
    assert again.held_out_psnr_db == pytest.approx(again.psnr_db, abs=3.0)
    striped = photo.rgb * (1 - 0.5 * (np.arange(SIZE) // 16 % 2))[None, :, None]
    other = Photo(striped.astype(np.uint8), photo.person, photo.skin, photo.x_camera, photo.intrinsics, 8)
    judged = portray(load_topology(), PRIOR, [photo], other).held_out_psnr_db
    assert judged is not None and judged < again.held_out_psnr_db - 6


def test_the_tone_does_not_stop_where_the_plane_of_the_texture_is_cut(photo):
    """Corners that share a vertex have one colour on both sides of a cut; a redder prior may not show as a line."""
    table = load_topology()
    shown = portray(table, np.full_like(PRIOR, [210, 120, 100]), [photo])
    colours = looked_up(shown.texture, table.corner_uv[None])[0] / 255
    lowest, highest = np.full((len(table.mean), 3), 2.0), np.zeros((len(table.mean), 3))
    np.minimum.at(lowest, table.corner_vertex, colours)
    np.maximum.at(highest, table.corner_vertex, colours)
    gap = (highest - lowest).max(1)[table.part <= 1]
    assert np.quantile(gap[gap > 0], 0.9) < 0.03  # eight bits and interpolation


def test_irradiance_stays_above_a_share_of_the_mean():
    """Deep shadow divided out would be noise."""
    light = np.zeros((9, 3))
    light[0], light[3] = 1.0, 2.0
    assert irradiance(np.array([[0.0, 0.0, -1.0]]), light).min() == pytest.approx(0.3)


def test_light_from_below_is_not_of_another_colour():
    """Nine coefficients a channel can make the underside of a chin yellow; real light from one side hardly differs."""
    light = np.zeros((9, 3))
    light[0] = 1.0
    light[1:4, 2] = 0.9
    for direction in np.concatenate([np.eye(3), -np.eye(3)]):
        arriving = irradiance(direction[None], light)[0]
        assert arriving.max() / arriving.min() < 1.6
