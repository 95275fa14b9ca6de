"""The chosen person in every frame where the face can be measured."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mononphm_core.errors import NoFaceFound
from mononphm_core.preprocessing.appearance import portrait
from mononphm_core.preprocessing.boxes import Box
from mononphm_core.preprocessing.finder import Face, Finder
from mononphm_core.preprocessing.following import KnownPlace, Sighting, choose_track, tracks_of
from mononphm_core.preprocessing.head_pose import QuickPose, quick_pose
from mononphm_core.preprocessing.pictures import Pictures
from mononphm_core.types import Intrinsics

_PLAUSIBLE_ERROR = 0.08
"""Median reprojection error over face height above which points are no face (faces: 0.01 to 0.03)."""
_LONGEST_GAP_S = 0.5
_NEIGHBOUR_S = 0.12
_SEARCH_EVERY = 6
"""Pictures after which the detectors are asked again although no face was lost: somebody may have come in."""
_FEW_LOOKS, _ALL_LOOKS = 2, 4

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
    finder: Finder, pictures: Pictures, rule: str | KnownPlace, reference: Reference, tick: Callable[[], None]
) -> tuple[list[SeenFace], list[str]]:
    """Find all faces, keep the plausible, link them, choose one person, close short gaps; and warnings for the user.

    Raises NoFaceFound, and ConfigError for a rule that does not fit. Calls `tick` once a frame.
    """
    camera = pictures.intrinsics
    rows: list[list[Sighting]] = []
    for at in range(len(pictures.frames)):
        known = rows[-1] if rows and at % _SEARCH_EVERY and _near_in_time(pictures, at) else []
        rows.append(_plausible_faces(finder, pictures, at, reference, camera, [one.face for one in known]))
        tick()
    if not any(rows):
        raise NoFaceFound(_no_face(len(rows)))
    track, warning = choose_track(tracks_of(rows), rule, camera.width, camera.height)
    found = {sighting.at: sighting.face.points for sighting in track.sightings}
    found |= _found_in_gaps(finder, pictures, track.sightings)
    found = {
        at: finder.steady(pictures.load(at), points, _FEW_LOOKS if _averaged(pictures, at) else _ALL_LOOKS)
        for at, points in found.items()
    }
    poses = {at: plausible_pose(points, reference, camera) for at, points in sorted(found.items())}
    faces = [SeenFace(at, found[at], pose) for at, pose in poses.items() if pose is not None]
    return faces, [warning] if warning else []


def plausible_pose(points: Points, reference: Reference, camera: Intrinsics) -> QuickPose | None:
    """The head pose, if the points look like a head at all."""
    pose = quick_pose(points, reference, camera)
    return pose if pose is not None and pose.error < _PLAUSIBLE_ERROR else None


def _plausible_faces(
    finder: Finder, pictures: Pictures, at: int, reference: Reference, camera: Intrinsics, known: list[Face]
) -> list[Sighting]:
    """Faces of one picture; those of the one before are only looked for where they were, unless one is lost there."""
    rgb, time_s = pictures.load(at), pictures.frames[at].timestamp_s
    again = finder.again(rgb, known) if known else None
    return [
        Sighting(at, time_s, face, portrait(rgb, face.points))
        for face in (finder.faces(rgb) if again is None else again)
        if plausible_pose(face.points, reference, camera) is not None
    ]


def _near_in_time(pictures: Pictures, at: int) -> bool:
    """The picture before is so near that a face can hardly have moved."""
    return pictures.frames[at].timestamp_s - pictures.frames[at - 1].timestamp_s <= _NEIGHBOUR_S


def _averaged(pictures: Pictures, at: int) -> bool:
    """The filter in time will average this picture's points with those of two neighbours on either side."""
    last = len(pictures.frames) - 1
    if not 2 <= at <= last - 2:
        return False
    times = [pictures.frames[at + step].timestamp_s for step in (-2, 2)]
    return times[1] - times[0] <= 2 * _NEIGHBOUR_S


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
