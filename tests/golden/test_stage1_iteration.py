"""One complete stage-1 iteration: every term, every gradient, and every parameter after the step."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from mononphm_core.quirks import PUBLISHED
from mononphm_core.rendering.published.fine import WorldRays
from mononphm_core.tracking.published.configuration import WEIGHTS
from mononphm_core.tracking.published.landmarks import View
from mononphm_core.tracking.published.objective import Looked, Moment, evaluate
from mononphm_core.tracking.published.sampling import Batch
from mononphm_core.tracking.published.schedules import Timetable
from mononphm_core.tracking.published.variables import Leaves, Optimiser
from tests.golden.checkpoints import Size, golden_model
from tests.golden.tables import fixture, needs_reference

TERMS = {
    "total": "term_loss", "colour": "term_rgb_loss", "mask": "term_mask_loss", "expression": "term_reg_loss_expr",
    "local_geo": "term_reg_loc_geo", "global_geo": "term_reg_global_geo", "local_app": "term_reg_loc_app",
    "global_app": "term_reg_global_app", "symmetry_geo": "term_symm_dist_geo", "symmetry_app": "term_symm_dist_app",
    "landmarks": "term_landmark",
}  # fmt: skip
"""Ours -> the fixture's."""
LEAVES = {
    "z_geo": "geo", "z_app": "app", "z_exp": "exp", "turn": "rot", "shift": "trans", "sh": "sh",
    "colour_matrix": "colorA", "colour_offset": "colorb",
}  # fmt: skip
SCHEDULE = Timetable.of("video", "first", 1.0)
MOMENT = Moment(
    frame=0, neighbours=(), weights=WEIGHTS["video"], expression_weight=WEIGHTS["video"].expression_first,
    landmark_weight=SCHEDULE.landmark_weight(0), smooth_weights=SCHEDULE.smooth_weights(0),
    sharpness=SCHEDULE.sharpness(0),
)  # fmt: skip
SITUATIONS = [
    ("tiny", "generic"),
    pytest.param("tiny", "init", marks=needs_reference),
    pytest.param("release", "init", marks=[needs_reference, pytest.mark.slow]),
    pytest.param("release", "generic", marks=[needs_reference, pytest.mark.slow]),
]


def leaves_of(v: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The fixture's values of every leaf, in our shapes."""
    found = {ours: v[f"{prefix}_{theirs}"].float() for ours, theirs in LEAVES.items() if f"{prefix}_{theirs}" in v}
    return {k: x[0] if k in ("z_geo", "z_app", "sh") else x for k, x in found.items()}


@dataclasses.dataclass
class Iteration:
    """Our evaluation of a fixture's iteration."""

    values: dict[str, torch.Tensor]
    leaves: Leaves
    optimiser: Optimiser
    looked: Looked
    gradients: dict[str, torch.Tensor]


def iterate(size: Size, situation: str, block_rays: int | None = None) -> Iteration:
    """Evaluate at the fixture's parameters, with its rays and its randomness."""
    v = {k: torch.from_numpy(np.asarray(x)) for k, x in fixture(f"stage1_iter_{size}_{situation}").items()}
    leaves = Leaves(**leaves_of(v, "param"))
    optimiser = Optimiser(leaves, tuple(LEAVES), SCHEDULE.rates(0))
    k = v["K"]
    view = View(torch.stack([k[0, 0], k[1, 1], k[0, 2], k[1, 2]]), v["w2c"].float(), tuple(v["WH"].tolist()))
    batch = Batch(
        WorldRays(v["cam_loc"], v["ray_dirs"]), v["rgb_gt"], v["seg"], v["mouth_interior"] > 0, v["t_rand"],
        v["search_noise_std1"][0],
    )  # fmt: skip
    moment = dataclasses.replace(MOMENT, sharpness=math.exp(10 * float(v["variance"])))
    model = golden_model(size)
    looked = evaluate(model, leaves, batch, view, v["landmarks68_px"].float(), moment, PUBLISHED, block_rays)
    gradients = {name: getattr(leaves, name).grad.clone() for name in LEAVES}
    return Iteration(v, leaves, optimiser, looked, gradients)


@pytest.mark.parametrize(("size", "situation"), SITUATIONS)
def test_an_iteration_is_the_published_one(size, situation):
    """At zero codes and the first pose, and at codes and pose of some kind: terms, pictures, gradients, step."""
    it = iterate(size, situation)
    v = it.values
    torch.testing.assert_close(it.looked.rgb, v["rgb_pred"], atol=5e-5, rtol=0)
    torch.testing.assert_close(it.looked.opacity.detach(), v["weights_sum"][:, 0], atol=5e-5, rtol=0)
    for ours, theirs in TERMS.items():
        torch.testing.assert_close(it.looked.terms[ours], v[theirs], atol=5e-6, rtol=2e-6, msg=f"term {ours}")
    before_landmarks = it.looked.terms["total"] - MOMENT.landmark_weight * it.looked.terms["landmarks"]
    torch.testing.assert_close(before_landmarks, v["loss_image_plus_reg"], atol=1e-4, rtol=2e-6)
    for name, gradient in leaves_of(v, "grad").items():
        largest = float(gradient.abs().max())
        torch.testing.assert_close(it.gradients[name], gradient, atol=1e-4 * largest, rtol=0, msg=f"gradient of {name}")


@pytest.mark.parametrize(("size", "situation"), SITUATIONS[:2])
def test_a_step_from_the_published_gradients_ends_where_the_published_step_does(size, situation):
    """Clipping and both kinds of Adam by themselves: Adam's first step is the rate times a gradient's sign, and where
    that is nearly 0, ours and the recorded one may differ in it."""
    it = iterate(size, situation)
    golden = leaves_of(it.values, "grad")
    for name, gradient in golden.items():
        getattr(it.leaves, name).grad = gradient.clone()
    it.optimiser.step((0,), SCHEDULE.rates(0))
    for name, after in leaves_of(it.values, "after_step").items():
        torch.testing.assert_close(getattr(it.leaves, name).detach(), after, atol=2e-8, rtol=0, msg=f"{name} after")


def test_rays_in_blocks_give_the_gradients_of_all_at_once():
    """Seven rays at a time, although the mask term joins all: the same to a rounding of the sums."""
    whole, parts = iterate("tiny", "generic"), iterate("tiny", "generic", block_rays=7)
    for name, gradient in whole.gradients.items():
        largest = float(gradient.abs().max())
        torch.testing.assert_close(parts.gradients[name], gradient, atol=2e-5 * largest, rtol=0, msg=name)
    for name, term in whole.looked.terms.items():
        torch.testing.assert_close(parts.looked.terms[name], term, atol=1e-5, rtol=1e-6, msg=name)
