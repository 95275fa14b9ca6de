"""How a prior is examined: fits that find codes again, and figures with a plain description."""

import dataclasses

import numpy as np
import pytest
import torch

from mononphm_core.evaluation import prior_figures, prior_fit
from mononphm_core.io import registry
from mononphm_core.io.weights import load_model
from mononphm_core.model.config import RELEASE, SMALL, ModelConfig
from mononphm_core.types import HeadMesh


@pytest.fixture(scope="module")
def shipped():
    return load_model(registry.find_model().path)


@pytest.fixture(scope="module")
def someone(shipped):
    """A random plausible person and expression of the shipped prior."""
    draw = torch.Generator().manual_seed(3)
    template = shipped.template
    z_geo = (template.geo_span @ torch.randn(template.geo_span.shape[1], generator=draw))[None] * 0.8
    z_app = (template.app_span @ torch.randn(template.app_span.shape[1], generator=draw))[None] * 0.8
    z_exp = torch.zeros(1, 53)
    z_exp[0, [26, 45, 46]] = torch.tensor([0.4, 0.7, 0.6])
    return z_geo, z_app, z_exp


def test_landmarks_alone_bring_back_the_places_of_landmarks(shipped, someone):
    """The ridge regression trusts a landmark to a millimetre: they return to a fraction of one."""
    z_geo, _, z_exp = someone
    still = shipped.template.canonical(z_geo, "ibug68")
    found = prior_fit.identity_from_landmarks(shipped, still)
    again = shipped.template.canonical(found, "ibug68")
    assert (again - still).norm(dim=-1).mean() * 250 < 0.6
    assert found.square().mean() < z_geo.square().mean()  # the shortest code that says it
    moved = shipped.template.posed(z_geo, z_exp, "ibug68")
    weights = prior_fit.expression_from_landmarks(shipped, z_geo, moved)
    assert ((weights >= 0) & (weights <= 1)).all()
    assert (shipped.template.posed(z_geo, weights, "ibug68") - moved).norm(dim=-1).mean() * 250 < 0.6


def on_the_surface(model, z_geo, points):
    """Points of the canonical zero set with their normals: template points, brought to it along the gradient."""
    template = model.template
    x = template.canonical(z_geo, "surface")[:, :: template.rows("surface").stop // points]
    conditioned = model.condition(z_geo, template.z_canonical[None])
    for _ in range(3):
        sdf, gradient = prior_figures.field(model, conditioned, x, posed=False)
        x = x - sdf[..., None] * gradient / gradient.square().sum(-1, keepdim=True)
    _, gradient = prior_figures.field(model, conditioned, x, posed=False)
    return x, torch.nn.functional.normalize(gradient, dim=-1), conditioned


def test_a_fit_to_the_models_own_surface_comes_nearer_than_its_landmarks(shipped, someone):
    """The zero set that is fitted is in the model's reach: a few steps must lower the error at points not fitted."""
    z_geo, _, _ = someone
    x, normals, conditioned = on_the_surface(shipped, z_geo, 700)
    errors, cosine = prior_figures.surface_errors(shipped, conditioned, x, normals, posed=False)
    assert errors.quantile(0.9) < 1e-2  # at lids and lips a step may jump to the other fold
    assert cosine.quantile(0.1) > 0.999
    scan = prior_fit.SurfacePoints(x[:, ::2], normals[:, ::2], shipped.template.canonical(z_geo, "ibug68"))
    start = prior_fit.identity_from_landmarks(shipped, scan.landmarks)
    fitted = prior_fit.fit_identity(shipped, scan, steps=12, points=200)

    def error(z):
        known = shipped.condition(z, shipped.template.z_canonical[None])
        return prior_figures.surface_errors(shipped, known, x[:, 1::2], normals[:, 1::2], posed=False)[0].mean()

    assert error(fitted) < 0.6 * error(start)


def test_colour_codes_are_fitted_to_colours(shipped, someone):
    """Colours that the model painted itself: the fit comes nearer than the mean complexion, at other points too."""
    z_geo, z_app, _ = someone
    x, _, _ = on_the_surface(shipped, z_geo, 600)

    def painted(z):
        with torch.no_grad():
            return shipped.identity(x, shipped.identity.person(z_geo, z), colour=True)[1]

    true = painted(z_app)
    fitted = prior_fit.fit_appearance(shipped, z_geo, x[:, ::2], true[:, ::2].clamp(-1, 1), steps=15, points=150)
    mean = prior_figures.colour_psnr_db(painted(torch.zeros_like(z_app))[:, 1::2], true[:, 1::2].clamp(-1, 1))
    assert prior_figures.colour_psnr_db(painted(fitted)[:, 1::2], true[:, 1::2].clamp(-1, 1)) > mean + 3


def test_posed_points_are_found_from_canonical_ones(shipped, someone):
    """The inverse of the deformation: where it says it arrived, the field carries the point back."""
    z_geo, _, z_exp = someone
    conditioned = shipped.condition(z_geo, z_exp)
    x = shipped.template.canonical(z_geo, "ibug68")
    found, arrived = prior_figures.inverse_deformation(shipped, conditioned, x, x.clone())
    assert arrived.float().mean() > 0.9
    with torch.no_grad():
        back = shipped.to_canonical(found, conditioned)[..., :3]
    assert (back - x).norm(dim=-1)[arrived].max() * 250 < 0.05


def test_multiplications_are_those_of_the_weights():
    """Every weight that a point meets is one multiplication; codes are folded away beforehand."""
    plain = dataclasses.replace(SMALL.identity, placement="network")
    config = ModelConfig(plain, dataclasses.replace(SMALL.deformation, bands=0))
    shape = [3 * 64, 64 * 64, 64 * 64, 64 * 64, 64]
    deformation = [2 * 3 * 128, *[128 * 128] * 4, 128 * 3]
    assert prior_figures.multiplications(config, colour=False) == 6 * sum(shape) + sum(deformation)
    assert prior_figures.multiplications(RELEASE, colour=True) >= 20 * prior_figures.multiplications(SMALL, colour=True)


def test_air_on_a_line_and_parts_of_a_mesh_are_counted():
    """Three of eight samples outside on a line of 8 mm are 3 mm; two triangles that share no edge are two parts."""
    line = torch.tensor([[[-1.0, 1, 1, 1, -1, -1, -1, -1]]])
    assert prior_figures.open_lengths_mm(line, 8.0).item() == pytest.approx(3.0)
    faces = np.array([[0, 1, 2], [1, 3, 2], [4, 5, 6]])
    mesh = HeadMesh(np.random.default_rng(0).random((7, 3)).astype(np.float32), faces)
    assert prior_figures.large_components(mesh) == 2
    assert prior_figures.large_components(mesh, least=2) == 1
