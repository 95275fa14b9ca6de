"""Cameras, windows, alignment and visibility: everything that has a closed form."""

import dataclasses
import math

import cv2
import numpy as np
import pytest

from mononphm_core.config import CameraChoice
from mononphm_core.errors import ConfigError
from mononphm_core.preprocessing import bias
from mononphm_core.preprocessing.boxes import Box
from mononphm_core.preprocessing.camera import Undistorter, camera_of, reduced, turned
from mononphm_core.preprocessing.colours import chromaticity
from mononphm_core.preprocessing.crops import Window, smoothed, windows
from mononphm_core.preprocessing.finder import upright_window
from mononphm_core.preprocessing.head_pose import QuickPose, quick_pose
from mononphm_core.preprocessing.landmarks import (
    IBUG68,
    aligned,
    face_mesh_triangles,
    facing,
    filtered,
    normals_of,
    steadiness,
)
from mononphm_core.preprocessing.outlines import polygon
from mononphm_core.types import CameraSource, FrameQuality, Intrinsics, MediaInfo


def info(width: int = 640, height: int = 480, **more: object) -> MediaInfo:
    return MediaInfo("video/mp4", True, width, height, 1, None, None, 0, **more)  # type: ignore[arg-type]


def test_a_horizontal_field_of_view_reaches_the_left_border() -> None:
    """The ray through x = 0 leaves at half the angle: the definition."""
    k, source, uncertainty = camera_of(info(), CameraChoice(fov_deg=70.0), 40.0)
    assert math.degrees(math.atan2(k.cx, k.fx)) == pytest.approx(35.0)
    assert (k.fx, k.cx, k.cy) == (k.fy, 320.0, 240.0)
    assert (source, uncertainty) == (CameraSource.GIVEN, 0.0)


def test_a_35mm_focal_length_is_relative_to_the_diagonal() -> None:
    """A full-frame camera (36 x 24) with f = 50 mm and 100 pixels per millimetre has f = 5000 pixels."""
    k, source, _ = camera_of(info(3600, 2400, focal_35mm=50.0), CameraChoice(), 40.0)
    assert k.fx == pytest.approx(5000.0, rel=1e-4)
    assert source is CameraSource.EXIF


def test_a_guess_says_that_it_is_one_and_does_not_depend_on_orientation() -> None:
    """Portrait and landscape of the same phone have the same focal length."""
    wide, source, uncertainty = camera_of(info(1280, 720), CameraChoice(), 40.0)
    tall, _, _ = camera_of(info(720, 1280), CameraChoice(), 40.0)
    assert wide.fx == tall.fx
    assert source is CameraSource.ESTIMATED
    assert uncertainty == pytest.approx(0.3)


def test_stretched_pixels_stretch_the_camera() -> None:
    """A pixel twice as wide as high needs half the focal length in x."""
    k, _, _ = camera_of(info(pixel_aspect=2.0), CameraChoice(), 40.0)
    assert k.fx == pytest.approx(k.fy / 2)


@pytest.mark.parametrize(
    "choice",
    [CameraChoice(fov_deg=0.0), CameraChoice(fov_deg=180.0), CameraChoice(fx=3.0), CameraChoice(fx=600.0, cx=9e4)],
)
def test_an_impossible_camera_is_refused(choice: CameraChoice) -> None:
    """Silently using it would give a silently wrong head."""
    with pytest.raises(ConfigError):
        camera_of(info(), choice, 40.0)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turning_the_picture_and_the_camera_together_moves_a_pixel_as_numpy_does(turns: int) -> None:
    """The camera of the turned picture must see the same ray at the turned pixel."""
    k = Intrinsics(500.0, 520.0, 300.0, 250.0, 640, 480)
    marked = np.zeros((480, 640), dtype=np.uint8)
    marked[100, 200] = 1
    y, x = np.argwhere(np.rot90(marked, turns))[0]
    ray = np.array([(200.5 - k.cx) / k.fx, (100.5 - k.cy) / k.fy])
    t = turned(k, turns)
    seen = np.array([(x + 0.5 - t.cx) / t.fx, (y + 0.5 - t.cy) / t.fy])
    angle = -math.radians(90 * turns)  # counter-clockwise on a screen whose y points down
    spin = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    assert seen == pytest.approx(spin @ ray)


