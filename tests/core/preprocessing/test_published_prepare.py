"""Data preparation of the published program, against its own numbers and in closed form."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mononphm_core.preprocessing.published.prepare import (
    FROM_WFLW,
    FrameParts,
    GivenIntrinsics,
    face_square,
    masked,
    prepare,
    ray_directions,
)
from mononphm_core.quirks import PUBLISHED, REPAIRED

GOLDEN = Path(__file__).resolve().parents[4] / "shared" / "reference" / "golden" / "prepare_data.npz"
golden = pytest.mark.skipif(not GOLDEN.is_file(), reason="the golden values of the published program are not here")


def golden_parts(values, t: int) -> FrameParts:
    """Frame t with the pose of the frame before, as the published program reads it."""
    pose = max(t - 1, 0)
    return FrameParts(
        frame_index=t,
        rgb=values[f"in_{t}_rgb"],
        labels=values[f"in_{t}_seg"],
        matte=values[f"in_{t}_matting"],
        landmarks=values["in_pipnet"][t],
        jaw_px=values[f"in_{t}_kpt68_px"],
        rotation=values[f"in_{pose}_mica_R"][0],
        translation=values[f"in_{pose}_mica_t"][0],
        k=values[f"in_{pose}_mica_K"][0],
    )


@golden
@pytest.mark.parametrize("mode", ["estimated", "provided"])
@pytest.mark.parametrize("t", [0, 2])
def test_every_array_is_that_of_the_published_program(mode, t):
    """Source: prepare_data.npz, made by running the published prepare_data at downsample 0.5 (its README says how)."""
    values = np.load(GOLDEN)
    given = GivenIntrinsics(*map(float, values["in_kinect_cx_cy_fx_fy"])) if mode == "provided" else None
    found = prepare(golden_parts(values, t), given, 0.5)
    expected = {
        name.removeprefix(f"out_{mode}_{t}_"): values[name] for name in values.files if f"out_{mode}_{t}_" in name
    }
    size = int(expected["height"]), int(expected["width"])
    assert tuple(found.labels.shape) == size
    np.testing.assert_array_equal(found.labels.numpy().reshape(-1), expected["segmentation_mask"])
    np.testing.assert_array_equal(found.inner_mouth.numpy().reshape(-1), expected["mouth_interior_mask"])
    np.testing.assert_array_equal(found.landmarks_px.numpy(), expected["landmarks_2d"])
    np.testing.assert_allclose(found.rgb.numpy().reshape(-1, 3), expected["rgb"], rtol=0, atol=6.2e-8)
    np.testing.assert_allclose(found.direction.numpy().reshape(-1, 3), expected["view_dir"], rtol=0, atol=6.2e-8)
    np.testing.assert_allclose(found.origin.numpy(), expected["cam_pos"], rtol=0, atol=1.7e-7)
    np.testing.assert_allclose(found.w2c.numpy(), expected["w2c"], rtol=0, atol=1.7e-7)
    np.testing.assert_allclose(found.k.numpy(), expected["intrinsics"], rtol=0, atol=1.5e-6)


def test_rays_of_the_prepared_picture_meet_the_projection_of_their_own_points():
    """u = -fx x/z + cx undoes the ray of pixel i at i * W / (W - 1), or at i + 1/2 when that is mended."""
    k = np.array([[300.0, 0, 50], [0, 310, 40], [0, 0, 1]])
    for quirks, where in ((PUBLISHED, 30 * 101 / 100), (REPAIRED, 30.5)):
        x, y, z = ray_directions(k, np.eye(3), (101, 81), quirks)[20, 30]
        assert z < 0
        assert -k[0, 0] * x / z + k[0, 2] == pytest.approx(where)
        assert k[1, 1] * y / z + k[1, 2] == pytest.approx(20 * 81 / 80 if quirks is PUBLISHED else 20.5)


def test_the_square_around_a_face_never_leaves_the_picture():
    """A face at the border must not be cropped from negative rows."""
    for x, y in ((100, 90), (10, 90), (195, 90), (100, 3)):
        left, top, side = face_square(np.full((98, 2), (x, y), float), 200, 180)
        assert min(left, top) >= 0
        assert left + side <= 200 and top + side <= 180


def test_glasses_survive_only_where_the_mask_is_mended():
    """Switch 17: without a pixel outside of the parsed square the largest label is a thing, not the outside."""
    labels = np.array([[0, 2, 15, 14, 1, 3]], np.uint8)
    matte = np.full(labels.shape, 255, np.uint8)
    assert masked(labels, matte, PUBLISHED)[0].tolist() == [[0, 2, 0, 14, 1, 0]]
    assert masked(labels, matte, REPAIRED)[0].tolist() == [[0, 2, 15, 14, 1, 0]]
    outside = np.array([[20, 15, 2]], np.uint8)
    assert masked(outside, matte[:, :3], PUBLISHED)[0].tolist() == [[0, 15, 2]]
    assert masked(labels, np.zeros_like(matte), REPAIRED)[0].max() == 0


def test_the_landmark_map_keeps_the_order_of_both_conventions():
    """68 different points of 98; chin, nose, eye and mouth corners by their numbers in both conventions."""
    assert len(FROM_WFLW) == len(set(FROM_WFLW)) == 68
    assert [FROM_WFLW[i] for i in (0, 8, 16, 27, 36, 45, 48, 54)] == [0, 16, 32, 51, 60, 72, 76, 82]


def test_a_point_on_a_ray_is_seen_in_its_pixel():
    """World, camera and picture agree: origin + s * direction, through w2c and K, is the pixel it came from."""
    random = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(random.normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    parts = FrameParts(
        0, random.integers(0, 256, (60, 80, 3), np.uint8), np.full((60, 80), 2, np.uint8),
        np.full((60, 80), 255, np.uint8), random.random((98, 2)), None, rotation, np.array([0.1, 0.0, 0.9]),
        np.array([[90.0, 0, 41], [0, 92, 30], [0, 0, 1]]),
    )  # fmt: skip
    found = prepare(parts, None, 0.5, REPAIRED)
    x = found.w2c[:3, :3] @ (found.origin + 3.0 * found.direction[12, 33].double()) + found.w2c[:3, 3]
    u, v = -found.k[0, 0] * x[0] / x[2] + found.k[0, 2], found.k[1, 1] * x[1] / x[2] + found.k[1, 2]
    torch.testing.assert_close(torch.stack([u, v]), torch.tensor([33.5, 12.5], dtype=u.dtype), rtol=0, atol=1e-4)
