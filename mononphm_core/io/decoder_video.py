"""Clips through PyAV, inside the limited decoder process: two passes, the first over packets, the second over pictures.

The first pass reads only the packets and so knows every picture's time without decoding one; the selection is made
on these times. The second decodes in order and ships the chosen pictures. A damaged place costs its own pictures.
"""

import importlib
import pkgutil
import time
from bisect import bisect_right
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, BinaryIO

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from mononphm_core.io import pixels
from mononphm_core.io.decoder_protocol import Refusal, Send
from mononphm_core.io.selection import choose
from mononphm_core.io.sniff import check_declared_duration, check_declared_size

DEMUXERS = {"mp4": "mov,mp4,m4a,3gp,3g2,mj2", "matroska": "matroska,webm", "avi": "avi", "gif": "gif", "apng": "apng"}

_CODECS = frozenset(
    {"h264", "hevc", "vp8", "libvpx", "vp9", "libvpx-vp9", "av1", "libdav1d", "libaom-av1", "vvc", "prores", "dnxhd"}
    | {"mpeg4", "msmpeg4v2", "msmpeg4v3", "mpeg1video", "mpeg2video", "h263", "mjpeg", "gif", "apng", "png"}
    | {"ffv1", "huffyuv", "ffvhuff", "utvideo", "rawvideo"}
)
"""Decoders that may run; anything else of the library is not reachable by an upload."""

_STEP_SECONDS = 0.25
_SKIP_SECONDS = 5.0
"""Less than this of a clip is decoded and thrown away rather than skipped."""


@dataclass
class _Timeline:
    """What the packet pass found."""

    times: list[float]
    """Seconds after the first picture, rising."""
    origin_s: float
    rate: Fraction
    timed: bool
    """False: the container gives no presentation times (old AVI), so `times` count pictures at its fixed rate."""
    damaged: bool
    entries: list[float]
    """Times of the pictures at which decoding may begin, seconds after the first picture; empty where none is sure."""


@dataclass
class _Progress:
    decoded: int = 0
    shipped: int = 0
    bad: int = 0
    last_s: float = -1.0
    told: float = field(default_factory=time.monotonic)


def prepare() -> None:
    """Load every module of the library while files can still be opened: it imports its streams as it meets them."""
    for module in pkgutil.walk_packages(av.__path__, "av."):
        if not module.name.endswith(("__main__", "datasets")):
            importlib.import_module(module.name)


def decode_video(file: BinaryIO, request: dict[str, Any], send: Send) -> None:
    """Ship the selected pictures of the clip in `file`; the messages are those of `decoder_protocol`."""
    with _open(file, request["container"]) as container:
        stream = _stream(container)
        _check_declared(container, stream, request["limits"])
        timeline = _timeline(container, stream, request["limits"])
    chosen = choose(timeline.times, **request["selection"])
    if not chosen:
        raise Refusal(
            "ConfigError",
            f"No picture lies in the chosen range: the clip runs from 0 to {timeline.times[-1]:.2f} s. "
            "Change start_s and end_s.",
        )
    begin_at = _entry_before(timeline, timeline.times[chosen[0]])
    with _open(file, request["container"]) as container:
        _second_pass(container, timeline, begin_at, chosen, request, send)


def _open(file: BinaryIO, container: str) -> Any:
    file.seek(0)
    demuxer = DEMUXERS[container]
    options = {"protocol_whitelist": "file", "format_whitelist": demuxer}
    try:
        return av.open(_Borrowed(file), mode="r", format=demuxer, options=options, metadata_errors="replace")
    except (av.error.FFmpegError, EOFError) as refused:
        raise Refusal(
            "UnreadableMedia", "The file looks like a clip but cannot be opened: damaged or cut off. Export it again."
        ) from refused


