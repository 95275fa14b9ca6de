"""The model registry as files: one `card.json` a model. Read without importing the library that runs them."""

import importlib.util
import json
import logging
from pathlib import Path
from typing import Any

from service.schemas import ModelInfo
from worker.ledger.places import Places

log = logging.getLogger(__name__)

CARD = "card.json"


def models_folders() -> list[Path]:
    """Where models lie: those that came with the program (if it was installed with them), then the user's."""
    found = importlib.util.find_spec("mononphm_core")
    places = list(found.submodule_search_locations or ()) if found else []
    return [*(Path(place) / "assets" / "models" for place in places[:1]), Places().models_dir]


def installed_models() -> list[ModelInfo]:
    """Every model with a readable card, by name. A broken card is logged and left out."""
    found: dict[str, ModelInfo] = {}
    for path in (path for folder in models_folders() for path in sorted(folder.glob(f"[!.]*/{CARD}"))):
        try:
            found.setdefault(path.parent.name, model_of(json.loads(path.read_text("utf-8")), path.parent.name))
        except (OSError, ValueError, AttributeError) as error:
            log.warning("the card of model %s is unreadable: %s", path.parent.name, error)
    return list(found.values())


def model_of(card: dict[str, Any], folder_name: str) -> ModelInfo:
    """The public facts of a card."""
    sizes = card.get("latent_sizes") or {}
    return ModelInfo(
        name=str(card.get("name", folder_name)),
        version=_text(card.get("version")),
        sha256=_text(card.get("sha256")),
        licence=_text(card.get("licence")),
        latent_sizes={str(name): int(size) for name, size in sizes.items()},
        exports=["blendshapes"] if card.get("expression_names") else [],
        card=card,
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
