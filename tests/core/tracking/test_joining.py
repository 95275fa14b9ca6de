"""Stretches that were tracked apart: what joins them, and that nobody sees where."""

import dataclasses

import numpy as np
import pytest
import torch

from mononphm_core.geometry.rotations import so3_exp, so3_log
from mononphm_core.io.sequence_files import read_sequence, write_sequence
from mononphm_core.tracking.config import Stage1Config, TrackingConfig
from mononphm_core.tracking.joining import BLEND, MARGIN, Stretch, joined, own_rows, picked
from mononphm_core.tracking.known_person import follow
from mononphm_core.tracking.stage1 import track
from mononphm_core.types import HeadPose, Stage, StepReport, Uncertainty
from tests.core.io.delivery import tracked
from tests.core.tracking.synthetic import NAMES, clip_of, model, truth
from worker.division import Division


def stretches(sequence, division, moved=lambda sequence, number: sequence):
    """A sequence as if its stretches had been tracked apart; `moved` says how each came out otherwise."""
    made = []
    for number in range(division.stretches):
        first, last = division.tracked(number)
        piece = moved(picked(sequence, range(first, last)), number)
        made.append(Stretch(piece, tuple(range(first, last)), division.own(number)))
    return made


def shifted(sequence, by):
    """The head moved in the world, every expression weight raised."""
    poses = sequence.poses
    shift = poses.translation - (poses.rotation @ torch.tensor(by, dtype=poses.translation.dtype)[:, None])[..., 0]
    return dataclasses.replace(
        sequence, z_exp=sequence.z_exp + by[0], poses=HeadPose(poses.rotation, shift, poses.scale)
    )


def centres(sequence):
    """Where the head's origin is in every frame."""
    r, t = sequence.poses.rotation.double(), sequence.poses.translation.double()
    return -(r.mT @ t[..., None])[..., 0].numpy()


def test_stretches_that_agree_are_joined_to_what_they_came_from():
    sequence, division = tracked(tuple(range(0, 3 * 50, 3))), Division(50, 20, 8)
    whole = joined(stretches(sequence, division))
    assert whole.frame_index == sequence.frame_index and whole.timestamp_s == sequence.timestamp_s
    assert torch.allclose(whole.z_exp, sequence.z_exp, atol=1e-6)  # one float32 rounding of a mean of equal numbers
    assert torch.allclose(whole.poses.rotation, sequence.poses.rotation, atol=1e-6)
    assert torch.allclose(whole.poses.translation, sequence.poses.translation, atol=1e-6)


def test_a_step_between_stretches_becomes_a_slope_whose_jolt_is_a_fortieth():
    """The smoothstep over 2 BLEND pictures has second differences of at most 6 / (2 BLEND)^2 of the step: 0.023."""
    sequence, division, step = tracked(tuple(range(60))), Division(60, 30, 8), 0.01
    still = dataclasses.replace(sequence, z_exp=torch.zeros_like(sequence.z_exp))
    whole = joined(stretches(still, division, lambda piece, number: shifted(piece, (step * number, 0.0, 0.0))))
    for values in (whole.z_exp[:, 0].double().numpy(), (centres(whole) - centres(still))[:, 0]):
        assert np.abs(values[: 30 - BLEND]).max() < 1e-6 and np.abs(values[30 + BLEND :] - step).max() < 1e-6
        assert np.abs(np.diff(values, n=2)).max() < 1.05 * 6 / (2 * BLEND) ** 2 * step
        assert values[29] + values[30] == pytest.approx(step, abs=1e-6), "half-way at the border"


def test_both_sides_of_a_border_know_the_same_frames(tmp_path):
    """A mesh part sees its neighbours only, and through files; what it computes is what the whole has, to the bit."""
    sequence, division = tracked(tuple(range(70))), Division(70, 24, 8)
    made = stretches(sequence, division, lambda piece, number: shifted(piece, (0.01 * number, 0.02, -0.01 * number)))
    whole = joined(made)
    for number in range(division.stretches):
        near = []
        for other in division.neighbours(number):
            place = tmp_path / f"{number}.{other}"
            place.mkdir()
            write_sequence(place, made[other].sequence)
            near.append(dataclasses.replace(made[other], sequence=read_sequence(place)))
        at = division.neighbours(number).index(number)
        before, after = near[at - 1] if at else None, near[at + 1] if at + 1 < len(near) else None
        mine, places = own_rows(near[at], before, after)
        assert torch.equal(mine.z_exp, whole.z_exp[list(places)])
        assert torch.equal(mine.poses.translation, whole.poses.translation[list(places)])


