"""`mononphm transfer IDENTITY_RUN EXPRESSION_RUN -o DIR`: one head doing what another one did."""

import json
import os
from pathlib import Path

import click

from mononphm_cli.commands.reconstruct import chosen
from mononphm_cli.options import json_option
from mononphm_cli.progress import ProgressView

RUN = click.Path(exists=True, file_okay=False, readable=True, path_type=Path)


@click.command("transfer")
@click.argument("identity", metavar="IDENTITY_RUN", type=RUN)
@click.argument("expressions", metavar="EXPRESSION_RUN", type=RUN)
@click.option(
    "-o", "--output-dir", "folder", required=True, type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
    help="Where the artifacts go; an earlier delivery there is replaced.",
)  # fmt: skip
@click.option("--quality", type=click.Choice(["draft", "standard", "high"]), default="standard", show_default=True)
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:i]", help="Where to compute.")
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Processor threads; all by default.")
@json_option
def command(
    identity: Path, expressions: Path, folder: Path, quality: str, device: str, threads: int | None, as_json: bool
) -> None:
    """Let the head of IDENTITY_RUN do what the head of EXPRESSION_RUN did.

    Both are folders that `reconstruct` wrote, or that were downloaded, made with the same model. DIR gets the same
    files as theirs.
    """
    if folder.resolve() in (identity.resolve(), expressions.resolve()):
        raise click.UsageError("-o is one of the two runs, which would be overwritten; name another folder")
    from mononphm_core import numerics
    from mononphm_core.types import StepReport
    from worker import transfer
    from worker.ledger.options import ReconstructionOptions

    numerics.warm_up(threads or os.cpu_count())
    folder.mkdir(parents=True, exist_ok=True)
    options = ReconstructionOptions.from_json({"quality": quality})
    with ProgressView("transfer") as view:

        def show(report: StepReport) -> None:
            share = report.step / max(report.total, 1)
            percent = 100 * (0.7 * share if report.stage.value == "meshing" else 0.7 + 0.3 * share)
            frames = f", {report.frames_done} of {report.frames_total} frames" if report.frames_total else ""
            view.update(percent, f"{report.stage.value}{frames} {report.message}")

        manifest = transfer.run(identity, expressions, folder, options, show, chosen(device))
        for warning in manifest.get("warnings", []):
            view.note(f"note: {warning}")
    click.echo(json.dumps(manifest) if as_json else f"{len(manifest['artifacts'])} files in {folder}")
