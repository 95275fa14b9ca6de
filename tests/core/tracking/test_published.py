"""The published tracker: its randomness, its terms in closed form, its peculiarities, and both stages on a small clip.

That its numbers are the published ones: tests/golden.
"""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from mononphm_core.errors import Diverged
from mononphm_core.model.head import HeadModel
from mononphm_core.preprocessing.published.labels import labels_of
from mononphm_core.preprocessing.published.observation import (
    BACKGROUND,
    CLOTH,
    HAIR,
    INNER_MOUTH,
    NECK,
    SKIN,
    PublishedClip,
)
from mononphm_core.preprocessing.published.ours import our_parts
from mononphm_core.quirks import PUBLISHED, REPAIRED, PublishedQuirks
from mononphm_core.tracking.landmark_fit import fit_landmarks
from mononphm_core.tracking.published import losses
from mononphm_core.tracking.published.configuration import WEIGHTS, PublishedConfig, PublishedWeights
from mononphm_core.tracking.published.loop import view_of
from mononphm_core.tracking.published.objective import Looked, Moment, evaluate, weighted_sum
from mononphm_core.tracking.published.observed import sequence_of
from mononphm_core.tracking.published.output import write_published
from mononphm_core.tracking.published.result import poses
from mononphm_core.tracking.published.sampling import Draws, draw_batch
from mononphm_core.tracking.published.schedules import Timetable
from mononphm_core.tracking.published.solve import solve
from mononphm_core.tracking.published.track import PublishedTrack, Sequence, stage1, stage2, weights_of
from mononphm_core.tracking.published.variables import Leaves, Optimiser
from mononphm_core.types import HeadMesh, Stage, StepReport
from tests.core.tracking.synthetic import NAMES, clip_of, model, truth

TIMETABLE = Timetable.of("video", "first", 1.0)
TOY = PublishedConfig(rays=24, candidates=400, samples=8, iterations_scale=0.02)
"""Five steps for the first frame, at least one for each other."""


BALL = HeadMesh(np.eye(4, 3), np.array([[0, 1, 2], [0, 3, 1], [1, 3, 2], [0, 2, 3]]))


@pytest.fixture(scope="module")
def clip():
    return clip_of(truth(3, turn_deg=20.0))


@pytest.fixture(scope="module")
def fit(clip):
    return fit_landmarks(model().template, clip, NAMES)


@pytest.fixture(scope="module")
def sequence(clip, fit) -> Sequence:
    return sequence_of(clip, fit, True, PUBLISHED, torch.device("cpu"))


def test_random_numbers_are_drawn_in_the_published_order(sequence):
    """The same calls on the global generators, in the order of our notes, give the same batch."""
    frame = sequence.frames[0]
    height, width = frame.labels.shape
    draws, state = Draws(3), np.random.RandomState(3)
    assert draws.frame(3) == state.randint(0, 3)
    state.randint(0, 1)
    assert draws.frame(3) == state.randint(0, 3)
    batch = draw_batch(frame, 65, draws, TOY)
    torch.manual_seed(3)
    x, y = torch.randint(2, width - 2, (400,)), torch.randint(2, height - 2, (400,))
    on_head = torch.nonzero(frame.labels[y, x] != 0)[:, 0]
    chosen = torch.cat([on_head[torch.randint(0, len(on_head), (18,))], torch.randint(0, 400, (6,))])
    torch.testing.assert_close(batch.rgb, frame.rgb[y[chosen], x[chosen]])
    torch.testing.assert_close(batch.rays.direction, frame.direction[y[chosen], x[chosen]])
    torch.testing.assert_close(batch.jitter, torch.rand(24, 8))
    torch.testing.assert_close(batch.noise, torch.randn(1, 65, 32, 3)[0])


def test_the_colour_term_counts_the_head_and_hardly_the_mouth():
    """Four rays a unit off in every channel: background and clothes count nothing, the mouth a 25th, over all rays."""
    labels = torch.tensor([BACKGROUND, CLOTH, SKIN, INNER_MOUTH], dtype=torch.uint8)
    mouth = torch.tensor([False, False, False, True])
    got = losses.colour(torch.ones(4, 3), torch.zeros(4, 3), labels, mouth)
    assert got.item() == pytest.approx((3 + 3 / 25) / 4)


