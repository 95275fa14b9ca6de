"""The same questions to one head, asked in the ways that are compared."""

import copy
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from mononphm_cli.benchmarking.published import Codes, looped_query
from mononphm_core import api
from mononphm_core.io import registry
from mononphm_core.io.weights import random_model
from mononphm_core.meshing.isosurface import extract_surface, extract_surface_dense
from mononphm_core.model.config import RELEASE, DeformationConfig, IdentityConfig, ModelConfig
from mononphm_core.model.fast import FastField, fast_field
from mononphm_core.model.head import FieldSample, HeadModel

Size = Literal["small", "base", "release"]
BASE = ModelConfig(IdentityConfig(hidden_geo=128, hidden_app=128), DeformationConfig(hidden=256))
"""Between ours and the release: 36 local networks of width 128."""
BLOCK = 2048
"""Points whose graph is held at once."""


class Engine(Protocol):
    """One way to ask."""

    name: str

    def distance(self, x: Tensor) -> FieldSample: ...
    def colour(self, x: Tensor) -> FieldSample: ...
    def gradient(self, x: Tensor) -> FieldSample: ...
    def descend(self, x: Tensor) -> tuple[Tensor, ...]: ...
    def mesh(self, resolution: int) -> int: ...


@dataclass(frozen=True)
class Subject:
    """A head to ask."""

    model: HeadModel
    codes: Codes

    @staticmethod
    def of(size: Size, device: str) -> "Subject":
        """Ours with its weights and a drawn person; other sizes with random weights: speed does not see them."""
        bundled = registry.warm_model(registry.find_model(), "cpu")
        draw = torch.Generator().manual_seed(7)
        if size == "small":
            model = copy.deepcopy(bundled)
            assert model.template is not None
            spans = (model.template.geo_span, model.template.app_span)
            z_geo, z_app = (torch.randn(1, s.shape[1], generator=draw) @ s.T for s in spans)
            z_exp = 0.3 * torch.rand(1, model.config.deformation.d_expression, generator=draw)
        else:
            config = BASE if size == "base" else RELEASE
            model = random_model(config, bundled.identity.mean_anchors, seed=7)
            sizes = (config.identity.d_geo, config.identity.d_app, config.deformation.d_expression)
            z_geo, z_app, z_exp = (0.5 * torch.randn(1, d, generator=draw) for d in sizes)
        model.fast = None
        return Subject(model.to(device), (z_geo.to(device), z_app.to(device), z_exp.to(device)))

    def points(self, count: int) -> Tensor:
        """Around the anchors, where a tracker asks."""
        draw = torch.Generator().manual_seed(11)
        anchors = self.model.identity.anchors(self.codes[0])[0].cpu()
        near = anchors[torch.randint(len(anchors), (count,), generator=draw)]
        return (near + 0.05 * torch.randn(count, 3, generator=draw))[None].to(self.codes[0].device)


def wanted(sample: FieldSample) -> Tensor:
    """A scalar that reaches everything a tracker's loss reaches."""
    assert sample.colour is not None and sample.gradient is not None
    slope = (sample.gradient.norm(dim=-1) - 1).square().sum()
    total: Tensor = sample.sdf.square().sum() + sample.colour.square().sum() + slope
    return total


class Published:
    """The published program's way: networks one by one, colour always, weight gradients, one block, dense grid."""

    name = "published"

    def __init__(self, subject: Subject) -> None:
        self.model = copy.deepcopy(subject.model).requires_grad_(True)
        self.codes = subject.codes

    def distance(self, x: Tensor) -> FieldSample:
        """Distance; colour comes with it."""
        with torch.no_grad():
            return looped_query(self.model, x, self.codes)

    colour = distance

    def gradient(self, x: Tensor) -> FieldSample:
        """Distance and slope; colour comes with them."""
        return looped_query(self.model, x, self.codes, gradient=True)

    def descend(self, x: Tensor) -> tuple[Tensor, ...]:
        """Gradients of a loss to the codes, and to the weights beside them."""
        z_geo, z_app, z_exp = (z.clone().requires_grad_(True) for z in self.codes)
        codes = (z_geo, z_app, z_exp)
        self.model.zero_grad()
        wanted(looped_query(self.model, x, codes, gradient=True, create_graph=True)).backward()
        return tuple(z.grad for z in codes if z.grad is not None)

    def mesh(self, resolution: int) -> int:
        """Vertices of the dense grid's surface."""
        found = extract_surface_dense(lambda x: self.distance(x[None]).sdf[0], *api.TAUGHT.box, resolution, 40_000)
        return len(found.vertices)


class Modules:
    """Our torch modules: grouped products, codes folded once, colour only where asked, blocks, sparse grid."""

    name = "modules"

    def __init__(self, subject: Subject) -> None:
        self.model, self.codes = copy.deepcopy(subject.model), subject.codes
        z_geo, z_app, z_exp = self.codes
        with torch.no_grad():
            self.conditioned = self.model.condition(z_geo, z_exp, z_app)

    def distance(self, x: Tensor) -> FieldSample:
        """Distance alone."""
        with torch.no_grad():
            return self.model.query(x, self.conditioned, colour=False)

    def colour(self, x: Tensor) -> FieldSample:
        """Distance and colour."""
        with torch.no_grad():
            return self.model.query(x, self.conditioned)

    def gradient(self, x: Tensor) -> FieldSample:
        """Distance and slope."""
        return self.model.query(x, self.conditioned, colour=False, gradient=True)

    def descend(self, x: Tensor) -> tuple[Tensor, ...]:
        """Gradients of a loss to the codes, block by block."""
        leaves = tuple(z.clone().requires_grad_(True) for z in self.codes)
        for block in x.split(BLOCK, 1):
            conditioned = self.model.condition(leaves[0], leaves[2], leaves[1])
            wanted(self.model.query(block, conditioned, gradient=True, create_graph=True)).backward()
        return tuple(z.grad for z in leaves if z.grad is not None)

    def mesh(self, resolution: int) -> int:
        """Vertices of the sparse grid's surface."""
        found = extract_surface(
            lambda x: self.distance(x[None]).sdf[0], *api.TAUGHT.box, resolution, api.CHUNK, api.TAUGHT.steepest
        )
        return len(found.vertices)


class Compiled(Modules):
    """The same with the compiled field where no graph is wanted: what runs on a processor by default."""

    name = "compiled"

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        assert fast_field(self.model) is not None
        self.model.fast = FastField(self.model)


ENGINES: dict[str, type[Published] | type[Modules]] = {e.name: e for e in (Published, Modules, Compiled)}


def flops(config: ModelConfig, colour: bool) -> float:
    """Of the products of one question, forwards; two a multiplication with its addition. Constants are folded."""
    c, d = config.ensemble, config.deformation
    d_point = 3 + d.ambient
    encoded = 3 * (1 + 2 * d.bands)
    deform = 2 * encoded * d.hidden + (d.layers - 1) * d.hidden**2 + d.hidden * d_point
    local = d_point * c.hidden_geo + (c.layers_geo - 1) * c.hidden_geo**2 + c.hidden_geo
    if colour:
        live = c.bottleneck + (d_point * (1 + 2 * c.colour_bands) if c.colour_bands else 0)
        local += c.hidden_geo * c.bottleneck + c.bottleneck**2
        local += live * c.hidden_app + (c.layers_app - 1) * c.hidden_app**2 + 3 * c.hidden_app
    return 2.0 * (deform + (c.neighbours + int(c.global_node)) * local)
