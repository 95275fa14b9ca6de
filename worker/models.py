"""The models of this machine: those of the program, then those that its user added."""

from pathlib import Path

from mononphm_core.io import registry
from worker.ledger.places import Places


def folders() -> tuple[Path, ...]:
    """Where models are looked for, first come first served."""
    return registry.BUNDLED, Places().models_dir


def find(name: str | None = None) -> registry.ModelCard:
    """The card of a model by name, the default's without one; WeightsNotFound names what there is."""
    return registry.find_model(name, *folders())


def installed() -> list[registry.ModelCard]:
    """Every model of this machine, the default first."""
    return registry.list_models(*folders())
