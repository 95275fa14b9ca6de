"""The model's numbers are those of the published modules: forward, gradient, first and second order products."""

import copy
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from mononphm_core.model.fast import FastField
from tests.golden.checkpoints import DIGESTS, SIZES, Size, digest, golden_model, states
from tests.golden.tables import needs_reference, reference, table

TINY_AND_RELEASE = ["tiny", pytest.param("release", marks=pytest.mark.slow)]


@dataclass
class Answers:
    """What our model says at the fixture's points, with everything that was differentiated."""

    values: dict[str, torch.Tensor]
    first: dict[str, torch.Tensor]
    second: dict[str, torch.Tensor]


def ask(size: Size, golden: dict[str, np.ndarray], dtype: torch.dtype, zero: bool = False) -> Answers:
    """Every quantity of a forward fixture under the fixture's names."""
    model = copy.deepcopy(golden_model(size)).to(dtype)
    given = {k: torch.from_numpy(v).to(dtype) for k, v in golden.items() if v.dtype.kind == "f"}
    z = [(given[k].flatten()[None] * (0 if zero else 1)).requires_grad_(True) for k in ("geo", "exp", "app")]
    conditioned = model.condition(*z)
    x = given["queries"][None]
    canonical = model.to_canonical(x, conditioned)
    sample = model.query(x, conditioned, gradient=True, create_graph=True)
    values = {
        "anchors": conditioned.person.anchors[0],
        "compressed": model.deformation.compressed(z[0], conditioned.person.anchors),
        "offsets": canonical[0, :, :3] - x[0],
        "hyper_coords": canonical[0, :, 3:],
        "queries_can": canonical[0],
        "sdf": sample.sdf[0, :, None],
        "color": sample.colour[0],
        "gradient": sample.gradient[0],
    }
    first, second = {}, {}
    if "cotangent_sdf" in given and not zero:
        loss = (values["sdf"] * given["cotangent_sdf"]).sum() + (values["color"] * given["cotangent_color"]).sum()
        found = torch.autograd.grad(loss, z, retain_graph=True)
        first = dict(zip(("geo", "exp", "app"), found, strict=True))
        found = torch.autograd.grad((values["gradient"] * given["cotangent_gradient"]).sum(), z[:2])
        second = dict(zip(("geo", "exp"), found, strict=True))
    return Answers(values, first, second)


def off(ours: torch.Tensor, golden: np.ndarray) -> float:
    """Largest absolute difference."""
    return float((ours.detach().double() - torch.from_numpy(golden).double().view(ours.shape)).abs().max())


def close(ours: torch.Tensor, golden: np.ndarray, share: float) -> None:
    """Everywhere within a share of the largest entry."""
    assert off(ours, golden) <= share * float(np.abs(golden).max())


@pytest.mark.parametrize("size", SIZES)
def test_the_golden_checkpoint_is_remade_bit_for_bit(size):
    """Every comparison below stands on these weights."""
    assert {section: digest(state) for section, state in states(size).items()} == DIGESTS[size]


@pytest.mark.parametrize("size", SIZES)
def test_in_double_precision_the_field_is_the_published_one(size):
    """No float32 noise to hide behind: distance, colour, offset and gradient to 14 digits."""
    golden = table(f"forward_{size}")
    ours = ask(size, golden, torch.float64).values
    for name in ("sdf", "color", "offsets"):
        assert off(ours[name], golden[f"f64_{name}"]) < 1e-13, name
    assert off(ours["gradient"], golden["f64_gradient"]) < 1e-12  # slopes of unit size through six layers


@pytest.mark.parametrize("size", SIZES)
def test_in_single_precision_the_field_is_the_published_one(size):
    """What tracking computes with."""
    golden = table(f"forward_{size}")
    ours = ask(size, golden, torch.float32).values
    assert off(ours["anchors"], golden["anchors"]) < 6e-8
    assert off(ours["compressed"], golden["compressed"]) < 1e-6
    for name, bound in {"sdf": 1e-6, "color": 2e-6, "offsets": 1e-6, "gradient": 5e-6}.items():
        assert off(ours[name], golden[f"f64_{name}"]) < bound, name


