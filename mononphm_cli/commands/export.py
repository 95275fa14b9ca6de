"""`mononphm export RUN --usd | --obj`: the animated head for programs that read no glTF."""

from pathlib import Path

import click

SOURCES = {"animation": "animation.glb", "arkit": "head_arkit.glb"}


@click.command("export")
@click.argument("run", metavar="RUN", type=click.Path(exists=True, file_okay=False, readable=True, path_type=Path))
@click.option("--usd", is_flag=True, help="One USDZ file: shapes, weights, motion, texture. Needs usd-core.")
@click.option("--obj", is_flag=True, help="One OBJ a frame with the same triangles, in RUN/obj.")
@click.option(
    "--of", "source", type=click.Choice(sorted(SOURCES)), default="animation", show_default=True,
    help="Which head: the clip's own shapes, or ARKit's.",
)  # fmt: skip
def command(run: Path, usd: bool, obj: bool, source: str) -> None:
    """Write the animated head of RUN, a folder that `reconstruct` wrote, in other formats beside it.

    Metres, y up, in the camera's world, as in the glTF files.
    """
    if not usd and not obj:
        raise click.UsageError("say what to write: --usd, --obj, or both")
    path = run / SOURCES[source]
    if not path.is_file():
        raise click.UsageError(f"{run} has no {path.name}; reconstruct with the default outputs")
    from mononphm_core.io.animated import Animated
    from mononphm_core.io.exports import write_obj_sequence, write_usdz

    head = Animated.read(path.read_bytes())
    if usd:
        target = path.with_suffix(".usdz")
        write_usdz(head, target)
        click.echo(f"{target}")
    if obj:
        written = write_obj_sequence(head, run / "obj")
        click.echo(f"{len(written)} files in {run / 'obj'}")
