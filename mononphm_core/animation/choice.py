"""Which pictures of a clip give the head its colours, and the head in each of them."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from mononphm_core.animation.photo import Photo
from mononphm_core.types import Frame, FrameQuality, MorphHead, Observation, ObservedClip, TrackedSequence

APART_DEG = 15.0
"""A second and a third picture are taken where the head is turned at least so much further to one side."""
SIDE_DEG = 40.0
"""The turn that shows a side best."""
STRAIN_DEG, BLUR_DEG = 4.0, 20.0
"""What a whole unit of expression, and complete blur, count for beside a turn."""
LIPS_SHARE = 0.01
"""Of the crop: how far around the mouth's inside nothing is taken."""


def photos_of(
    head: MorphHead, tracked: TrackedSequence, observed: ObservedClip, pictures: Sequence[Frame]
) -> tuple[list[Photo], Photo | None]:
    """The frames that show the head best: one from in front and, where there are such, one from each side; and one
    that is kept aside to measure them by.

    `pictures` as decoded; they are turned upright here.
    """
    seen = {observation.frame_index: observation for observation in observed.observations}
    shown = {frame.frame_index: frame.rgb for frame in pictures}
    rows = [row for row, index in enumerate(tracked.frame_index) if index in seen and index in shown]
    quality = {row: seen[tracked.frame_index[row]].quality for row in rows}
    turns = observed.turned_deg // 90

    def photo(row: int) -> Photo:
        index = tracked.frame_index[row]
        return _photo(head, tracked, row, np.ascontiguousarray(np.rot90(shown[index], turns)), seen[index])

    chosen = best_rows(tracked, quality)
    aside = held_out_row(tracked, quality, chosen)
    return [photo(row) for row in chosen], None if aside is None else photo(aside)


def held_out_row(tracked: TrackedSequence, quality: dict[int, FrameQuality], chosen: list[int]) -> int | None:
    """The hardest honest question: of the accepted frames that were not chosen, the one turned farthest from those."""
    rest = [row for row in quality if row not in chosen and tracked.fits[row].accepted]

    def away(row: int) -> float:
        return min(abs(quality[row].yaw_deg - quality[other].yaw_deg) for other in chosen)

    return max(rest, key=away, default=None)


def best_rows(tracked: TrackedSequence, quality: dict[int, FrameQuality]) -> list[int]:
    """Of the rows in `quality`, at most three. Accepted ones, if there are any; little expression, little blur."""
    rows = [row for row in quality if tracked.fits[row].accepted] or list(quality)
    if not rows:
        return []
    strain = {
        row: STRAIN_DEG * float(tracked.z_exp[row].norm()) + BLUR_DEG * (1 - quality[row].sharpness) for row in rows
    }

    def nearest(among: list[int], yaw_deg: float) -> int:
        return min(among, key=lambda row: abs(quality[row].yaw_deg - yaw_deg) + strain[row])

    front = nearest(rows, 0.0)
    straight = quality[front].yaw_deg
    left = [row for row in rows if quality[row].yaw_deg > straight + APART_DEG]
    right = [row for row in rows if quality[row].yaw_deg < straight - APART_DEG]
    sides = [nearest(side, sign * SIDE_DEG) for side, sign in ((left, 1), (right, -1)) if side]
    return [front, *sides]


def _photo(
    head: MorphHead, tracked: TrackedSequence, row: int, rgb: UInt8[np.ndarray, "height width 3"], seen: Observation
) -> Photo:
    rotation, shift = (
        value[row].detach().cpu().numpy().astype(np.float64)
        for value in (tracked.poses.rotation, tracked.poses.translation)
    )
    x_posed = head.vertices + np.tensordot(head.weights[row], head.shapes, 1)
    x_camera = (x_posed - shift) @ rotation / float(tracked.poses.scale)
    mouth = seen.inner_mouth.numpy().astype(np.uint8)
    around = 2 * max(round(LIPS_SHARE * len(mouth)), 1) + 1
    closed = 1 - cv2.dilate(mouth, np.ones((around, around), np.uint8))
    person, skin = (
        _whole(mask.numpy() & seen.valid.numpy() & (closed > 0), seen, rgb, tracked.intrinsics.width)
        for mask in (seen.foreground | seen.skin, seen.skin)
    )
    return Photo(rgb, person, skin, x_camera, tracked.intrinsics, seen.frame_index)


def _whole(
    mask: Bool[np.ndarray, "rows columns"],
    seen: Observation,
    rgb: UInt8[np.ndarray, "height width 3"],
    original_width: int,
) -> Float[np.ndarray, "height width"]:
    """A mask of the crop in the whole picture, its border drawn in and made soft."""
    soft = cv2.GaussianBlur(cv2.erode(mask.astype(np.float32), np.ones((3, 3), np.uint8)), (0, 0), 1.0)
    crop, copied = seen.crop, rgb.shape[1] / original_width
    step = crop.scale / copied  # crop pixels per picture pixel
    back = np.array(
        [
            [step, 0.0, 0.5 * step - 0.5 - crop.left * crop.scale],
            [0.0, step, 0.5 * step - 0.5 - crop.top * crop.scale],
        ]
    )
    size = (rgb.shape[1], rgb.shape[0])
    return cv2.warpAffine(soft, back, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
