"""Lids and lips: distances that the joint problem holds to what was seen."""

import dataclasses

import numpy as np
import pytest
import torch

from mononphm_core.tracking import closure
from mononphm_core.tracking.config import LandmarkFitConfig
from mononphm_core.tracking.landmark_fit import fit_landmarks
from tests.core.tracking.synthetic import DIRECTIONS, NAMES, clip_of, model, truth

BOTH = [NAMES.index("eyeBlink_L"), NAMES.index("eyeBlink_R")]


def test_gaps_stay_where_the_picture_is_moved_and_turn_with_it():
    """The upward direction is the face's own: a tilted head opens its eyes no less."""
    face = np.random.default_rng(0).normal(100, 30, (2, 478, 2))
    c, s = np.cos(0.7), np.sin(0.7)
    turned = face @ np.array([[c, -s], [s, c]]).T + 15.0
    opened = closure.gaps(face, closure.upward(face))
    np.testing.assert_allclose(closure.gaps(turned, closure.upward(turned)), opened, atol=1e-9)


def test_what_shifts_a_whole_eye_opens_no_lid():
    """The detector's shared error is the larger part, and must say nothing here."""
    face = np.random.default_rng(1).normal(100, 30, (1, 478, 2))
    moved = face.copy()
    moved[:, closure.LIDS.ravel()] += (4.0, -3.0)
    lids = slice(0, len(closure.LIDS))
    up = closure.upward(face)
    np.testing.assert_allclose(closure.gaps(moved, up)[:, lids], closure.gaps(face, up)[:, lids], atol=1e-9)


@pytest.fixture(scope="module")
def blink():
    """Three frames at 24 Hz whose middle one has both eyes shut; landmarks wander by more than a lid moves a point."""
    person = truth(3, turn_deg=10.0)
    z_exp = person.z_exp.clone()
    z_exp[1, BOTH] = 1.0
    clip = clip_of(dataclasses.replace(person, z_exp=z_exp), fps=24.0)
    draw = torch.Generator().manual_seed(2)
    seen = [
        dataclasses.replace(o, dense_landmarks_px=o.dense_landmarks_px + 0.3 * torch.randn(1, 2, generator=draw))
        for o in clip.observations
    ]
    return dataclasses.replace(clip, observations=tuple(seen))


def test_a_blink_between_two_frames_closes_further_with_the_term(blink):
    """Smoothness and priors pull lids to where they were; the distance between them is seen well enough to resist."""
    config = LandmarkFitConfig(directions=DIRECTIONS, contour_rounds=0)
    without = dataclasses.replace(config, gap_independent=0.0)
    shut, half = (fit_landmarks(model().template, blink, NAMES, c).z_exp[1, BOTH].mean() for c in (config, without))
    assert shut > half
    assert shut > 0.5
