"""Which solver tracks a clip: ours (`fast`), or the published one, peculiarities and all."""

import dataclasses
from typing import Any, Literal

from mononphm_core.errors import ConfigError
from mononphm_core.io import registry
from mononphm_core.model.head import HeadModel
from mononphm_core.tracking.published.configuration import PublishedConfig
from worker.ledger.options import ReconstructionOptions

Solver = Literal["fast", "published"]

FEWER_RAYS = 16
"""Held with their graph at once by the published solver, after memory ran out."""


def chosen(options: ReconstructionOptions, card: registry.ModelCard, model: HeadModel) -> Solver:
    """What the user asked for; else ours, or the published one for a model without a landmark template.

    ConfigError where the two do not fit together.
    """
    solver = options.solver or ("published" if model.template is None else "fast")
    if solver == "fast" and model.template is None:
        raise ConfigError(
            f"the fast solver needs landmarks on the model's surface, and {card.name} has none; "
            "leave `solver` out or choose `published`"
        )
    if solver == "fast" and options.iterations_scale != 1.0:
        raise ConfigError("iterations_scale belongs to the published solver; the fast one has `quality` instead")
    return solver


def guide(card: registry.ModelCard, model: HeadModel, device: str) -> tuple[HeadModel, tuple[str, ...]]:
    """A model with a landmark template for first poses, and its blendshapes' names: the model, else the bundled one.

    Both live in the same head space.
    """
    if model.template is not None:
        return model, card.expression_names
    bundled = registry.find_model()
    return registry.warm_model(bundled, device), bundled.expression_names


def published_config(options: ReconstructionOptions, smaller: bool) -> PublishedConfig:
    """The published values with what the user may change of them."""
    block = FEWER_RAYS if smaller else None
    return PublishedConfig(iterations_scale=options.iterations_scale, block_rays=block, seed=options.seed)


def facts(solver: Solver, config: PublishedConfig) -> dict[str, Any]:
    """What the manifest says of it."""
    if solver == "fast":
        return {"name": solver}
    return {
        "name": solver,
        "iterations_scale": config.iterations_scale,
        "rays": config.rays,
        "quirks": dataclasses.asdict(config.quirks),
    }
