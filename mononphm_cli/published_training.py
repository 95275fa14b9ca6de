"""`mononphm train supervision` and `train published`: the published training path, from scans to a checkpoint."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import click

FOLDER = click.Path(file_okay=False, path_type=Path)
EXISTING = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command("supervision")
@click.option("--scans", type=EXISTING, help="NPHM-style scans; default: $MONONPHM_DATA.")
@click.option("--assets", type=EXISTING, help="Folder of face.npy and lm_inds_65.npy; default: assets in --scans.")
@click.option(
    "--to", "target", type=FOLDER,
    help="Where the supervision files go; default: $MONONPHM_TRAINING_SUPERVISION.",
)  # fmt: skip
@click.option("--starti", default=0, show_default=True, metavar="PID", help="First subject.")
@click.option("--endi", type=int, metavar="PID", help="First subject that is left out; default: none.")
@click.option("--samples", default=25_000_000, show_default=True, help="Surface samples of a scan.")
@click.option("--others", default=1_000_000, show_default=True, help="Non-face samples, and off-surface ones.")
@click.option("--pairs", default=250_000, show_default=True, help="Correspondences for each width and direction.")
@click.option("--files", default=200, show_default=True, help="Surface files of a scan and kind.")
@click.option("--corresp-files", default=100, show_default=True, help="Correspondence files of a scan.")
@click.option("--seed", default=0, show_default=True, help="Start of the random numbers.")
def supervision(
    scans: Path | None,
    assets: Path | None,
    target: Path | None,
    starti: int,
    endi: int | None,
    samples: int,
    others: int,
    pairs: int,
    files: int,
    corresp_files: int,
    seed: int,
) -> None:
    """Sample fields and correspondences of NPHM-style scans (SCANS/<subject>/<expression>/scan.ply, registration.ply).

    The defaults are the release's: some gigabytes a scan. Finished scans are kept, so it may be interrupted.
    """
    _logging()
    from mononphm_core.training.published.fields import FieldCounts
    from mononphm_core.training.published.scans import Assets, write_supervision

    scans, target = _place(scans, "data", "--scans"), _place(target, "training_supervision", "--to")
    written = write_supervision(
        scans,
        Assets.read(assets or scans / "assets"),
        target,
        lambda subject: subject >= starti and (endi is None or subject < endi),
        FieldCounts(samples, others, others, files),
        pairs,
        corresp_files,
        seed,
    )
    click.echo(f"{written} scans written to {target}")


@click.command("published")
@click.option(
    "--config", "config", default="small", show_default=True, metavar="release|small|FILE", help="mononphm.yaml."
)
@click.option(
    "--data", type=EXISTING,
    help="What `train supervision` wrote; default: $MONONPHM_TRAINING_SUPERVISION.",
)  # fmt: skip
@click.option("--exp-name", default="mononphm", show_default=True, help="Name of the experiment.")
@click.option(
    "--experiments", type=FOLDER,
    help="Where experiments lie; default: $MONONPHM_EXPERIMENT_DIR.",
)  # fmt: skip
@click.option("--epochs", default=2500, show_default=True, help="A larger number continues a finished run.")
@click.option("--anchors", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="anchors_65.npy.")
@click.option("--exclude", multiple=True, type=int, metavar="PID", help="Test subject; may be repeated.")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:i]", help="Where to compute.")
@click.option("--threads", default=1, show_default=True, help="Processor threads.")
@click.option("--seed", default=0, show_default=True, help="Start of the random numbers.")
def published(
    config: str,
    data: Path | None,
    exp_name: str,
    experiments: Path | None,
    epochs: int,
    anchors: Path | None,
    exclude: tuple[int, ...],
    device: str,
    threads: int,
    seed: int,
) -> None:
    """Train a model of the published kind; continues where the last checkpoint stands.

    The run can be registered with `mononphm models add`. Several GPUs: torchrun --nproc-per-node N -m
    mononphm_cli.main train published ...
    """
    _logging()
    import torch

    from mononphm_cli.commands.reconstruct import chosen
    from mononphm_core import numerics
    from mononphm_core.training.published.loop import RunOptions, train

    numerics.warm_up(threads)
    data = _place(data, "training_supervision", "--data")
    experiments = _place(experiments, "experiment_dir", "--experiments")
    run = experiments / exp_name
    run.mkdir(parents=True, exist_ok=True)
    options = RunOptions(epochs, seed, frozenset(exclude), anchors)
    figures = train(data, run, _document(config), options, torch.device(chosen(device)))
    if os.environ.get("RANK", "0") == "0":  # of several processes one speaks
        click.echo(json.dumps({"run": str(run), **{name: round(value, 6) for name, value in figures.items()}}))


def _place(given: Path | None, name: str, option: str) -> Path:
    """What was given, else the folder of the published code's environment."""
    from worker.ledger.places import Places

    found: Path | None = given or getattr(Places(), name)
    if found is None:
        raise click.UsageError(f"give {option} DIR, or set MONONPHM_{name.upper()}")
    return found


def _document(config: str) -> dict[str, Any]:
    """One of the two built-in configurations, or a YAML file."""
    from mononphm_core.training.published.config import document

    if config in ("release", "small"):
        return document(small=config == "small")
    import yaml

    try:
        found = yaml.safe_load(Path(config).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise click.UsageError(f"--config {config}: {error}") from error
    if not isinstance(found, dict):
        raise click.UsageError(f"--config {config} is no configuration")
    return found


def _logging() -> None:
    first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(level=logging.INFO if first else logging.WARNING, format="%(asctime)s %(message)s")
