"""The face library behind one small door: boxes, 478 points and a person mask from pictures.

MediaPipe 0.10 brings its models inside the package (Apache-2.0) and needs neither network nor account. Its two face
detectors fail in different places: the full-range one misses some large clear faces, the short-range one inside
FaceMesh never sees small ones. Here both are asked, and FaceMesh always gets a crop of about twice the face, so a
small face is measured on its own pixels at full resolution.
"""

import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from mononphm_core.preprocessing.boxes import Box
from mononphm_core.preprocessing.denormals import ordinary_denormals
from mononphm_core.preprocessing.quiet import quiet_stderr, without_plotting

N_POINTS = 478
_DETECT_SIDE = 640
_MESH_SIDE = 384
_MESH_MARGIN = 2.0
_MIN_SCORE = 0.5
_STILL_THERE = 0.5
"""Overlap with its last box from which on a face is believed to be the same without asking the detector."""
_LOOKS = ((1.8, 0.0, 0.0), (2.2, 0.03, 0.0), (2.0, -0.03, 0.03), (2.0, 0.0, -0.03))
"""Windows of `Finder.steady`: side in faces, shift in sides. Noise of a point on two synthetic clips: 0.48 and 0.72 mm
from one window, 0.33 and 0.49 mm from the mean of four; of the whole face 0.25 and 0.32, then 0.17 and 0.20."""


@dataclass(frozen=True)
class Face:
    """One face in one picture."""

    points: Float[np.ndarray, "478 2"]
    """(x, y), pixels of that picture, centres at .5."""
    score: float
    """Of the detector, 0..1; 0.5 where only FaceMesh saw it."""

    @property
    def box(self) -> Box:
        return Box.around(self.points)

    @property
    def roll_deg(self) -> float:
        """Direction from the right eye's outer corner to the left one's: 0 upright, positive clockwise on screen."""
        x, y = self.points[263] - self.points[33]
        return float(np.degrees(np.arctan2(y, x)))


