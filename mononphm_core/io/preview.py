"""Pictures for a quick judgement: input, the shaded mesh over it, the shaded mesh alone; below, where its colours are
wrong, the mesh in its colours, and the mesh turning.

The panes show the part of the picture where the head is during the whole clip, so that eyes and mouth are large enough
to see whether the mesh's lie on them. Nothing of the input's metadata is copied.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import av
import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy.ndimage import binary_erosion
from scipy.spatial.transform import Rotation

from mononphm_core.io.atomic import atomic_path
from mononphm_core.meshing.clean import vertex_normals
from mononphm_core.meshing.device_raster import draw
from mononphm_core.meshing.raster import Raster
from mononphm_core.meshing.shade import as_heat, in_light, shade
from mononphm_core.types import MM_PER_UNIT, Frame, HeadMesh, Intrinsics, TrackedSequence

PANE_PX = 512
"""Longest side of a pane."""
LARGEST_ZOOM = 4.0
THUMBNAIL_PX = 320
HEAD_BOX_MIN, HEAD_BOX_MAX = np.array([-0.42, -0.55, -0.62]), np.array([0.42, 0.62, 0.45])
"""Posed head units: what the panes keep in view."""
VIEW_MARGIN = 0.06
"""Added on each side, of the view's size."""
BACKGROUND = np.array([0.16, 0.17, 0.19])
MESH_OPACITY = 0.62
"""Of the shaded mesh in the overlay: the face stays visible below, the creases above."""
OVERLAY_TINT = np.array([0.66, 0.86, 1.0])
"""A cool clay, told apart from skin at once."""
OUTLINE = np.array([0.15, 0.85, 1.0])
WORST = 0.25
"""Of the whole range of colours: an error that the heat map shows as its brightest."""
LEAST_ERROR = 1e-6
"""Mean squared: no figure above 60 dB, which eight bits a channel could not tell."""
ONCE_AROUND_S = 6.0
"""How long the turning head takes."""
STILL_TURN_DEG = 40.0
"""The turned head of a picture that does not move."""
SLOWEST_REAL_GAP_S = 0.25
"""With more time than this between frames the preview is played at `SLIDE_FPS` instead of in real time."""
SLIDE_FPS = 8
TIME_BASE = Fraction(1, 90_000)


