"""`mononphm evaluate animation RUN`: the fixed triangles of a run against its own meshes."""

import json
from pathlib import Path

import click

from mononphm_cli.options import json_option

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
COLUMNS = ("mean", "median", "p90", "p95")
ROWS = {"to_meshes": "face -> meshes", "from_meshes": "meshes (seen) -> head"}


@click.command("animation")
@click.argument("folder", metavar="RUN", type=FOLDER)
@click.option(
    "--of", "source", type=click.Choice(["animation", "arkit"]), default="animation", show_default=True,
    help="Which head: the clip's own shapes, or ARKit's.",
)  # fmt: skip
@json_option
def command(folder: Path, source: str, as_json: bool) -> None:
    """Measure how far animation.glb lies from the meshes of the same run, millimetres, frame by frame.

    RUN is a folder that `reconstruct -o` or `jobs download` filled. A head on triangles of its own run is measured from
    all of its corners.
    """
    import numpy as np

    from mononphm_core.animation.topology import FACE, load_topology
    from mononphm_core.evaluation.delivery import read_delivery
    from mononphm_core.evaluation.fixed import score
    from mononphm_core.io.animated import Animated

    path = folder / {"animation": "animation.glb", "arkit": "head_arkit.glb"}[source]
    if not path.is_file():
        raise click.UsageError(f"{folder} has no {path.name}; reconstruct with the default outputs")
    head, table = Animated.read(path.read_bytes()), load_topology()
    face = np.ones(len(head.vertices), bool)
    if np.array_equal(head.faces, table.corner_faces):
        face = table.part[table.corner_vertex] == FACE
    found = score(head, face, read_delivery(folder))
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=1))
        return
    click.echo(f"{path.name}, {len(found.frames)} frames\n{'mm':<24}" + "".join(f"{name:>9}" for name in COLUMNS))
    for name, words in ROWS.items():
        row = found.mean()[name]
        assert row is not None
        click.echo(f"{words:<24}" + "".join(f"{row[column]:>9.3f}" for column in COLUMNS))
