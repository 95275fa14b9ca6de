"""Command-line options that several commands share, and how they become the `options` of a job."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from mononphm_cli.client import Client

DEFAULT_SERVER = "http://127.0.0.1:8000"

Command = TypeVar("Command", bound=Callable[..., Any])


def server_options(command: Command) -> Command:
    """`--server` and `--key`: which service, and who asks."""
    command = click.option(
        "--key", envvar="MONONPHM_KEY", show_envvar=True, metavar="KEY", help="API key; not needed on loopback."
    )(command)
    return click.option(
        "--server",
        envvar="MONONPHM_SERVER",
        show_envvar=True,
        default=DEFAULT_SERVER,
        show_default=True,
        metavar="URL",
        help="Address of the service.",
    )(command)


def json_option(command: Command) -> Command:
    """`--json`: facts for programs, on standard output, one JSON document."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")(command)


def job_options(command: Command) -> Command:
    """The options of a reconstruction; the server resolves what is left out."""
    quality = click.Choice(["draft", "standard", "high"])
    for option in reversed(
        [
            click.option("--model", metavar="NAME", help="Head prior to use; the server's default otherwise."),
            click.option("--quality", type=quality, help="How much work is put in."),
            click.option("--stage", "stages", multiple=True, type=click.Choice(["1", "2"]), help="Stages to run."),
            click.option("--camera", type=_existing_file(), metavar="K.json", help="Known camera: fx, fy, cx, cy."),
            click.option("--fov", type=click.FloatRange(1, 170), metavar="DEG", help="Known horizontal field of view."),
            click.option("--start", "start_s", type=click.FloatRange(0), metavar="S", help="Begin here, seconds."),
            click.option("--end", "end_s", type=click.FloatRange(0), metavar="S", help="End here, seconds."),
            click.option("--fps", type=click.FloatRange(0, min_open=True), help="Frames taken per second of the clip."),
            click.option("--stride", type=click.IntRange(1), metavar="N", help="Take every Nth frame."),
            click.option("--max-frames", type=click.IntRange(1), metavar="N", help="At most so many, evenly thinned."),
            click.option(
                "--part-frames",
                type=click.IntRange(8, 1000),
                metavar="N",
                help="Divide a clip of more frames than N into parts of N; above 240 into parts of 96 otherwise.",
            ),
            click.option(
                "--downsample",
                "--downsample-factor",
                "downsample_factor",
                type=click.FloatRange(0, 1, min_open=True),
                metavar="F",
                help="Shrink the picture before work, 0 < F <= 1.",
            ),
            click.option("--face", metavar="WHICH", help="`largest`, `center` or a number from the left."),
            click.option("--output", "outputs", multiple=True, metavar="NAME", help="Only these artifacts."),
            click.option("--mesh-format", type=click.Choice(["ply", "obj", "glb"]), help="Format of the meshes."),
            click.option("--mesh-resolution", type=click.IntRange(16), metavar="N", help="Grid cells along the box."),
            click.option(
                "--mesh-extraction",
                type=click.Choice(["sparse", "published"]),
                help="Meshes our way, or on the published grid with nothing cut.",
            ),
            click.option(
                "--solver",
                type=click.Choice(["fast", "published"]),
                help="Ours, or the algorithm of the MonoNPHM release (slow); by the model otherwise.",
            ),
            click.option(
                "--iterations-scale",
                type=click.FloatRange(0, 1, min_open=True),
                metavar="F",
                help="Share of the published solver's steps; 1 is the published algorithm.",
            ),
            click.option("--seed", type=int, help="Start of the random numbers."),
            click.option("--label", "labels", multiple=True, metavar="TEXT", help="Note on the job, to find it by."),
            click.option("--priority", type=click.Choice(["low", "normal", "high"]), help="Place in the queue."),
            click.option("--webhook-url", metavar="URL", help="Told when the job ends."),
            click.option("--retention-hours", type=click.IntRange(1), metavar="H", help="Delete the job's bytes then."),
        ]
    ):
        command = option(command)
    return command


def _existing_file() -> click.Path:
    return click.Path(exists=True, dir_okay=False, path_type=Path)


def to_job_options(given: dict[str, Any]) -> dict[str, Any]:
    """The job's `options` document from parsed `job_options`; only what the user said. click.UsageError on conflict."""
    options = {name: value for name, value in given.items() if value is not None and value != ()}
    camera, fov = options.pop("camera", None), options.pop("fov", None)
    if camera is not None and fov is not None:
        raise click.UsageError("--camera and --fov say two things about one camera: give one of them.")
    if camera is not None:
        options["camera"] = _camera_of(camera)
    if fov is not None:
        options["camera"] = {"fov_deg": fov}
    if "fps" in options and "stride" in options:
        raise click.UsageError("--fps and --stride both choose frames: give one of them.")
    if "stages" in options:
        options["stages"] = sorted({int(stage) for stage in options["stages"]})
    for name in ("outputs", "labels"):
        if name in options:
            options[name] = list(options[name])
    if str(options.get("face", "")).isdigit():
        options["face"] = int(options["face"])
    return options


def _camera_of(path: Path) -> dict[str, Any]:
    try:
        camera = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise click.UsageError(f"{path} is no JSON: {error}") from error
    if not isinstance(camera, dict):
        raise click.UsageError(f'{path} must hold one object such as {{"fx": 1100, "fy": 1100, "cx": 540, "cy": 960}}.')
    return camera


def client_of(server: str, key: str | None) -> Client:
    """A client for the parsed `server_options`. click.UsageError for an address that is none."""
    if not server.startswith(("http://", "https://")):
        raise click.UsageError(f"--server {server!r} is no address; write for example {DEFAULT_SERVER}.")
    return Client(server, key)
