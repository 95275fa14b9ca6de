"""The public Python interface: one model, four verbs. Stable: what is here changes only with a note in the CHANGELOG.

    import mononphm_core as mononphm

    model = mononphm.load_model("open-small")
    sdf, colour, gradient = model.query(x_posed, model.mean_identity(), model.neutral_expression())

Frames, units and signs are those of docs/conventions.md: posed head space, x = the subject's left, y up, z out of the
face; 1 head unit = 250 mm; distances are negative inside. Tensors live on the model's device; nothing here reads the
environment.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mononphm_core.config import CameraChoice, FrameSelection, MediaLimits, MeshingConfig, PreprocessingConfig, Quality
from mononphm_core.errors import ConfigError
from mononphm_core.geometry.cameras import intrinsics_row, ray_directions
from mononphm_core.io import registry
from mononphm_core.io.media import read_clip
from mononphm_core.io.published import Request, read_published
from mononphm_core.meshing.clean import cut_below, largest_component
from mononphm_core.meshing.colours import colour_vertices
from mononphm_core.meshing.isosurface import Focus, Vector, extract_surface
from mononphm_core.meshing.published import published_colours, published_surface
from mononphm_core.model.head import Conditioned, HeadModel
from mononphm_core.model.root_finding import find_roots
from mononphm_core.preprocessing.observe import observe
from mononphm_core.quirks import PUBLISHED
from mononphm_core.rendering.light import lit
from mononphm_core.rendering.published.fine import Placement, WorldRays, place_samples
from mononphm_core.rendering.volume import Rays
from mononphm_core.rendering.volume import render as render_volume
from mononphm_core.tracking import stage1, stage2
from mononphm_core.tracking.config import TrackingConfig
from mononphm_core.tracking.published.configuration import PublishedConfig
from mononphm_core.tracking.published.solve import solve
from mononphm_core.tracking.quality import tracking_config
from mononphm_core.types import (
    ColourField,
    HeadMesh,
    HeadPose,
    IdentityCode,
    Intrinsics,
    ObservedClip,
    OnStep,
    SdfField,
    TrackedSequence,
    ignore_steps,
)

Timed = Callable[[str], AbstractContextManager[None]]
COLOURED = 8
"""Samples of a rendered ray that are asked for their colour: those of largest weight."""
CHUNK = 8192
"""Points asked at once where no gradient is kept: more leaves the processor's cache."""


@dataclass(frozen=True)
class Extent:
    """Where a head's surface is looked for."""

    box: tuple[Vector, Vector]
    """Lowest and highest corner, posed head units."""
    steepest: float
    """Bound on the slope of the distance: the field is asked only where it allows a zero."""
    neck_cut: float | None
    """Height below which the surface is dropped; None: kept as far as the box goes."""
    focus: Focus | None = None
    """Where cells are shorter."""


EYES_AND_MOUTH = Focus((-0.19, -0.33, 0.05), (0.19, 0.11, 0.23), finer=2.6, ramp=0.03)
"""Posed head units: lids and lips are a millimetre or two thin and would be sawn up by the cells of a skull."""
TAUGHT = Extent((MeshingConfig().box_min, MeshingConfig().box_max), 1.1, neck_cut=-0.46, focus=EYES_AND_MOUTH)
"""Of our own priors: their distances are nearly true, and below this height they were not taught."""
WHOLE = Extent(((-0.55, -0.5, -0.95), (0.55, 0.75, 0.4)), steepest=2.0, neck_cut=None)
"""The box of the published program, for models of whose slope nothing is known."""


class Sample(NamedTuple):
    """What the field says at points of posed space."""

    sdf: Float[Tensor, "points"]
    """Signed distance, head units; negative inside."""
    colour: Float[Tensor, "points 3"]
    """Albedo in the decoder's range: -1 black, 1 white, unbounded. sRGB in [0, 1] is (colour + 1) / 2, clipped."""
    gradient: Float[Tensor, "points 3"]
    """d sdf / d x_posed, not normalised; points outwards."""


class Picture(NamedTuple):
    """One rendered image."""

    rgb: Float[Tensor, "height width 3"]
    """sRGB, nominally [0, 1], over the background."""
    opacity: Float[Tensor, "height width"]
    depth: Float[Tensor, "height width"]
    """Distance from the camera's centre along the pixel's ray, head units; meaningless where opacity is near 0."""
    normal: Float[Tensor, "height width 3"]
    """Unit outward normal, posed head space."""