class _Borrowed:
    """A file for one pass: the library closes what it is given, and the file cannot be opened a second time."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


def _stream(container: Any) -> Any:
    """The largest real video stream; cover pictures of audio files are none."""
    cover = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if s.codec_context is not None and not s.disposition & cover]
    if not streams:
        raise Refusal(
            "UnreadableMedia", "The file has no video stream (audio only, or its index is cut off). Export it again."
        )
    stream = max(streams, key=lambda s: s.codec_context.width * s.codec_context.height)
    codec = stream.codec_context.codec.name
    if codec not in _CODECS:
        raise Refusal("UnsupportedMedia", f"The video codec {codec!r} is not read here. Export the clip as H.264.")
    return stream


def _check_declared(container: Any, stream: Any, limits: dict[str, Any]) -> None:
    context = stream.codec_context
    if context.width and context.height:
        _check_size(context.width, context.height, limits)
    seconds = 0.0
    if stream.duration is not None:
        seconds = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        seconds = container.duration / av.time_base
    check_declared_duration(seconds, limits["max_duration_s"])
    _check_count(stream.frames, limits)


def _check_size(width: int, height: int, limits: dict[str, Any]) -> None:
    check_declared_size(
        width,
        height,
        max_pixels=limits["max_pixels"],
        min_side_px=limits["min_side_px"],
        max_aspect=limits["max_aspect"],
    )


def _check_count(frames: int, limits: dict[str, Any]) -> None:
    if frames > limits["max_frames"]:
        raise Refusal(
            "MediaTooLarge",
            f"The clip has more than {limits['max_frames']} pictures. Cut it to the part that matters.",
        )


def _timeline(container: Any, stream: Any, limits: dict[str, Any]) -> _Timeline:
    stamps: list[float | None] = []
    entries: list[float] = []
    damaged = False
    try:
        for packet in container.demux(stream):
            if packet.size == 0 or packet.is_discard:
                continue
            stamps.append(None if packet.pts is None else float(packet.pts * packet.time_base))
            if packet.is_keyframe and stamps[-1] is not None:
                entries.append(stamps[-1])
            _check_count(len(stamps), limits)
    except av.error.FFmpegError:
        damaged = True
    if not stamps:
        raise Refusal("UnreadableMedia", "The file has a video stream but no picture in it. Export it again.")
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate or Fraction(25)
    known = sorted(s for s in stamps if s is not None)
    timed = len(known) == len(stamps) and (len(known) == 1 or known[-1] > known[0])
    if not timed:
        known = [i / float(rate) for i in range(len(stamps))]
    check_declared_duration(known[-1] - known[0], limits["max_duration_s"])
    entries = [t - known[0] for t in sorted(entries)] if timed and not damaged else []
    return _Timeline([t - known[0] for t in known], known[0], rate, timed, damaged, entries)


def _entry_before(timeline: _Timeline, first_s: float) -> float | None:
    """Where decoding may begin to have all pictures from `first_s` on; None: at the beginning, or nearly there.

    One entry earlier than the last: pictures that are shown just after an entry may be stored before it.
    """
    at = bisect_right(timeline.entries, first_s) - 2
    return timeline.entries[at] if at > 0 and first_s > _SKIP_SECONDS else None


def _second_pass(
    container: Any,
    timeline: _Timeline,
    begin_at: float | None,
    chosen: list[int],
    request: dict[str, Any],
    send: Send,
) -> None:
    stream = _stream(container)
    if begin_at is not None and not request["probe"]:
        container.seek(round((begin_at + timeline.origin_s) / stream.time_base), stream=stream)
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = 2
    stream.codec_context.options = {"max_pixels": str(request["limits"]["max_pixels"])}
    targets = [timeline.times[i] for i in chosen]
    state = _Progress()
    shape: _Shape | None = None
    for frame in _pictures(container, stream, state):
        at = _time_of(frame, timeline, state)
        if shape is None:
            state.decoded = bisect_right(timeline.times, at + 1e-4) - 1 if begin_at is not None else 0
            shape = _Shape(frame, stream.sample_aspect_ratio, request["limits"], send)
            send(**_info(shape, stream, timeline, len(chosen), request["media_type"]))
        _check_size(frame.width, frame.height, request["limits"])
        if state.shipped < len(targets) and at >= targets[state.shipped] - 1e-4:
            if not request["probe"]:
                rgb = shape.upright_rgb(frame)
                height, width = rgb.shape[:2]
                send("frame", raw=rgb.tobytes(), index=state.decoded, time=at, width=width, height=height)
            while state.shipped < len(targets) and at >= targets[state.shipped] - 1e-4:
                state.shipped += 1
        state.decoded += 1
        _check_count(state.decoded, request["limits"])
        if time.monotonic() - state.told > _STEP_SECONDS:
            send("step", decoded=state.decoded)
            state.told = time.monotonic()
        if request["probe"] or state.shipped == len(targets):
            break
    _finish(state, timeline, targets, request, send)


def _pictures(container: Any, stream: Any, state: _Progress) -> Any:
    """Decoded pictures in order of presentation; damaged packets and pictures are counted and left out."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.error.FFmpegError:
            state.bad += 1
            return
        try:
            frames = packet.decode()
        except MemoryError:
            raise
        except av.error.FFmpegError:
            state.bad += 1
            continue
        for frame in frames:
            if frame.is_corrupt:
                state.bad += 1
            else:
                yield frame


def _time_of(frame: Any, timeline: _Timeline, state: _Progress) -> float:
    """Seconds after the clip's first picture, always rising."""
    if timeline.timed and frame.pts is not None:
        at = float(frame.pts * frame.time_base) - timeline.origin_s
    else:
        at = state.decoded / float(timeline.rate)
    state.last_s = max(at, state.last_s + 1e-6) if state.last_s >= 0.0 else max(at, 0.0)
    return state.last_s


