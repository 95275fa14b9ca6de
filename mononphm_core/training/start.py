"""Begin a run from the networks of an earlier prior of the same code family instead of from random ones.

Codes are principal components: computed again on another machine they are the same but for the sign of each, which is
arbitrary. `with_signs_of` gives them the earlier prior's signs; `begin_from` then copies what still means the same.
"""

import logging
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mononphm_core.errors import ConfigError
from mononphm_core.model.head import HeadModel
from mononphm_core.model.identity import IdentityDecoder
from mononphm_core.training.appearance import Painter
from mononphm_core.training.batches import BatchMaker
from mononphm_core.training.codes import CodeBasis
from mononphm_core.training.pool import NO_DISTANCES, PoolHead
from mononphm_core.training.sources import OpenHeads
from mononphm_core.training.tables import APP_DIRECTIONS, coarse_surface, span_of

log = logging.getLogger(__name__)


def begin_from(model: HeadModel, earlier: HeadModel) -> None:
    """Copy the networks of `earlier`, whose anchors come from a network, into `model`, which places them linearly.

    Geometry starts as the earlier mean person seen through each person's frames: what its networks knew of codes was
    mostly what the frames now say. Colour and deformation go on as they were.
    """
    new, old = model.identity, earlier.identity
    assert isinstance(new, IdentityDecoder)
    assert isinstance(old, IdentityDecoder)
    same = replace(model.config.ensemble, colour_bands=0, placement="network", gated=False)
    if (
        replace(earlier.config.ensemble, colour_bands=0) != same
        or model.config.deformation != earlier.config.deformation
    ):
        raise ConfigError("a run can begin from a model of the same sizes with network placement only")
    with torch.no_grad():
        wrong = old.anchors(new.mean_anchors.new_zeros(1, same.d_geo))[0] - new.mean_anchors
        shift = torch.zeros(same.types, 3)
        for node in range(same.anchors):
            mirrored = bool(new.node_mirrored[node])
            side = wrong[node] * torch.tensor([-1.0 if mirrored else 1.0, 1.0, 1.0])
            shift[new.node_type[node]] += side * (0.5 if node < 2 * same.symmetric_pairs else 1.0)
        new.geometry.load_state_dict(old.geometry.state_dict())
        first = new.geometry.weights[0]
        new.geometry.biases[0] -= torch.einsum("thc,tc->th", first[:, :, -3:], shift * same.point_scale)
        first[:, :, :-3] = 0.0
        new.feature.load_state_dict(old.feature.state_dict())
        colour = new.colour.state_dict()
        colour.update({k: v for k, v in old.colour.state_dict().items() if k != "weights.0"})
        colour["weights.0"] = _more_bands(
            old.colour.weights[0], earlier.config.ensemble.colour_bands, model.config.ensemble.colour_bands
        )
        new.colour.load_state_dict(colour)
        model.deformation.load_state_dict(earlier.deformation.state_dict())
        _forget_anchors(model, earlier)


def _more_bands(weight: Float[Tensor, "types hidden d_in"], had: int, has: int) -> Float[Tensor, "types hidden d_more"]:
    """First-layer weights whose last inputs are [x, sines, cosines] of `had` bands, for `has` of them; new ones 0."""
    codes, x, sines, cosines = weight.split([weight.shape[2] - 3 * (1 + 2 * had), 3, 3 * had, 3 * had], 2)
    none = weight.new_zeros(*weight.shape[:2], 3 * (has - had))
    return torch.cat([codes, x, sines, none, cosines, none], 2)


def _forget_anchors(model: HeadModel, earlier: HeadModel) -> None:
    """Say with codes what the compressor read from anchors: they were a function of the global code, nearly linear."""
    c = model.config.ensemble
    draw = torch.Generator().manual_seed(0)
    z = torch.zeros(4000, c.d_geo)
    z[:, : c.d_global] = torch.randn(4000, c.d_global, generator=draw)
    anchors = earlier.identity.anchors(z).flatten(1)
    known = torch.cat([z[:, : c.d_global], torch.ones(len(z), 1)], 1)
    linear = torch.linalg.lstsq(known, anchors).solution.T
    layer = model.deformation.compressor
    read = layer.weight[:, c.d_geo :].clone()
    layer.weight[:, : c.d_global] += read @ linear[:, :-1]
    layer.bias.add_(read @ linear[:, -1])
    layer.weight[:, c.d_geo :] = 0.0


