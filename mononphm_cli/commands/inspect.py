"""`mononphm inspect INPUT --to sheet.png`: what preprocessing sees, to look at before anything is fitted."""

import json
from pathlib import Path
from typing import Any

import click

from mononphm_cli.options import json_option, to_job_options


@click.command("inspect")
@click.argument("source", metavar="INPUT", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--to", "target", required=True, type=click.Path(dir_okay=False, path_type=Path), metavar="SHEET.png",
    help="Where the contact sheet goes (PNG or JPEG by its ending).",
)  # fmt: skip
@click.option("--columns", default=4, show_default=True, type=click.IntRange(1, 12), help="Pictures in a row.")
@click.option(
    "--max-frames", default=12, show_default=True, type=click.IntRange(1), metavar="N",
    help="Pictures of the clip, evenly spread.",
)  # fmt: skip
@click.option("--start", "start_s", type=click.FloatRange(0), metavar="S", help="Begin here, seconds.")
@click.option("--end", "end_s", type=click.FloatRange(0), metavar="S", help="End here, seconds.")
@click.option("--face", metavar="WHICH", help="`largest`, `center` or a number from the left.")
@click.option(
    "--camera", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="K.json",
    help="Known camera: fx, fy, cx, cy.",
)  # fmt: skip
@click.option("--fov", type=click.FloatRange(1, 170), metavar="DEG", help="Known horizontal field of view.")
@json_option
def command(source: Path, target: Path, columns: int, as_json: bool, **given: Any) -> None:
    """Draw boxes, landmarks with confidence, masks, camera and quality of a clip's frames on one picture.

    The same frames, options and observations as `reconstruct` would use. Exit code 3 where no face is found.
    """
    options = to_job_options(given)
    import cv2

    from mononphm_core import numerics
    from mononphm_core.io import registry
    from mononphm_core.io.media import read_clip
    from mononphm_core.preprocessing import observe
    from mononphm_core.preprocessing.sheet import contact_sheet
    from worker import pipeline
    from worker.ledger.options import ReconstructionOptions

    numerics.warm_up()
    config, _ = pipeline.config_of(ReconstructionOptions.from_json(options))
    clip = read_clip(source, config.selection, config.limits)
    model = registry.warm_model(registry.find_model(), "cpu")
    observed = observe(clip, config.camera, config.preprocessing, pipeline.mean_landmarks(model))
    sheet = contact_sheet(observed, columns)
    written, encoded = cv2.imencode(target.suffix if target.suffix in (".jpg", ".jpeg") else ".png", sheet[..., ::-1])
    if not written:
        raise click.ClickException(f"{target} cannot be encoded")
    target.write_bytes(encoded.tobytes())
    facts = pipeline.seen(observed) | {
        "missed": observed.missed_frames,
        "camera": {"source": observed.camera_source.value, "fx": observed.intrinsics.fx},
        "warnings": [*clip.warnings, *observed.warnings],
    }
    if as_json:
        click.echo(json.dumps(facts))
        return
    click.echo(f"{target}: {len(observed.observations)} of {len(clip.frames)} frames usable")
    for warning in facts["warnings"]:
        click.echo(f"note: {warning}")
