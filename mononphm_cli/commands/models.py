"""`mononphm models`: the head priors that this machine has."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mononphm_cli.options import json_option

if TYPE_CHECKING:
    from mononphm_core.io.registry import ModelCard


@click.group("models")
def command() -> None:
    """List, show or verify the models on this machine."""


@command.command("list")
@json_option
def list_models(as_json: bool) -> None:
    """Every registered model."""
    from mononphm_core.io import registry

    cards = registry.list_models()
    if as_json:
        click.echo(json.dumps([facts(card) for card in cards], indent=2))
        return
    if not cards:
        click.echo("no model is installed", err=True)
    for card in cards:
        click.echo(f"{card.name}  {card.version}  {card.sha256[:12]}  {card.licence}")


@command.command("show")
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """What is known about one model."""
    from mononphm_core.io import registry

    known = facts(registry.find_model(name))
    if as_json:
        click.echo(json.dumps(known, indent=2))
        return
    for field, value in known.items():
        click.echo(f"{field:<10} {value}")


@command.command("verify")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@json_option
def verify(names: tuple[str, ...], as_json: bool) -> None:
    """Compare weight files with their registered sha256; all models if none is named. Exit code 4 if one differs."""
    from mononphm_core.io import registry

    cards = [registry.find_model(name) for name in names] if names else list(registry.list_models())
    for card in cards:
        registry.verify(card)  # raises ChecksumMismatch, which names the file
        if not as_json:
            click.echo(f"{card.name}  {card.sha256}  as registered")
    if as_json:
        click.echo(json.dumps([{"name": card.name, "sha256": card.sha256, "verified": True} for card in cards]))


def facts(card: "ModelCard") -> dict[str, Any]:
    """A model card as JSON-ready facts."""
    values = {field.name: getattr(card, field.name) for field in dataclasses.fields(card)}
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
