"""First-order descent on the objective: the readable solver of both stages."""

from collections import defaultdict
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from mononphm_core.model.template import TemplateHead
from mononphm_core.rendering import light
from mononphm_core.tracking.config import MOST_SIGMAS, Rates
from mononphm_core.tracking.objective import Evaluation, Setting, evaluate, weighted_sum
from mononphm_core.tracking.scene import candidates
from mononphm_core.tracking.variables import Variables

REFRESH = 8
"""Steps after which the template is drawn again, so that rays keep bracketing the surface."""
LIGHT_MEMORY = 0.6
"""Share of the old light that a new closed-form estimate leaves."""

History = dict[str, list[float]]


def descend(
    setting: Setting,
    v: Variables,
    batches: Iterator[Tensor],
    steps: int,
    rates: Rates,
    moving: tuple[str, ...],
    generator: torch.Generator,
    after_step: Callable[[int], None],
    fit_light: bool,
) -> History:
    """Take `steps` Adam steps over the named leaves of `v`, in place; each step looks at one batch of frames.

    Rates fall as a half cosine to a tenth; the band narrows and the surface sharpens from the first to the last step.
    Rows of frames that a batch leaves out get no gradient and their state does not move.
    """
    leaves = {name: getattr(v, name).detach().clone().requires_grad_(True) for name in moving}
    for name, leaf in leaves.items():
        setattr(v, name, leaf)
    speed = {"turn": rates.rotation, "shift": rates.translation}
    moments = {
        name: (torch.zeros_like(x), torch.zeros_like(x), x.new_zeros(len(x), dtype=torch.long))
        for name, x in leaves.items()
    }
    history: History = defaultdict(list)
    found = candidates(setting.scene, _template(setting), v, setting.sampling)
    for step in range(steps):
        if step and step % REFRESH == 0:
            found = candidates(setting.scene, _template(setting), v, setting.sampling)
        share = step / max(1, steps - 1)
        band = _between(setting.sampling.band, share)
        sharpness = _between(setting.sampling.sharpness, share)
        frames = next(batches)
        looked = evaluate(setting, v, found, frames, band, sharpness, generator)
        loss = weighted_sum(looked.terms, setting.weights, step)
        gradients = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
        slow = 0.1 + 0.9 * 0.5 * (1 + torch.cos(torch.tensor(share * torch.pi)).item())
        with torch.no_grad():
            for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True):
                rate = speed.get(name) or getattr(rates, name)
                rows = frames if name in ("turn", "shift", "z_exp") else slice(None)
                _adam(leaf, gradient, moments[name], rows, rate * slow)
                if name in ("u_geo", "u_app"):
                    leaf.clamp_(-MOST_SIGMAS, MOST_SIGMAS)
            if fit_light and step % 3 == 0:
                _update_light(v, looked)
        for name, value in looked.terms.items():
            history[name].append(float(value.detach()))
        after_step(step + 1)
    for name in moving:
        setattr(v, name, getattr(v, name).detach())
    return dict(history)


def _template(setting: Setting) -> TemplateHead:
    assert setting.model.template is not None, "tracking needs a model with a template"
    return setting.model.template


def _between(ends: tuple[float, float], share: float) -> float:
    """Geometric interpolation."""
    return float(ends[0] * (ends[1] / ends[0]) ** share)


def _adam(
    leaf: Tensor, gradient: Tensor, moment: tuple[Tensor, Tensor, Tensor], rows: Tensor | slice, rate: float
) -> None:
    """Adam (Kingma and Ba 2015, beta 0.9 / 0.98) on some rows; every row counts its own steps."""
    mean, square, count = moment
    g = gradient[rows]
    mean[rows] = 0.9 * mean[rows] + 0.1 * g
    square[rows] = 0.98 * square[rows] + 0.02 * g.square()
    count[rows] += 1
    n = count[rows].reshape(-1, *[1] * (g.ndim - 1)).to(g.dtype)
    step = mean[rows] / (1 - 0.9**n) / ((square[rows] / (1 - 0.98**n)).sqrt() + 1e-8)
    leaf[rows] -= rate * step


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
