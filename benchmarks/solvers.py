"""The published solver beside ours: same prior, picture, camera and machine, one thread each, in turns.

    python benchmarks/solvers.py --data DIR --kind single --scale 0.02 --out benchmarks/results/solvers.json

DIR holds one person: single.png or video.mp4, its camera file, and single_gt.npz or video_gt.npz. Every figure comes
from the commands that a user has: `mononphm reconstruct` and `mononphm evaluate`.
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
    """Run both and write one JSON with every figure and command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--kind", choices=INPUT, default="single")
    parser.add_argument("--scale", type=float, default=1.0, help="Share of the published steps; 1 is all of them.")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    rows = []
    for solver, more in (("fast", []), ("published", ["--iterations-scale", str(given.scale)])):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(run(given, Path(folder), ["--solver", solver, *more]))
    given.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print(f"{' '.join(row['options']):45} {row['processor_s']:8.0f} s  face {row['face_mm']:.2f} mm")


def run(given: argparse.Namespace, folder: Path, options: list[str]) -> dict[str, Any]:
    """One reconstruction and its score; processor seconds are those of the whole command, imports included."""
    picture, camera = (given.data / name for name in INPUT[given.kind])
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    command = ["reconstruct", picture, "-o", folder, "--camera", camera, "--threads", "1", "--seed", "0", *options]
    made = json.loads(output([*command, "--json"]))
    spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    scored = json.loads(output(["evaluate", folder, "--truth", given.data, "--kind", given.kind, "--json"]))
    return {
        "options": options, "processor_s": spent, "seconds": made["seconds"], "quality": made["quality"],
        "face_mm": scored["mean"]["clip"]["face"]["mean"], "score": scored,
    }  # fmt: skip


def output(words: list[Any]) -> str:
    """Standard output of one `mononphm` command."""
    return subprocess.run([*MONONPHM, *map(str, words)], check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