def test_undistorting_brings_a_pixel_where_the_pinhole_sees_it() -> None:
    """Forward Brown-Conrady (k1, k2, p1, p2, k3) written out here is the oracle for the inverse map."""
    k = Intrinsics(300.0, 310.0, 160.0, 118.0, 320, 240, (-0.2, 0.05, 0.001, -0.002, 0.0))
    x, y = 0.3, -0.2
    k1, k2, p1, p2, k3 = k.distortion
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    xd = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    yd = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    image = np.zeros((240, 320, 3), dtype=np.uint8)
    cv2.circle(
        image, (round((k.fx * xd + k.cx - 0.5) * 16), round((k.fy * yd + k.cy - 0.5) * 16)), 48, (255,) * 3, -1, shift=4
    )
    flat = Undistorter(k).picture(image)[..., 0].astype(float)
    rows, columns = np.mgrid[:240, :320] + 0.5
    centre = np.array([(flat * columns).sum(), (flat * rows).sum()]) / flat.sum()
    assert centre == pytest.approx([k.fx * x + k.cx, k.fy * y + k.cy], abs=0.3)  # the disc itself is distorted
    pincushion = Intrinsics(300.0, 310.0, 160.0, 118.0, 320, 240, (0.2, 0.0, 0.0, 0.0, 0.0))
    assert Undistorter(k).seen(320, 240).all()
    assert not Undistorter(pincushion).seen(320, 240)[0, 0]


def test_a_window_maps_points_as_it_maps_pixels() -> None:
    """A bright pixel's centre of mass in the crop must be where `to_crop` says, reduced or enlarged."""
    for side in (64, 200, 37):
        image = np.zeros((300, 300, 3), dtype=np.uint8)
        image[140:144, 150:156] = 255  # centre (153, 142)
        window = Window(130, 125, side, 64)
        crop = window.crop(image)[..., 0].astype(float)
        rows, columns = np.mgrid[:64, :64] + 0.5
        centre = np.array([(crop * columns).sum(), (crop * rows).sum()]) / crop.sum()
        assert centre == pytest.approx(window.to_crop(np.array([[153.0, 142.0]]))[0], abs=0.05)  # 8-bit rounding


def test_a_window_over_the_border_is_black_and_invalid_there() -> None:
    """Nothing may be learned from pixels that the camera never saw."""
    window = Window(-32, -32, 64, 64)
    white = np.full((100, 100, 3), 255, dtype=np.uint8)
    valid = window.valid(np.ones((100, 100), dtype=bool))
    assert valid.sum() == 32 * 32
    assert valid[32:, 32:].all()
    assert (window.crop(white)[~valid] == 0).all()


def test_all_windows_of_a_clip_have_one_scale() -> None:
    """Sizes must stay comparable between frames."""
    boxes = [Box(10.0 * i, 20.0, 80.0 + i, 100.0 + i) for i in range(20)]
    found = windows(boxes, [i / 25 for i in range(20)], 1.9, 128)
    assert len({w.side for w in found}) == 1
    for box, window in zip(boxes, found, strict=True):
        inside = window.to_crop(np.array([[box.left, box.top], [box.left + box.width, box.top + box.height]]))
        assert (inside > 0).all()
        assert (inside < 128).all()


def test_smoothing_has_no_lag_and_leaves_distant_frames_alone() -> None:
    """A steady motion stays as it is away from the ends; frames a second apart do not mix."""
    line = np.stack([np.arange(100.0), np.arange(100.0)], axis=1)
    assert smoothed(line, np.arange(100) / 25)[20:80] == pytest.approx(line[20:80], abs=1e-6)
    assert smoothed(line, np.arange(100.0)) == pytest.approx(line, abs=1e-6)


def test_reducing_keeps_the_rays() -> None:
    """The border of the picture stays the border."""
    k = Intrinsics(500.0, 500.0, 320.0, 240.0, 640, 480)
    half = reduced(k, 320, 240)
    assert (half.fx, half.cx, half.cy) == (250.0, 160.0, 120.0)


