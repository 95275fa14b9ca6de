"""The preview pictures: what lies where, and that films play."""

from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from PIL import Image

from mononphm_core.io.preview import (
    BACKGROUND,
    View,
    film,
    join_films,
    paint,
    preview_video,
    view_of,
    write_thumbnail,
)
from mononphm_core.meshing.clean import vertex_normals
from mononphm_core.meshing.raster import rasterise
from mononphm_core.meshing.shade import as_heat, in_light
from mononphm_core.rendering.light import lit
from mononphm_core.types import Frame
from tests.core.io.delivery import CAMERA, DISTANCE_MM, RADIUS_MM, ball, pictures, tracked


def test_the_overlay_covers_exactly_the_silhouette():
    """A ball seen by a pinhole camera: pixels of its outline are changed, the rest of the picture is the input's."""
    frame, sequence = pictures((0,))[0], tracked((0,))
    view = View(0.0, 0.0, 320.0, 240.0, 320, 240)
    panes = paint(frame, ball(), sequence.intrinsics, np.eye(4), view)
    x, y = np.meshgrid(np.arange(320) + 0.5 - CAMERA.cx, np.arange(240) + 0.5 - CAMERA.cy)
    angle = np.arctan(np.hypot(x, y) / CAMERA.fx)
    edge = np.arcsin(RADIUS_MM / DISTANCE_MM)
    inside, outside = angle < edge - 0.001, angle > edge + 0.0002  # facets cut off up to 0.3 mm of 700
    assert np.array_equal(panes.picture, frame.rgb)
    assert np.array_equal(panes.overlay[outside], frame.rgb[outside])
    assert (panes.overlay[inside] != frame.rgb[inside]).any(axis=-1).all()
    assert np.abs(panes.shaded[outside] - BACKGROUND * 255).max() <= 0.5
    red = (frame.rgb[..., 0] == 200) & inside
    grey = (frame.rgb[..., 0] == 90) & inside & (angle < 0.05)
    assert panes.overlay[red][:, 0].mean() > panes.overlay[grey][:, 0].mean() + 20  # the picture shines through


