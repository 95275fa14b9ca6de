"""From a file to upright pictures with their times. The bytes are only ever decoded in a limited process of its own.

`read_clip` and `probe` sniff the container here (a few header bytes, no library), hand the open file to a
`DecoderProcess` and collect what it sends.
"""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from mononphm_core import errors
from mononphm_core.config import FrameSelection, MediaLimits
from mononphm_core.io.decoder_process import DecoderProcess
from mononphm_core.io.sniff import SniffedMedia, sniff
from mononphm_core.types import Clip, Frame, MediaInfo, OnStep, Stage, StepReport, ignore_steps

MAX_CLIP_BYTES = 6 << 30
"""Memory that the selected pictures of one clip may take in this process."""


def read_clip(path: str | Path, selection: FrameSelection, limits: MediaLimits, on_step: OnStep = ignore_steps) -> Clip:
    """The selected pictures of a video or image file, upright, 8-bit sRGB, with presentation times.

    Pictures larger than `limits.max_side_px` are reduced; `Clip.info` keeps the original size. A damaged tail costs
    only itself and leaves a warning. Raises UnsupportedMedia, UnreadableMedia, MediaTooLarge, MediaTooSmall,
    DecoderLimitExceeded, and ConfigError for a selection that is empty or contradicts itself. `on_step` hears
    `Stage.DECODING` at least twice a second; what it raises ends the decoder.
    """
    check_selection(selection)
    sniffed = _admit(path, limits)
    frames: list[Frame] = []
    warnings: list[str] = []
    info: MediaInfo | None = None
    received = decoded = selected = 0
    with DecoderProcess(path, sniffed, selection, limits, probe=False) as decoder:
        for message, raw in decoder.messages():
            kind = message.get("kind")
            if kind == "info":
                info, selected = _media_info(message), int(message["selected"])
                warn_thinned(info, selection, selected, warnings)
            elif kind == "frame":
                frames.append(_frame(message, raw, limits))
                received += len(raw)
                _check_memory(received, len(frames))
                decoded = frames[-1].frame_index + 1
            elif kind == "step":
                decoded = int(message["decoded"])
            elif kind == "warning":
                warnings.append(str(message["text"]))
            total = max((info.frames or 0) if info else 0, decoded, 1)
            on_step(StepReport(Stage.DECODING, min(decoded, total), total, len(frames), max(selected, len(frames))))
    if info is None or not frames:
        raise errors.UnreadableMedia("The decoder found no picture in the file. Export it again.")
    return Clip(tuple(frames), info, tuple(warnings))


def probe(path: str | Path, limits: MediaLimits) -> MediaInfo:
    """What the file is, from its headers, its packets and its first picture. Raises as `read_clip` does."""
    return count_selected(path, FrameSelection(), limits)[0]


def count_selected(path: str | Path, selection: FrameSelection, limits: MediaLimits) -> tuple[MediaInfo, int]:
    """The same, and how many pictures `selection` means, if none turns out to be damaged."""
    with DecoderProcess(path, _admit(path, limits), selection, limits, probe=True) as decoder:
        found = [message for message, _raw in decoder.messages() if message.get("kind") == "info"]
    if not found:
        raise errors.UnreadableMedia("The decoder found no picture in the file. Export it again.")
    return _media_info(found[0]), int(found[0]["selected"])


def check_selection(selection: FrameSelection) -> None:
    """Refuse what cannot mean anything: ConfigError, naming the field."""
    if selection.fps is not None and selection.stride is not None:
        raise errors.ConfigError("fps and stride exclude each other; give one of them.")
    if not 0.0 <= selection.start_s < float("inf"):
        raise errors.ConfigError(f"start_s = {selection.start_s} must be a time of 0 or more seconds.")
    if selection.end_s is not None and not selection.end_s >= selection.start_s:
        raise errors.ConfigError(f"end_s = {selection.end_s} lies before start_s = {selection.start_s}.")
    if selection.fps is not None and not 0.0 < selection.fps <= 1000.0:
        raise errors.ConfigError(f"fps = {selection.fps} must lie between 0 and 1000.")
    if selection.stride is not None and selection.stride < 1:
        raise errors.ConfigError(f"stride = {selection.stride} must be 1 or more.")
    if selection.max_frames is not None and selection.max_frames < 1:
        raise errors.ConfigError(f"max_frames = {selection.max_frames} must be 1 or more.")


def _admit(path: str | Path, limits: MediaLimits) -> SniffedMedia:
    size = Path(path).stat().st_size
    if size > limits.max_bytes:
        raise errors.MediaTooLarge(
            f"The file has {size / 1e6:.0f} MB; the limit is {limits.max_bytes / 1e6:.0f} MB. "
            "Cut it or export it with a lower rate."
        )
    return sniff(path, limits.max_pixels, limits.min_side_px, limits.max_aspect, limits.max_duration_s)


def warn_thinned(info: MediaInfo, selection: FrameSelection, selected: int, warnings: list[str]) -> None:
    """Say which pictures are left out, and by which rule."""
    if info.frames is None or selected >= info.frames:
        return
    rules = []
    if selection.start_s > 0.0 or selection.end_s is not None:
        end = "the end" if selection.end_s is None else f"{selection.end_s:g} s"
        rules.append(f"from {selection.start_s:g} s to {end}")
    if selection.stride is not None:
        rules.append(f"every {selection.stride}. picture")
    if selection.fps is not None:
        rules.append(f"{selection.fps:g} per second")
    if selection.max_frames is not None and selected == selection.max_frames:
        rules.append(f"evenly spaced, at most {selection.max_frames}")
    warnings.append(f"{selected} of the clip's {info.frames} frames are used ({', '.join(rules)}).")


def _media_info(message: dict[str, Any]) -> MediaInfo:
    return MediaInfo(
        media_type=str(message["media_type"]),
        is_video=bool(message["is_video"]),
        width=int(message["width"]),
        height=int(message["height"]),
        frames=int(message["frames"]),
        fps=Fraction(message["fps"]) if message["fps"] else None,
        duration_s=None if message["duration_s"] is None else float(message["duration_s"]),
        rotation=int(message["rotation"]),
        focal_35mm=None if message["focal_35mm"] is None else float(message["focal_35mm"]),
        pixel_aspect=float(message["pixel_aspect"]),
    )


def _frame(message: dict[str, Any], raw: bytearray, limits: MediaLimits) -> Frame:
    width, height = int(message["width"]), int(message["height"])
    if len(raw) != width * height * 3 or max(width, height) > limits.max_side_px:
        raise errors.UnreadableMedia("The decoder sent a picture of another size than it announced.")
    rgb = np.frombuffer(raw, dtype=np.uint8).reshape(height, width, 3)
    return Frame(rgb, int(message["index"]), float(message["time"]))


def _check_memory(received: int, frames: int) -> None:
    if received > MAX_CLIP_BYTES:
        raise errors.MediaTooLarge(
            f"The first {frames} selected pictures already take {received / 2**30:.1f} GiB. "
            "Choose fewer with max_frames, fps or stride."
        )