@dataclass(frozen=True)
class Model:
    """A neural parametric head with frozen weights, and what is known about it."""

    network: HeadModel
    name: str
    card: registry.ModelCard | None = None
    """None for a published experiment that was read without registering it."""

    @property
    def device(self) -> torch.device:
        """Where its tensors live."""
        return self.network.identity.mean_anchors.device

    @property
    def latent_sizes(self) -> tuple[int, int, int]:
        """Lengths of z_geo, z_app and z_exp."""
        config = self.network.config
        return config.identity.d_geo, config.identity.d_app, config.deformation.d_expression

    def mean_identity(self) -> IdentityCode:
        """The person whose codes are zero."""
        d_geo, d_app, _ = self.latent_sizes
        like = next(self.network.parameters())
        return IdentityCode(like.new_zeros(d_geo), like.new_zeros(d_app))

    def neutral_expression(self) -> Float[Tensor, "d_exp"]:
        """The expression whose code is zero."""
        return next(self.network.parameters()).new_zeros(self.latent_sizes[2])

    def conditioned(
        self, identity: IdentityCode, expression: Float[Tensor, "..."], x: Float[Tensor, "..."] | None = None
    ) -> Conditioned:
        """The network for one person with one expression. ConfigError for codes or points of other sizes."""
        given = [identity.z_geo, identity.z_app, expression]
        for name, code, size in zip(("z_geo", "z_app", "the expression"), given, self.latent_sizes, strict=True):
            if code.shape != (size,):
                raise ConfigError(
                    f"{name} is {list(code.shape)}; {self.name or 'this model'} has codes of {size} numbers"
                )
        if x is not None and (x.ndim != 2 or x.shape[1] != 3 or x.dtype != expression.dtype):
            raise ConfigError(f"points are {list(x.shape)} {x.dtype}; expected [points, 3] {expression.dtype}")
        return self.network.condition(identity.z_geo[None], expression[None], identity.z_app[None])

    def anchors(self, identity: IdentityCode) -> Float[Tensor, "anchors 3"]:
        """Facial key points of a person on the canonical head, head units. Differentiable in `identity.z_geo`."""
        return self.network.identity.anchors(identity.z_geo[None])[0]

    def posed_anchors(self, identity: IdentityCode, expression: Float[Tensor, "d_exp"]) -> Float[Tensor, "anchors 3"]:
        """Where those key points are with an expression; the last iterate where the search found none. No gradient."""
        conditioned = self.conditioned(identity, expression)
        return find_roots(
            lambda x: self.network.to_canonical(x[None], conditioned)[0, :, :3], self.anchors(identity).detach()
        ).x

    def query(
        self, x_posed: Float[Tensor, "points 3"], identity: IdentityCode, expression: Float[Tensor, "d_exp"]
    ) -> Sample:
        """Signed distance, colour and gradient at points of posed head space.

        Everything, the gradient included, is differentiable in points and codes that require it; otherwise points are
        asked in pieces that fit a processor's cache.
        """
        given = (x_posed, identity.z_geo, identity.z_app, expression)
        create_graph = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given)
        conditioned = self.conditioned(identity, expression, x_posed)
        parts = []
        for x in (x_posed,) if create_graph else x_posed.split(CHUNK):
            found = self.network.query(x[None], conditioned, gradient=True, create_graph=create_graph)
            assert found.colour is not None and found.gradient is not None
            part = Sample(found.sdf[0], found.colour[0], found.gradient[0])
            parts.append(part if create_graph else Sample(*(value.detach() for value in part)))
        return parts[0] if len(parts) == 1 else Sample(*(torch.cat(values) for values in zip(*parts, strict=True)))

    def sdf(
        self, x_posed: Float[Tensor, "points 3"], identity: IdentityCode, expression: Float[Tensor, "d_exp"]
    ) -> Float[Tensor, "points"]:
        """Signed distance alone: several times faster than `query`. Differentiable."""
        conditioned = self.conditioned(identity, expression, x_posed)
        return self.network.sdf(x_posed[None], conditioned)[0]

    def to_canonical(
        self, x_posed: Float[Tensor, "points 3"], identity: IdentityCode, expression: Float[Tensor, "d_exp"]
    ) -> Float[Tensor, "points d_point"]:
        """Where posed points lie on the canonical head, then their ambient coordinates. Differentiable."""
        conditioned = self.conditioned(identity, expression, x_posed)
        return self.network.to_canonical(x_posed[None], conditioned)[0]


