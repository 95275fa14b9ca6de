"""The heads with one topology through a clip, and its ARKit curves: what a model can have of them."""

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch

from mononphm_core import api
from mononphm_core.animation.carry import Expression, carried_head
from mononphm_core.animation.choice import photos_of
from mononphm_core.animation.heads import BOUND_MM, NamedShapes, Rig, clip_heads, frame_offset, heads_of, rig
from mononphm_core.animation.portrait import portray
from mononphm_core.animation.spread import spread_mm
from mononphm_core.animation.topology import Topology, fits, load_topology
from mononphm_core.animation.wrap import Field
from mononphm_core.config import MeshingConfig
from mononphm_core.io.artifacts import ClipHeads
from mononphm_core.io.head_files import texture_of
from mononphm_core.io.tables import ARKIT_52, Blendshapes
from mononphm_core.model.head import HeadModel
from mononphm_core.types import ColourField, Frame, MorphHead, ObservedClip, TrackedSequence


@dataclass(frozen=True)
class Colours:
    """A texture of a person's own."""

    texture: Any
    told: dict[str, Any]
    """Where it comes from and how good it is, for the manifest."""
    measures: dict[str, Any] = field(default_factory=dict)
    """`MorphHead.measures` that come with it."""


Dress = Callable[[MorphHead], Colours | None]
"""A person's own colours for a head on our triangles; None: there are none, and the prior's stay."""
OnFrame = Callable[[int], None]
"""Hears how many frames are done; also called while none is, as a sign of life, and may raise to stop."""
Question = TypeVar("Question", bound=Callable[..., Any])
FINEST = 96
"""Cells along the longest side for carried triangles: each is stored once a shape, so files grow with them."""
NO_CURVES = "this model's expressions have no ARKit names: blendshapes.csv and head_arkit.glb are not made"


def absent(curves: Blendshapes | None) -> list[str]:
    """Why some artifacts are not there."""
    return [] if curves else [NO_CURVES]


def head_maker(
    model: HeadModel,
    tracked: TrackedSequence,
    names: tuple[str, ...],
    config: MeshingConfig,
    dress: Dress = lambda head: None,
) -> Callable[[OnFrame], ClipHeads]:
    """What makes the heads: on our triangles where the model's template fits them, else on the neutral head's own."""
    curves, topology = blendshapes(tracked, names), load_topology()
    if curves is not None and fits(topology, model.template, names):
        named = named_shapes(curves, names)
        return functools.partial(_wrapped, model, tracked, topology, named, dress)
    return functools.partial(_carried, model, tracked, min(config.resolution, FINEST))


def _wrapped(
    model: HeadModel, tracked: TrackedSequence, topology: Topology, named: NamedShapes, dress: Dress, on_frame: OnFrame
) -> ClipHeads:
    assert model.template is not None
    fields = _Fields(model, tracked, on_frame)
    with torch.no_grad():
        person = rig(topology, model.template, tracked.identity.z_geo, fields.at, fields.colour_at)
        compact, arkit = clip_heads(person, tracked.z_exp, fields.at, named, fields.count)
    fields.alive()
    return _dressed(model, tracked, (compact, arkit), dress, fields.alive)


def _dressed(
    model: HeadModel,
    tracked: TrackedSequence,
    made: tuple[MorphHead, MorphHead],
    dress: Dress,
    alive: Callable[[], None],
) -> ClipHeads:
    """With how sure the shape is, and with the person's own colours where there are some."""
    compact, arkit = made
    if tracked.uncertainty is not None and model.template is not None:
        topology = load_topology()
        sigma = tracked.uncertainty.identity.to(model.template.mean)
        spread = spread_mm(topology, model.template, sigma)[topology.corner_vertex]
        compact = replace(compact, measures={"uncertainty_mm": spread.astype(np.float32)})
        alive()
    own = dress(compact)
    if own is None:
        return ClipHeads(compact, arkit)
    measures = {**compact.measures, **own.measures}
    dressed = replace(compact, texture=own.texture, measures=measures)
    return ClipHeads(dressed, replace(arkit, texture=own.texture), own.told)