def test_the_products_with_the_jacobian_are_the_published_ones():
    """Tracking descends along the first kind; losses on normals need the second."""
    golden = table("forward_tiny")
    ours = ask("tiny", golden, torch.float64)
    for code in ("geo", "app", "exp"):
        close(ours.first[code], golden[f"f64_vjp_{code}"], 1e-10)
    for code in ("geo", "exp"):
        close(ours.second[code], golden[f"f64_vjp_of_gradient_{code}"], 1e-10)


def test_the_mean_head_is_the_published_one():
    """All codes zero: where tracking starts."""
    golden = table("forward_tiny")
    ours = ask("tiny", golden, torch.float32, zero=True).values
    for name, bound in {"sdf": 1e-6, "color": 2e-6, "gradient": 5e-6}.items():
        assert off(ours[name], golden[f"zero_{name}"]) < bound, name


def test_points_ask_the_published_neighbours_with_the_published_weights():
    """Twelve nearest anchors by distance, then the network without a position."""
    golden = table("forward_tiny")
    rows = len(golden["knn_idx"])
    check_blending("tiny", golden, rows)


def check_blending(size: Size, golden: dict[str, np.ndarray], rows: int) -> None:
    model = golden_model(size)
    z_geo, z_exp = (torch.from_numpy(golden[k]).flatten()[None] for k in ("geo", "exp"))
    conditioned = model.condition(z_geo, z_exp)
    x = torch.from_numpy(golden["queries"][:rows])[None]
    near = model.identity.neighbourhood(model.to_canonical(x, conditioned), conditioned.person.anchors)
    assert np.array_equal(near.nodes.numpy(), golden["knn_idx"])
    assert off(near.weights, golden["blend_weights"]) < 1e-6


@needs_reference
@pytest.mark.parametrize("size", TINY_AND_RELEASE)
def test_every_number_of_the_full_fixture(size):
    """All 256 points, both precisions, blending, mean head, first and second order."""
    golden = reference(f"forward_{size}")
    check_blending(size, golden, 256)
    mean = ask(size, golden, torch.float32, zero=True).values
    single = ask(size, golden, torch.float32)
    bounds = {
        "anchors": 6e-8, "offsets": 1e-6, "hyper_coords": 1e-6, "queries_can": 1e-6, "sdf": 1e-6, "color": 1.5e-6,
        "gradient": 5e-6,
    }  # fmt: skip
    for name, bound in bounds.items():
        assert off(single.values[name], golden[name]) < bound, name
        assert off(mean[name], golden[f"zero_{name}"]) < bound, f"zero_{name}"
    assert off(single.values["compressed"], golden["compressed"]) < 1e-6
    for code in ("geo", "app", "exp"):
        close(single.first[code], golden[f"vjp_{code}"], 1e-3)  # float32 through kinks of ReLU: the fixture's README
    for code in ("geo", "exp"):
        close(single.second[code], golden[f"vjp_of_gradient_{code}"], 1e-4)
    double = ask(size, golden, torch.float64)
    for name in ("anchors", "offsets", "sdf", "color", "gradient"):
        assert off(double.values[name], golden[f"f64_{name}"]) < 1e-12, name
    for code in ("geo", "app", "exp"):
        close(double.first[code], golden[f"f64_vjp_{code}"], 1e-10)
    for code in ("geo", "exp"):
        close(double.second[code], golden[f"f64_vjp_of_gradient_{code}"], 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_the_compiled_field_is_the_published_one(size):
    """The bounds are those of single precision above: the kernel's softplus is off by less than float32 itself."""
    pytest.importorskip("numba", reason="the compiled field needs numba")
    golden = table(f"forward_{size}")
    model = golden_model(size)
    codes = (torch.from_numpy(golden[k]).flatten()[None].float() for k in ("geo", "exp", "app"))
    conditioned = model.condition(*codes)
    x = torch.from_numpy(golden["queries"]).float()[None]
    found = FastField(model)(x, conditioned, (True, True))
    for value, name, bound in zip(found, ("sdf", "color", "gradient"), (1e-6, 2e-6, 5e-6), strict=True):
        assert value is not None and off(value[0], golden[f"f64_{name}"][: x.shape[1]]) < bound, name
