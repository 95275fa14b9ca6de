"""A clip becomes observations: the road of this package on one screen."""

import numpy as np
from jaxtyping import Float

from mononphm_core.config import CameraChoice, PreprocessingConfig
from mononphm_core.preprocessing.boxes import Box
from mononphm_core.preprocessing.camera import camera_of, turned
from mononphm_core.preprocessing.describe import describe
from mononphm_core.preprocessing.finder import Finder
from mononphm_core.preprocessing.following import KnownPlace
from mononphm_core.preprocessing.person import SeenFace, follow_person
from mononphm_core.preprocessing.pictures import Pictures
from mononphm_core.preprocessing.upright import quarter_turns
from mononphm_core.preprocessing.zoom import ZoomMeter
from mononphm_core.types import Clip, ObservedClip, OnStep, Stage, StepReport, ignore_steps


def observe(
    clip: Clip,
    camera: CameraChoice,
    config: PreprocessingConfig,
    reference_points: Float[np.ndarray, "478 3"],
    on_step: OnStep = ignore_steps,
) -> ObservedClip:
    """Follow one face through the clip and describe it in every frame.

    `reference_points` are the mean head's face-mesh points in posed head units: used for yaw, visibility and to
    refuse implausible points, not for the answer itself. If the pixels had to be turned upright, all results
    (intrinsics too) are those of the turned picture; `turned_deg` and a warning say so. Raises NoFaceFound, and
    ConfigError for a camera or face rule that does not fit the clip. `on_step` hears `Stage.PREPROCESSING`.
    """
    original, source, uncertainty = camera_of(clip.info, camera, config.default_fov_deg)
    pictures, report = Pictures(clip, original), _Reporter(len(clip.frames), on_step)
    with Finder() as finder:
        turned_deg = config.turned_deg
        pictures.turns = quarter_turns(finder, pictures) if turned_deg is None else turned_deg // 90
        rule = known_place(pictures, config) or config.face
        faces, warnings = follow_person(finder, pictures, rule, reference_points, report.searched)
        observations = describe(finder, pictures, faces, config, reference_points, report.described)
        zoomed = _zoomed(pictures, faces)
    if pictures.turns:
        warnings.append(f"The pictures are not upright; they were turned by {90 * pictures.turns} degrees.")
    if zoomed:
        warnings.append(zoomed)
    used = {observation.frame_index for observation in observations}
    missed = tuple(frame.frame_index for frame in clip.frames if frame.frame_index not in used)
    if missed:
        warnings.append(f"In {len(missed)} of {len(clip.frames)} frames no usable face was found; they are left out.")
    return ObservedClip(
        observations=observations,
        intrinsics=turned(original, pictures.turns),
        camera_source=source,
        focal_uncertainty=uncertainty,
        missed_frames=missed,
        warnings=tuple(warnings),
        turned_deg=90 * pictures.turns,
    )


def known_place(pictures: Pictures, config: PreprocessingConfig) -> KnownPlace | None:
    """Where the person is known to be, in pixels of the pictures as they are looked at; None: nobody said."""
    if not config.known:
        return None
    shrink = 1 / pictures.to_original
    return KnownPlace(tuple((time_s, x * shrink, y * shrink) for time_s, x, y in config.known))


_ZOOM = 0.06
"""Growth of the background from which on a clip is called zoomed: a turn of the camera makes up to 3 %."""


def _zoomed(pictures: Pictures, faces: list[SeenFace]) -> str | None:
    """A warning, if the background changes its scale."""
    meter = ZoomMeter()
    for face in faces:
        meter.look(pictures.load(face.at), Box.around(face.points).numbers())
    if meter.range < _ZOOM:
        return None
    return (
        f"The background's scale changes by {100 * meter.range:.0f} %: the lens zooms, or the camera moves towards the "
        "scene. One focal length is assumed for the clip; cut it where it does not change."
    )


class _Reporter:
    """Steps of the two passes over the frames: 2 a frame."""

    def __init__(self, frames: int, on_step: OnStep) -> None:
        self._frames, self._on_step = frames, on_step
        self._searched = self._described = 0

    def searched(self) -> None:
        self._searched += 1
        self._tell("looking for the face")

    def described(self) -> None:
        self._described += 1
        self._tell("measuring the face")

    def _tell(self, message: str) -> None:
        done = self._searched + self._described
        self._on_step(StepReport(Stage.PREPROCESSING, done, 2 * self._frames, self._described, self._frames, message))
