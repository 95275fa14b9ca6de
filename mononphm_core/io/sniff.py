"""What a file is, from its content alone: the first door, before the queue. Standard library only.

The name of an upload says nothing. Text (playlists above all: they make decoders open *other* files), markup and
archives are refused here with a sentence that says what they are; the containers of our list pass with their
declared size, so that a picture of 900 million pixels is refused before anything is decoded.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mononphm_core.errors import MediaTooLarge, MediaTooSmall, UnreadableMedia, UnsupportedMedia

READS = "MP4, MOV, WebM, MKV, AVI, GIF, JPEG, PNG, WebP, AVIF, HEIC"
"""What to send instead; part of every refusal."""

_HEAD_BYTES = 4096
_MAX_STEPS = 100_000
"""Boxes, segments or blocks looked at in one file; a longer chain is not walked to its end."""


@dataclass(frozen=True)
class SniffedMedia:
    """What the first bytes (and the headers they point to) declare; nothing has been decoded."""

    media_type: str
    is_video: bool
    container: str
    """`mp4`, `matroska`, `avi`, `gif`, `jpeg`, `png`, `apng`, `webp`, `heif` or `avif`: chooses the decoder."""
    declared_width: int | None
    declared_height: int | None
    """Stored pixels, before any rotation; None where only the decoder can know."""
    declared_duration_s: float | None = None


def sniff(
    path: str | Path,
    max_pixels: int = 64_000_000,
    min_side_px: int = 64,
    max_aspect: float = 6.0,
    max_duration_s: float | None = None,
) -> SniffedMedia:
    """Container, media type and declared size of a file, from its content.

    Defaults are those of `config.MediaLimits`. Raises UnsupportedMedia (empty, text, archive, audio, another
    format), UnreadableMedia (a known signature with a damaged header), MediaTooLarge and MediaTooSmall (declared).
    """
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(_HEAD_BYTES)
        if not head:
            raise UnsupportedMedia(f"The file is empty (0 bytes). Send a video or an image ({READS}).")
        try:
            media = _identify(head, file, size)
        except (struct.error, IndexError) as broken:
            raise UnreadableMedia(
                "The file starts like an image or video but its header is damaged. Export it again."
            ) from broken
    check_declared_size(
        media.declared_width,
        media.declared_height,
        max_pixels=max_pixels,
        min_side_px=min_side_px,
        max_aspect=max_aspect,
    )
    if max_duration_s is not None and media.declared_duration_s is not None:
        check_declared_duration(media.declared_duration_s, max_duration_s)
    return media


def check_declared_size(
    width: int | None, height: int | None, *, max_pixels: int, min_side_px: int, max_aspect: float
) -> None:
    """Refuse a picture size outside the limits: MediaTooLarge, MediaTooSmall; unknown sizes pass."""
    size = f"{'?' if width is None else width} x {'?' if height is None else height} pixels"
    known = [side for side in (width, height) if side is not None]
    if any(side <= 0 for side in known):
        raise UnreadableMedia(f"The file declares a picture of {size}. Export it again.")
    if width is not None and height is not None and width * height > max_pixels:
        raise MediaTooLarge(
            f"The picture has {width} x {height} = {width * height / 1e6:.0f} million pixels; "
            f"the limit is {max_pixels / 1e6:g} million. Reduce it and send it again."
        )
    if any(side < min_side_px for side in known):
        raise MediaTooSmall(
            f"The picture has {size}; both sides need at least {min_side_px} for a face to be measured. "
            "Send a larger picture."
        )
    if width is None or height is None:
        return
    if max(width, height) > max_aspect * min(width, height):
        raise MediaTooSmall(
            f"The picture has {width} x {height} pixels, a strip of more than {max_aspect:g} to 1. "
            "Crop it to the person and send it again."
        )


def check_declared_duration(duration_s: float, max_duration_s: float) -> None:
    """Refuse a clip that says it is longer than the limit: MediaTooLarge."""
    if duration_s > max_duration_s:
        raise MediaTooLarge(
            f"The clip lasts {duration_s:.0f} s; the limit is {max_duration_s:.0f} s. Cut it to the part that matters."
        )


def _identify(head: bytes, file: BinaryIO, size: int) -> SniffedMedia:
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(head, file)
    if head.startswith(b"\xff\xd8\xff"):
        return _jpeg(file)
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return _gif(head, file)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _webp(head)
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return _avi(head)
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return _matroska(head)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"):
        return _isobmff(head, file, size)
    raise UnsupportedMedia(f"{_what_else(head)} Send a video or an image ({READS}).")


def _png(head: bytes, file: BinaryIO) -> SniffedMedia:
    if head[12:16] != b"IHDR" or struct.unpack(">I", head[8:12])[0] != 13:
        raise UnreadableMedia("The file has a PNG signature but no PNG header behind it. Export it again.")
    width, height = struct.unpack(">II", head[16:24])
    animated, position = False, 8
    for _ in range(_MAX_STEPS):
        file.seek(position)
        chunk = file.read(8)
        if len(chunk) < 8 or chunk[4:] in (b"IDAT", b"IEND"):
            break
        if chunk[4:] == b"acTL":
            animated = struct.unpack(">I", file.read(4))[0] > 1
            break
        position += 12 + struct.unpack(">I", chunk[:4])[0]
    return SniffedMedia(
        "image/apng" if animated else "image/png", animated, "apng" if animated else "png", width, height
    )


_JPEG_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}


def _jpeg(file: BinaryIO) -> SniffedMedia:
    position = 2
    for _ in range(_MAX_STEPS):
        file.seek(position)
        marker = file.read(4)
        if len(marker) < 4 or marker[0] != 0xFF:
            break
        if marker[1] == 0xFF:  # fill byte
            position += 1
            continue
        if marker[1] in _JPEG_FRAMES:
            height, width = struct.unpack(">HH", file.read(5)[1:5])
            return SniffedMedia("image/jpeg", False, "jpeg", width, height)
        if marker[1] in (0xD9, 0xDA):
            break
        position += 2 + struct.unpack(">H", marker[2:4])[0]
    raise UnreadableMedia("The file starts like a JPEG but declares no picture. Export it again.")


def _gif(head: bytes, file: BinaryIO) -> SniffedMedia:
    width, height, flags = struct.unpack("<HHB", head[6:11])
    position = 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
    pictures = 0
    file.seek(position)
    for _ in range(_MAX_STEPS):
        block = file.read(1)
        if block == b"\x2c":
            pictures += 1
            if pictures > 1:
                break
            local = file.read(9)[8]
            file.seek((3 << ((local & 7) + 1) if local & 0x80 else 0) + 1, os.SEEK_CUR)
        elif block == b"\x21":
            file.seek(1, os.SEEK_CUR)
        else:
            break
        while length := (file.read(1) or b"\0")[0]:
            file.seek(length, os.SEEK_CUR)
    return SniffedMedia("image/gif", pictures > 1, "gif", width, height)


def _webp(head: bytes) -> SniffedMedia:
    kind, body = head[12:16], head[20:]
    animated = False
    if kind == b"VP8X":
        animated = bool(body[0] & 2)
        width, height = 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    elif kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        width, height = (side & 0x3FFF for side in struct.unpack("<HH", body[6:10]))
    elif kind == b"VP8L" and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        raise UnreadableMedia("The file starts like a WebP but declares no picture. Export it again.")
    return SniffedMedia("image/webp", animated, "webp", width, height)


def _avi(head: bytes) -> SniffedMedia:
    at = head.find(b"avih")
    if at < 0:
        return SniffedMedia("video/x-msvideo", True, "avi", None, None)
    fields = struct.unpack("<14I", head[at + 8 : at + 64])
    microseconds, frames, width, height = fields[0], fields[4], fields[8], fields[9]
    duration = microseconds * frames / 1e6 if microseconds and frames else None
    return SniffedMedia("video/x-msvideo", True, "avi", width or None, height or None, duration)


def _matroska(head: bytes) -> SniffedMedia:
    at = head.find(b"\x42\x82", 4, 64)  # DocType
    if at < 0:
        raise UnreadableMedia("The file starts like Matroska or WebM but does not say which. Export it again.")
    doctype = head[at + 3 : at + 3 + (head[at + 2] & 0x7F)].rstrip(b"\0")
    if doctype not in (b"webm", b"matroska"):
        raise UnsupportedMedia(f"The file is an EBML document of another type. Send a video or an image ({READS}).")
    return SniffedMedia("video/webm" if doctype == b"webm" else "video/x-matroska", True, "matroska", None, None)


_HEIF_STILL = {b"heic", b"heix", b"heim", b"heis"}
_HEIF_SEQUENCE = {b"hevc", b"hevx", b"hevm", b"hevs"}
_AUDIO_BRANDS = {b"M4A ", b"M4B ", b"M4P "}


def _isobmff(head: bytes, file: BinaryIO, size: int) -> SniffedMedia:
    brand, brands = b"qt  ", set[bytes]()
    if head[4:8] == b"ftyp":
        length = min(struct.unpack(">I", head[:4])[0], len(head))
        if length < 16:
            raise UnreadableMedia("The file starts like an MP4 but its header is damaged. Export it again.")
        brand = head[8:12]
        brands = {head[at : at + 4] for at in range(16, length - 3, 4)} | {brand}
    if brand in _AUDIO_BRANDS:
        raise UnsupportedMedia(f"The file is an audio file. Send a video or an image ({READS}).")
    if brand in (b"avif", b"avis") or (brand in (b"mif1", b"msf1", b"miaf") and b"avif" in brands):
        moving = brand == b"avis"
        return SniffedMedia("image/avif", moving, "avif", None, None)
    if brand in _HEIF_STILL | _HEIF_SEQUENCE or (brand in (b"mif1", b"msf1") and brands & _HEIF_STILL):
        return SniffedMedia("image/heic", False, "heif", None, None)
    if brand in (b"mif1", b"jp2 ", b"jxl ", b"crx "):
        name = brand.decode("ascii").strip()
        raise UnsupportedMedia(f"The file is a still image of type {name!r}. Send a video or an image ({READS}).")
    width, height, duration = _movie_header(file, size)
    media_type = "video/quicktime" if brand == b"qt  " else "video/mp4"
    return SniffedMedia(media_type, True, "mp4", width, height, duration)


def _movie_header(file: BinaryIO, size: int) -> tuple[int | None, int | None, float | None]:
    """Largest declared track size and the duration, as far as the boxes can be walked; (None, None, None) else."""
    width = height = duration = None
    handlers = set[bytes]()
    for kind, start, _end in _boxes(file, 0, size, inside={b"moov", b"trak", b"mdia"}):
        file.seek(start)
        if kind == b"mvhd":
            body = file.read(32)
            long = body[0] == 1
            scale = struct.unpack(">I", body[20:24] if long else body[12:16])[0]
            ticks = struct.unpack(">Q", body[24:32])[0] if long else struct.unpack(">I", body[16:20])[0]
            unknown = ticks in (0, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)
            duration = None if unknown or not scale else ticks / scale
        elif kind == b"tkhd":
            body = file.read(96)
            at = 88 if body[0] == 1 else 76
            wide, high = (side >> 16 for side in struct.unpack(">II", body[at : at + 8]))
            if wide * high > (width or 0) * (height or 0):
                width, height = wide, high
        elif kind == b"hdlr":
            handlers.add(file.read(12)[8:12])
    if handlers and b"vide" not in handlers:
        raise UnreadableMedia("The file has no video stream (audio only?). Send a clip with pictures.")
    return width, height, duration


def _boxes(file: BinaryIO, start: int, end: int, inside: set[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """(kind, body start, body end) of the boxes in [start, end), descending into the kinds of `inside`."""
    pending = [(start, end)]
    for _ in range(_MAX_STEPS):
        while pending and pending[-1][0] + 8 > pending[-1][1]:
            pending.pop()
        if not pending:
            return
        at, stop = pending[-1]
        file.seek(at)
        header = file.read(16)
        if len(header) < 8:
            return
        length, kind, body = struct.unpack(">I", header[:4])[0], header[4:8], at + 8
        if length == 1 and len(header) == 16:
            length, body = struct.unpack(">Q", header[8:])[0], at + 16
        elif length == 0:
            length = stop - at
        if length < body - at:
            return
        pending[-1] = (at + length, stop)
        yield kind, body, min(at + length, stop)
        if kind in inside:
            pending.append((body, min(at + length, stop)))


def _what_else(head: bytes) -> str:
    """One sentence about a file that is none of ours."""
    for signature, name in _FOREIGN:
        if head.startswith(signature):
            return f"The file is {name}."
    if head[4:12] == b"jP  \r\n\x87\n" or head[:4] == b"\0\0\0\x0c":
        return "The file is a JPEG 2000 or JPEG XL image."
    if head[:4] == b"RIFF":
        return "The file is a RIFF file without a picture (perhaps audio)."
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"ffconcat", b"#extm3u", b"[playlist]", b"<asx", b"<smil", b"<mpd")):
        return "The file is a playlist, which only names other files."
    if text.startswith((b"<svg", b"<?xml", b"<!doctype", b"<html", b"<script", b"<!--")):
        return "The file is markup (SVG, XML or HTML), not pixels."
    if b"\0" not in head and _is_text(head):
        return "The file is plain text."
    if len(head) > 4 * 188 and all(head[at] == 0x47 for at in range(0, 5 * 188 if len(head) > 5 * 188 else 188, 188)):
        return "The file is an MPEG transport stream."
    return "The file is of no format that is read here."


def _is_text(head: bytes) -> bool:
    for cut in range(4):  # a multi-byte character may be cut by the end of `head`
        try:
            head[: len(head) - cut].decode("utf-8")
        except UnicodeDecodeError:
            continue
        return True
    return False


_FOREIGN: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a ZIP archive (or an office document)"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"%PDF", "a PDF document"),
    (b"BM", "a BMP image"),
    (b"II*\0", "a TIFF or raw camera image"),
    (b"MM\0*", "a TIFF or raw camera image"),
    (b"8BPS", "a Photoshop document"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"ID3", "an MP3 audio file"),
    (b"\xff\xfb", "an MP3 audio file"),
    (b"fLaC", "a FLAC audio file"),
    (b"OggS", "an Ogg file"),
    (b"FLV", "a Flash video"),
    (b"\x30\x26\xb2\x75", "a Windows Media file"),
    (b"\0\0\x01\xba", "an MPEG program stream"),
    (b"\0\0\x01\xb3", "a bare MPEG video stream"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
)
