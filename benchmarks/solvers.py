"""The published solver beside ours: same prior, picture, camera and machine, one thread each, in turns.

    python benchmarks/solvers.py --data DIR --kind single --scale 0.02 0.1 1 --out benchmarks/results/solvers.json

DIR holds one person: single.png or video.mp4, its camera file, and single_gt.npz or video_gt.npz. Every figure comes
from the commands that a user has: `mononphm reconstruct` and `mononphm evaluate`. Each run is written when it has
ended; those that the file has already are not made again.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

MONONPHM = [sys.executable, "-m", "mononphm_cli.main"]
INPUT = {"single": ("single.png", "camera_single.json"), "video": ("video.mp4", "camera_video.json")}


def main() -> None:
    """Run what is missing and print every figure as a share of ours."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--kind", choices=INPUT, default="single")
    parser.add_argument(
        "--scale", type=float, nargs="+", default=[1.0], help="Shares of the published steps; 1 is all."
    )
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(given.out.read_text("utf-8")) if given.out.is_file() else []
    published = [["--solver", "published", "--iterations-scale", str(scale)] for scale in given.scale]
    for options in (["--solver", "fast"], *published):
        if any(row["options"] == options for row in rows):
            continue
        with tempfile.TemporaryDirectory() as folder:
            rows.append(run(given, Path(folder), options))
        given.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    ours = next(row for row in rows if row["options"] == ["--solver", "fast"])
    for row in rows:
        ratio = row["processor_s"] / ours["processor_s"]
        print(
            f"{' '.join(row['options'])}: {row['processor_s']:.0f} s, {ratio:.1f} x ours, face {row['face_mm']:.2f} mm"
        )


def run(given: argparse.Namespace, folder: Path, options: list[str]) -> dict[str, Any]:
    """One reconstruction and its score; processor seconds are those of the whole command, imports included."""
    picture, camera = (given.data / name for name in INPUT[given.kind])
    command = ["reconstruct", picture, "-o", folder, "--camera", camera, "--threads", "1", "--seed", "0", *options]
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    made = json.loads(output([*command, "--json"]))
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    scored = json.loads(output(["evaluate", folder, "--truth", given.data, "--kind", given.kind, "--json"]))
    return {
        "options": options, "model": made["model"], "processor_s": spent.ru_utime - before,
        "peak_mib": spent.ru_maxrss / 1024,  # of the largest child so far: ours, the smaller one, goes first
        "seconds": made["seconds"], "quality": made["quality"],
        "face_mm": scored["mean"]["clip"]["face"]["mean"], "score": scored,
    }  # fmt: skip


def output(words: list[Any]) -> str:
    """Standard output of one `mononphm` command."""
    return subprocess.run([*MONONPHM, *map(str, words)], check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
