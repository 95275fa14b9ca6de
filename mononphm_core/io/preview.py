"""Pictures for a quick judgement: input, the shaded mesh over it, the shaded mesh alone, side by side.

The panes show the part of the picture where the head is during the whole clip, so that eyes and mouth are large enough
to see whether the mesh's lie on them. Nothing of the input's metadata is copied.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy.ndimage import binary_erosion

from mononphm_core.io.atomic import atomic_path
from mononphm_core.meshing.clean import vertex_normals
from mononphm_core.meshing.raster import Raster, rasterise
from mononphm_core.meshing.shade import shade
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
    """The three pictures of one frame, all of the view's size."""

    picture: UInt8[np.ndarray, "height width 3"]
    overlay: UInt8[np.ndarray, "height width 3"]
    shaded: UInt8[np.ndarray, "height width 3"]

    def side_by_side(self) -> UInt8[np.ndarray, "height columns 3"]:
        return np.concatenate([self.picture, self.overlay, self.shaded], axis=1)


def paint(
    frame: Frame, mesh: HeadMesh | None, intrinsics: Intrinsics, w2c: Float[np.ndarray, "4 4"], view: View
) -> Panes:
    """The panes of one frame; `mesh` is in world millimetres. Without a mesh the overlay is the plain picture."""
    picture = view.cut(frame.rgb, intrinsics)
    overlay, shaded = picture, np.broadcast_to(BACKGROUND, picture.shape)
    if mesh is not None:
        x_camera = mesh.vertices.astype(np.float64) @ w2c[:3, :3].T + w2c[:3, 3]
        raster = rasterise(x_camera, mesh.faces, view.camera(intrinsics))
        surface = shade(raster, vertex_normals(replace(mesh, vertices=x_camera)), mesh.faces)
        seen = raster.covered[..., None]
        shaded = np.where(seen, surface, BACKGROUND)
        overlay = np.where(seen, picture + MESH_OPACITY * (surface * OVERLAY_TINT - picture), picture)
        overlay = np.where(_outline(raster)[..., None], OUTLINE, overlay)
    return Panes(_bytes(picture), _bytes(overlay), _bytes(shaded))


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
        self._stream = self._container.add_stream("libx264", rate=30, options={"preset": "veryfast", "crf": "20"})
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
    gaps = np.diff(timestamps_s)
    real_time = bool(len(gaps) and np.median(gaps) <= SLOWEST_REAL_GAP_S)
    with atomic_path(path) as temporary:
        options = {"movflags": "+faststart", "fflags": "+bitexact"}
        with cast(Any, av.open(str(temporary), "w", format="mp4", options=options)) as container:
            video = PreviewVideo(container, real_time)
            yield video
            video.finish()