def test_quick_pose_finds_the_pose_that_made_the_points(reference: np.ndarray) -> None:
    """Exact projections of a known pose: yaw to the subject's left is positive, and nothing is left over."""
    k = Intrinsics(900.0, 900.0, 320.0, 240.0, 640, 480)
    for yaw in (-40.0, 0.0, 25.0):
        a = math.radians(yaw)
        turn = np.array([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
        rotation, shift = np.diag([1.0, -1.0, -1.0]) @ turn, np.array([0.1, -0.05, 3.0])
        seen = reference @ rotation.T + shift
        pose = quick_pose((seen[:, :2] / seen[:, 2:]) * 900.0 + (320.0, 240.0), reference, k)
        assert pose is not None
        assert pose.rotation == pytest.approx(rotation, abs=1e-4)
        assert pose.translation == pytest.approx(shift, abs=1e-3)
        assert pose.yaw_deg == pytest.approx(yaw, abs=0.05)
        assert pose.error < 1e-4
        assert pose.upright


def test_the_face_mesh_is_a_disc_of_triangles_facing_out(reference: np.ndarray) -> None:
    """Every one of the 468 skin points is in a triangle, and on a frontal face the nose tip looks ahead."""
    triangles = face_mesh_triangles()
    assert set(triangles.ravel()) == set(range(468))
    normals = normals_of(reference)
    assert np.linalg.norm(normals, axis=1) == pytest.approx(np.ones(478), abs=1e-6)
    assert normals[[1, 9, 50, 280, 199], 2].min() > 0.4  # nose tip, forehead, cheeks, chin
    assert normals[234, 0] < -0.3 < 0.3 < normals[454, 0]  # the two sides of the face


def test_turning_the_head_costs_confidence_on_the_far_side(reference: np.ndarray) -> None:
    """Towards the subject's left the subject's left cheek goes out of sight, the right one does not."""
    a = math.radians(60.0)
    turn = np.array([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
    far = facing(QuickPose(np.diag([1.0, -1.0, -1.0]) @ turn, np.array([0.0, 0.0, 4.0]), 0.0), reference)
    near = facing(QuickPose(np.diag([1.0, -1.0, -1.0]), np.array([0.0, 0.0, 4.0]), 0.0), reference)
    assert far[454] < 0.05
    assert far[234] > near[234]
    assert near[1] > 0.95


def test_ibug68_is_mirror_symmetric(reference: np.ndarray) -> None:
    """Swapping left and right in iBUG must be swapping left and right on the face."""
    mirror = [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46]
    mirror += [39, 38, 37, 36, 41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
    points = reference[IBUG68]
    assert len(set(IBUG68)) == 68
    assert (
        np.abs(points[mirror] * (-1, 1, 1) - points).max() < 0.06
    )  # one real, slightly asymmetric face; units of 250 mm


def test_alignment_undoes_any_similarity() -> None:
    """Closed form: rotate, scale and move, then come back."""
    points = np.random.default_rng(0).normal(size=(50, 2))
    c, s = 1.7 * math.cos(0.8), 1.7 * math.sin(0.8)
    assert aligned(points @ np.array([[c, -s], [s, c]]) + (3.0, -7.0), points) == pytest.approx(points)


def test_a_point_that_jumps_for_one_frame_loses_confidence_and_its_neighbours_keep_it() -> None:
    """Head motion as a whole costs nothing; only the point that leaves the face does."""
    rng = np.random.default_rng(0)
    face = rng.uniform(0, 100, (478, 2))
    track = [face + np.array([4.0 * i, 2.0 * i]) for i in range(5)]
    track[2] = track[2].copy()
    track[2][7] += (15.0, 0.0)
    steady = steadiness(track, [i / 25 for i in range(5)])
    assert steady[2][7] < 0.1
    assert np.delete(steady[2], 7).min() > 0.95
    assert (steadiness(track, [float(i) for i in range(5)])[2] == 1.0).all()


def test_a_polygon_covers_its_area() -> None:
    """Pixel centres at .5: a rectangle from 10 to 30 covers twenty pixels, not twenty-one."""
    mask = polygon(np.array([[10.0, 40.0], [30.0, 40.0], [30.0, 70.0], [10.0, 70.0]]), (100, 100))
    assert mask.sum() == 20 * 30
    assert mask[40:70, 10:30].all()
    circle = 40.0 * np.stack([np.cos(np.linspace(0, 2 * np.pi, 200)), np.sin(np.linspace(0, 2 * np.pi, 200))], axis=1)
    assert polygon(circle + 50.3, (100, 100)).sum() == pytest.approx(np.pi * 40**2, rel=0.01)


def test_the_way_back_from_an_upright_window_finds_the_same_dot() -> None:
    """A dot of the tilted picture, looked up in the window and taken back, is where it was: no half pixel is lost."""
    y, x = np.mgrid[:240, :320] + 0.5
    dot = np.array([170.3, 118.6])
    picture = np.exp(-((x - dot[0]) ** 2 + (y - dot[1]) ** 2) / (2 * 3.0**2))
    rgb = np.repeat(np.rint(255 * picture)[..., None], 3, axis=2).astype(np.uint8)
    points = np.full((478, 2), (160.0, 120.0))
    points[33], points[263], points[152] = (130.0, 100.0), (186.0, 118.0), (140.0, 170.0)
    for margin, right, down in ((1.8, 0.0, 0.0), (2.2, 0.03, -0.02)):
        window, back = upright_window(rgb, points, margin, right, down)
        weight = window[..., 0].astype(float)
        rows, columns = np.mgrid[: weight.shape[0], : weight.shape[1]] + 0.5
        centre = np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()
        np.testing.assert_allclose(back(centre[None])[0], dot, atol=0.1)
    eyes = back(np.array([[0.0, 0.0], [1.0, 0.0]]))
    assert np.cross(eyes[1] - eyes[0], points[263] - points[33]) == pytest.approx(0.0, abs=1e-6)  # eyes are level


def test_the_filter_in_time_has_no_lag_and_keeps_a_blink() -> None:
    """A parabola is kept exactly, at any times; white noise falls by a third; a blink stays deep."""
    times = np.cumsum(np.random.default_rng(3).uniform(0.02, 0.05, 40))
    trust = [np.ones(478)] * len(times)
    motion = np.stack([3 + 40 * times - 9 * times**2, 5 - 20 * times], 1)
    track = [np.repeat(row[None], 478, axis=0) for row in motion]
    assert np.stack(filtered(track, times.tolist(), trust)) == pytest.approx(np.stack(track), abs=1e-9)
    noise = np.random.default_rng(0).normal(size=(40, 478, 2))
    calm = np.stack(filtered([a + b for a, b in zip(track, noise, strict=True)], times.tolist(), trust))[6:-6]
    assert (calm - np.stack(track)[6:-6]).std() < 0.75
    even = (np.arange(40) / 30).tolist()
    blink = [np.full((478, 2), np.exp(-(((t - even[20]) / 0.06) ** 2))) for t in even]
    assert filtered(blink, even, trust)[20][0, 0] > 0.8


def test_the_filter_leaves_distant_pictures_as_they_were_detected() -> None:
    """Pictures half a second apart say nothing of each other's jitter."""
    track = list(np.random.default_rng(0).normal(size=(9, 478, 2)))
    same = filtered(track, [0.5 * i for i in range(9)], [np.ones(478)] * 9)
    assert all(np.array_equal(a, b) for a, b in zip(same, track, strict=True))


def test_a_frame_carries_identity_as_far_as_it_is_sharp_lit_and_seen() -> None:
    """Each share alone lowers the weight; nothing raises it above 1 or takes it to 0."""
    good = FrameQuality(1.0, 0.0, 200.0, 1.0)
    assert good.weight == 1.0
    for worse in ({"sharpness": 0.1}, {"exposure": 0.3}, {"visible": 0.2}):
        assert 0.1 <= dataclasses.replace(good, **worse).weight < 0.5
    assert dataclasses.replace(good, sharpness=0.0).weight == pytest.approx(0.1)


def test_the_colour_of_light_survives_shade() -> None:
    """The same paint in full light and at a quarter of it: equal chromaticity, very different lightness."""
    paint = np.full((20, 40, 3), 0.0)
    paint[:] = (0.8, 0.5, 0.4)
    paint[:, 20:] *= 0.25 ** (1 / 2.2)
    found = chromaticity((paint * 255).round().astype(np.uint8))
    assert found[10, 5] == pytest.approx(found[10, 35], abs=0.05)


def test_taking_out_the_bias_commutes_with_moving_the_picture(reference: np.ndarray) -> None:
    """What the detector errs by is a property of the face, not of where it stands or how large it is."""
    points = reference[:, :2] * (300.0, -300.0) + (256.0, 256.0)
    turn = 1.7 * np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    moved = bias.bundled().corrected(points @ turn.T + (40.0, -12.0))
    assert moved == pytest.approx(bias.bundled().corrected(points) @ turn.T + (40.0, -12.0), abs=1e-8)


def test_the_bias_moves_the_nose_and_leaves_what_it_cannot_know(reference: np.ndarray) -> None:
    """A few hundredths of the face's height at most; nothing at eyes, mouth and brows, where it was worth nothing."""
    points = reference[:, :2] * (300.0, -300.0) + (256.0, 256.0)
    shift = np.linalg.norm(bias.bundled().corrected(points) - points, axis=1) / np.ptp(points[:, 1])
    assert shift[[33, 263, 13, 61, 105, 334]].max() == 0.0
    assert 0.001 < shift[[4, 195, 197]].mean() < 0.06
    assert shift.max() < 0.12


def test_a_table_that_knows_the_offset_takes_it_out() -> None:
    """Closed form: detected = true + linear function of the shape; the table that says so gives the truth back."""
    rng = np.random.default_rng(0)
    mean = rng.normal(size=(478, 2))
    mean = (mean - mean.mean(axis=0)) / np.ptp(mean[:, 1])
    table = np.zeros((6, 956))
    table[0] = 0.01 * rng.normal(size=956)
    known = bias.Bias(mean, np.eye(2, 956), np.ones(2), table, np.ones(478))
    assert known.corrected(mean) == pytest.approx(mean + table[0].reshape(478, 2), abs=1e-12)
