"""Both stages on a small clip that the prior itself made."""

import dataclasses

import pytest
import torch

from mononphm_core.tracking.config import Stage1Config, Stage2Config
from mononphm_core.tracking.stage1 import track
from mononphm_core.tracking.stage2 import refine
from mononphm_core.types import Stage, StepReport
from tests.core.tracking.synthetic import NAMES, clip_of, model, truth

RAYS = dataclasses.replace(Stage1Config().rays, surface=40, border=40, samples=8, coloured=2)
SHORT = dataclasses.replace(Stage1Config(), colour_steps=4, batch=2, rays=RAYS)
LONGER = Stage2Config()


@pytest.fixture(scope="module")
def clip():
    return clip_of(truth(3, turn_deg=30.0))


@pytest.fixture(scope="module")
def stage1(clip):
    """The first stage, and every report that it made."""
    reports: list[StepReport] = []
    return track(model(), clip, NAMES, SHORT, seed=1, on_step=reports.append), reports


@pytest.fixture(scope="module")
def stage2(clip, stage1):
    reports: list[StepReport] = []
    return refine(model(), clip, NAMES, stage1[0], LONGER, SHORT, seed=1, on_step=reports.append), reports


@pytest.mark.parametrize("name", ["stage1", "stage2"])
def test_a_stage_returns_one_person_and_a_pose_and_expression_a_frame(name, clip, request):
    """Numbers all through, proper rotations, the frames of the clip in their order."""
    tracked, _ = request.getfixturevalue(name)
    assert tracked.stage == Stage(name)
    assert tracked.frame_index == tuple(o.frame_index for o in clip.observations)
    assert tracked.z_exp.shape == (3, len(NAMES))
    for values in (tracked.identity.z_geo, tracked.identity.z_app, tracked.z_exp, tracked.light):
        assert torch.isfinite(values).all()
        assert not values.requires_grad
    r = tracked.poses.rotation
    torch.testing.assert_close(r @ r.mT, torch.eye(3).expand(3, 3, 3), rtol=0, atol=1e-5)
    assert torch.linalg.det(r).min() > 0
    assert all(torch.isfinite(torch.tensor(values)).all() for values in tracked.history.values())


@pytest.mark.parametrize("name", ["stage1", "stage2"])
def test_progress_never_goes_back_and_ends_where_it_said(name, request):
    """What the progress bar shows."""
    _, reports = request.getfixturevalue(name)
    steps = [r.step for r in reports]
    assert steps == sorted(steps)
    assert {r.stage for r in reports} == {Stage(name)}
    assert len({r.total for r in reports}) == 1
    assert reports[-1].step == reports[-1].total
    assert all(0 <= r.frames_done <= r.frames_total == 3 for r in reports)


@pytest.mark.parametrize("name", ["stage1", "stage2"])
def test_exact_landmarks_stay_explained(name, clip, request):
    """The picture may pull, but a face of 200 px whose landmarks are exact is not lost by more than a few pixels."""
    tracked, _ = request.getfixturevalue(name)
    for fit, observation in zip(tracked.fits, clip.observations, strict=True):
        assert fit.landmark_error_px < 0.035 * observation.quality.face_px
        assert 0 <= fit.silhouette_iou <= 1
        assert fit.silhouette_iou > 0.7


def test_the_same_seed_gives_the_same_head(clip, stage1):
    """A job that is run again after a crash delivers the same numbers; another seed looks at other rays for colours."""
    again = track(model(), clip, NAMES, SHORT, seed=1)
    other = track(model(), clip, NAMES, SHORT, seed=2)
    assert torch.equal(again.identity.z_geo, stage1[0].identity.z_geo)
    assert torch.equal(again.z_exp, stage1[0].z_exp)
    assert torch.equal(other.z_exp, stage1[0].z_exp)
    assert not torch.equal(other.identity.z_app, stage1[0].identity.z_app)


def test_stage_2_shows_both_figures_and_is_kept_only_if_better(clip, stage1, stage2):
    """A plain grey clip has no texture to gain from: its exact landmarks are not given away for nothing."""
    stages = stage2[0].stages
    assert stages["stage1"].keys() < stages["stage2"].keys()
    better = stages["stage2"]["texture_disagreement"] < stages["stage1"]["texture_disagreement"]
    steadier = stages["stage2"]["wobble_mm"] <= stages["stage1"]["wobble_mm"]
    assert bool(stages["stage2"]["kept"]) <= (better and steadier)
    strict = dataclasses.replace(LONGER, worse=0.0)
    refused = refine(model(), clip, NAMES, stage1[0], strict, SHORT, seed=1)
    assert refused.stages["stage2"]["kept"] == 0
    assert refused.stage == Stage.STAGE2
    assert torch.equal(refused.z_exp, stage1[0].z_exp)
    assert torch.equal(refused.poses.rotation, stage1[0].poses.rotation)


def test_what_a_report_raises_is_not_swallowed(clip):
    """A cancel arrives as an exception from `on_step`."""

    class Cancelled(Exception):
        pass

    def cancel(report: StepReport) -> None:
        if report.step >= 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        track(model(), clip, NAMES, SHORT, on_step=cancel)
