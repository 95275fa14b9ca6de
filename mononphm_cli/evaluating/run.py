"""`mononphm evaluate RUN --truth GT`: a delivered run against the true surfaces."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mononphm_cli.options import json_option

if TYPE_CHECKING:
    from mononphm_core.evaluation.head import HeadScore

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
COLUMNS = ("mean", "median", "p90", "within_1", "within_1.5", "within_2.5", "within_5")


@click.command("run")
@click.argument("folder", metavar="RUN", type=FOLDER)
@click.option("--truth", required=True, type=FOLDER, metavar="GT", help="Folder of the ground truth.")
@click.option(
    "--kind", type=click.Choice(["video", "single"]), default="video", show_default=True,
    help="Which truth: video_gt.npz or single_gt.npz.",
)  # fmt: skip
@json_option
def command(folder: Path, truth: Path, kind: str, as_json: bool) -> None:
    """Score RUN, a folder that `reconstruct -o` or `jobs download` filled, against ground truth.

    GT holds video_gt.npz or single_gt.npz (verts_mm, head_to_cam, K) with topology.npz (faces), or is laid out like a
    delivery itself: meshes/frame_00000.ply, cameras.json, expressions.npz. regions.npz (label: one byte a triangle, 1
    face, 2 mouth, 4 eyes and brows, 8 head) says what is what; without it all of a mesh is face.
    """
    from mononphm_core import numerics
    from mononphm_core.evaluation.delivery import read_delivery
    from mononphm_core.evaluation.head import score
    from mononphm_core.evaluation.truth import read_truth

    numerics.warm_up()
    found = score(read_truth(truth, kind), read_delivery(folder))
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=1))
    else:
        click.echo(table(found))


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
