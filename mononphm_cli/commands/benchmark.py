"""`mononphm benchmark`: how fast this machine asks the field, tracks and meshes; two ways compared in turns."""

import json
from pathlib import Path
from typing import Any

import click

from mononphm_cli.options import json_option

WAYS = ("published", "modules", "compiled")
QUESTIONS = ("distance", "colour", "gradient", "descend", "iteration", "mesh")


@click.command("benchmark")
@click.option(
    "--size", type=click.Choice(["small", "base", "release"]), default="small", show_default=True,
    help="The bundled prior, or random weights of a middle size or of the published release's size.",
)  # fmt: skip
@click.option("--device", default="cpu", show_default=True, metavar="cpu|cuda[:i]", help="Where to compute.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="Of the processor.")
@click.option(
    "--compare", nargs=2, type=click.Choice(WAYS), default=("published", "compiled"), show_default=True,
    help="The two ways that take turns.",
)  # fmt: skip
@click.option(
    "--what", multiple=True, type=click.Choice(QUESTIONS), default=QUESTIONS[:4], show_default=True,
    help="What to measure; may be repeated. `mesh` is for --size small.",
)  # fmt: skip
@click.option("--points", type=click.IntRange(1), default=4096, show_default=True, help="Asked at once.")
@click.option(
    "--rays", type=click.IntRange(1), default=450, show_default=True, help="Of an iteration, 64 samples each."
)
@click.option("--resolution", type=click.IntRange(8, 512), default=96, show_default=True, help="Of a mesh.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Measured turns.")
@click.option("--curves", is_flag=True, help="How the second way grows with points, frames, resolution and threads.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Keep the JSON.")
@json_option
def command(output: Path | None, as_json: bool, **given: Any) -> None:
    """Measure speed on this machine: two ways to do the same, in turns, with ratio and spread.

    `published` is the published program's way (networks one by one, colour always, gradients of weights, dense grid),
    `modules` our torch code, `compiled` the same with the compiled field. Seconds are processor seconds on a processor.
    """
    from mononphm_cli.benchmarking.run import measure

    if "mesh" in given["what"] and given["size"] != "small":
        raise click.UsageError("--what mesh needs --size small: random weights have no surface")
    document = measure(**given)
    if output is not None:
        output.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    if as_json:
        click.echo(json.dumps(document))
        return
    for name, row in document["questions"].items():
        first, second = (row[way]["seconds"] for way in given["compare"])
        ratio = row["ratio"]
        click.echo(
            f"{name:10} {given['compare'][0]} {first:.3f} s, {given['compare'][1]} {second:.3f} s: "
            f"{ratio['median']:.1f} times ({ratio['least']:.1f} to {ratio['most']:.1f})"
        )
    for name, rows in document["curves"].items():
        click.echo(f"{name}: " + ", ".join(f"{row['at']}: {row['seconds']:.3f} s" for row in rows))
