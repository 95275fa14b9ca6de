"""`mononphm train`: from open head data to a registered prior; every step can be interrupted and continued."""

import json
from collections.abc import Callable
from pathlib import Path

import click

from mononphm_cli import published_training, training_people


@click.group("train")
def command() -> None:
    """Train a head prior from open data: pool, run, export. The published way, from scans: supervision, published.

    The data folder holds ict_facekit.npz and mediapipe478_on_ict.npz, which `data` makes from public files; with
    makehuman_shapes.npz and skins/ there are more people and complexions.
    """


command.add_command(published_training.supervision)
command.add_command(published_training.published)
command.add_command(training_people.people)


def _folders(function: Callable[..., None]) -> Callable[..., None]:
    folder = click.Path(file_okay=False, path_type=Path)
    function = click.option("--run", "run", required=True, type=folder, help="Folder of the run.")(function)
    return click.option(
        "--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="Open head data."
    )(function)


@command.command("data")
@click.option(
    "--ict", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="FaceXModel of github.com/ICT-VGL/ICT-FaceKit; may be left out where the data folder has ict_facekit.npz.",
)  # fmt: skip
@click.option(
    "--makehuman", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Checkout of github.com/makehumancommunity/makehuman: 398 head shapes more.",
)  # fmt: skip
@click.option(
    "--skins", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Checkout of github.com/makehumancommunity/makehuman-assets (git-lfs): 14 skins. With --makehuman.",
)  # fmt: skip
@click.option("--to", "data", required=True, type=click.Path(file_okay=False, path_type=Path), help="Data folder.")
def data_files(ict: Path | None, makehuman: Path | None, skins: Path | None, data: Path) -> None:
    """Make the data folder from public files that you have downloaded, checksums compared.

    From ICT-FaceKit alone: ict_facekit.npz and mediapipe478_on_ict.npz, enough to train. MakeHuman's files add
    makehuman_shapes.npz and skins/: people and complexions.
    """
    from mononphm_core.training import facekit, makehuman_skins
    from mononphm_core.training import makehuman as shapes

    if skins and not makehuman:
        raise click.UsageError("--skins needs --makehuman: its meshes say where the skins lie")
    if not ict and not (data / "ict_facekit.npz").exists():
        raise click.UsageError(f"--ict is needed: {data} holds no ict_facekit.npz yet")
    for path in (facekit.rebuild(ict, data), facekit.landmark_table(data)) if ict else ():
        click.echo(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")
    if makehuman:
        report = shapes.rebuild(makehuman, data)
        mean, largest = report.difference_mm
        click.echo(f"{report.path} ({report.path.stat().st_size / 1e6:.1f} MB)")
        click.echo(f"  {report.shapes} shapes, {report.mirrored} of them in mirrored pairs")
        click.echo(f"  at most {report.folds} of their triangles turn over at the end of a range ({report.worst})")
        click.echo(
            f"  {mean:.3f} mm from the shapes behind the shipped prior at its landmarks, {largest:.2f} mm at most"
        )
    if makehuman and skins:
        made = makehuman_skins.rebuild(skins, makehuman, data)
        click.echo(f"{data / 'skins'}: {len(made)} files ({sum(p.stat().st_size for p in made) / 1e6:.1f} MB)")


@command.command("pool")
@_folders
@click.option("--heads", "count", default=1500, show_default=True, help="Training people.")
@click.option("--points", default=32000, show_default=True, help="Signed distances per person.")
@click.option("--crowd", default=4000, show_default=True, help="More people, known by their skin alone: 180 kB each.")
@click.option("--seed", default=0, show_default=True, help="Start of the random numbers.")
def pool(data: Path, run: Path, count: int, points: int, crowd: int, seed: int) -> None:
    """Make the people and their signed distances (0.3 s each on one core). Existing shards are kept."""
    _logging()
    from mononphm_core.training.prior import fill_crowd, fill_pool
    from mononphm_core.training.sources import OpenHeads

    heads = OpenHeads(data)
    fill_crowd(heads, run / "pool", crowd, seed)
    fill_pool(heads, run / "pool", count, points, seed)


@command.command("run")
@_folders
@click.option(
    "--size", type=click.Choice(["small", "base"]), default="small", show_default=True,
    help="small: two processor cores; base: a GPU.",
)  # fmt: skip
@click.option(
    "--hours", default=1.1, show_default=True, help="Compute time in all; a larger number continues a finished run."
)
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:i]", help="Where to compute.")
@click.option(
    "--only",
    type=click.Choice(["identity", "deformation"]),
    help="Let one half learn; they share codes and anchors alone.",
)
@click.option("--threads", default=1, show_default=True, help="Processor threads.")
@click.option(
    "--start",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Model folder to begin a new run from (0.1.0).",
)
def run_training(
    data: Path, run: Path, size: str, hours: float, device: str, threads: int, only: str | None, start: Path | None
) -> None:
    """Train, or continue where the last checkpoint stands."""
    _logging()
    import torch

    from mononphm_cli.commands.reconstruct import chosen
    from mononphm_core import numerics
    from mononphm_core.io.weights import load_model
    from mononphm_core.model.config import SIZES
    from mononphm_core.training.loop import TrainingConfig
    from mononphm_core.training.prior import run as train_prior

    numerics.warm_up(threads)
    train_prior(
        data,
        run,
        SIZES[size],
        TrainingConfig(hours=hours, parts=(only,) if only else ("identity", "deformation")),
        torch.device(chosen(device)),
        load_model(start / "model.safetensors") if start else None,
    )


@command.command("export")
@_folders
@click.option("--to", "target", required=True, type=click.Path(file_okay=False, path_type=Path), help="Model folder.")
@click.option("--name", default="open-small", show_default=True, help="Name in the registry.")
@click.option("--version", required=True, help="Version on the card.")
def export(data: Path, run: Path, target: Path, name: str, version: str) -> None:
    """Measure the run's last checkpoint and write it as a registered model."""
    _logging()
    from mononphm_core import numerics
    from mononphm_core.training.export import export as write
    from mononphm_core.training.measure import measure

    numerics.warm_up()
    figures = measure(data, run)
    path = write(data, run, target, name, version, figures)
    click.echo(json.dumps(figures, indent=2))
    click.echo(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")


def _logging() -> None:
    import logging

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
