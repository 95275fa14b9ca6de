"""`mononphm models`: the head models that this machine has, and how published checkpoints become some of them."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mononphm_cli.options import json_option

if TYPE_CHECKING:
    from mononphm_core.io.published import Request
    from mononphm_core.io.registry import ModelCard

Command = TypeVar("Command", bound=Callable[..., Any])


@click.group("models")
def command() -> None:
    """List, show, verify, add or remove the models on this machine."""


@command.command("list")
@json_option
def list_models(as_json: bool) -> None:
    """Every registered model."""
    from worker import models

    cards = models.installed()
    if as_json:
        click.echo(json.dumps([facts(card) for card in cards], indent=2))
        return
    if not cards:
        click.echo("no model is installed", err=True)
    rows = [
        (card.name, card.version, card.model_type or "own", card.sha256[:12], short(card.licence)) for card in cards
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip())


@command.command("show")
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """What is known about one model."""
    from worker import models

    say(models.find(name), as_json)


@command.command("verify")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@json_option
def verify(names: tuple[str, ...], as_json: bool) -> None:
    """Compare weight files with their registered sha256; all models if none is named. Exit code 4 if one differs."""
    from mononphm_core.io import registry
    from worker import models

    cards = [models.find(name) for name in names] if names else models.installed()
    for card in cards:
        registry.verify(card)  # raises ChecksumMismatch, which names the file
        if not as_json:
            click.echo(f"{card.name}  {card.sha256}  as registered")
    if as_json:
        click.echo(json.dumps([{"name": card.name, "sha256": card.sha256, "verified": True} for card in cards]))


def checkpoint_options(command: Command) -> Command:
    """What must be known of a published checkpoint besides where it is."""
    for option in reversed(
        [
            click.argument("path", metavar="PATH", type=click.Path(path_type=Path)),
            click.option(
                "--ckpt", type=click.IntRange(0), metavar="N", help="Epoch; 2500 where it is there, else the last."
            ),
            click.option(
                "--anchors",
                type=click.Path(exists=True, dir_okay=False, path_type=Path),
                metavar="FILE",
                help="Its anchors_65.npy, where that does not lie beside it.",
            ),
            click.option(
                "--model-type",
                type=click.Choice(["nphm", "global"]),
                help="As in the published code; by default what its configs.yaml describes.",
            ),
            click.option("--licence", metavar="TEXT", help="What its owner allows; goes into the card."),
        ]
    ):
        command = option(command)
    return command


@command.command("add")
@checkpoint_options
@click.option("--name", metavar="NAME", help="Name for `--model`; by default the experiment's.")
@json_option
def add(path: Path, name: str | None, as_json: bool, **given: Any) -> None:
    """Register a published checkpoint.

    PATH is an experiment's folder (configs.yaml, checkpoints/checkpoint_epoch_N.tar), one such .tar, the name of an
    experiment in $MONONPHM_EXPERIMENT_DIR, or a folder that `models convert` made. The file is opened in a process
    without network that may write nothing and executes nothing of it; every tensor is checked against the
    configuration. The converted copy goes to $MONONPHM_MODELS_DIR (~/.local/share/mononphm/models).
    """
    from mononphm_core.io import published
    from worker.ledger.places import Places

    card = published.add(request_of(path, **given), Places().models_dir, name)
    say(card, as_json)


@command.command("convert")
@checkpoint_options
@click.option(
    "-o", "--output-dir", "folder", required=True, type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
    help="New folder for model.safetensors and card.json.",
)  # fmt: skip
@click.option("--name", metavar="NAME", help="Name that the card gives it; by default the experiment's.")
@json_option
def convert(path: Path, folder: Path, name: str | None, as_json: bool, **given: Any) -> None:
    """Convert a published checkpoint to safetensors without registering it.

    Reads and checks as `models add` does. The result can be carried to another machine and added there.
    """
    from mononphm_core.io import published

    say(published.convert(request_of(path, **given), folder, name), as_json)


@command.command("remove")
@click.argument("name")
def remove(name: str) -> None:
    """Forget a model that was added, and delete its converted copy; the checkpoint it came from stays."""
    from mononphm_core.io import published
    from worker.ledger.places import Places

    published.remove(name, Places().models_dir)
    click.echo(f"{name} removed")


def request_of(path: Path, ckpt: int | None, anchors: Path | None, model_type: Any, licence: str | None) -> "Request":
    """The parsed `checkpoint_options` with the folders that the environment names."""
    from mononphm_core.io.published import Request
    from worker.ledger.places import Places

    places = Places()
    assets = (places.code_base / "assets",) if places.code_base else ()
    return Request(path, ckpt, anchors, model_type, licence, places.experiment_dir, assets)


def say(card: "ModelCard", as_json: bool) -> None:
    """One card, for people or for programs."""
    known = facts(card)
    if as_json:
        click.echo(json.dumps(known, indent=2))
        return
    for field, value in known.items():
        shown = (", ".join(value) if isinstance(value, tuple) else value) or "-"
        click.echo(f"{field:<16} {shown}")


def short(licence: str) -> str:
    """A licence's first words: the whole is in `models show`."""
    return re.split(r"[:;(]", licence)[0].strip()


def facts(card: "ModelCard") -> dict[str, Any]:
    """A model card as JSON-ready facts."""
    values = {field.name: getattr(card, field.name) for field in dataclasses.fields(card)}
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
