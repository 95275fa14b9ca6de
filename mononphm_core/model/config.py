"""Sizes and choices of one head model; the published release and our own priors are values of the same class."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from mononphm_core.errors import ConfigError


@dataclass(frozen=True)
class IdentityConfig:
    """The canonical ensemble: which local networks there are and how they are blended (MonoNPHM, section 3)."""

    anchors: int = 65
    symmetric_pairs: int = 30
    """Anchors 0 .. 2 * pairs - 1 come in (left, right) pairs that share one network; the rest lie on the midline."""
    neighbours: int = 12
    """Local networks evaluated per point."""
    d_global: int = 64
    d_local_geo: int = 32
    d_local_app: int = 32
    hidden_geo: int = 200
    hidden_app: int = 200
    layers_geo: int = 4
    layers_app: int = 4
    """Hidden layers."""
    placement: Literal["network", "linear"] = "network"
    """Where a person's anchors are. `network`: a small network of the global part of the code (published). `linear`: a
    linear map of the whole code, which also gives each anchor the person's local stretch and shear: local networks see
    offsets as they are on the mean person, and need only learn what an affine map of their patch does not say."""
    hidden_anchors: int = 64
    """Width of the network that places the anchors."""
    bottleneck: int = 16
    """Width of the geometry feature that the colour networks see."""
    blend: Literal["published", "compact"] = "published"
    """`published`: Gaussian whose width is the 8th neighbour's distance / blend_std. `compact`: a Gaussian of fixed
    width times a factor that vanishes at the first neighbour left out, so that nothing jumps where the set of
    neighbours changes."""
    blend_std: float = 3.75
    blend_width: float = 0.08
    """Of `compact`, head units."""
    global_node: bool = True
    """One more network without a position, always evaluated (published)."""
    point_scale: float = 1.0
    """Factor on local offsets before the first layer: codes have unit variance, offsets hundredths; published: 1."""
    code_scale: float = 1.0
    """Factor on codes before the first layer; 1 = published."""
    gated: bool = False
    """Codes also scale the second hidden layer of each local network: what a code does to a surface or to colours is
    nearly a sum of code times place, which a bias in the first layer alone says badly. False = published."""
    colour_bands: int = 0
    """Frequency bands of the local offset that the colour networks see besides the feature; 0 = published (none)."""

    @property
    def types(self) -> int:
        """Distinct local networks: a pair shares one."""
        return self.anchors - self.symmetric_pairs + int(self.global_node)

    @property
    def nodes(self) -> int:
        """Networks' places: anchors, plus the one without a position."""
        return self.anchors + int(self.global_node)

    @property
    def d_geo(self) -> int:
        """Length of `z_geo`."""
        return self.d_global + self.nodes * self.d_local_geo

    @property
    def d_app(self) -> int:
        """Length of `z_app`."""
        return self.d_global + self.nodes * self.d_local_app


@dataclass(frozen=True)
class GlobalIdentityConfig:
    """The alternative without local networks: one distance and one colour network (the published `global` type)."""

    anchors: int = 65
    d_geo: int = 512
    d_app: int = 512
    hidden: int = 512
    """Of both networks."""
    layers_geo: int = 6
    layers_app: int = 6
    """Hidden layers; the input is given again at the middle one, divided by sqrt(2)."""
    hidden_anchors: int = 64
    """Width of the network that places the anchors."""

    @property
    def d_global(self) -> int:
        """The whole code is global."""
        return self.d_geo


@dataclass(frozen=True)
class DeformationConfig:
    """The backward deformation field: posed point -> canonical offset and ambient coordinates (MonoNPHM, 3.2)."""

    d_expression: int = 100
    d_identity: int = 16
    """Width to which identity and anchors are compressed."""
    identity: Literal["compressed", "global", "none"] = "compressed"
    """What of the person the field sees: code and anchors through one linear layer (published `compress`), the global
    part of the code as it is (`glob_only`, the `global` type), or nothing (`expr_only`)."""
    hidden: int = 400
    layers: int = 6
    """Hidden layers; the input is given again at the middle one, divided by sqrt(2)."""
    ambient: int = 2
    """Ambient ("hyper") dimensions of the canonical space."""
    bands: int = 0
    """Frequency bands of the posed point; 0 = published (none)."""


@dataclass(frozen=True)
class ModelConfig:
    """One head model."""

    identity: IdentityConfig | GlobalIdentityConfig = field(default_factory=IdentityConfig)
    deformation: DeformationConfig = field(default_factory=DeformationConfig)

    @property
    def ensemble(self) -> IdentityConfig:
        """The local networks; ConfigError for a model without them."""
        if isinstance(self.identity, GlobalIdentityConfig):
            raise ConfigError("this model is of the type `global`: it has no local networks; choose one of type `nphm`")
        return self.identity

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "ModelConfig":
        """The inverse of `to_dict`; an unknown key is a TypeError."""
        kind = GlobalIdentityConfig if "d_geo" in values["identity"] else IdentityConfig
        return ModelConfig(kind(**values["identity"]), DeformationConfig(**values["deformation"]))


RELEASE = ModelConfig()
"""The published release: 36 local networks of width 200, codes of 2176, expression code of 100."""

SMALL = ModelConfig(
    IdentityConfig(
        neighbours=6,
        d_global=48,
        d_local_geo=24,
        d_local_app=8,
        hidden_geo=64,
        hidden_app=48,
        layers_geo=4,
        layers_app=3,
        placement="linear",
        blend="compact",
        global_node=False,
        point_scale=12.0,
        code_scale=0.25,
        gated=True,
        colour_bands=5,
    ),
    DeformationConfig(d_expression=53, d_identity=16, hidden=128, layers=5, ambient=0, bands=6),
)
"""Our prior for two processor cores; expression codes are the weights of the 53 blendshapes."""

BASE = ModelConfig(
    replace(SMALL.ensemble, neighbours=8, d_global=64, d_local_geo=32, d_local_app=16, hidden_geo=96, hidden_app=96),
    replace(SMALL.deformation, d_identity=32, hidden=256, layers=6, bands=7),
)
"""The same architecture for a GPU: 778 thousand multiplications a query, a fifth of the release. Not trained yet."""

SIZES = {"small": SMALL, "base": BASE}