def test_the_mask_term_is_a_jaccard_distance_with_the_published_weights():
    """Right everywhere: 0. Without hair the published term is 0 whatever is seen (6), the mended one is not."""
    hair = torch.tensor([HAIR, HAIR, SKIN, BACKGROUND], dtype=torch.uint8)
    bare = torch.tensor([NECK, SKIN, SKIN, BACKGROUND], dtype=torch.uint8)
    right, wrong = torch.tensor([1.0, 1, 1, 0]), torch.tensor([0.0, 0, 1, 1])
    for quirks in (PUBLISHED, REPAIRED):
        for labels in (hair, bare):
            assert losses.mask(right, labels, quirks).item() == pytest.approx(0.0, abs=1e-6)
    all_rays, hair_rays = 5 * (1 - 6 / 9), 5 * (1 - 5 / 7)
    assert losses.mask(wrong, hair, PUBLISHED).item() == pytest.approx((2 * all_rays + hair_rays / 5) / 3)
    assert losses.mask(wrong, bare, PUBLISHED).item() == 0
    assert losses.mask(wrong, hair, REPAIRED).item() == pytest.approx((2 * all_rays + 2 * hair_rays / 5) / 4)
    assert losses.mask(wrong, bare, REPAIRED).item() == pytest.approx(all_rays)


def test_equal_codes_of_a_pair_pull_nothing():
    """A norm at zero must not make a gradient that is no number: tracking starts there."""
    z = torch.zeros(6, 4, requires_grad=True)
    losses.symmetry(z, 2).backward()
    assert torch.equal(z.grad, torch.zeros(6, 4))
    assert losses.symmetry(torch.eye(6), 2).item() == pytest.approx(2**0.5)


def test_labels_come_from_our_masks(clip):
    """Skin above the jaw, neck below it, hair above the chin, clothes below, nothing off the picture."""
    o = clip.observations[1]
    x, y = o.landmarks_px[:, 0], o.landmarks_px[:, 1]
    above, below, nose = int(y.min()) - 8, int(y[8]) + 6, (int(y[30]), int(x[30]))
    wide = torch.zeros_like(o.skin)
    wide[above:, :] = True
    picture = dataclasses.replace(o, foreground=wide, inner_mouth=torch.zeros_like(wide))
    labels = labels_of(picture)
    assert labels[nose] == SKIN
    assert labels[above + 2, int(x[27])] in (HAIR, SKIN)
    assert labels[above + 2, 2] == HAIR
    assert labels[-2, 2] == CLOTH
    assert (labels[~(wide | o.skin)] == BACKGROUND).all()
    throat = o.skin.clone()
    throat[below : below + 5, int(x[8]) - 2 : int(x[8]) + 3] = True
    labels = labels_of(dataclasses.replace(picture, skin=throat))
    assert labels[below + 2, int(x[8])] == NECK
    mouth = torch.zeros_like(wide)
    mouth[nose] = True
    assert labels_of(dataclasses.replace(picture, inner_mouth=mouth))[nose] == INNER_MOUTH


def test_both_readers_of_our_masks_say_the_same_of_a_pixel(clip, fit):
    """The tracker takes them from the crop, a prepared folder from the whole picture; clothes count as background."""
    o = dataclasses.replace(clip.observations[0], foreground=torch.ones_like(clip.observations[0].foreground))
    crop, whole = labels_of(o), our_parts(o, clip.intrinsics, reference()).labels
    y, x = torch.nonzero(o.valid, as_tuple=True)
    in_picture = (torch.stack([x, y], -1) + 0.5) / o.crop.scale + torch.tensor([o.crop.left, o.crop.top])
    column, row = np.floor(in_picture.numpy()).astype(int).T
    found = whole[row.clip(0, whole.shape[0] - 1), column.clip(0, whole.shape[1] - 1)]
    assert (found == crop[y, x].numpy()).mean() > 0.98  # one pixel of rounding along the borders
    assert set(np.unique(whole)) >= {SKIN, HAIR, CLOTH}
    tracked = sequence_of(dataclasses.replace(clip, observations=(o,)), fit, False, PUBLISHED, torch.device("cpu"))
    assert CLOTH in crop and CLOTH not in tracked.frames[0].labels
    assert (tracked.frames[0].labels == BACKGROUND).sum() == (crop[o.valid] == CLOTH).sum()


def reference():
    """The mean head's dense landmarks, for a first pose."""
    template = model().template
    z_geo = template.mean.new_zeros(1, model().config.identity.d_geo)
    return template.posed(z_geo, 0 * template.z_canonical[None], "mediapipe478")[0].double().numpy()


