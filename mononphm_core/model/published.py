"""The published checkpoint format: its configuration, names and shapes, and the same numbers in our modules.

A published experiment keeps two state dicts, `id_decoder` and `ex_decoder`, and a `configs.yaml` that says their sizes.
Our modules stack the local networks of one shape; nothing else differs, so the map is one of names, both ways.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mononphm_core.errors import AssetError
from mononphm_core.model.config import DeformationConfig, GlobalIdentityConfig, IdentityConfig, ModelConfig
from mononphm_core.model.head import HeadModel

ModelType = Literal["nphm", "global"]
SECTIONS = ("id_decoder", "ex_decoder")
BLEND_STD = 3.75
"""Where the configuration does not say it, as configurations older than the release do not."""
AMBIENT = 2
"""Ambient dimensions of the release. The `global` configuration lacks them, and its own constructor fails on that; here
they are read from the width of the last deformation layer."""
LARGEST = {"layers": 64, "neighbours": 1024}
WIDEST = 16384
"""Bounds on what a configuration may claim, before anything is made from it."""

States = Mapping[str, Mapping[str, Tensor]]
"""Section -> published name -> tensor."""


@dataclass(frozen=True)
class Entry:
    """One published tensor and its place in our modules."""

    section: str
    name: str
    ours: str
    row: int | None = None
    """Which local network of a stacked parameter; None: the whole parameter."""


def model_type_of(document: Mapping[str, Any]) -> ModelType:
    """Which of the two published architectures a `configs.yaml` describes."""
    return "nphm" if "lat_dim_glob" in _section(document, "id") else "global"


def model_config(
    document: Mapping[str, Any], model_type: ModelType | None = None, ambient: int = AMBIENT
) -> ModelConfig:
    """Sizes from a `configs.yaml`. `ambient` counts where the file does not say `ex.nhyper`.

    AssetError for a missing, mistyped or impossible value, and for options of the published code that change numbers
    and that no released model used.
    """
    kind = model_type or model_type_of(document)
    ex = _Values(_section(document, "ex"), "decoder.ex")
    ambient = ex.integer("nhyper", ambient, least=0)
    mode = ex.choice("mode", {"compress": "compressed", "glob_only": "global", "expr_only": "none"})
    deformation = DeformationConfig(
        d_expression=ex.integer("lat_dim_ex"),
        d_identity=ex.integer("lat_dim_id") if mode == "compressed" else 0,
        identity=mode,  # type: ignore[arg-type]
        hidden=ex.integer("hidden_dim"),
        layers=ex.integer("nlayers", least=2, most=LARGEST["layers"]),
        ambient=ambient,
    )
    if kind == "nphm":
        return ModelConfig(_ensemble(document), deformation)
    if mode == "compressed":
        raise AssetError("decoder.ex.mode is compress, which needs local codes; a model of type global has none")
    return ModelConfig(_global(document), deformation)


def _ensemble(document: Mapping[str, Any]) -> IdentityConfig:
    node = _section(document, "id")
    ident, gnn = _Values(node, "decoder.id"), _Values(_mapping(node.get("gnn"), "decoder.id.gnn"), "decoder.id.gnn")
    anchors = ident.integer("nloc", most=LARGEST["neighbours"])
    pairs = ident.integer("nsymm_pairs", least=0)
    if 2 * pairs > anchors:
        raise AssetError(
            f"decoder.id.nsymm_pairs is {pairs}: more than half of the {anchors} anchors of decoder.id.nloc"
        )
    return IdentityConfig(
        anchors=anchors,
        symmetric_pairs=pairs,
        neighbours=ident.integer("nneigh", least=8, most=anchors),  # the blend width is the 8th distance
        d_global=ident.integer("lat_dim_glob"),
        d_local_geo=ident.integer("lat_dim_loc_geo"),
        d_local_app=ident.integer("lat_dim_loc_app"),
        hidden_geo=gnn.integer("hidden_dim_geo"),
        hidden_app=gnn.integer("hidden_dim_app"),
        layers_geo=gnn.integer("nlayers_geo", most=LARGEST["layers"]),
        layers_app=gnn.integer("nlayers_app", most=LARGEST["layers"]),
        blend_std=ident.positive("blend_std", BLEND_STD),
    )


def _global(document: Mapping[str, Any]) -> GlobalIdentityConfig:
    ident = _Values(_section(document, "id"), "decoder.id")
    for bands in ("nfreq_bands_geo", "nfreq_bands_color"):
        if ident.integer(bands, 0, least=0) != 0:
            raise AssetError(f"decoder.id.{bands} must be 0: positional encoding of a model of type global is not read")
    layers = ident.integer("nlayers", least=2, most=LARGEST["layers"])
    return GlobalIdentityConfig(
        anchors=ident.integer("nloc", 65, most=LARGEST["neighbours"]),
        d_geo=ident.integer("lat_dim"),
        d_app=ident.integer("lat_dim_app"),
        hidden=ident.integer("hidden_dim"),
        layers_geo=layers,
        layers_app=ident.integer("nlayers_color", 6, least=2, most=LARGEST["layers"]),
    )


class _Values:
    """Numbers of one section of the configuration, each checked."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values, self.where = values, where

    def _get(self, name: str, default: Any) -> Any:
        value = self.values.get(name, default)
        if value is None:
            raise AssetError(f"the configuration lacks {self.where}.{name}; give the configs.yaml of this checkpoint")
        return value

    def integer(self, name: str, default: int | None = None, least: int = 1, most: int = WIDEST) -> int:
        value = self._get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise AssetError(f"{self.where}.{name} is {value!r}; expected a whole number from {least} to {most}")
        return value

    def positive(self, name: str, default: float) -> float:
        value = self._get(name, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
            raise AssetError(f"{self.where}.{name} is {value!r}; expected a positive number")
        return float(value)

    def choice(self, name: str, choices: dict[str, str]) -> str:
        value = self._get(name, None)
        if value not in choices:
            raise AssetError(f"{self.where}.{name} is {value!r}; expected one of {', '.join(choices)}")
        return choices[value]


def _section(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return _mapping(_mapping(document.get("decoder"), "decoder").get(name), f"decoder.{name}")


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise AssetError(f"the configuration has no section {where}; give the configs.yaml of this checkpoint")
    return value


def entries(config: ModelConfig) -> Iterator[Entry]:
    """Every tensor of the two decoders, in the published order."""
    if isinstance(config.identity, GlobalIdentityConfig):
        for ours, theirs, layers in (
            ("geometry", "geo_mlp", config.identity.layers_geo),
            ("colour", "color_mlp", config.identity.layers_app),
        ):
            for i in range(layers + 1):
                yield from _linear("id_decoder", f"{theirs}.lin{i}", f"identity.{ours}.layers.{i}")
    else:
        yield from _stack(config.identity.types, config.identity.layers_geo, "deepSDFensemble", "identity.geometry")
        for i in (0, 1):  # spelt so in the published files
            yield from _linear("id_decoder", f"communcation_bottleneck{i + 1}", f"identity.feature.{i}")
        yield from _stack(config.identity.types, config.identity.layers_app, "aggr_app", "identity.colour")
    for i in (0, 2, 4):
        yield from _linear("id_decoder", f"mlp_pos.{i}", f"identity.anchor_head.{i}")
    if config.deformation.identity == "compressed":
        yield from _linear("ex_decoder", "compressor.0", "deformation.compressor")
    for i in range(config.deformation.layers + 1):
        yield from _linear("ex_decoder", f"defDeepSDF.lin{i}", f"deformation.layers.{i}")


def _linear(section: str, theirs: str, ours: str) -> Iterator[Entry]:
    for part in ("weight", "bias"):
        yield Entry(section, f"{theirs}.{part}", f"{ours}.{part}")


def _stack(types: int, layers: int, theirs: str, ours: str) -> Iterator[Entry]:
    for t in range(types):
        for i in range(layers + 1):
            yield Entry("id_decoder", f"{theirs}.layers.{t}.layers.{2 * i}.weight", f"{ours}.weights.{i}", t)
            yield Entry("id_decoder", f"{theirs}.layers.{t}.layers.{2 * i}.bias", f"{ours}.biases.{i}", t)


def ambient_of(states: States) -> int:
    """Ambient dimensions from the width of the last deformation layer: its outputs less the three offsets."""
    biases = [
        (int(name.removeprefix("defDeepSDF.lin").removesuffix(".bias")), value)
        for name, value in states.get("ex_decoder", {}).items()
        if name.startswith("defDeepSDF.lin") and name.removesuffix(".bias")[14:].isdecimal() and name.endswith(".bias")
    ]
    if not biases or (last := max(biases, key=lambda b: b[0])[1]).ndim != 1 or len(last) < 3:
        return AMBIENT
    return len(last) - 3


def head_model(config: ModelConfig, states: States, mean_anchors: Float[Tensor, "anchors 3"]) -> HeadModel:
    """The published decoders as our model, frozen. AssetError names every tensor that is not as the configuration says.

    `mean_anchors` is the asset `anchors_65.npy`; the state dicts do not contain it. Names may carry the `module.` of
    distributed training.
    """
    states = {section: _unprefixed(section, states.get(section, {})) for section in SECTIONS}
    with torch.device("meta"):
        model = HeadModel(config, torch.empty(config.identity.anchors, 3))
    ours = model.state_dict()
    _check(config, ours, states)
    if mean_anchors.shape != ours["identity.mean_anchors"].shape or not torch.isfinite(mean_anchors).all():
        raise AssetError(
            f"the mean anchors are {tuple(mean_anchors.shape)}; expected {config.identity.anchors} finite points, "
            "the anchors_65.npy that belongs to this checkpoint"
        )
    model = HeadModel(config, mean_anchors)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for entry in entries(config):
            target = parameters[entry.ours]
            (target if entry.row is None else target[entry.row]).copy_(states[entry.section][entry.name])
    return model.requires_grad_(False).eval()


def published_states(model: HeadModel) -> dict[str, dict[str, Tensor]]:
    """The inverse of `head_model`: our model under its published names."""
    ours = model.state_dict()
    states: dict[str, dict[str, Tensor]] = {section: {} for section in SECTIONS}
    for entry in entries(model.config):
        value = ours[entry.ours] if entry.row is None else ours[entry.ours][entry.row]
        states[entry.section][entry.name] = value.detach().clone()
    return states


def _unprefixed(section: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    plain: dict[str, Tensor] = {}
    for name, value in state.items():
        if (short := name.removeprefix("module.")) in plain:
            raise AssetError(f"{section}.{short} is there twice, with and without `module.`: give one of them")
        plain[short] = value
    return plain


def _check(config: ModelConfig, ours: Mapping[str, Tensor], states: States) -> None:
    wrong = []
    wanted: dict[str, set[str]] = {section: set() for section in SECTIONS}
    for entry in entries(config):
        wanted[entry.section].add(entry.name)
        shape = tuple(ours[entry.ours].shape if entry.row is None else ours[entry.ours].shape[1:])
        value = states[entry.section].get(entry.name)
        label = f"{entry.section}.{entry.name}"
        if value is None:
            wrong.append(f"{label} is missing")
        elif value.dtype != torch.float32:
            wrong.append(f"{label} is {str(value.dtype).removeprefix('torch.')}, expected float32")
        elif tuple(value.shape) != shape:
            wrong.append(f"{label} is {tuple(value.shape)}, the configuration says {shape}")
        elif not torch.isfinite(value).all():
            count = int((~torch.isfinite(value)).sum())
            wrong.append(f"{label} has {count} numbers that are not finite")
    for section in SECTIONS:
        wrong += [f"{section}.{name} is unknown" for name in states[section] if name not in wanted[section]]
    if wrong:
        rest = f"; and {len(wrong) - 6} more" if len(wrong) > 6 else ""
        raise AssetError(
            f"the checkpoint does not fit its configuration: {'; '.join(wrong[:6])}{rest}. Give the configs.yaml that "
            "lies beside this checkpoint, or an undamaged copy of the file"
        )