def with_signs_of(
    earlier: HeadModel, heads: OpenHeads, painter: Painter, geometry: CodeBasis, appearance: CodeBasis
) -> tuple[CodeBasis, CodeBasis]:
    """The same codes, each component pointing the way it does in an earlier prior's template."""
    template = earlier.template
    assert template is not None
    vertices, _ = coarse_surface(heads, template.rows("surface").stop - template.rows("surface").start)
    then = template.identity_jacobian("surface", earlier.config.ensemble.nodes).numpy()
    now = geometry.jacobian(vertices)
    agreement = np.einsum("vcd,vcd->d", then, now) / (np.square(then).sum((0, 1)) + 1e-12)
    log.info("geometry codes agree to %.3f", float(np.abs(agreement).min()))
    z_app = BatchMaker(heads, painter, geometry, appearance).z_app
    span = span_of(appearance, z_app, np.flatnonzero(heads.skeleton.part != 2)[::6], APP_DIRECTIONS).numpy()
    geometry = flipped(geometry, np.where(agreement < 0, -1.0, 1.0))
    sign = signs_between(template.app_span.numpy(), span)
    both = [flipped(appearance, sign), flipped(appearance, -sign)]
    errors = [_colour_error(earlier, BatchMaker(heads, painter, geometry, codes)) for codes in both]
    log.info("colour errors of the two sets of signs: %.4f, %.4f", *errors)
    return geometry, both[int(np.argmin(errors))]


def _colour_error(earlier: HeadModel, maker: BatchMaker) -> float:
    """Mean absolute error of the earlier prior's colours on a few people, if these were its codes."""
    rng = np.random.default_rng(0)
    people = [PoolHead(maker.heads.sample(rng).canonical, NO_DISTANCES, maker.painter.skin()) for _ in range(4)]
    sets = [maker.colours(rng, head, i, 400) for i, head in enumerate(people)]
    x, colour = (torch.from_numpy(np.stack(list(s)).astype(np.float32)) for s in zip(*sets, strict=True))
    z_geo = torch.from_numpy(maker.geometry.encode(np.stack([head.canonical for head in people])))
    with torch.no_grad():
        person = earlier.identity.person(z_geo, torch.from_numpy(maker.z_app[: len(people)]))
        inside = torch.nn.functional.pad(x, (0, earlier.config.deformation.ambient))
        _, found = earlier.identity(inside, person, colour=True)
    return float((found - colour).abs().mean())


def signs_between(
    earlier: Float[np.ndarray, "d directions"], now: Float[np.ndarray, "d directions"]
) -> Float[np.ndarray, "d"]:
    """The signs s of rows (and t of columns) that make earlier = s now t, from two spans of the same codes; -s with -t
    does as well. Element by element, earlier * now = s now^2 t: its first left singular vector has the signs of s."""
    left, _, right = np.linalg.svd(earlier * now, full_matrices=False)
    s, t = (np.where(v < 0, -1.0, 1.0) for v in (left[:, 0], right[0]))
    log.info("signs agree to %.3f", float(abs(s @ (earlier * now) @ t) / np.abs(earlier * now).sum()))
    return s


def flipped(codes: CodeBasis, sign: Float[np.ndarray, "d"]) -> CodeBasis:
    """The same codes with these components negated."""
    d_global, d_local = codes.global_basis.shape[-1], codes.local_basis.shape[-1]
    sign_global = sign[:d_global].astype(np.float32)
    sign_local = sign[d_global:].reshape(-1, d_local).astype(np.float32)
    return replace(
        codes,
        global_basis=codes.global_basis * sign_global,
        global_analysis=codes.global_analysis * sign_global[:, None],
        local_basis=codes.local_basis * sign_local[codes.local_anchor][:, :, None],
        local_analysis=[a * s[:, None] for a, s in zip(codes.local_analysis, sign_local, strict=True)],
    )