@dataclass(frozen=True)
class View:
    """The part of the upright original that the panes show, and their size."""

    left: float
    top: float
    width: float
    height: float
    """Original pixels."""
    pane_width: int
    pane_height: int
    """Even, as H.264 with half-size colour planes demands."""

    def camera(self, intrinsics: Intrinsics) -> Intrinsics:
        """`intrinsics` of the upright original as those of a pane."""
        zoom_x, zoom_y = self.pane_width / self.width, self.pane_height / self.height
        return replace(
            intrinsics,
            fx=intrinsics.fx * zoom_x,
            fy=intrinsics.fy * zoom_y,
            cx=(intrinsics.cx - self.left) * zoom_x,
            cy=(intrinsics.cy - self.top) * zoom_y,
            width=self.pane_width,
            height=self.pane_height,
        )

    def cut(
        self, rgb: UInt8[np.ndarray, "rows columns 3"], intrinsics: Intrinsics
    ) -> Float[np.ndarray, "height width 3"]:
        """The pane's part of a picture (which may be a reduced copy of the original), in [0, 1]."""
        reduce_x, reduce_y = rgb.shape[1] / intrinsics.width, rgb.shape[0] / intrinsics.height
        step_x = self.width * reduce_x / self.pane_width
        step_y = self.height * reduce_y / self.pane_height
        if max(step_x, step_y) > 1.5:  # the warp below samples points: blur first, or fine patterns alias
            rgb = cv2.GaussianBlur(rgb, (0, 0), 0.4 * max(step_x, step_y))
        # pane pixel centre u + .5 lies at left + (u + .5) * step in the picture, whose own centres are at .5 too
        map_back = np.array(
            [
                [step_x, 0.0, self.left * reduce_x + 0.5 * step_x - 0.5],
                [0.0, step_y, self.top * reduce_y + 0.5 * step_y - 0.5],
            ]
        )
        pane = cv2.warpAffine(
            rgb,
            map_back,
            (self.pane_width, self.pane_height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return pane.astype(np.float64) / 255.0


def view_of(sequence: TrackedSequence, w2c: Float[np.ndarray, "frames 4 4"]) -> View:
    """The smallest part of the picture that holds the head's box in every frame; all of it when no box is in view.

    `w2c` is in millimetres, as in cameras.json.
    """
    camera = sequence.intrinsics
    size = np.array([camera.width, camera.height], np.float64)
    corners = np.stack(np.meshgrid(*zip(HEAD_BOX_MIN, HEAD_BOX_MAX, strict=True), indexing="ij"), axis=-1).reshape(
        -1, 3
    )
    rotation = sequence.poses.rotation.detach().cpu().numpy().astype(np.float64)
    translation = sequence.poses.translation.detach().cpu().numpy().astype(np.float64)
    x_world = (corners - translation[:, None]) @ rotation / float(sequence.poses.scale) * MM_PER_UNIT
    x_camera = x_world @ w2c[:, :3, :3].transpose(0, 2, 1) + w2c[:, None, :3, 3]
    front = x_camera[x_camera[..., 2] > 1.0]
    low, high = np.zeros(2), size
    if len(front):
        pixels = front[:, :2] / front[:, 2:] * [camera.fx, camera.fy] + [camera.cx, camera.cy]
        margin = VIEW_MARGIN * np.ptp(pixels, axis=0)
        low, high = np.maximum(pixels.min(0) - margin, 0.0), np.minimum(pixels.max(0) + margin, size)
        if (high - low).min() < 16.0:
            low, high = np.zeros(2), size
    extent = high - low
    zoom = min(PANE_PX / extent.max(), LARGEST_ZOOM)
    pane = np.maximum(np.floor(extent * zoom / 2).astype(int) * 2, 16)
    return View(low[0], low[1], extent[0], extent[1], int(pane[0]), int(pane[1]))


@dataclass(frozen=True)
class Panes:
    """The pictures of one frame, all of the view's size, each drawn when it is asked for."""

    input: Float[np.ndarray, "height width 3"]
    """The view's part of the frame, in [0, 1]."""
    mesh: HeadMesh | None
    """In the camera's frame, millimetres."""
    camera: Intrinsics
    """Of a pane."""
    light: Float[np.ndarray, "9 3"] | None = None
    turn_deg: float = 0.0
    """How far the head of `turned` has gone about its vertical axis."""

    @property
    def picture(self) -> UInt8[np.ndarray, "height width 3"]:
        return _bytes(self.input)

    @property
    def overlay(self) -> UInt8[np.ndarray, "height width 3"]:
        """The shaded mesh over the picture; the plain picture where there is no mesh."""
        if self.mesh is None:
            return self.picture
        seen, surface = self._raster.covered[..., None], self._surface
        overlay = np.where(seen, self.input + MESH_OPACITY * (surface * OVERLAY_TINT - self.input), self.input)
        return _bytes(np.where(_outline(self._raster)[..., None], OUTLINE, overlay))

    @property
    def shaded(self) -> UInt8[np.ndarray, "height width 3"]:
        return self._grounded(None if self.mesh is None else self._surface)

    @property
    def coloured(self) -> UInt8[np.ndarray, "height width 3"]:
        """The mesh in its own colours; clay where it has none."""
        if self.mesh is None or self.mesh.colours is None:
            return self.shaded
        return self._grounded(shade(self._raster, self._normals, self.mesh.faces, self.mesh.colours / 255.0))

    @property
    def error(self) -> UInt8[np.ndarray, "height width 3"]:
        """How far the mesh's colours in the clip's light are from the picture: dark blue as they should, yellow from
        `WORST` of the whole range on. Around it the picture, dimmed."""
        dim = 0.35 * self.input
        if self._lit is None:
            return _bytes(dim)
        wrong = np.abs(self._lit - self.input).mean(-1) / WORST
        return _bytes(np.where(self._raster.covered[..., None], as_heat(wrong), dim))

    @property
    def psnr_db(self) -> float | None:
        """The same as one figure, over the pixels that the mesh covers: 10 log10(1 / mean squared error)."""
        if self._lit is None or not self._raster.covered.any():
            return None
        wrong = (self._lit - self.input)[self._raster.covered]
        return float(-10 * np.log10(max(float(np.square(wrong).mean()), LEAST_ERROR)))

    @property
    def turned(self) -> UInt8[np.ndarray, "height width 3"]:
        """The mesh from elsewhere: turned about its own middle by `turn_deg`."""
        if self.mesh is None or not len(self.mesh.vertices):
            return self._grounded(None)
        turn = Rotation.from_euler("y", self.turn_deg, degrees=True).as_matrix()
        middle = (self.mesh.vertices.min(0) + self.mesh.vertices.max(0)) / 2
        mesh = replace(self.mesh, vertices=(self.mesh.vertices - middle) @ turn.T + middle)
        raster = draw(mesh.vertices, mesh.faces, self.camera)
        surface = shade(raster, self._normals @ turn.T, mesh.faces)
        return _bytes(np.where(raster.covered[..., None], surface, BACKGROUND))

    def grid(self) -> UInt8[np.ndarray, "rows columns 3"]:
        """Input, overlay and mesh; below them the error, the mesh in its colours, and from elsewhere."""
        above = np.concatenate([self.picture, self.overlay, self.shaded], axis=1)
        return np.concatenate([above, np.concatenate([self.error, self.coloured, self.turned], axis=1)])

    def _grounded(self, surface: Float[np.ndarray, "height width 3"] | None) -> UInt8[np.ndarray, "height width 3"]:
        if surface is None:
            return _bytes(np.broadcast_to(BACKGROUND, self.input.shape))
        return _bytes(np.where(self._raster.covered[..., None], surface, BACKGROUND))

    @cached_property
    def _raster(self) -> Raster:
        assert self.mesh is not None
        return draw(self.mesh.vertices, self.mesh.faces, self.camera)

    @cached_property
    def _normals(self) -> Float[np.ndarray, "vertices 3"]:
        assert self.mesh is not None
        return vertex_normals(self.mesh)

    @cached_property
    def _lit(self) -> Float[np.ndarray, "height width 3"] | None:
        """The mesh's colours in the clip's light; None where one of the two is not known."""
        if self.mesh is None or self.mesh.colours is None or self.light is None or not self.light.any():
            return None
        return in_light(self._raster, self._normals, self.mesh.faces, self.mesh.colours / 255.0, self.light)

    @cached_property
    def _surface(self) -> Float[np.ndarray, "height width 3"]:
        assert self.mesh is not None
        return shade(self._raster, self._normals, self.mesh.faces)


def paint(
    frame: Frame,
    mesh: HeadMesh | None,
    intrinsics: Intrinsics,
    w2c: Float[np.ndarray, "4 4"],
    view: View,
    light: Float[np.ndarray, "9 3"] | None = None,
    turn_deg: float = 0.0,
) -> Panes:
    """The panes of one frame; `mesh` is in world millimetres, `light` as `TrackedSequence.light`."""
    if mesh is not None:
        mesh = replace(mesh, vertices=mesh.vertices.astype(np.float64) @ w2c[:3, :3].T + w2c[:3, 3])
    return Panes(view.cut(frame.rgb, intrinsics), mesh, view.camera(intrinsics), light, turn_deg)


def _outline(raster: Raster) -> Bool[np.ndarray, "height width"]:
    """The covered pixels that touch an uncovered one."""
    return raster.covered & ~binary_erosion(raster.covered, np.ones((3, 3)), border_value=1)


def _bytes(picture: Float[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "height width 3"]:
    return np.rint(np.clip(picture, 0.0, 1.0) * 255.0).astype(np.uint8)


def write_png(path: Path, picture: UInt8[np.ndarray, "height width 3"]) -> None:
    with atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")


def write_thumbnail(path: Path, picture: UInt8[np.ndarray, "height width 3"]) -> None:
    """A JPEG of at most `THUMBNAIL_PX` on its longest side."""
    image = Image.fromarray(picture)
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    with atomic_path(path) as temporary:
        image.save(temporary, format="JPEG", quality=88)


class PreviewVideo:
    """An H.264 film under construction: `add` pictures of one even size in time order."""

    def __init__(self, container: Any, real_time: bool) -> None:
        self._container, self._real_time = container, real_time
        self._stream: Any = None
        self._first_s = 0.0
        self._pts: list[int] = []
        self._last: UInt8[np.ndarray, "height width 3"] | None = None

    def add(self, picture: UInt8[np.ndarray, "height width 3"], timestamp_s: float) -> None:
        """Show `picture` from `timestamp_s` of the input on (or as the next slide)."""
        if self._stream is None:
            self._open(picture.shape[1], picture.shape[0])
            self._first_s = timestamp_s
        seconds = timestamp_s - self._first_s if self._real_time else len(self._pts) / SLIDE_FPS
        earliest = self._pts[-1] + 1 if self._pts else 0
        self._encode(picture, max(round(seconds / TIME_BASE), earliest))

    def finish(self) -> None:
        """Flush. A film of one picture shows it for a second."""
        if self._stream is None or self._last is None:
            return
        if len(self._pts) == 1:
            self._encode(self._last, self._pts[0] + round(1 / TIME_BASE))
        self._container.mux(self._stream.encode(None))

    def _open(self, width: int, height: int) -> None:
        self._stream = self._container.add_stream(
            "libx264", rate=30, options={"preset": "veryfast", "crf": "20", "g": "12"}
        )
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        context = self._stream.codec_context
        context.time_base = TIME_BASE
        context.thread_count = 1  # on two, the encoder now and then decides otherwise: other bytes
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = 1, 1, 1, 1  # BT.709, TV

    def _encode(self, picture: UInt8[np.ndarray, "height width 3"], pts: int) -> None:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
        frame.pts, frame.time_base = pts, TIME_BASE
        self._container.mux(self._stream.encode(frame))
        self._pts.append(pts)
        self._last = picture


@contextmanager
def preview_video(path: Path, timestamps_s: tuple[float, ...]) -> Iterator[PreviewVideo]:
    """A film that takes the name `path` when it is complete: H.264, yuv420p, index first: browsers start at once.

    It plays in real time (presentation times of the input) unless the frames of `timestamps_s` lie far apart.
    """
    with film(path, plays_in_real_time(timestamps_s)) as video:
        yield video


def plays_in_real_time(timestamps_s: tuple[float, ...]) -> bool:
    """Whether pictures with these times are shown with them, or as slides."""
    gaps = np.diff(timestamps_s)
    return bool(len(gaps) and np.median(gaps) <= SLOWEST_REAL_GAP_S)


@contextmanager
def film(path: Path, real_time: bool) -> Iterator[PreviewVideo]:
    """The same, said outright."""
    with _mp4(path) as container:
        video = PreviewVideo(container, real_time)
        yield video
        video.finish()


@contextmanager
def _mp4(path: Path) -> Iterator[Any]:
    """A container to write into, which lies at `path` when it is complete."""
    with atomic_path(path) as temporary:
        options = {"movflags": "+faststart", "fflags": "+bitexact"}
        with cast(Any, av.open(str(temporary), "w", format="mp4", options=options)) as container:
            yield container


def join_films(path: Path, films: Sequence[tuple[Path, float]], real_time: bool) -> None:
    """One film of several of this kind and size, each with the second at which it begins; nothing is encoded anew.

    Slides follow each other at their own pace. Each film begins with a picture that needs none before it.
    """
    with _mp4(path) as container:
        stream: Any = None
        last, shown = -(1 << 62), 0
        for source, begins_s in films:
            with cast(Any, av.open(str(source))) as piece:
                given = piece.streams.video[0]
                if stream is None:
                    stream = container.add_stream_from_template(given)
                    stream.time_base = TIME_BASE
                    first_s = begins_s
                offset_s = begins_s - first_s if real_time else shown / SLIDE_FPS
                offset = round(offset_s / TIME_BASE)
                for packet in piece.demux(given):
                    if packet.size == 0:
                        continue
                    packet.pts = offset + round(packet.pts * given.time_base / TIME_BASE)
                    packet.dts = max(offset + round(packet.dts * given.time_base / TIME_BASE), last + 1)
                    last, shown = packet.dts, shown + 1
                    packet.time_base, packet.stream = TIME_BASE, stream
                    container.mux(packet)