def test_the_first_pose_is_the_landmark_fits(clip, fit, sequence):
    """Before a step the residual pose is nothing: camera points reach posed space by the inverse of the fit's pose."""
    track = PublishedTrack(Leaves.start(model(), 3), {}, "video", 20.0)
    x = torch.randn(3, 10, 3, generator=torch.Generator().manual_seed(0))
    rotation, translation = (torch.from_numpy(a).float() for a in (fit.rotation, fit.translation))
    torch.testing.assert_close(
        poses(sequence, track).to_posed(x), (x - translation[:, None]) @ rotation, atol=1e-4, rtol=0
    )


def test_the_tracking_camera_projects_where_ours_does(clip, fit, sequence):
    """A posed point lies at the same pixel by the published projection as by OpenCV's, and its ray goes through it."""
    frame = sequence.frames[1]
    x = 0.2 * torch.randn(20, 3, generator=torch.Generator().manual_seed(1))
    camera = x @ torch.from_numpy(fit.rotation[1]).float().T + torch.from_numpy(fit.translation[1]).float()
    k = frame.k
    u = k[0, 0] * camera[:, 0] / camera[:, 2] + k[0, 2]
    v = k[1, 1] * camera[:, 1] / camera[:, 2] + k[1, 2]
    view = view_of(frame)
    pixels = view.normalised(x) * torch.tensor(view.size)
    torch.testing.assert_close(pixels, torch.stack([u, v], -1), atol=1e-2, rtol=0)
    inside = (u > 1) & (v > 1) & (u < view.size[0] - 1) & (v < view.size[1] - 1)
    towards = torch.nn.functional.normalize(x - frame.origin, dim=-1)
    ray = frame.direction[v.long().clamp(0, view.size[1] - 1), u.long().clamp(0, view.size[0] - 1)]
    assert ((ray * towards).sum(-1)[inside] > 0.9999).all()


def looked_at(
    sequence: Sequence, quirks: PublishedQuirks = PUBLISHED, neighbours: tuple[int, ...] = (0, 2)
) -> tuple[Looked, dict[str, Tensor]]:
    """One evaluation away from the start, and its gradients, of a model whose deformation looks at the anchors."""
    head = anchors_matter()
    draw = torch.Generator().manual_seed(5)
    leaves = Leaves.start(model(), 3)
    for name, by in {"z_geo": 0.01, "z_app": 0.01, "z_exp": 0.1, "turn": 0.05, "shift": 0.01, "sh": 0.05}.items():
        value = getattr(leaves, name)
        setattr(leaves, name, value + by * torch.randn(value.shape, generator=draw))
    Optimiser(leaves, ("z_geo", "z_app", "z_exp", "turn", "shift", "sh"), TIMETABLE.rates(0))
    row, weights = 1, WEIGHTS["video"]
    frame = sequence.frames[row]
    batch = draw_batch(frame, 65, Draws(0), TOY)
    batch = dataclasses.replace(batch, labels=batch.labels.clone())
    batch.labels[:5] = HAIR
    moment = Moment(row, neighbours, weights, weights.expression, 100.0, (2000.0, 50_000.0), 20.0)
    looked = evaluate(head, leaves, batch, view_of(frame), frame.landmarks_px.float(), moment, quirks)
    return looked, {n: getattr(leaves, n).grad for n in ("z_geo", "z_app", "z_exp", "turn", "shift", "sh")}


def anchors_matter() -> HeadModel:
    """The shipped prior says all about the anchors by the code, so its deformation may ignore them; here it may not."""
    head = copy.deepcopy(model())
    columns = head.deformation.compressor.weight[:, head.config.identity.d_geo :]
    with torch.no_grad():
        columns += 0.1 * torch.randn(columns.shape, generator=torch.Generator().manual_seed(2))
    return head


@pytest.fixture(scope="module")
def published(sequence) -> tuple[Looked, dict[str, Tensor]]:
    """The evaluation with every peculiarity on."""
    return looked_at(sequence)


@pytest.mark.parametrize(
    "quirk",
    [
        "cosine_ignores_head_rotation",
        "mask_counts_other_rays_as_one",
        "landmark_search_starts_elsewhere",
        "landmark_targets_condition_deformation",
        "landmark_targets_are_fixed",
    ],
)
def test_every_peculiarity_changes_something_when_mended(sequence, published, quirk):
    """A switch that moves neither a term nor a gradient would be no switch."""
    (looked, before), (mended, after) = published, looked_at(sequence, dataclasses.replace(PUBLISHED, **{quirk: False}))
    moved = abs(float(looked.terms["total"] - mended.terms["total"])) > 1e-6
    assert moved or any(not torch.equal(before[name], after[name]) for name in before)


