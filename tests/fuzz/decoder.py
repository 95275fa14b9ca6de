"""`make fuzz`, second part: damaged media against the real decoder process.

    python -m tests.fuzz.decoder --seconds 600

Small good files of every format that is read are broken in random places (bits, holes, cuts, moved blocks, numbers at
their limits) and sent through the same door as an upload. Each must give pictures or one of our errors, within its
time, without growing the parent; the decoder's memory is held by its own limit.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from mononphm_core import errors
from mononphm_core.config import FrameSelection, MediaLimits
from mononphm_core.io.media import read_clip
from tests.hostile import files

LIMITS = MediaLimits(decode_seconds=5.0, decode_memory_bytes=1 << 30, max_pixels=4_000_000, max_frames=500)
LONGEST_S = 45.0
"""Start-up of the process on a busy machine included; its own limit is 5 s of processor time."""
PARENT_GROWTH_KB = 200 << 10

Bytes = np.ndarray


@dataclass
class Tally:
    """What the cases gave."""

    cases: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    """Cases that broke a promise, in words."""
    longest_s: float = 0.0
    parent_growth_kb: int = 0
    child_peak_kb: int = 0


def corpus(folder: Path) -> dict[str, bytes]:
    """One small good file of each format."""
    pictures = files.moving(6, files.face(96, 80))
    clips = {
        "h264.mp4": {}, "h264.mov": {}, "h264.mkv": {}, "mpeg4.avi": {"codec": "mpeg4"},
        "vp9.webm": {"codec": "libvpx-vp9"}, "av1.mp4": {"codec": "libsvtav1"},
        "hevc10.mp4": {"codec": "libx265", "pix_fmt": "yuv420p10le"},
        "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    }  # fmt: skip
    made = {name: files.write_clip(folder / name, pictures, **how).read_bytes() for name, how in clips.items()}
    images = [Image.fromarray(picture) for picture in pictures[:3]]
    for kind in ("GIF", "PNG", "WEBP"):
        made[f"moving.{kind}"] = files.as_bytes(images[0], kind, save_all=True, append_images=images[1:], duration=80)
    for kind in ("JPEG", "PNG", "WEBP", "AVIF", *(["HEIF"] if files.has_heif() else [])):
        made[f"still.{kind}"] = files.as_bytes(images[0], kind)
    return made


def flipped(content: Bytes, rng: np.random.Generator) -> Bytes:
    """A few bits elsewhere."""
    out = content.copy()
    for at in rng.integers(0, len(out), rng.integers(1, 40)):
        out[at] ^= 1 << rng.integers(8)
    return out


def holed(content: Bytes, rng: np.random.Generator) -> Bytes:
    """A block of zeros or noise."""
    out = content.copy()
    start, length = int(rng.integers(len(out))), int(rng.integers(1, 600))
    part = out[start : start + length]
    part[:] = 0 if rng.random() < 0.5 else rng.integers(0, 256, len(part), dtype=np.uint8)
    return out


def cut(content: Bytes, rng: np.random.Generator) -> Bytes:
    """Its beginning only."""
    return content[: int(rng.integers(1, len(content)))]


def moved(content: Bytes, rng: np.random.Generator) -> Bytes:
    """A block taken out, doubled or put elsewhere."""
    start, length, to = (int(v) for v in rng.integers(0, len(content), 3))
    block = content[start : start + length % 900 + 1]
    rest = np.concatenate([content[:start], content[start + len(block) :]]) if rng.random() < 0.5 else content
    return np.concatenate([rest[:to], block, rest[to:]])


def extreme(content: Bytes, rng: np.random.Generator) -> Bytes:
    """Four bytes in the headers become a number at a limit: sizes, counts, offsets, times."""
    out = content.copy()
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(0, min(len(out), 1500) - 4))
        value = (0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 0x00FFFFFF)[rng.integers(6)]
        order = "big" if rng.random() < 0.6 else "little"
        out[at : at + 4] = np.frombuffer(value.to_bytes(4, order), np.uint8)  # type: ignore[arg-type]
    return out


MUTATIONS: tuple[Callable[[Bytes, np.random.Generator], Bytes], ...] = (flipped, holed, cut, moved, extreme)


def fuzz(folder: Path, seconds: float, seed: int, most: int = 1_000_000) -> Tally:
    """Mutants until the time or their number is used up; every format in turn."""
    rng, tally = np.random.default_rng(seed), Tally()
    good = corpus(folder)
    names = sorted(good)
    upload = folder / "upload"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    end = time.monotonic() + seconds
    while time.monotonic() < end and tally.cases < most:
        name = names[tally.cases % len(names)]
        mutation = MUTATIONS[int(rng.integers(len(MUTATIONS)))]
        upload.write_bytes(mutation(np.frombuffer(good[name], np.uint8), rng).tobytes())
        _try(upload, f"case {tally.cases}: {name}, {mutation.__name__}", tally)
        tally.cases += 1
    tally.parent_growth_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    tally.child_peak_kb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    if tally.parent_growth_kb > PARENT_GROWTH_KB:
        tally.broken.append(f"the parent grew by {tally.parent_growth_kb >> 10} MiB")
    return tally


def _try(upload: Path, case: str, tally: Tally) -> None:
    began = time.monotonic()
    try:
        clip = read_clip(upload, FrameSelection(max_frames=20), LIMITS)
        tally.answers["damaged, with a warning" if clip.warnings else "pictures"] += 1
    except (errors.InputError, errors.ResourceError) as refused:
        tally.answers[type(refused).__name__] += 1
        if not str(refused) or str(upload) in str(refused):
            tally.broken.append(f"{case}: the message is {str(refused)!r}")
    except Exception as escaped:
        tally.broken.append(f"{case}: {type(escaped).__name__}: {escaped}")
    took = time.monotonic() - began
    tally.longest_s = max(tally.longest_s, took)
    if took > LONGEST_S:
        tally.broken.append(f"{case}: {took:.0f} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz") as name:
        tally = fuzz(Path(name), given.seconds, given.seed)
    print(json.dumps(vars(tally), indent=1))
    return 1 if tally.broken else 0


if __name__ == "__main__":
    sys.exit(main())