def test_turns_are_mixed_along_the_shortest_way():
    """Two results 20 degrees apart: at the border the head has turned by half of it about one axis, and is rigid."""
    sequence, division = tracked(tuple(range(60))), Division(60, 30, 8)
    axis = torch.tensor([0.6, 0.0, 0.8]) * np.radians(20.0)

    def turned(piece, number):
        poses = piece.poses
        return dataclasses.replace(
            piece, poses=HeadPose(so3_exp(number * axis) @ poses.rotation, poses.translation, poses.scale)
        )

    whole = joined(stretches(sequence, division, turned)).poses.rotation.double()
    angles = so3_log(whole @ sequence.poses.rotation.double().mT) @ (axis.double() / axis.double().norm())
    assert (angles.diff() > -1e-6).all() and float(angles[29] + angles[30]) == pytest.approx(np.radians(20.0), abs=1e-5)
    assert torch.allclose(whole @ whole.mT, torch.eye(3, dtype=torch.float64).expand(60, 3, 3), atol=1e-6)


def test_frames_that_one_side_missed_are_the_others():
    sequence, division = tracked(tuple(range(60))), Division(60, 30, 8)
    made = stretches(sequence, division, lambda piece, number: shifted(piece, (float(number), 0.0, 0.0)))
    seen = [place for place in made[1].place if place not in (28, 31)]
    rows = [made[1].place.index(place) for place in seen]
    made[1] = Stretch(picked(made[1].sequence, rows), tuple(seen), made[1].own)
    whole = joined(made)
    assert whole.frame_index == tuple(index for index in range(60) if index != 31)
    assert torch.equal(whole.z_exp[28], sequence.z_exp[28])


def test_a_sequence_in_files_is_the_same_to_the_last_bit(tmp_path):
    sequence = tracked((3, 7, 8))
    noise = torch.randn(3, 3, generator=torch.Generator().manual_seed(1))
    sequence = dataclasses.replace(
        sequence,
        fits=tuple(dataclasses.replace(fit, photometric_error=0.1) for fit in sequence.fits),
        uncertainty=Uncertainty(torch.ones(4), noise, noise + 1, torch.ones(3, 5)),
        stages={"stage1": {"wobble_mm": 0.1}},
    )
    write_sequence(tmp_path, sequence)
    back = read_sequence(tmp_path)
    for mine, theirs in ((sequence, back), (sequence.poses, back.poses), (sequence.uncertainty, back.uncertainty)):
        for field in dataclasses.fields(mine):
            a, b = getattr(mine, field.name), getattr(theirs, field.name)
            if isinstance(a, torch.Tensor):
                assert torch.equal(a, b) and a.dtype == b.dtype, field.name
            elif not dataclasses.is_dataclass(a):
                assert a == b, field.name


@pytest.mark.slow
def test_a_clip_in_stretches_wobbles_no_more_at_its_seams_than_elsewhere():
    """The whole road on a clip of the prior's own, with landmarks that waver by a pixel of the original: key frames
    say who it is, three stretches are tracked apart and joined."""
    frames = 66
    t = truth(frames, turn_deg=40.0)
    clip = clip_of(t, fps=25.0)
    draw = torch.Generator().manual_seed(5)
    noisy = [
        dataclasses.replace(o, dense_landmarks_px=o.dense_landmarks_px + 0.25 * torch.randn(478, 2, generator=draw))
        for o in clip.observations
    ]
    clip = dataclasses.replace(clip, observations=tuple(noisy))
    fit = dataclasses.replace(Stage1Config().landmark_fit, contour_rounds=0)
    config = TrackingConfig(stage1=dataclasses.replace(Stage1Config(), colour_steps=2, batch=2, landmark_fit=fit))
    keys = dataclasses.replace(clip, observations=tuple(noisy[::13]))
    known = track(model(), keys, NAMES, config.stage1)
    division, made, reports = Division(frames, 22, 6), [], list[StepReport]()
    for number in range(division.stretches):
        first, last = division.tracked(number)
        piece = dataclasses.replace(clip, observations=tuple(noisy[first:last]))
        sequence = follow(model(), piece, NAMES, known, (1,), config, number, reports.append)
        made.append(Stretch(sequence, tuple(range(first, last)), division.own(number)))
    whole = joined(made)
    assert whole.frame_index == tuple(range(frames)) and whole.stage is Stage.STAGE1
    assert torch.equal(whole.identity.z_geo, known.identity.z_geo)
    assert all(a.step <= b.step for a, b in zip(reports, reports[1:], strict=False) if b.step)
    face = model().template.posed(whole.identity.z_geo.expand(frames, -1), whole.z_exp, "ibug68")
    jolt = np.diff(whole.poses.to_world(face).double().numpy(), n=2, axis=0)
    size = np.sqrt((jolt**2).sum(-1).mean(-1))
    middle = np.arange(1, frames - 1)
    at_seam = np.min([np.abs(middle + 0.5 - border) for border in (22, 44)], axis=0) < BLEND
    assert np.sqrt((size[at_seam] ** 2).mean()) <= 1.1 * np.sqrt((size[~at_seam] ** 2).mean())
    assert MARGIN >= 2 * BLEND