def load_model(
    name_or_path: str | Path = registry.DEFAULT_MODEL,
    *,
    device: str | torch.device = "cpu",
    folders: Sequence[Path] | None = None,
    ckpt: int | None = None,
    anchors: Path | None = None,
) -> Model:
    """A model by name (of those that come with the program, or below one of `folders`), or by path.

    Without `folders` those of `mononphm models add` are known, where it puts them by default.

    A path is a registered model's folder, or a published experiment's folder or checkpoint, which is read in a limited
    process as `mononphm models add` does; `ckpt` and `anchors` (its anchors_65.npy) belong to that. Raises
    WeightsNotFound, ChecksumMismatch, and AssetError for a checkpoint that does not fit its configuration.
    """
    place = Path(name_or_path)
    if place.exists() and (place / registry.CARD).is_file():
        card = registry.read_card(place / registry.CARD)
    elif place.exists():
        network, facts = read_published(Request(place, ckpt, anchors))
        return Model(network.to(device), facts["published"]["exp_name"])
    else:
        known = (registry.added(),) if folders is None else folders
        card = registry.find_model(str(name_or_path), registry.BUNDLED, *known)
    return Model(registry.warm_model(card, str(device)), card.name, card)


def extract_mesh(
    model: Model,
    identity: IdentityCode,
    expression: Float[Tensor, "d_exp"],
    resolution: int = 96,
    extent: Extent | None = None,
    correction: Float[Tensor, "4 3"] | None = None,
    on_query: Callable[[], None] = lambda: None,
) -> HeadMesh:
    """The surface of one head as a triangle mesh with vertex colours, posed head units, largest component.

    `resolution` is cells along the longest side of the box; around eyes and mouth of our own priors they are shorter
    (`EYES_AND_MOUTH`). A surface that the box cuts stays open there. `extent` is the box and what is known of the field
    in it; by default that of the service's own meshes: `TAUGHT` for priors of ours, `WHOLE` for converted checkpoints.
    `correction` is `TrackedSequence.colour_correction`: albedo in [-1, 1] times its first three rows plus the last.
    `on_query` is called before every question to the field, and may raise.
    `meshing.place.to_world_mm` takes the result to the camera's world. Raises NoSurface. No gradient.
    """
    within = extent or (WHOLE if model.network.template is None else TAUGHT)
    sdf, colour = _fields(model, identity, expression, correction, on_query)
    mesh = extract_surface(sdf, *within.box, resolution, CHUNK, within.steepest, model.device, within.focus)
    mesh = largest_component(mesh if within.neck_cut is None else cut_below(mesh, within.neck_cut))
    return colour_vertices(mesh, colour, CHUNK, model.device)


def extract_published_mesh(
    model: Model,
    identity: IdentityCode,
    expression: Float[Tensor, "d_exp"],
    resolution: int = 256,
    correction: Float[Tensor, "4 3"] | None = None,
    on_query: Callable[[], None] = lambda: None,
) -> HeadMesh:
    """The same as the published program makes it: slow, open at the neck, with whatever else its box holds.

    `resolution` is points along every side, and colours wrap around (`meshing.published`).
    """
    sdf, colour = _fields(model, identity, expression, None, on_query)
    mesh = published_surface(sdf, resolution, CHUNK, model.device)
    return published_colours(mesh, colour, correction, PUBLISHED, CHUNK, model.device)


