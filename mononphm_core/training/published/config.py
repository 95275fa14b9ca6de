"""The training section of the published configuration, key by key; two configurations: the release and a small one."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from mononphm_core.errors import ConfigError

UNUSED = frozenset(
    {
        "grad_clip_lat", "loss_type", "lr_decay_factor_lat", "lr_decay_interval", "lr_decay_interval_lat", "mode",
        "npatches_per_batch", "sigma_near",
    }
)  # fmt: skip
"""Keys that the published program accepts and never reads for this model."""
UNUSED_LAMBDAS = frozenset({"lpips", "reg_app_var", "reg_expr_var", "reg_shape_var"})
HALVED_AT = (350, 700, 1050)
HALVED_FROM, HALVED_EVERY = 1300, 250
"""Epochs at which every learning rate is multiplied by `lr_decay_factor`."""


@dataclass(frozen=True)
class Lambdas:
    """Weights of the losses; the release's values."""

    surf_sdf: float = 1.0
    normals: float = 0.3
    eikonal: float = 0.15
    space_sdf: float = 0.01
    color: float = 1.0
    reg_shape: float = 0.01
    reg_expr: float = 0.05
    reg_app: float = 0.005
    symm_dist: float = 0.01
    symm_dist_app: float = 1e-4
    middle_dist: float = 0.0
    middle_dist_app: float = 0.0
    anchors: float = 7.5
    corresp: float = 1000.0
    loss_reg_zero: float = 0.0025
    loss_neutral_zero: float = 0.001
    hyper: float = 0.05


@dataclass(frozen=True)
class PublishedTraining:
    """How a published model is trained; the release's values."""

    batch_size: int = 16
    """Scans on one device."""
    lr: float = 5e-4
    lr_lat: float = 2e-3
    lr_lat_expr: float = 1e-2
    lr_decay_factor: float = 0.5
    weight_decay: float = 5e-4
    grad_clip: float = 1.0
    """Of the two decoders, each alone; codes are not clipped."""
    ckpt_interval: int = 250
    npoints_face: int = 1000
    """Three quarters from the face, one from the static front around it; an eighth as many far points."""
    npoints_non_face: int = 250
    npoints_off_surface: int = 250
    npoints_corresp: int = 250
    lambdas: Lambdas = field(default_factory=Lambdas)

    def rate(self, epoch: int) -> float:
        """What the learning rates are multiplied by in `epoch`."""
        halvings = sum(epoch >= e for e in HALVED_AT)
        if epoch >= HALVED_FROM:
            halvings += (epoch - HALVED_FROM) // HALVED_EVERY + 1
        return self.lr_decay_factor**halvings


def training_of(document: Mapping[str, Any]) -> PublishedTraining:
    """The `training` section. ConfigError names a key that is unknown or no positive number where one must be."""
    section = document.get("training")
    if not isinstance(section, Mapping):
        raise ConfigError("the configuration has no section training")
    values = dict(section)
    raw = values.pop("lambdas", {})
    if not isinstance(raw, Mapping):
        raise ConfigError("training.lambdas is no section")
    lambdas = Lambdas(**_checked(raw, Lambdas(), UNUSED_LAMBDAS, "training.lambdas"))
    return PublishedTraining(lambdas=lambdas, **_checked(values, PublishedTraining(), UNUSED, "training"))


def _checked(given: Mapping[str, Any], defaults: Any, unused: frozenset[str], where: str) -> dict[str, Any]:
    known = {f.name: getattr(defaults, f.name) for f in fields(defaults) if f.name != "lambdas"}
    unknown = sorted(given.keys() - known.keys() - unused)
    if unknown:
        raise ConfigError(f"{where}.{unknown[0]} is unknown; known: {', '.join(sorted(known))}")
    checked: dict[str, Any] = {}
    for name, default in known.items():
        value = given.get(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
            raise ConfigError(f"{where}.{name} is {value!r}; expected a number, not negative")
        if isinstance(default, int) and (value != int(value) or value < 1):
            raise ConfigError(f"{where}.{name} is {value!r}; expected a whole number, at least 1")
        checked[name] = int(value) if isinstance(default, int) else float(value)
    return checked


def document(small: bool = False) -> dict[str, Any]:
    """A whole `configs.yaml`: the release's sizes, or sizes that one processor core can train."""
    width, deep, glob, local, exp, compressed = (25, 50, 8, 4, 12, 4) if small else (200, 400, 64, 32, 100, 16)
    training = {f.name: getattr(PublishedTraining(), f.name) for f in fields(PublishedTraining)}
    training["lambdas"] = {f.name: getattr(Lambdas(), f.name) for f in fields(Lambdas)}
    if small:
        training |= {"batch_size": 4, "ckpt_interval": 10, "npoints_face": 160, "npoints_non_face": 40}
        training |= {"npoints_off_surface": 40, "npoints_corresp": 40}
    gnn = {"hidden_dim_geo": width, "hidden_dim_app": width, "nlayers_geo": 4, "nlayers_app": 4}
    return {
        "decoder": {
            "decoder_nloc": 65,
            "ex": {
                "mode": "compress", "hidden_dim": deep, "nlayers": 6, "lat_dim_ex": exp, "lat_dim_id": compressed,
                "nhyper": 2,
            },
            "id": {
                "nloc": 65, "nsymm_pairs": 30, "nneigh": 12, "blend_std": 3.75, "lat_dim_glob": glob,
                "lat_dim_glob_app": glob, "lat_dim_loc_geo": local, "lat_dim_loc_app": local,
                "gnn": gnn | {"nfreq_bands_geo": 0, "nfreq_bands_app": 0},
            },
        },
        "training": training,
    }  # fmt: skip
