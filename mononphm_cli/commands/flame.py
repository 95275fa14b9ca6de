"""`mononphm flame fit CLIP --flame FILE --landmarks FILE -o FOLDER`: FLAME head poses in the published layout."""

import json
from pathlib import Path
from typing import Any

import click

from mononphm_cli.options import json_option
from mononphm_cli.progress import ProgressView

FILE = click.Path(path_type=Path)


@click.group("flame")
def command() -> None:
    """Fit your own FLAME file to a clip (extra `flame`; neither FLAME nor smplx comes with this program)."""


@command.command("fit")
@click.argument("clip", metavar="CLIP", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--flame", required=True, type=FILE, metavar="FILE", help="FLAME: .pkl as published, .npz, .safetensors.")
@click.option("--landmarks", required=True, type=FILE, metavar="FILE", help="68 (or 51) landmarks on its triangles.")
@click.option(
    "-o", "--output-dir", "folder", required=True, type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
    help="New folder, which `mononphm reconstruct` reads.",
)  # fmt: skip
@click.option("--fov", type=click.FloatRange(1, 170), metavar="DEG", help="Known horizontal field of view.")
@click.option("--max-frames", type=click.IntRange(1), default=24, show_default=True, help="Frames, evenly chosen.")
@json_option
def fit(
    clip: Path, flame: Path, landmarks: Path, folder: Path, fov: float | None, max_frames: int, as_json: bool
) -> None:
    """Fit FLAME's shape, expression, jaw and head pose to CLIP.

    The FLAME pickle is read in a process without network that executes nothing of it. FOLDER gets source/ and
    metrical_tracker/ as the published preprocessing leaves them. Exit code 4 when smplx or a file is missing.
    """
    from mononphm_core.config import CameraChoice, FrameSelection
    from mononphm_core.types import StepReport
    from worker import flame as fitting

    request = fitting.FlameRequest(
        clip, flame, landmarks, CameraChoice(fov_deg=fov), FrameSelection(max_frames=max_frames)
    )
    with ProgressView(clip.name) as view:

        def show(report: StepReport) -> None:
            view.update(100 * report.step / max(report.total, 1), f"{report.stage.value} {report.message}")

        found = fitting.run(request, folder, show)
    facts: dict[str, Any] = {"folder": str(folder), "frames": len(found.jaw), "error_px": round(found.error_px, 3)}
    if as_json:
        click.echo(json.dumps(facts))
        return
    click.echo(f"{facts['frames']} frames in {folder}, landmarks fitted to {found.error_px:.2f} pixels")