def test_a_pane_shows_the_part_of_the_picture_that_its_camera_sees():
    """Cutting the picture and cutting the camera must be one and the same: else the mesh sits beside the face.

    A bright dot is painted where a known point projects; in the pane it must appear where the pane's camera says.
    """
    point = np.array([30.0, -20.0, 700.0])
    u, v = CAMERA.fx * point[:2] / point[2] + [CAMERA.cx, CAMERA.cy]
    yy, xx = np.mgrid[:240, :320] + 0.5
    dot = np.exp(-((xx - u) ** 2 + (yy - v) ** 2) / (2 * 3.0**2))
    for reduce in (1, 2):  # the decoder may have halved the picture; cameras stay those of the original
        small = dot.reshape(240 // reduce, reduce, 320 // reduce, reduce).mean((1, 3))
        rgb = np.repeat(np.rint(small * 255).astype(np.uint8)[..., None], 3, axis=-1)
        for view in (
            View(0.0, 0.0, 320.0, 240.0, 640, 480),
            View(100.5, 60.25, 130.0, 91.0, 390, 272),
            View(0.0, 0.0, 320.0, 240.0, 80, 60),
        ):
            camera = view.camera(CAMERA)
            expected = np.array([camera.fx, camera.fy]) * point[:2] / point[2] + [camera.cx, camera.cy]
            pane = view.cut(rgb, CAMERA)[..., 0]
            py, px = np.mgrid[: pane.shape[0], : pane.shape[1]] + 0.5
            found = np.array([(px * pane).sum(), (py * pane).sum()]) / pane.sum()
            assert np.abs(found - expected).max() < 0.15 * max(view.pane_width / view.width, 1)


def test_the_view_holds_the_head_in_every_frame_and_little_else():
    """A small head in a large picture is enlarged; one that moves stays inside."""
    sequence = tracked(tuple(range(12)))
    view = view_of(sequence, np.broadcast_to(np.eye(4), (12, 4, 4)))
    assert max(view.pane_width, view.pane_height) == 512
    assert view.pane_width % 2 == view.pane_height % 2 == 0
    for index in (0, 11):  # the ball of 100 mm lies within the head's box
        centre = CAMERA.fx * 4.0 * index / DISTANCE_MM + CAMERA.cx
        reach = CAMERA.fx * RADIUS_MM / DISTANCE_MM
        assert view.left <= centre - reach and centre + reach <= view.left + view.width
    assert view.width * view.height < 0.95 * 320 * 240


def test_a_head_out_of_view_falls_back_to_the_whole_picture():
    """Tracking may go wrong: the preview then shows it instead of failing."""
    away = np.eye(4)
    away[2, 3] = -5000.0  # behind the camera
    assert view_of(tracked((0,)), away[None]).width == 320
    away[:3, 3] = [90_000.0, 0.0, 0.0]  # far beside the picture
    assert view_of(tracked((0,)), away[None]).height == 240


def encode(path, timestamps, colour=(200, 40, 90)):
    with preview_video(path, tuple(timestamps)) as film:
        for k, seconds in enumerate(timestamps):
            picture = np.full((64, 96, 3), colour, np.uint8)
            picture[:, : 4 * k] = 255 - picture[:, : 4 * k]
            film.add(picture, seconds)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        return stream.codec_context, [float(f.time) for f in frames], [f.to_ndarray(format="rgb24") for f in frames]


def test_the_film_plays_everywhere_and_in_the_inputs_time(tmp_path):
    """H.264, 4:2:0, the index before the pictures, and each picture at its own time, also at uneven steps."""
    times = [1.0, 1.04, 1.1, 1.16, 1.3]
    codec, shown, images = encode(tmp_path / "preview.mp4", times)
    assert codec.name == "h264" and codec.pix_fmt == "yuv420p"
    assert shown == pytest.approx([t - 1.0 for t in times], abs=2e-4)
    data = (tmp_path / "preview.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")
    assert np.abs(images[0].astype(int) - [200, 40, 90]).mean() < 6  # colours survive: matrix and range are told
    assert [p.name for p in tmp_path.iterdir()] == ["preview.mp4"]


def test_frames_that_lie_far_apart_become_slides(tmp_path):
    """24 frames of a minute would be a minute of stills: eight a second instead."""
    _, shown, _ = encode(tmp_path / "preview.mp4", [0.0, 2.5, 5.0, 7.5])
    assert shown == pytest.approx([0.0, 0.125, 0.25, 0.375], abs=2e-4)


def test_a_film_of_one_picture_lasts_a_second(tmp_path):
    _, shown, _ = encode(tmp_path / "preview.mp4", [3.0])
    assert shown == pytest.approx([0.0, 1.0])


def test_a_film_that_breaks_off_leaves_no_file(tmp_path):
    """A cancelled job raises in the middle."""

    def break_off() -> None:
        with preview_video(tmp_path / "preview.mp4", (0.0, 0.1)) as film:
            film.add(np.zeros((64, 64, 3), np.uint8), 0.0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert list(tmp_path.iterdir()) == []


def test_a_thumbnail_is_small_and_says_nothing_but_pixels(tmp_path):
    write_thumbnail(tmp_path / "thumbnail.jpg", np.full((512, 400, 3), 128, np.uint8))
    with Image.open(tmp_path / "thumbnail.jpg") as image:
        assert image.size == (250, 320)
        assert dict(image.getexif()) == {}
        assert np.abs(np.asarray(image).astype(int) - 128).max() <= 2


def test_a_frame_without_a_head_is_shown_as_it_is():
    frame = pictures((0,))[0]
    panes = paint(frame, None, CAMERA, np.eye(4), View(0.0, 0.0, 320.0, 240.0, 320, 240))
    assert np.array_equal(panes.overlay, frame.rgb)
    assert panes.grid().shape == (480, 960, 3)
    assert isinstance(frame, Frame)


def test_the_error_pane_is_dark_where_colours_are_right_and_bright_where_they_are_wrong():
    """A ball painted into the picture in its own colours and light, half of it too dark: the halves tell apart."""
    sequence, mesh = tracked((0,)), ball()
    colours = np.full((len(mesh.vertices), 3), 160, np.uint8)
    light = np.zeros((9, 3))
    light[0], light[2] = 0.8, -0.3
    view = View(0.0, 0.0, 320.0, 240.0, 320, 240)
    coloured = replace(mesh, colours=colours)
    blank = Frame(np.zeros((240, 320, 3), np.uint8), 0, 0.0)
    bare = paint(blank, coloured, sequence.intrinsics, np.eye(4), view, light)
    normals = vertex_normals(replace(mesh, vertices=mesh.vertices.astype(np.float64)))
    raster = rasterise(mesh.vertices.astype(np.float64), mesh.faces, CAMERA)
    seen = in_light(raster, normals, mesh.faces, colours / 255.0, light)
    normal = raster.interpolate(normals, mesh.faces)[raster.covered]
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    slow = lit(torch.full(normal.shape, 2 * 160 / 255 - 1), torch.tensor(normal), torch.tensor(light))
    np.testing.assert_allclose(seen[raster.covered], slow, atol=1e-6)
    painted = np.where(raster.covered[..., None], 255 * seen, 0)
    painted[:, :160] *= 0.5
    panes = paint(Frame(painted.round().astype(np.uint8), 0, 0.0), coloured, CAMERA, np.eye(4), view, light)
    left, right = (panes.error[side][raster.covered[side]].mean(0) for side in (np.s_[:, :150], np.s_[:, 170:]))
    np.testing.assert_allclose(right, as_heat(np.zeros(1))[0] * 255, atol=3)  # one byte of the picture
    assert left[1] > right[1] + 100
    assert np.array_equal(bare.coloured.shape, bare.error.shape)
    true = np.where(raster.covered[..., None], seen, 0)[raster.covered]
    aside = panes.input[raster.covered]
    assert panes.psnr_db == pytest.approx(-10 * np.log10(np.square(aside - true).mean()), abs=0.05)  # bytes
    whole = Frame(np.rint(np.where(raster.covered[..., None], 255 * seen, 0)).astype(np.uint8), 0, 0.0)
    assert paint(whole, coloured, CAMERA, np.eye(4), view, light).psnr_db > 50  # bytes again
    bare_mesh = replace(mesh, colours=None)
    assert paint(whole, bare_mesh, CAMERA, np.eye(4), view, light).psnr_db is None


def test_the_turned_head_is_the_mesh_from_elsewhere():
    """A ball with a bump at its right: after a quarter turn the outline has lost it, after a whole one it is back."""
    mesh = ball()
    bump = mesh.vertices.copy()
    bump[:, 0] = np.where(bump[:, 0] > 0.8 * RADIUS_MM, 1.5 * bump[:, 0], bump[:, 0])
    view = View(0.0, 0.0, 320.0, 240.0, 320, 240)
    covered = {}
    for turn in (0.0, 90.0, 360.0):
        panes = paint(pictures((0,))[0], replace(mesh, vertices=bump), CAMERA, np.eye(4), view, None, turn)
        covered[turn] = (np.abs(panes.turned - BACKGROUND * 255).max(-1) > 1).sum()
        assert np.array_equal(panes.turned, panes.shaded) or turn == 90.0
    assert covered[90.0] < covered[0.0] == covered[360.0]


def test_films_of_stretches_become_the_film_of_the_whole(tmp_path):
    """No picture is lost, shown twice or at another time, although each stretch was encoded for itself."""
    times = [k / 25 for k in range(50)]
    pieces = []
    for first, last in ((0, 17), (17, 34), (34, 50)):
        path = tmp_path / f"{first}.mp4"
        with film(path, True) as video:
            for k in range(first, last):
                video.add(np.full((64, 96, 3), 4 * k + 20, np.uint8), times[k])
        pieces.append((path, times[first]))
    join_films(tmp_path / "whole.mp4", pieces, True)
    with av.open(str(tmp_path / "whole.mp4")) as container:
        shown = [(float(frame.time), frame.to_ndarray(format="rgb24").mean()) for frame in container.decode(video=0)]
    assert [time for time, _ in shown] == pytest.approx(times, abs=1e-4)
    assert [grey for _, grey in shown] == pytest.approx([4 * k + 20 for k in range(50)], abs=2.5)