def test_rays_are_stretched_only_where_the_peculiarity_is_on(clip, fit, sequence):
    """12: at the middle of the picture both agree; at its rim they are half a pixel apart."""
    mended = sequence_of(clip, fit, True, REPAIRED, torch.device("cpu")).frames[0]
    published = sequence.frames[0]
    away = (published.direction - mended.direction).norm(dim=-1) * float(published.k[0, 0])  # pixels, about
    middle = away.shape[0] // 2
    assert away[middle, middle] < 0.05
    assert 0.3 < away[0, 0] < 0.9


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(PublishedWeights) if f.name != "expression_first"])
def test_every_weight_counts(published, name):
    """One more of a weight is one more of its term in the loss; the first frame's expression weight is that frame's."""
    terms = {k: v.double() for k, v in published[0].terms.items() if k != "total"}
    weights = WEIGHTS["video"]
    more = dataclasses.replace(weights, **{name: getattr(weights, name) + 1})
    sums = [
        weighted_sum(terms, Moment(1, (0, 2), w, w.expression, 100.0, (2e3, 5e4), 20.0), model())
        for w in (weights, more)
    ]
    torch.testing.assert_close(sums[1] - sums[0], terms[name], rtol=1e-6, atol=1e-9)
    assert terms[name] > 0
    torch.testing.assert_close(sums[0].float(), published[0].terms["total"], rtol=1e-5, atol=1e-3)


def test_neighbours_are_pulled_together_in_both_directions(sequence):
    """Smoothness reaches the rows of the frames beside, and no others."""
    _, gradients = looked_at(sequence, neighbours=(0,))
    for name in ("z_exp", "turn", "shift"):
        assert gradients[name][0].abs().max() > 0
        assert gradients[name][2].abs().max() == 0


def test_a_row_that_was_not_used_keeps_its_state():
    """Sparse Adam: a table's other rows stay where they are, although their momentum would carry them on."""
    leaves = Leaves.start(model(), 3)
    optimiser = Optimiser(leaves, ("turn",), TIMETABLE.rates(0))
    for rows in ((0, 1), (2,)):
        leaves.turn.grad = torch.ones(3, 3)
        optimiser.step(rows, TIMETABLE.rates(0))
    torch.testing.assert_close(leaves.turn[:2].detach(), torch.full((2, 3), -5e-3))
    assert (leaves.turn[2].detach() < 0).all()


@pytest.fixture(scope="module")
def tracked(sequence):
    """Both stages, with every report."""
    reports: list[StepReport] = []
    draws = Draws(0)
    first = stage1(model(), sequence, TOY, draws, reports.append)
    second = stage2(model(), sequence, first, TOY, draws, reports.append)
    return first, second, reports


def test_results_lie_where_the_published_tools_look(tracked, tmp_path):
    """Names and shapes of the published files; stage 2 repeats all expressions in every frame's folder."""
    first, second, _ = tracked
    d_geo, d_exp = model().config.identity.d_geo, len(NAMES)
    one = write_published(tmp_path, "clip", first)
    shapes = {path.stem: np.load(path).shape for path in (one / "00002").iterdir()}
    assert shapes == {
        "z_geo": (1, 1, d_geo), "z_app": (1, 1, model().config.identity.d_app), "z_exp": (1, d_exp), "rot": (1, 3, 3),
        "trans": (1, 3), "scale": (1,), "sh_coeffs": (1, 9, 3), "colorA": (3, 3), "colorb": (1, 3),
    }  # fmt: skip
    np.testing.assert_array_equal(np.load(one / "00002" / "z_exp.npy")[0], first.leaves.z_exp[2].numpy())
    two = write_published(tmp_path, "clip", second, lambda row: BALL if row == 0 else None)
    assert two == tmp_path / "stage2" / "clip"
    assert np.load(two / "00001" / "z_exp.npy").shape == (3, d_exp)
    assert {path.name for path in (two / "00001").iterdir()} == {f"{n}.npy" for n in ("z_exp", "rot", "trans", "scale")}
    assert (two / "00000" / "mesh.ply").is_file()
    np.testing.assert_array_equal(np.load(two / "z_geo.npy")[0], second.leaves.geo().numpy())