class Finder:
    """Holds the models between `with` and its end. Not for two threads at once."""

    thorough: bool = False
    """Search overlapping tiles too: finds faces of 3 % of the picture, at ten times the cost."""

    def __enter__(self) -> "Finder":
        with quiet_stderr(), ordinary_denormals():
            with without_plotting():
                from mediapipe.python.solutions import face_detection, face_mesh, selfie_segmentation

            self._detector = face_detection.FaceDetection(model_selection=1, min_detection_confidence=_MIN_SCORE)
            self._mesh = face_mesh.FaceMesh(static_image_mode=True, max_num_faces=3, refine_landmarks=True)
            self._talkative = True
            self._person = selfie_segmentation.SelfieSegmentation(model_selection=0)
            blank = np.zeros((64, 64, 3), dtype=np.uint8)
            for model in (self._detector, self._mesh, self._person):
                model.process(blank)  # the first call is where the runtime talks
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with quiet_stderr():
            for model in (self._detector, self._mesh, self._person):
                model.close()

    def detect(self, rgb: UInt8[np.ndarray, "h w 3"]) -> list[tuple[Box, float]]:
        """Full-range detections (box from brows to chin, score), strongest first."""
        found = self._detect(rgb)
        if self.thorough and not found:
            for left, top, side in _tiles(rgb.shape[1], rgb.shape[0]):
                tile = rgb[top : top + side, left : left + side]
                found += [(box.moved(left, top), score) for box, score in self._detect(tile)]
        return sorted(found, key=lambda pair: -pair[1])

    def _detect(self, rgb: UInt8[np.ndarray, "h w 3"]) -> list[tuple[Box, float]]:
        small, scale = _reduced(rgb, _DETECT_SIDE)
        height, width = small.shape[:2]
        found = []
        for detection in _run(self._detector, small).detections or ():
            area = detection.location_data.relative_bounding_box
            box = Box(area.xmin * width, area.ymin * height, area.width * width, area.height * height)
            if box.width > 4 and box.height > 4:
                found.append((box.scaled(1.0 / scale), float(detection.score[0])))
        return found

    def meshes(self, rgb: UInt8[np.ndarray, "h w 3"]) -> list[Float[np.ndarray, "478 2"]]:
        """FaceMesh on a whole picture; phantoms possible, so compare with a box before believing."""
        height, width = rgb.shape[:2]
        return [points * np.array([width, height]) for points in self._mesh_points(_reduced(rgb, _DETECT_SIDE)[0])]

    def mesh_near(self, rgb: UInt8[np.ndarray, "h w 3"], box: Box) -> Float[np.ndarray, "478 2"] | None:
        """FaceMesh on the full-resolution surroundings of `box`; None unless what it finds lies on the box."""
        side = max(round(max(box.width, box.height) * _MESH_MARGIN), 32)
        left, top = round(box.centre[0] - side / 2), round(box.centre[1] - side / 2)
        window = cut(rgb, left, top, side)
        best, best_overlap = None, 0.25
        for points in self._mesh_points(_reduced(window, _MESH_SIDE)[0]):
            placed = points * side + np.array([left, top])
            overlap = Box.around(placed).iou(box)
            if overlap > best_overlap:
                best, best_overlap = placed, overlap
        return best

    def faces(self, rgb: UInt8[np.ndarray, "h w 3"]) -> list[Face]:
        """All faces of a picture: every detection confirmed by points; where there is none, FaceMesh's own."""
        found = []
        for box, score in self.detect(rgb):
            points = self.mesh_near(rgb, box)
            if points is not None:
                found.append(Face(points, score))
        for points in self.meshes(rgb) if not found else ():
            again = self.mesh_near(rgb, Box.around(points))
            if again is not None:
                found.append(Face(again, _MIN_SCORE))
        return _distinct(found)

    def again(self, rgb: UInt8[np.ndarray, "h w 3"], before: Sequence[Face]) -> list[Face] | None:
        """The faces of the picture just before, without asking the detectors; None if one of them is not there."""
        found = []
        for face in before:
            points = self.mesh_near(rgb, face.box)
            if points is None or Box.around(points).iou(face.box) < _STILL_THERE:
                return None
            found.append(Face(points, face.score))
        return found if len(_distinct(found)) == len(found) else None

    def steady(
        self, rgb: UInt8[np.ndarray, "h w 3"], points: Float[np.ndarray, "478 2"], looks: int = len(_LOOKS)
    ) -> Float[np.ndarray, "478 2"]:
        """The mean of `points` and of FaceMesh on upright windows around them, each a little moved and scaled.

        FaceMesh answers a shift of its window by half a millimetre with other points: that noise is independent from
        window to window, and from frame to frame: fewer `looks` do where neighbours in time are averaged too. Windows
        whose points lie elsewhere are not counted.
        """
        found = [points]
        for margin, right, down in _LOOKS[:looks]:
            window, back = upright_window(rgb, points, margin, right, down)
            for seen in self._mesh_points(window):
                placed = back(seen * _MESH_SIDE)
                if Box.around(placed).iou(Box.around(points)) > 0.75:
                    found.append(placed)
        mean: Float[np.ndarray, "478 2"] = np.mean(found, axis=0)
        return mean

    def person(self, rgb: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w"]:
        """Probability that a pixel belongs to a person; soft at the outline."""
        mask: Any = _run(self._person, rgb).segmentation_mask
        return np.asarray(mask, dtype=np.float32)

    def _mesh_points(self, rgb: UInt8[np.ndarray, "h w 3"]) -> list[Float[np.ndarray, "478 2"]]:
        """Points as shares of the picture's width and height, so that resizing it first costs no accuracy."""
        with quiet_stderr() if self._talkative else nullcontext():
            faces = _run(self._mesh, rgb).multi_face_landmarks or ()
        self._talkative = self._talkative and not faces  # it also talks about the first face it ever sees
        return [np.array([(point.x, point.y) for point in face.landmark], dtype=np.float64) for face in faces]


def upright_window(
    rgb: UInt8[np.ndarray, "h w 3"], points: Float[np.ndarray, "478 2"], margin: float, right: float, down: float
) -> tuple[UInt8[np.ndarray, "side side 3"], Callable[[Float[np.ndarray, "n 2"]], Float[np.ndarray, "n 2"]]]:
    """A square of `margin` faces with level eyes, moved by shares of its side; and the way back to the picture."""
    x, y = points[263] - points[33]
    box = Box.around(points)
    side = max(box.width, box.height) * margin
    centre = np.array(box.centre) + np.array([right, down]) * side
    turn = np.arctan2(y, x)
    scale = _MESH_SIDE / side
    a = scale * np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    shift = _MESH_SIDE / 2 - a @ centre  # pixel centres at .5; OpenCV counts them from 0
    matrix = np.concatenate([a, (shift + a @ (0.5, 0.5) - 0.5)[:, None]], 1)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    window = np.asarray(cv2.warpAffine(rgb, matrix, (_MESH_SIDE, _MESH_SIDE), flags=how), dtype=np.uint8)
    inverse = np.linalg.inv(a)
    return window, lambda placed: (placed - shift) @ inverse.T


def cut(rgb: UInt8[np.ndarray, "h w 3"], left: int, top: int, side: int) -> UInt8[np.ndarray, "side side 3"]:
    """The square window at (left, top); black where it reaches over the border."""
    height, width = rgb.shape[:2]
    window = np.zeros((side, side, 3), dtype=np.uint8)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    if x1 > x0 and y1 > y0:
        window[y0 - top : y1 - top, x0 - left : x1 - left] = rgb[y0:y1, x0:x1]
    return window


def _run(model: Any, rgb: UInt8[np.ndarray, "h w 3"]) -> Any:
    with warnings.catch_warnings(), ordinary_denormals():
        warnings.simplefilter("ignore")  # protobuf deprecations inside mediapipe
        return model.process(np.ascontiguousarray(rgb))


def _reduced(rgb: UInt8[np.ndarray, "h w 3"], side: int) -> tuple[UInt8[np.ndarray, "h2 w2 3"], float]:
    """The picture with no side above `side`, by area; and the factor (the larger side decides it exactly)."""
    height, width = rgb.shape[:2]
    scale = side / max(height, width)
    if scale >= 1.0:
        return rgb, 1.0
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), dtype=np.uint8), scale


def _tiles(width: int, height: int) -> list[tuple[int, int, int]]:
    """(left, top, side) of squares of a half and a third of the longer side, overlapping by half."""
    squares = []
    for parts in (2, 3):
        side = -(-max(width, height) // parts)
        for top in range(0, max(height - side // 2, 1), max(side // 2, 1)):
            squares += [(left, top, side) for left in range(0, max(width - side // 2, 1), max(side // 2, 1))]
    return squares


def _distinct(faces: list[Face]) -> list[Face]:
    """Of faces that share most of their box, the strongest."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda f: -f.score):
        if all(face.box.iou(other.box) < 0.4 for other in kept):
            kept.append(face)
    return kept