def _info(shape: "_Shape", stream: Any, timeline: _Timeline, selected: int, media_type: str) -> dict[str, Any]:
    rate = stream.average_rate or stream.guessed_rate
    times = timeline.times
    last_step = times[-1] - times[-2] if len(times) > 1 else 1.0 / float(timeline.rate)
    return {
        "kind": "info",
        "media_type": media_type,
        "is_video": True,
        "width": shape.upright_width,
        "height": shape.upright_height,
        "frames": len(times),
        "selected": selected,
        "fps": str(rate) if rate else None,
        "duration_s": round(times[-1] + last_step, 6),
        "pixel_aspect": shape.pixel_aspect,
        "rotation": pixels.turn_of(shape.matrix),
        "focal_35mm": None,
    }


def _finish(state: _Progress, timeline: _Timeline, targets: list[float], request: dict[str, Any], send: Send) -> None:
    expected = len(timeline.times)
    if state.decoded == 0 or (state.shipped == 0 and not request["probe"]):
        raise Refusal(
            "UnreadableMedia",
            f"None of the {expected} pictures of the clip could be decoded: the file is damaged. Export it again.",
        )
    if state.shipped < len(targets) and not request["probe"]:
        send(
            "warning",
            text=f"The file is damaged or cut off: its pictures end after {state.last_s:.2f} s "
            f"({state.decoded} of {expected} could be decoded); the good ones are used.",
        )
    elif state.bad or timeline.damaged:
        send("warning", text=f"The file is damaged: {max(state.bad, 1)} places could not be decoded and are left out.")
    if not timeline.timed:
        send("warning", text="The file carries no presentation times; its nominal rate is used instead.")
    send("end", decoded=state.decoded)


class _Shape:
    """How stored pictures become upright ones: orientation, size, transfer curve; fixed by the first picture."""

    def __init__(self, frame: Any, pixel_aspect: Fraction | None, limits: dict[str, Any], send: Send) -> None:
        matrix = _display_matrix(frame)
        if matrix is None:
            send("warning", text="The clip asks for an oblique rotation, which is ignored.")
        self.matrix: pixels.Matrix = matrix or pixels.UPRIGHT
        self.stored_size = pixels.fitted(frame.width, frame.height, limits["max_side_px"])
        turned = self.matrix[0] == 0
        size = (frame.height, frame.width) if turned else (frame.width, frame.height)
        self.upright_width, self.upright_height = size
        aspect = float(pixel_aspect or 1)
        aspect = aspect if 0.25 <= aspect <= 4.0 else 1.0
        self.pixel_aspect = 1.0 / aspect if turned else aspect
        self.transfer = int(getattr(frame, "color_trc", 2) or 2)
        if self.transfer in (pixels.PQ, pixels.HLG):
            send("warning", text="The clip is HDR; its colours are tone-mapped to sRGB.")

    def upright_rgb(self, frame: Any) -> NDArray[np.uint8]:
        """sRGB, display matrix applied, alpha over grey, at most `max_side_px`."""
        has_alpha = any(component.is_alpha for component in frame.format.components) or frame.format.name == "pal8"
        hdr = self.transfer in (pixels.PQ, pixels.HLG)
        array = self._reformatted(frame, "rgba" if has_alpha else "rgb48le" if hdr else "rgb24")
        if has_alpha:
            array = pixels.over_grey(array)
        elif hdr:
            array = pixels.hdr_to_srgb(array, self.transfer)
        return np.ascontiguousarray(pixels.oriented(array, self.matrix))

    def _reformatted(self, frame: Any, layout: str) -> Any:
        width, height = self.stored_size
        return frame.reformat(
            width=width,
            height=height,
            format=layout,
            src_colorspace=_colour_matrix(frame),
            interpolation="AREA" if width < frame.width or height < frame.height else "BICUBIC",
        ).to_ndarray()


_UNSPECIFIED = 2


def _colour_matrix(frame: Any) -> Any:
    """The frame's own YUV matrix; where it says none, BT.709 for high definition and BT.601 below, as players do."""
    if int(frame.colorspace) != _UNSPECIFIED:
        return None
    high_definition = max(frame.width, frame.height) >= 1280 or min(frame.width, frame.height) >= 720
    return "ITU709" if high_definition else "ITU601"


def _display_matrix(frame: Any) -> pixels.Matrix | None:
    for side_data in frame.side_data:
        if side_data.type.name == "DISPLAYMATRIX":
            raw = np.frombuffer(bytes(side_data), dtype="<i4", count=9)
            return pixels.nearest_matrix(*(float(raw[at]) for at in (0, 1, 3, 4)))
    return pixels.UPRIGHT
