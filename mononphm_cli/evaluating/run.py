"""`mononphm evaluate RUN --truth GT`: a delivered run against the true surfaces."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mononphm_cli.options import json_option

if TYPE_CHECKING:
    from mononphm_core.evaluation.head import HeadScore
    from mononphm_core.evaluation.kinect.protocol import KinectScore

FOLDER = click.Path(path_type=Path)
COLUMNS = ("mean", "median", "p90", "within_1", "within_1.5", "within_2.5", "within_5")


@click.command("run")
@click.argument("folder", metavar="RUN", type=FOLDER)
@click.option("--truth", required=True, type=FOLDER, metavar="GT", help="Folder of the ground truth.")
@click.option(
    "--kind", type=click.Choice(["video", "single"]), default="video", show_default=True,
    help="Which truth: video_gt.npz or single_gt.npz.",
)  # fmt: skip
@click.option(
    "--protocol", type=click.Choice(["head", "kinect"]), default="head", show_default=True,
    help="True surfaces, or depth pictures as the published evaluation compares them.",
)  # fmt: skip
@click.option("--start", type=click.IntRange(0), help="kinect: first frame; the published one by default.")
@click.option("--end", type=click.IntRange(0), help="kinect: first frame that is left out.")
@json_option
def command(
    folder: Path, truth: Path, kind: str, protocol: str, start: int | None, end: int | None, as_json: bool
) -> None:
    """Score RUN, a folder that `reconstruct -o` or `jobs download` filled, against ground truth.

    head: GT holds video_gt.npz or single_gt.npz (verts_mm, head_to_cam, K) with topology.npz (faces), or is laid out
    like a delivery itself: meshes/frame_00000.ply, cameras.json, expressions.npz. regions.npz (label: one byte a
    triangle, 1 face, 2 mouth, 4 eyes and brows, 8 head) says what is what; without it all of a mesh is face.

    kinect: GT holds depth/<t>.png (16 bit, mm), seg/<t>.png (face-parser labels) and kinect_intrinsics.txt; every ninth
    frame is compared. RUN may also be a stage2/<seq> folder of the published program (below $MONONPHM_TRACKING_OUTPUT);
    GT (a path, or a name in $MONONPHM_DATA_TRACKING) then holds the metrical tracker's poses.
    """
    from mononphm_core import numerics
    from worker.ledger.places import Places

    folder, truth = Places().tracked(folder), Places().prepared(truth)
    for place in (folder, truth):
        if not place.is_dir():
            raise click.UsageError(f"there is no folder {place}")
    numerics.warm_up()
    found: HeadScore | KinectScore
    if protocol == "kinect":
        from mononphm_core.evaluation.kinect.protocol import score as kinect_score

        found = kinect_score(truth, folder, start, end)
    else:
        from mononphm_core.evaluation.delivery import read_delivery
        from mononphm_core.evaluation.head import score as head_score
        from mononphm_core.evaluation.truth import read_truth

        found = head_score(read_truth(truth, kind), read_delivery(folder))
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=1))
    else:
        click.echo(kinect_table(found.to_dict()) if protocol == "kinect" else table(found))  # type: ignore[arg-type]


@click.command("gather")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
def gather(files: tuple[Path, ...], as_json: bool) -> None:
    """Mean over sequences of what `--protocol kinect --json` wrote, each sequence with the same weight."""
    from mononphm_core.evaluation.kinect import protocol

    found = protocol.gather([protocol.read_score(path) for path in files])
    click.echo(json.dumps(found, indent=1) if as_json else kinect_table(found))


def kinect_table(found: dict[str, Any]) -> str:
    """The published figures (metres), then ours."""
    lines = [f"{len(found['frames'])} frames"] if "frames" in found else []
    for part in ("published", "strict"):
        lines += [f"{part:<10}{name:<24}{value:.6f}" for name, value in found[part].items()]
    return "\n".join(lines + [f"left out: {reason}" for reason in found.get("skipped", [])])


def table(found: "HeadScore") -> str:
    """The means for reading."""
    mean = found.mean()
    lines = [f"{found.frames_delivered} of {found.frames_true} frames", f"{'mm':<24}" + "".join(map(_right, COLUMNS))]
    for alignment in ("clip", "frame"):
        for region in ("face", "mouth", "eyes_brows", "head", "to_truth"):
            row = mean[alignment][region]
            name = "surface -> GT" if region == "to_truth" else f"GT -> {region}"
            if row is not None:
                lines.append(f"{alignment:<6}{name:<18}" + "".join(f"{row[column]:>11.3f}" for column in COLUMNS))
        normals = mean[alignment]["face_normals"], mean[alignment]["head_normals"]
        lines.append(f"{alignment:<6}normals |cos|: face {normals[0]:.4f}, head {normals[1]:.4f}")
    single = ("iou", "rotation_deg", "drift_lateral_mm", "drift_depth_mm", "jitter_mm", "jitter_lateral_mm")
    lines += [f"{name:<24}" + ("-" if mean[name] is None else f"{mean[name]:.4f}") for name in single]
    return "\n".join(lines)


def _right(name: str) -> str:
    return f"{name:>11}"
