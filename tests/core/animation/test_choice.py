"""Which frames lend the head their colours."""

import dataclasses

import torch

from mononphm_core.animation.choice import best_rows, held_out_row
from mononphm_core.types import FrameFit, FrameQuality
from tests.worker.test_transfer import someone


def clip(*yaws: float):
    """A clip whose head turns; every frame accepted."""
    tracked = someone(1, [0.0] * len(yaws))
    return tracked, {k: FrameQuality(1.0, yaw, 300.0, 1.0) for k, yaw in enumerate(yaws)}


def test_the_front_and_both_sides_are_taken():
    """The most frontal frame leads; of each side the one nearest to forty degrees."""
    tracked, seen = clip(-75, -42, -20, 3, 10, 38, 60)
    assert best_rows(tracked, seen) == [3, 5, 1]


def test_a_head_that_does_not_turn_gives_one_picture():
    tracked, seen = clip(-4, 2, 6)
    assert best_rows(tracked, seen) == [1]


def test_a_still_face_is_preferred_to_a_grimace():
    """Both look into the camera; one pulls a face, and its wrinkles are no part of the skin."""
    tracked, seen = clip(0, 3)
    grimace = dataclasses.replace(tracked, z_exp=torch.eye(2, tracked.z_exp.shape[1]) * torch.tensor([[2.0], [0.0]]))
    assert best_rows(grimace, seen) == [1]


def test_frames_that_were_not_accepted_are_used_only_where_there_are_no_others():
    tracked, seen = clip(0, 12)
    odd = FrameFit(9.0, 0.2, 0.5, False)
    assert best_rows(dataclasses.replace(tracked, fits=(odd, tracked.fits[1])), seen) == [1]
    assert best_rows(dataclasses.replace(tracked, fits=(odd, odd)), seen) == [0]
    assert best_rows(tracked, {}) == []


def test_the_frame_kept_aside_is_the_one_turned_farthest_from_those_used():
    """The hardest question that the clip can ask; where all frames are used there is none."""
    tracked, seen = clip(-42, -20, 3, 38, 14)
    assert held_out_row(tracked, seen, [2, 3, 0]) == 1
    assert held_out_row(tracked, seen, [0, 1, 2, 3, 4]) is None
