"""Test files made on the spot: good clips of a public-domain face, and bytes that mean harm. Nothing is stored."""

import io
import struct
import zipfile
import zlib
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from PIL import Image
from skimage import data

RED, GREEN, BLUE, YELLOW = (220, 30, 30), (30, 200, 30), (30, 30, 220), (220, 220, 30)


def face(width: int = 256, height: int = 256) -> np.ndarray:
    """The astronaut's head and shoulders (NASA, public domain), resized."""
    crop = np.ascontiguousarray(data.astronaut()[0:300, 90:390])
    return cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA)


def quadrants(width: int = 128, height: int = 96) -> np.ndarray:
    """Red, green / blue, yellow: every turn and mirror of it looks different."""
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    picture[: height // 2, : width // 2], picture[: height // 2, width // 2 :] = RED, GREEN
    picture[height // 2 :, : width // 2], picture[height // 2 :, width // 2 :] = BLUE, YELLOW
    return picture


def moving(count: int, picture: np.ndarray | None = None, step: int = 2) -> list[np.ndarray]:
    """A picture that slides to the right by `step` pixels a frame."""
    still = face() if picture is None else picture
    return [np.roll(still, step * i, axis=1) for i in range(count)]


def numbered(count: int, width: int = 96, height: int = 64, step: int = 4) -> list[np.ndarray]:
    """Flat pictures whose grey says which one it is: 10 + step i."""
    return [np.full((height, width, 3), 10 + step * i, dtype=np.uint8) for i in range(count)]


def grey_of(picture: np.ndarray, step: int = 4) -> int:
    """Which of the `numbered` pictures this is."""
    return round((float(picture.mean()) - 10) / step)


def write_clip(
    path: Path,
    pictures: list[np.ndarray],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    fps: int = 25,
    times_ms: list[int] | None = None,
    container: str | None = None,
    options: dict[str, str] | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Encode pictures; `times_ms` gives each its own presentation time."""
    height, width = pictures[0].shape[:2]
    with av.open(str(path), "w", format=container, options=options or {}) as out:
        out.metadata.update(metadata or {})
        stream = out.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        if times_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if codec in ("libx264", "libx265"):
            stream.options = {
                "preset": "ultrafast",
                "crf": "8",
                **({"x265-params": "log-level=0"} if "5" in codec else {}),
            }
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24" if picture.shape[2] == 3 else "rgba")
            if times_ms is not None:
                frame.pts, frame.time_base = times_ms[i], Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def write_sound(path: Path) -> Path:
    """An mp4 with nothing but half a second of silence."""
    with av.open(str(path), "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=44100)
        stream.layout = "mono"
        for i in range(22):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, 1024 * i
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def set_display_matrix(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write (a, b, c, d) into the track header: the player shows stored (x, y) at (a x + c y, b x + d y)."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    a, b, c, d = matrix
    content[at : at + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


def png_declaring(width: int, height: int, bits: int = 1) -> bytes:
    """A PNG header of any size over a few bytes of pixels: what a bomb looks like from outside."""
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1 << 16))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def as_bytes(image: Image.Image, kind: str, **options: object) -> bytes:
    """One encoded picture."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def has_heif() -> bool:
    """Whether the reader and writer of HEIC is installed."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def zip_with_escape() -> bytes:
    """An archive whose member wants out of its folder."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("../../etc/evil.txt", "evil")
    return out.getvalue()
