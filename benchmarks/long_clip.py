"""One long clip on 1, 2 and 4 workers: throughput, seams, memory.

    python benchmarks/long_clip.py scaling examples/sample.mp4 -o benchmarks/results/long_clip_scaling.json
    python benchmarks/long_clip.py seams examples/sample.mp4 -o benchmarks/results/long_clip_seams.json
    python benchmarks/long_clip.py memory examples/sample.mp4 -o benchmarks/results/long_clip_memory.json

The long clip is the given one played to and fro, so that the head never jumps. `scaling` runs real worker processes on
a ledger of its own and tells wall and processor seconds; `seams` tracks it whole and in parts and compares how much the
face wobbles near borders and elsewhere; `memory` tells the peak of one process for 1, 2 and 4 lengths.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np

TRACKING_ONLY = ["expressions", "identity", "cameras"]


def to_and_fro(source: Path, target: Path, pictures: int) -> Path:
    """A clip of so many pictures, lossless, at the source's rate."""
    with av.open(str(source)) as clip:
        rate = clip.streams.video[0].average_rate
        frames = [frame.to_ndarray(format="rgb24") for frame in clip.decode(video=0)]
    order = [*range(len(frames)), *range(len(frames) - 2, 0, -1)]
    height, width = frames[0].shape[:2]
    with av.open(str(target), "w") as out:
        stream = out.add_stream("libx264", rate=rate, options={"crf": "12", "preset": "veryfast", "g": "12"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(pictures):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frames[order[number % len(order)]], format="rgb24")))
        out.mux(stream.encode(None))
    return target


def options_of(arguments: argparse.Namespace, **more: Any) -> dict[str, Any]:
    outputs = {} if arguments.everything else {"outputs": TRACKING_ONLY}
    return {"quality": "draft", "part_frames": arguments.part, "max_frames": 20_000, **outputs, **more}


# ---------------------------------------------------------------- scaling


