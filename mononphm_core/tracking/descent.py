"""First-order descent on the colour objective: the person's complexion and the light, geometry held still."""

from collections import defaultdict
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from mononphm_core.rendering import light
from mononphm_core.tracking.adam import Adam, half_cosine
from mononphm_core.tracking.config import MOST_SIGMAS
from mononphm_core.tracking.objective import Evaluation, Setting, evaluate, weighted_sum
from mononphm_core.tracking.scene import candidates
from mononphm_core.tracking.variables import Variables

LIGHT_MEMORY = 0.6
"""Share of the old light that a new closed-form estimate leaves."""

History = dict[str, list[float]]


def find_colours(
    setting: Setting,
    v: Variables,
    batches: Iterator[Tensor],
    steps: int,
    rate: float,
    generator: torch.Generator,
    after_step: Callable[[int], None],
) -> History:
    """Take `steps` Adam steps over the complexion (Kingma and Ba 2015, beta 0.9 / 0.98), in place; each step looks at
    one batch of frames. The rate falls as a half cosine to a tenth; the light is found in closed form in between."""
    assert setting.model.template is not None, "tracking needs a model with a template"
    found = candidates(setting.scene, setting.model.template, v, setting.sampling)
    leaf = v.u_app.detach().clone().requires_grad_(True)
    v.u_app = leaf
    adam = Adam(leaf, betas=(0.9, 0.98))
    history: History = defaultdict(list)
    for step in range(steps):
        looked = evaluate(setting, v, found, next(batches), generator)
        loss = weighted_sum(looked.terms, setting.weights, step)
        loss.backward()
        adam.step(half_cosine(rate, 0.1 * rate, step, max(1, steps)))
        with torch.no_grad():
            leaf.clamp_(-MOST_SIGMAS, MOST_SIGMAS)
            if step % 3 == 0:
                _update_light(v, looked)
        for name, value in looked.terms.items():
            history[name].append(float(value.detach()))
        after_step(step + 1)
    v.u_app = leaf.detach()
    return dict(history)


def _update_light(v: Variables, looked: Evaluation) -> None:
    """Light in closed form from the rays just seen."""
    seen, rays = looked.rendering, looked.cast
    weight = rays.colour_weight * (rays.colour_weight > 0.5) * (seen.opacity > 0.7)
    if weight.sum() < 50:
        return
    found = light.fit_light(
        seen.albedo.reshape(-1, 3), looked.normal_camera.reshape(-1, 3), rays.rgb.reshape(-1, 3), weight.reshape(-1)
    )
    v.light = LIGHT_MEMORY * v.light + (1 - LIGHT_MEMORY) * found
