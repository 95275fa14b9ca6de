"""`mononphm train people`: another head that the user has, as a source of training people."""

from pathlib import Path

import click

FILE = click.Path(path_type=Path)


@click.command("people")
@click.option("--flame", required=True, type=FILE, metavar="FILE", help="FLAME: .pkl as published, .npz, .safetensors.")
@click.option("--landmarks", required=True, type=FILE, metavar="FILE", help="68 (or 51) landmarks on its triangles.")
@click.option(
    "--to", "data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Data folder with ict_facekit.npz.",
)  # fmt: skip
def people(flame: Path, landmarks: Path, data: Path) -> None:
    """Carry the people of your own FLAME file to ICT-FaceKit's topology: DATA/people_flame.npz.

    Then `pool`, `run` and `export` in a new run's folder draw half of their people from it; expressions stay the 53
    named ones. FLAME's licence rules the weights: it is written into their card. The FLAME pickle is read in a process
    without network that executes nothing of it. Exit code 4 when a file is missing or the landmarks do not fit.
    """
    from mononphm_core.io.flame import read_embedding, read_flame
    from mononphm_core.training.flame_people import flame_people

    head = read_flame(flame)
    found, report = flame_people(data, head, read_embedding(landmarks, head))
    path = found.save(data)
    click.echo(f"{path} ({path.stat().st_size / 1e6:.1f} MB): {report.components} components")
    click.echo(f"  {report.trusted:.1%} of the skin found its place, landmarks {report.landmarks_mm:.2f} mm off")
    click.echo(f"  random people: {report.spread_mm:.1f} mm from their mean, {report.folded:.3%} of the triangles fold")
    click.echo(f"  distance of lids and eyeballs changed by {report.lids_mm:.2f} mm")
    click.echo(f"Licence: {found.licence}.", err=True)