def test_a_prepared_folder_is_tracked_as_it_is(sequence):
    """Landmarks of the published detector as they are, but for those of a face that it did not find."""
    landmarks = torch.rand(3, 98, 2)
    landmarks[1, 4:7] = -1
    k = torch.eye(3)
    read = Sequence.of(PublishedClip(sequence.frames, landmarks, (600, 560), k, intrinsics_given=True), is_video=True)
    assert read.frames is sequence.frames
    assert read.calibrated
    assert np.isnan(read.motion[1, 4:7]).all()
    assert np.isfinite(np.delete(read.motion, 1, 0)).all()


def test_later_frames_move_only_what_is_their_own(sequence, tracked):
    """The person is found on the first frame: with that frame alone the shared leaves end at the same values."""
    first, _, _ = tracked
    alone = dataclasses.replace(sequence, frames=sequence.frames[:1], motion=sequence.motion[:1])
    only = stage1(model(), alone, TOY, Draws(0))
    for name in ("z_geo", "z_app", "sh", "colour_matrix", "colour_offset"):
        assert torch.equal(getattr(only.leaves, name), getattr(first.leaves, name)), name
    for name in ("z_exp", "turn", "shift"):
        assert torch.equal(getattr(only.leaves, name)[0], getattr(first.leaves, name)[0]), name
        assert not torch.equal(getattr(first.leaves, name)[0], getattr(first.leaves, name)[1]), name


def test_stage_2_moves_everything_but_the_colour_correction(tracked):
    """It was found on the first frame and stays."""
    first, second, _ = tracked
    for name in ("z_geo", "z_app", "sh", "z_exp", "turn", "shift"):
        assert not torch.equal(getattr(first.leaves, name), getattr(second.leaves, name)), name
    for name in ("colour_matrix", "colour_offset"):
        assert torch.equal(getattr(first.leaves, name), getattr(second.leaves, name)), name


def test_progress_is_told_at_every_step_and_never_goes_back(tracked):
    """One report a step and stage, the same total throughout."""
    for stage in (Stage.STAGE1, Stage.STAGE2):
        reports = [r for r in tracked[2] if r.stage == stage]
        steps = [r.step for r in reports]
        assert steps == sorted(steps)
        assert set(steps) == set(range(reports[0].total + 1))
        assert len({r.total for r in reports}) == 1


def test_a_cancel_stops_at_the_next_step(clip):
    """What `on_step` raises ends the run then and there."""

    class Enough(Exception):
        pass

    def stop(report: StepReport) -> None:
        if report.step == 2:
            raise Enough

    with pytest.raises(Enough):
        solve(model(), model().template, NAMES, clip, True, (1, 2), TOY, stop)


def test_a_clip_becomes_a_sequence_of_the_same_kind_as_ours(clip, tracked):
    """Frames, proper rotations, finite figures, the colours' correction; the same seed gives the same numbers."""
    one, leaves = solve(model(), model().template, NAMES, clip, True, (1,), TOY), tracked[0].leaves
    assert one.stage == Stage.STAGE1
    assert one.frame_index == (0, 1, 2)
    r = one.poses.rotation
    torch.testing.assert_close(r @ r.mT, torch.eye(3).expand(3, 3, 3), rtol=0, atol=1e-5)
    assert torch.linalg.det(r).min() > 0
    assert one.colour_correction.shape == (4, 3)
    assert all(np.isfinite(fit.landmark_error_px) and 0 <= fit.silhouette_iou <= 1 for fit in one.fits)
    assert torch.equal(one.identity.z_geo, leaves.geo()[0])
    assert torch.equal(one.identity.z_app, leaves.app()[0])
    assert torch.equal(one.z_exp, leaves.z_exp)


def test_an_unknown_camera_weakens_the_expression_prior_of_a_still_alone():
    """Half of it for a still whose camera was estimated; clips do not care."""
    assert weights_of("image", calibrated=True).expression_first == 500
    assert weights_of("image", calibrated=False).expression_first == 250
    assert weights_of("video", calibrated=False) == WEIGHTS["video"]


def test_a_loss_that_is_no_number_names_step_and_term(sequence):
    """A broken picture must end in a failure of ours, not in codes that are no numbers."""
    frame = sequence.frames[0]
    broken = dataclasses.replace(frame, rgb=torch.full_like(frame.rgb, float("nan")))
    alone = dataclasses.replace(sequence, frames=(broken,), motion=sequence.motion[:1])
    with pytest.raises(Diverged, match="colour"):
        stage1(model(), alone, TOY, Draws(0))
