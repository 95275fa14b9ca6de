"""The chosen person in every frame where the face can be measured."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mononphm_core.errors import NoFaceFound
from mononphm_core.preprocessing.appearance import portrait
from mononphm_core.preprocessing.boxes import Box
from mononphm_core.preprocessing.finder import Finder
from mononphm_core.preprocessing.following import Sighting, choose_track, tracks_of
from mononphm_core.preprocessing.head_pose import QuickPose, quick_pose
from mononphm_core.preprocessing.pictures import Pictures
from mononphm_core.types import Intrinsics

_PLAUSIBLE_ERROR = 0.08
"""Median reprojection error over face height above which points are no face (faces: 0.01 to 0.03)."""
_LONGEST_GAP_S = 0.5

Reference = Float[np.ndarray, "478 3"]
Points = Float[np.ndarray, "478 2"]


@dataclass(frozen=True)
class SeenFace:
    """The followed face in one frame."""

    at: int
    """Position in the clip's selected frames."""
    points: Points
    """Pixels of that picture."""
    pose: QuickPose


def follow_person(
    finder: Finder, pictures: Pictures, rule: str, reference: Reference, tick: Callable[[], None]
) -> tuple[list[SeenFace], list[str]]:
    """Find all faces, keep the plausible, link them, choose one person, close short gaps; and warnings for the user.

    Raises NoFaceFound, and ConfigError for a rule that does not fit. Calls `tick` once a frame.
    """
    camera = pictures.intrinsics
    rows = []
    for at in range(len(pictures.frames)):
        rows.append(_plausible_faces(finder, pictures, at, reference, camera))
        tick()
    if not any(rows):
        raise NoFaceFound(_no_face(len(rows)))
    track, warning = choose_track(tracks_of(rows), rule, camera.width, camera.height)
    found = {sighting.at: sighting.face.points for sighting in track.sightings}
    found |= _found_in_gaps(finder, pictures, track.sightings)
    found = {at: finder.steady(pictures.load(at), points) for at, points in found.items()}
    poses = {at: plausible_pose(points, reference, camera) for at, points in sorted(found.items())}
    faces = [SeenFace(at, found[at], pose) for at, pose in poses.items() if pose is not None]
    return faces, [warning] if warning else []


def plausible_pose(points: Points, reference: Reference, camera: Intrinsics) -> QuickPose | None:
    """The head pose, if the points look like a head at all."""
    pose = quick_pose(points, reference, camera)
    return pose if pose is not None and pose.error < _PLAUSIBLE_ERROR else None


def _plausible_faces(
    finder: Finder, pictures: Pictures, at: int, reference: Reference, camera: Intrinsics
) -> list[Sighting]:
    rgb, time_s = pictures.load(at), pictures.frames[at].timestamp_s
    return [
        Sighting(at, time_s, face, portrait(rgb, face.points))
        for face in finder.faces(rgb)
        if plausible_pose(face.points, reference, camera) is not None
    ]


def _found_in_gaps(finder: Finder, pictures: Pictures, sightings: list[Sighting]) -> dict[int, Points]:
    """Points in short gaps of the track, looked for where the face should be and believed only there."""
    found = {}
    for before, after in zip(sightings, sightings[1:], strict=False):
        if after.time_s - before.time_s > _LONGEST_GAP_S:
            continue
        for at in range(before.at + 1, after.at):
            box = before.face.box.between(after.face.box, (at - before.at) / (after.at - before.at))
            points = finder.mesh_near(pictures.load(at), box)
            if points is not None and Box.around(points).iou(box) > 0.4:
                found[at] = points
    return found


def _no_face(frames: int) -> str:
    looked = "the picture" if frames == 1 else f"any of the {frames} frames looked at"
    return (
        f"No face was found in {looked}, in any of four orientations. Send a clip in which one face is clearly "
        "visible, at least about 60 pixels high and not turned away."
    )
