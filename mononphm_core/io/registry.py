"""Which head models this machine has: a folder a model, each with `card.json` and `model.safetensors`.

Some come with the program (`BUNDLED`); the edge names further folders, such as that which `mononphm models add` fills.
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mononphm_core.errors import AssetError, ChecksumMismatch, WeightsNotFound
from mononphm_core.io.manifest import sha256_of_file
from mononphm_core.io.weights import load_model
from mononphm_core.model.head import HeadModel

CARD = "card.json"
BUNDLED = Path(__file__).resolve().parent.parent / "assets" / "models"
DEFAULT_MODEL = "open-small"


@dataclass(frozen=True)
class ModelCard:
    """What is known of one registered model."""

    name: str
    version: str
    path: Path
    """The weight file."""
    sha256: str
    licence: str
    d_geo: int
    d_app: int
    d_exp: int
    expression_names: tuple[str, ...] = ()
    """Blendshape names of the entries of z_exp, where the model has such a meaning."""
    model_type: str | None = None
    """`nphm` or `global`: a converted checkpoint of the published code, without a template; None: a prior of ours."""


def added() -> Path:
    """Where `mononphm models add` puts a user's models, unless its settings name another folder."""
    return Path.home() / ".local" / "share" / "mononphm" / "models"


def list_models(*folders: Path) -> list[ModelCard]:
    """Every registered model, the default first. Without `folders` those that come with the program."""
    cards = [read_card(path) for folder in folders or (BUNDLED,) for path in sorted(folder.glob(f"[!.]*/{CARD}"))]
    return sorted(cards, key=lambda card: (card.name != DEFAULT_MODEL, card.name))


def find_model(name: str | None = None, *folders: Path) -> ModelCard:
    """The card of a model by name, the default's without one; WeightsNotFound names what there is.

    A broken card of another model is no obstacle.
    """
    wanted = name or DEFAULT_MODEL
    names = []
    for path in (path for folder in folders or (BUNDLED,) for path in sorted(folder.glob(f"[!.]*/{CARD}"))):
        if path.parent.name == wanted:
            return read_card(path)
        names.append(path.parent.name)
    raise WeightsNotFound(f"no model is named {wanted!r}; installed: {', '.join(names) or 'none'}")


def verify(card: ModelCard) -> None:
    """Compare the weight file with its card; ChecksumMismatch says what differs."""
    if not card.path.is_file():
        raise WeightsNotFound(f"the weight file of {card.name} is missing: {card.path.name}")
    found = sha256_of_file(card.path)
    if found != card.sha256:
        raise ChecksumMismatch(
            f"{card.path.name} of {card.name} has sha256 {found[:12]}…, its card says {card.sha256[:12]}…"
        )


@functools.lru_cache(maxsize=2)
def warm_model(card: ModelCard, device: str) -> HeadModel:
    """The model on a device, kept between jobs of one process; compiled where it can be."""
    return load_model(card.path, card.sha256).to(device).compiled()


def read_card(path: Path) -> ModelCard:
    """One `card.json`; AssetError names the model whose card is broken."""
    try:
        card: dict[str, Any] = json.loads(path.read_text("utf-8"))
        sizes = card["latent_sizes"]
        return ModelCard(
            name=card["name"],
            version=card["version"],
            path=path.parent / card["file"],
            sha256=card["sha256"],
            licence=card["licence"],
            d_geo=sizes["z_geo"],
            d_app=sizes["z_app"],
            d_exp=sizes["z_exp"],
            expression_names=tuple(card.get("expression_names", ())),
            model_type=(card.get("published") or {}).get("model_type"),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AssetError(f"the card of model {path.parent.name} is unreadable ({error!r}): restore it") from error