def named_shapes(curves: Blendshapes, names: tuple[str, ...]) -> NamedShapes:
    """The clip in ARKit's blendshapes."""
    return NamedShapes(ARKIT_52, arkit_mix(names), curves.weights.astype(np.float32))


def rigged(model: HeadModel, tracked: TrackedSequence, names: tuple[str, ...], on_frame: OnFrame) -> Rig | None:
    """Our triangles on the person; None where they do not fit the model."""
    topology = load_topology()
    if not names or not fits(topology, model.template, names):
        return None
    assert model.template is not None
    fields = _Fields(model, tracked, on_frame)
    with torch.no_grad():
        return rig(topology, model.template, tracked.identity.z_geo, fields.at, fields.colour_at)


def offsets(model: HeadModel, tracked: TrackedSequence, person: Rig, on_frame: OnFrame) -> Iterator[Any]:
    """What each frame adds to the neutral head (`animation.heads.frame_offset`)."""
    fields = _Fields(model, tracked, on_frame)
    for row, z_exp in enumerate(tracked.z_exp):
        with torch.no_grad():
            yield frame_offset(person, z_exp, fields.at)
        fields.count(row + 1)


def heads_from(
    model: HeadModel,
    tracked: TrackedSequence,
    names: tuple[str, ...],
    person: Rig,
    offset_of: Callable[[int], Any],
    dress: Dress,
    on_frame: OnFrame,
) -> ClipHeads:
    """The heads of a clip whose offsets were made elsewhere; `offset_of` a row of `tracked`."""
    frames, curves = len(tracked.z_exp), blendshapes(tracked, names)
    assert curves is not None, "a rig has expressions with names"
    made = heads_of(person, frames, offset_of, named_shapes(curves, names), on_frame)
    return _dressed(model, tracked, made, dress, functools.partial(on_frame, frames))


def from_frames(
    tracked: TrackedSequence, observed: ObservedClip, pictures: Sequence[Frame], head: MorphHead
) -> Colours | None:
    """The colours that the clip's own frames show; `pictures` as decoded."""
    photos, aside = photos_of(head, tracked, observed, pictures)
    if not photos or head.texture is None:
        return None
    portrait = portray(load_topology(), head.texture, photos, aside)
    told: dict[str, Any] = {
        "from_frames": [photo.frame_index for photo in photos],
        "psnr_db": round(portrait.psnr_db, 2),
        "seen_share": round(portrait.seen_share, 3),
    }
    if aside is not None and portrait.held_out_psnr_db is not None:
        told["held_out"] = {"frame": aside.frame_index, "psnr_db": round(portrait.held_out_psnr_db, 2)}
    return Colours(portrait.texture, told, {"difference": portrait.difference.astype(np.float32)})


def from_run(folder: Path, head: MorphHead) -> Colours | None:
    """The colours of an earlier run of the same person."""
    path = folder / "neutral.glb"
    found = texture_of(path.read_bytes()) if path.is_file() else None
    return None if found is None or head.texture is None else Colours(found, {"from": "the identity's run"})


def _carried(model: HeadModel, tracked: TrackedSequence, resolution: int, on_frame: OnFrame) -> ClipHeads:
    """NoSurface where the neutral head has none."""
    fields, still = _Fields(model, tracked, on_frame), torch.zeros_like(tracked.z_exp[0])
    head, correction = api.Model(model, ""), tracked.colour_correction
    with torch.no_grad():
        neutral = api.extract_mesh(head, tracked.identity, still, resolution, None, correction, fields.alive)
        return ClipHeads(carried_head(neutral, tracked.z_exp, fields.expression_at, BOUND_MM, fields.count), None)


