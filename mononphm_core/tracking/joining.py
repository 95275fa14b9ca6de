"""Stretches of one clip that were tracked apart become one sequence, without a seam.

Neighbouring stretches overlap. Where they do, each frame is between the two results, and goes from one to the other as
the smoothstep 3u^2 - 2u^3 of its place in the overlap: values and first differences have no jump. The outermost frames
of a stretch, which have neighbours on one side only, count for nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from mononphm_core.errors import NoFaceFound
from mononphm_core.geometry.rotations import so3_exp, so3_log
from mononphm_core.types import HeadPose, TrackedSequence, Uncertainty

MARGIN = 16
"""Pictures that a stretch is tracked beyond its own on either side."""
BLEND = 8
"""Of these, so many on either side of a border in which one result passes into the other."""


@dataclass(frozen=True)
class Stretch:
    """One piece of the clip as it was tracked, with margins."""

    sequence: TrackedSequence
    place: tuple[int, ...]
    """Of each row: the number of its picture among all selected ones."""
    own: tuple[int, int]
    """Places that are this stretch's own: from, to before."""


def own_rows(
    stretch: Stretch, before: Stretch | None, after: Stretch | None
) -> tuple[TrackedSequence, tuple[int, ...]]:
    """The stretch's own frames, blended near its borders with its neighbours' results; and their places."""
    first, last = stretch.own
    rows = [row for row, place in enumerate(stretch.place) if first <= place < last]
    places = tuple(stretch.place[row] for row in rows)
    out = picked(stretch.sequence, rows)
    for other, border in ((before, first), (after, last)):
        if other is not None:
            out = _blended(out, places, other, border)
    return out, places


def joined(stretches: Sequence[Stretch | None]) -> TrackedSequence:
    """All frames of all stretches, in time order; None: nobody was seen there. Raises NoFaceFound if there is none."""
    neighbours = zip([None, *stretches[:-1]], stretches, [*stretches[1:], None], strict=True)
    parts = [own_rows(here, before, after)[0] for before, here, after in neighbours if here is not None]
    found = [part for part in parts if len(part.frame_index)]
    if not found:
        raise NoFaceFound("A face was found in key frames, but followed in none of the clip's stretches.")
    return concatenated(found)


def _blended(mine: TrackedSequence, places: tuple[int, ...], other: Stretch, border: int) -> TrackedSequence:
    """`mine` where `other` saw the same pictures and lies beyond `border`, mixed with it."""
    theirs = {place: row for row, place in enumerate(other.place)}
    shared = [row for row, place in enumerate(places) if abs(place + 0.5 - border) < BLEND and place in theirs]
    if not shared:
        return mine
    place = torch.tensor([places[row] for row in shared], dtype=torch.float64, device=mine.z_exp.device)
    u = ((place + 0.5 - border).abs() / BLEND + 1) / 2  # 1/2 at the border, 1 where the blend ends
    weight = u * u * (3 - 2 * u)
    theirs_there = picked(other.sequence, [theirs[places[row]] for row in shared])
    mixed = _mixed(picked(mine, shared), theirs_there, weight)
    z_exp, turn, shift = mine.z_exp.clone(), mine.poses.rotation.clone(), mine.poses.translation.clone()
    z_exp[shared], turn[shared], shift[shared] = mixed.z_exp, mixed.poses.rotation, mixed.poses.translation
    return replace(mine, z_exp=z_exp, poses=replace(mine.poses, rotation=turn, translation=shift))


def _mixed(a: TrackedSequence, b: TrackedSequence, weight: Float[Tensor, "frames"]) -> TrackedSequence:
    """`weight` of a, the rest of b. The head's place is mixed where it is seen: in the camera's frame."""
    w, dtype = weight[:, None], a.poses.rotation.dtype
    from_a, from_b = _precise(a.poses), _precise(b.poses)
    to_b = so3_log(from_b.rotation @ from_a.rotation.transpose(1, 2))
    rotation = so3_exp((1 - w) * to_b) @ from_a.rotation
    centre = w * _centre(from_a) + (1 - w) * _centre(from_b)
    translation = -(rotation @ centre[..., None])[..., 0] * from_a.scale
    z_exp = (w * a.z_exp.double() + (1 - w) * b.z_exp.double()).to(a.z_exp.dtype)
    return replace(a, z_exp=z_exp, poses=HeadPose(rotation.to(dtype), translation.to(dtype), a.poses.scale))


def _precise(poses: HeadPose) -> HeadPose:
    return HeadPose(poses.rotation.double(), poses.translation.double(), poses.scale.double())


def _centre(poses: HeadPose) -> Float[Tensor, "frames 3"]:
    """Where the head's origin is in the world."""
    return -(poses.rotation.transpose(1, 2) @ poses.translation[..., None])[..., 0] / poses.scale


def picked(sequence: TrackedSequence, rows: Sequence[int]) -> TrackedSequence:
    """Some rows of a sequence."""
    at = torch.tensor(list(rows), dtype=torch.long, device=sequence.z_exp.device)
    sure = sequence.uncertainty
    return replace(
        sequence,
        z_exp=sequence.z_exp[at],
        poses=replace(sequence.poses, rotation=sequence.poses.rotation[at], translation=sequence.poses.translation[at]),
        frame_index=tuple(sequence.frame_index[row] for row in rows),
        timestamp_s=tuple(sequence.timestamp_s[row] for row in rows),
        fits=tuple(sequence.fits[row] for row in rows),
        uncertainty=None
        if sure is None
        else Uncertainty(sure.identity, sure.turn_deg[at], sure.shift[at], sure.z_exp[at]),
    )


def concatenated(parts: Sequence[TrackedSequence]) -> TrackedSequence:
    """Rows one after the other; all else is that of the first."""
    sure = [part.uncertainty for part in parts]
    known = [one for one in sure if one is not None]
    together = len(known) == len(parts)
    return replace(
        parts[0],
        z_exp=torch.cat([part.z_exp for part in parts]),
        poses=HeadPose(
            torch.cat([part.poses.rotation for part in parts]),
            torch.cat([part.poses.translation for part in parts]),
            parts[0].poses.scale,
        ),
        frame_index=tuple(index for part in parts for index in part.frame_index),
        timestamp_s=tuple(time for part in parts for time in part.timestamp_s),
        fits=tuple(fit for part in parts for fit in part.fits),
        uncertainty=Uncertainty(
            known[0].identity,
            torch.cat([one.turn_deg for one in known]),
            torch.cat([one.shift for one in known]),
            torch.cat([one.z_exp for one in known]),
        )
        if together
        else None,
    )