def _fields(
    model: Model,
    identity: IdentityCode,
    expression: Float[Tensor, "d_exp"],
    correction: Float[Tensor, "4 3"] | None,
    on_query: Callable[[], None],
) -> tuple[SdfField, ColourField]:
    """Distance, and corrected albedo in [0, 1], of one head as functions of points. No gradient."""
    network = model.network
    with torch.no_grad():
        conditioned = model.conditioned(identity, expression)

    @torch.no_grad()
    def sdf(x: Float[Tensor, "points 3"]) -> Float[Tensor, "points"]:
        on_query()
        return network.sdf(x[None], conditioned)[0]

    @torch.no_grad()
    def colour(x: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
        on_query()
        found = network.query(x[None], conditioned).colour
        assert found is not None
        seen = found[0] if correction is None else found[0] @ correction[:3] + correction[3]
        return (seen + 1) / 2

    return sdf, colour


def render(
    model: Model,
    identity: IdentityCode,
    expression: Float[Tensor, "d_exp"],
    camera: Intrinsics,
    pose: HeadPose,
    light: Float[Tensor, "9 3"] | None = None,
    background: float = 1.0,
    samples: int = 64,
    sharpness: float = 1000.0,
) -> Picture:
    """A picture of one head by volume rendering (NeuS), from the camera at the world's origin that looks along +z.

    `pose` (its first row) maps that world to posed head space: x_posed = scale R x_world + t. `light` is irradiance as
    order-2 spherical harmonics in the camera's frame, as `TrackedSequence.light`; without it the albedo is shown. Rays
    are sampled in a ball of 0.7 head units around the head. No gradient.
    """
    network, device = model.network, model.device
    scale, turn, shift = pose.scale.to(device), pose.rotation[0].to(device), pose.translation[0].to(device)
    rows, columns = torch.meshgrid(torch.arange(camera.height), torch.arange(camera.width), indexing="ij")
    pixels = torch.stack([columns, rows], -1).reshape(-1, 2).to(device) + 0.5
    directions = ray_directions(pixels, intrinsics_row(camera).to(device)) @ turn.T
    at_head = Placement(
        torch.eye(3, device=device), shift.new_zeros(3), shift.new_ones(()), torch.eye(3, device=device)
    )
    parts = []
    with torch.no_grad():
        conditioned = model.conditioned(identity, expression)

        def colour(x: Float[Tensor, "frames points 3"]) -> Float[Tensor, "frames points 3"]:
            found = network.query(x, conditioned).colour
            assert found is not None
            return found

        def normal(x: Float[Tensor, "frames points 3"]) -> Float[Tensor, "frames points 3"]:
            found = network.query(x, conditioned, colour=False, gradient=True).gradient
            assert found is not None
            return torch.nn.functional.normalize(found.detach(), dim=-1)

        for direction in directions.split(max(1, CHUNK // samples)):
            jitter = direction.new_full((len(direction), samples + 1), 0.5)
            rays = WorldRays(shift, direction)
            z = place_samples(rays, at_head, lambda x: network.sdf(x[None], conditioned)[0], jitter)
            near_far = Rays(shift[None], direction[None], z[None, :, 0], z[None, :, -1])
            seen = render_volume(
                near_far, z[None], lambda x: network.sdf(x, conditioned), colour, normal, sharpness, COLOURED
            )
            parts.append((seen.albedo[0], seen.opacity[0], seen.depth[0] / scale, seen.normal[0]))
    albedo, opacity, depth, normals = (torch.cat(values) for values in zip(*parts, strict=True))
    shown = (albedo + 1) / 2 if light is None else lit(albedo, normals @ turn, light.to(device))
    rgb = opacity[:, None] * shown + (1 - opacity[:, None]) * background
    size = (camera.height, camera.width)
    return Picture(rgb.view(*size, 3), opacity.view(size), depth.view(size), normals.view(*size, 3))


def track(
    model: Model,
    source: str | Path,
    *,
    quality: Quality = "standard",
    camera: CameraChoice | None = None,
    selection: FrameSelection | None = None,
    stages: tuple[int, ...] = (1, 2),
    seed: int = 0,
    published: PublishedConfig | None = None,
    on_step: OnStep = ignore_steps,
) -> TrackedSequence:
    """The person in a video or picture: codes, expressions, poses and light, one row per frame.

    `selection` chooses frames; all of them by default, so name few of a long clip. Stage 2 needs more than one frame.
    With `published` the solver is that of the MonoNPHM release, as it says; a model without a landmark template is
    always tracked by it, with the published values (and `seed`) if none are given, and the bundled model leads the
    first poses. `quality` is our own solver's. `on_step` hears the progress, and may raise to stop. Raises the
    InputErrors of reading and of finding a face, and Diverged. No gradient.
    """
    leader = model if model.network.template is not None and model.card is not None else load_model(device=model.device)
    template = leader.network.template
    assert template is not None and leader.card is not None, "the bundled model has a template"
    clip = read_clip(Path(source), selection or FrameSelection(), MediaLimits(), on_step)
    mean = template.mean_landmarks()
    observed = observe(clip, camera or CameraChoice(), PreprocessingConfig(), mean, on_step)
    guide, moving = (leader.network, leader.card.expression_names), clip.info.is_video
    is_published = published is not None or leader is not model
    how = (published or PublishedConfig(seed=seed)) if is_published else tracking_config(quality)
    return track_observed(model.network, guide, observed, moving, stages, how, seed, on_step)


def track_observed(
    network: HeadModel,
    guide: tuple[HeadModel, tuple[str, ...]],
    observed: ObservedClip,
    moving: bool,
    stages: tuple[int, ...],
    config: TrackingConfig | PublishedConfig,
    seed: int = 0,
    on_step: OnStep = ignore_steps,
    timed: Timed = lambda stage: nullcontext(),
) -> TrackedSequence:
    """`track` from observations on; what `config` is chooses the solver. Used by `track` and by the service.

    `guide` is a model with a landmark template, and its blendshapes' names: `network` itself where it has one. `moving`
    says that the clip is a video. `timed` is entered once a stage, by its name.
    """
    leader, names = guide
    if isinstance(config, PublishedConfig):
        assert leader.template is not None
        return solve(network, leader.template, names, observed, moving, stages, config, on_step, timed)
    with timed("stage1"):
        tracked = stage1.track(network, observed, names, config.stage1, seed, on_step)
    if 2 in stages and len(observed.observations) > 1:
        with timed("stage2"):
            tracked = stage2.refine(network, observed, names, tracked, config.stage2, config.stage1, seed, on_step)
    return tracked