class _Fields:
    """The person's fields by expression; every question for one is a sign of life, and a place to stop at."""

    def __init__(self, model: HeadModel, tracked: TrackedSequence, on_frame: OnFrame) -> None:
        self.model, self.person, self.correction = model, tracked.identity, tracked.colour_correction
        self.on_frame, self.done = on_frame, 0

    def at(self, z_exp: torch.Tensor) -> Field:
        return self._field(self._conditioned(z_exp))

    def expression_at(self, z_exp: torch.Tensor) -> Expression:
        conditioned = self._conditioned(z_exp)
        return Expression(functools.partial(_place, self.model, conditioned), self._field(conditioned))

    def colour_at(self, z_exp: torch.Tensor) -> ColourField:
        return self._heard(functools.partial(_colour, self.model, self._conditioned(z_exp), self.correction))

    def count(self, frames: int) -> None:
        self.done = frames

    def alive(self) -> None:
        self.on_frame(self.done)

    def _conditioned(self, z_exp: torch.Tensor) -> Any:
        self.alive()
        return self.model.condition(self.person.z_geo[None], z_exp[None], self.person.z_app[None])

    def _field(self, conditioned: Any) -> Field:
        return Field(
            self._heard(functools.partial(_distance, self.model, conditioned)),
            self._heard(functools.partial(_gradient, self.model, conditioned)),
        )

    def _heard(self, question: Question) -> Question:
        """The question, with a sign of life before each time that it is asked."""

        def asked(x: torch.Tensor) -> Any:
            self.alive()
            return question(x)

        return cast(Question, asked)


def _distance(model: HeadModel, conditioned: Any, x: torch.Tensor) -> torch.Tensor:
    return model.sdf(x[None], conditioned)[0]


def _gradient(model: HeadModel, conditioned: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    sample = model.query(x[None], conditioned, colour=False, gradient=True)
    assert sample.gradient is not None
    return sample.sdf[0].detach(), sample.gradient[0].detach()


def _colour(model: HeadModel, conditioned: Any, correction: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    colour = model.query(x[None], conditioned).colour
    assert colour is not None
    seen = colour[0] if correction is None else colour[0] @ correction[:3] + correction[3]
    return (seen + 1) / 2


def _place(model: HeadModel, conditioned: Any, x: torch.Tensor) -> torch.Tensor:
    return model.to_canonical(x[None], conditioned)[0, :, :3]


def blendshapes(tracked: TrackedSequence, names: tuple[str, ...]) -> Blendshapes | None:
    """ARKit-52 curves, for models whose expression code has named blendshapes.

    `cheekPuff` and `browInnerUp` are the means of their two sides; `tongueOut` is 0: the prior has no tongue.
    """
    if not names:
        return None
    weights = tracked.z_exp.clamp(0, 1).cpu().numpy()
    columns = {arkit_name(name): weights[:, i] for i, name in enumerate(names)}
    for whole in ("cheekPuff", "browInnerUp"):
        columns[whole] = (columns[f"{whole}Left"] + columns[f"{whole}Right"]) / 2
    columns["tongueOut"] = np.zeros(len(weights), np.float32)
    return Blendshapes(ARKIT_52, np.stack([columns[name] for name in ARKIT_52], 1))


def arkit_mix(names: tuple[str, ...]) -> Any:
    """Which of the model's blendshapes each of ARKit's 52 is the sum of: two where ARKit has one for both sides."""
    mix = np.zeros((len(ARKIT_52), len(names)))
    for column, name in enumerate(names):
        ours = arkit_name(name)
        whole = ours if ours in ARKIT_52 else re.sub("(Left|Right)$", "", ours)
        mix[ARKIT_52.index(whole), column] = 1.0
    return mix


def arkit_name(name: str) -> str:
    """`eyeBlink_L` is ARKit's `eyeBlinkLeft`."""
    return re.sub("_([LR])$", lambda side: {"L": "Left", "R": "Right"}[side[1]], name)
