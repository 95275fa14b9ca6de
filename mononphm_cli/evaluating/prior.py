"""`mononphm evaluate prior`: how well a head prior says people, expressions and complexions that it never saw."""

import json
from pathlib import Path

import click

from mononphm_cli.options import json_option

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command("prior")
@click.option("--data", required=True, type=FOLDER, help="Open head data, as for `train`.")
@click.option("--model", help="Name of an installed model, or path of a model's folder; the default's without it.")
@click.option("--people", default=8, show_default=True, help="Unseen people.")
@click.option("--steps", default=200, show_default=True, help="Adam steps a fit.")
@click.option("--seed", default=0, show_default=True, help="Who they are.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the JSON document here too.")
@json_option
def command(
    data: Path,
    model: str | None,
    people: int,
    steps: int,
    seed: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Fit codes to surface points of unseen heads and score the field: a few minutes a person on one core."""
    from mononphm_cli.evaluating.prior_exam import examine
    from mononphm_core import numerics
    from mononphm_core.io.registry import CARD, read_card
    from mononphm_core.io.weights import load_model
    from worker import models

    numerics.warm_up()
    path = (read_card(Path(model) / CARD) if model and Path(model, CARD).is_file() else models.find(model)).path
    figures = examine(load_model(path), data, people, steps, seed)
    figures["weights_mb"] = round(path.stat().st_size / 1e6, 2)
    document = {"protocol": {"people": people, "steps": steps, "seed": seed}, "figures": figures}
    if out:
        out.write_text(json.dumps(document, indent=1) + "\n")
    if as_json:
        click.echo(json.dumps(document, indent=1))
    else:
        for name, value in figures.items():
            click.echo(f"{name:<44}{value:>12.4f}")