def scaling(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Wall seconds of one job with so many workers, and what its processes used of the processor."""
    clip = to_and_fro(arguments.clip, folder / "clip.mp4", arguments.pictures)
    rows = []
    for workers in arguments.workers:
        rows.append(row := run_with(workers, clip, options_of(arguments), folder / f"with-{workers}"))
        print(json.dumps(row), flush=True)
    one = rows[0]["wall_s"] * rows[0]["workers"]
    for row in rows:
        row["speed_up"] = round(one / row["wall_s"], 3)
    same = all(row["sha256"] == rows[0]["sha256"] for row in rows)
    return {"pictures": arguments.pictures, "part_frames": arguments.part, "rows": rows, "same_bytes": same}


def run_with(workers: int, clip: Path, options: dict[str, Any], data_dir: Path) -> dict[str, Any]:
    from worker.ledger import InputFacts, Ledger, ReconstructionOptions, State, new_job_id, sha256_of

    book = Ledger(None, data_dir)
    environment = {**os.environ, "MONONPHM_DATA_DIR": str(data_dir), "MONONPHM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    environment |= {"MONONPHM_MEMORY_BYTES": str(1 << 40), "MONONPHM_LOG_LEVEL": "WARNING"}
    hired = [subprocess.Popen([sys.executable, "-m", "worker.main"], env=environment) for _ in range(workers)]
    try:
        until(lambda: sum(bool(w.info.get("child_ready")) for w in book.workers()) == workers)
        job_id, staged = new_job_id(), book.storage.new_staging("clip")
        staged.write_bytes(clip.read_bytes())
        facts = InputFacts("clip.mp4", "video/mp4", staged.stat().st_size, sha256_of(staged))
        book.storage.accept_input(staged, job_id)
        before, began = used_s(hired), time.monotonic()
        book.open_job(job_id, facts, ReconstructionOptions.from_json(options))
        until(lambda: book.get(job_id).is_terminal)
        wall, used = time.monotonic() - began, used_s(hired) - before
        job = book.get(job_id)
        if job.state is not State.SUCCEEDED:
            raise SystemExit(f"the job {job.state.value}: {job.error}")
        files = {item.name: item.sha256 for item in book.artifacts(job_id) if item.name != "manifest.json"}
        return {"workers": workers, "wall_s": round(wall, 1), "processor_s": round(used, 1), "sha256": files}
    finally:
        for worker in hired:
            worker.terminate()
        for worker in hired:
            worker.wait()
        book.close()


def used_s(processes: list[subprocess.Popen[bytes]]) -> float:
    """Processor seconds of these processes and of all their children, those that ended included."""
    import psutil

    total = 0.0
    for process in processes:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        total += sum(sum(member.cpu_times()[:4]) for member in family)
    return total


def until(condition: Any) -> None:
    while not condition():
        time.sleep(0.2)


# ---------------------------------------------------------------- seams


def seams(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Root mean square of the second differences of the face's points, near borders and elsewhere, millimetres."""
    from mononphm_core.io import registry
    from mononphm_core.tracking.joining import BLEND
    from worker.division import Division

    clip = to_and_fro(arguments.clip, folder / "clip.mp4", arguments.pictures)
    template = registry.warm_model(registry.find_model(), "cpu").template
    found: dict[str, Any] = {"pictures": arguments.pictures, "part_frames": arguments.part, "blend": BLEND}
    division = Division(arguments.pictures, arguments.part, 8)
    borders = [division.own(number)[0] for number in range(1, division.stretches)]
    for name, part in (("parts", arguments.part), ("whole", 1000)):
        out = folder / name
        run_here(clip, out, options_of(arguments, part_frames=part))
        jolts = jolts_mm(out, template)
        middle = np.arange(1, arguments.pictures - 1) + 0.5
        near = np.min([np.abs(middle - border) for border in borders], axis=0) < BLEND
        found[name] = {"near_borders_mm": rms(jolts[near]), "elsewhere_mm": rms(jolts[~near])}
        print(name, json.dumps(found[name]), flush=True)
    found["ratio_in_parts"] = round(found["parts"]["near_borders_mm"] / found["parts"]["elsewhere_mm"], 3)
    return found


def jolts_mm(folder: Path, template: Any) -> np.ndarray:
    """Per middle frame: root mean square over the face's points of x[t-1] - 2 x[t] + x[t+1]."""
    import torch

    with np.load(folder / "identity.npz") as person, np.load(folder / "expressions.npz") as frames:
        z_geo, z_exp = torch.from_numpy(person["z_geo"]), torch.from_numpy(frames["z_exp"])
        posed = template.posed(z_geo.expand(len(z_exp), -1), z_exp, "mediapipe478").double().numpy()
        rotation, shift = frames["rotation"].astype(float), frames["translation"].astype(float)
        world = (250.0 * posed - shift[:, None]) @ rotation
    jolt = np.diff(world, n=2, axis=0)
    return np.asarray(np.sqrt((jolt**2).sum(-1).mean(-1)))


def rms(values: np.ndarray) -> float:
    return round(float(np.sqrt((values**2).mean())), 4)


# ---------------------------------------------------------------- memory


def memory(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Peak resident memory of one process that does all parts one after the other, by the clip's length."""
    rows = []
    for times in (1, 2, 4):
        pictures = times * arguments.pictures
        clip = to_and_fro(arguments.clip, folder / f"{times}.mp4", pictures)
        command = [sys.executable, __file__, "one", str(clip), "-o", str(folder / f"{times}.json")]
        command += ["--part", str(arguments.part), *(["--everything"] if arguments.everything else [])]
        subprocess.run(command, check=True)
        rows.append({"pictures": pictures, **json.loads((folder / f"{times}.json").read_text())})
        print(json.dumps(rows[-1]), flush=True)
    return {"part_frames": arguments.part, "rows": rows}


def one(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    run_here(arguments.clip, folder / "out", options_of(arguments))
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"peak_gb": round(used.ru_maxrss / 1e6, 3), "processor_s": round(used.ru_utime + used.ru_stime, 1)}


def run_here(clip: Path, out: Path, options: dict[str, Any]) -> None:
    from mononphm_core.io.manifest import sha256_of_file
    from mononphm_core.types import ignore_steps
    from worker import long_clip
    from worker.ledger.options import ReconstructionOptions
    from worker.ledger.order import Order

    out.mkdir(parents=True, exist_ok=True)
    wanted = ReconstructionOptions.from_json(options)
    order = Order("local", clip, clip.name, "video/mp4", sha256_of_file(clip), wanted)
    long_clip.run_here(replace(order, device="cpu"), out, ignore_steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["scaling", "seams", "memory", "one"])
    parser.add_argument("clip", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=96)
    parser.add_argument("--part", type=int, default=24)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--everything", action="store_true", help="meshes, film and heads, too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {"scaling": scaling, "seams": seams, "memory": memory, "one": one}[arguments.what](
            arguments, Path(folder)
        )
    arguments.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
