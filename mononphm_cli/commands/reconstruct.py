"""`mononphm reconstruct INPUT -o DIR`: the whole pipeline in this process, no server."""

import json
import os
from pathlib import Path
from typing import Any

import click

from mononphm_cli.options import job_options, json_option, to_job_options
from mononphm_cli.progress import ProgressView


@click.command("reconstruct")
@click.argument("source", metavar="INPUT", type=click.Path(readable=True, path_type=Path))
@click.option(
    "-o", "--output-dir", "folder", required=True, type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
    help="Where the artifacts go; an earlier delivery there is replaced.",
)  # fmt: skip
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:i]", help="Where to compute.")
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Processor threads; all by default.")
@click.option(
    "--intrinsics-provided/--no-intrinsics-provided", "intrinsics_provided", default=None,
    help="For a prepared folder: its camera is calibrated (--camera, or kinect_intrinsics.txt), or estimated.",
)  # fmt: skip
@job_options
@json_option
def command(
    source: Path,
    folder: Path,
    device: str,
    threads: int | None,
    intrinsics_provided: bool | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Reconstruct the head in INPUT, one video or image, into DIR.

    Writes the same files that the service delivers, under the same names. INPUT may also be a folder that was prepared
    for the published MonoNPHM code (source/, pipnet/, seg/, matting/, kpt/, metrical_tracker/), or its name in
    $MONONPHM_DATA_TRACKING: it is tracked by the published solver; parts that it lacks are made here.
    """
    options = to_job_options(given)
    from worker.ledger.places import Places

    source = Places().prepared(source)
    if not source.exists():
        raise click.UsageError(f"there is no {source}")
    if intrinsics_provided is not None and not source.is_dir():
        raise click.UsageError("--intrinsics-provided is for prepared folders; a clip's camera is --camera K.json")
    from mononphm_core import numerics
    from mononphm_core.io.manifest import sha256_of_file
    from mononphm_core.types import StepReport
    from worker import long_clip, sequences
    from worker.ledger.options import ReconstructionOptions
    from worker.ledger.order import Order
    from worker.ledger.progress import overall_percent, stages_of

    numerics.warm_up(threads or os.cpu_count())
    wanted = ReconstructionOptions.from_json(options)
    folder.mkdir(parents=True, exist_ok=True)
    digest = sequences.digest(source) if source.is_dir() else sha256_of_file(source)
    order = Order("local", source, source.name, "application/octet-stream", digest, wanted, device=chosen(device))
    stages = stages_of(wanted.stages)
    with ProgressView(source.name) as view:

        def show(report: StepReport) -> None:
            percent = overall_percent(report.stage.value, report.step, report.total, stages)
            frames = f", {report.frames_done} of {report.frames_total} frames" if report.frames_total else ""
            view.update(percent, f"{report.stage.value}{frames} {report.message}")

        if source.is_dir():
            manifest = sequences.run(order, folder, show, intrinsics_provided, "downsample_factor" in options)
        else:
            manifest = long_clip.run_here(order, folder, show)
        for warning in manifest.get("warnings", []):
            view.note(f"note: {warning}")
    if as_json:
        click.echo(json.dumps(manifest))
        return
    quality = manifest["quality"]
    click.echo(f"{len(manifest['artifacts'])} files in {folder}")
    click.echo(json.dumps({k: v for k, v in quality.items() if not isinstance(v, list)}))


def chosen(device: str) -> str:
    """`auto` made definite; a CUDA device that is not there is a usage error."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise click.UsageError("this machine has no usable CUDA device; try --device cpu")
    if device != "cpu" and not device.startswith("cuda"):
        raise click.UsageError(f"--device is auto, cpu or cuda[:i], not {device!r}")
    return device
