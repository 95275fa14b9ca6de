"""The first door knows files by their content."""

import inspect
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mononphm_core.config import MediaLimits
from mononphm_core.errors import InputError, MediaTooLarge, MediaTooSmall, UnsupportedMedia
from mononphm_core.io.sniff import sniff
from tests.hostile import files

STILLS = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif"}


@pytest.mark.parametrize("kind", STILLS)
def test_a_still_is_known_by_its_content_and_tells_its_size(tmp_path: Path, kind: str) -> None:
    """The size before decoding is what stops bombs, so it must be the true one for every format, odd sizes too."""
    path = tmp_path / "name_says.txt"
    path.write_bytes(files.as_bytes(Image.fromarray(files.face(131, 77)), kind))
    found = sniff(path)
    assert (found.media_type, found.is_video) == (STILLS[kind], False)
    assert (found.declared_width, found.declared_height) == (131, 77)


@pytest.mark.parametrize("lossless", [True, False])
def test_both_kinds_of_webp_tell_their_size(tmp_path: Path, lossless: bool) -> None:
    """VP8 and VP8L store the size in different bits."""
    path = tmp_path / "x"
    path.write_bytes(files.as_bytes(Image.fromarray(files.face(131, 77)), "WEBP", lossless=lossless))
    found = sniff(path)
    assert (found.declared_width, found.declared_height) == (131, 77)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_animated_stills_are_clips(tmp_path: Path, kind: str) -> None:
    """Using the first picture of an animation silently would throw the clip away."""
    pictures = [Image.fromarray(p) for p in files.moving(3)]
    path = tmp_path / "x"
    path.write_bytes(files.as_bytes(pictures[0], kind, save_all=True, append_images=pictures[1:], duration=100))
    assert sniff(path).is_video


@pytest.mark.parametrize(
    ("ending", "codec", "media_type"),
    [
        ("mp4", "libx264", "video/mp4"),
        ("mov", "libx264", "video/quicktime"),
        ("mkv", "libx264", "video/x-matroska"),
        ("webm", "libvpx-vp9", "video/webm"),
        ("avi", "mpeg4", "video/x-msvideo"),
    ],
)
def test_clips_are_known_by_their_container(tmp_path: Path, ending: str, codec: str, media_type: str) -> None:
    """The container chooses the demuxer, so a wrong answer here is a file that cannot be read."""
    made = files.write_clip(tmp_path / f"x.{ending}", files.moving(5), codec=codec)
    path = made.rename(tmp_path / "renamed.jpg")
    found = sniff(path)
    assert found.media_type == media_type
    assert found.is_video
    if ending in ("mp4", "mov", "avi"):
        assert (found.declared_width, found.declared_height) == (256, 256)
        assert found.declared_duration_s == pytest.approx(0.2, abs=0.05)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"just some words\n" * 50, "plain text"),
        ("Köln, Überschrift, naïve".encode() * 400, "plain text"),
        (b"ffconcat version 1.0\nfile other_upload.mp4\n", "playlist"),
        (b"  \n#EXTM3U\n#EXT-X-VERSION:3\nhttp://10.0.0.1/a.ts\n", "playlist"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "markup"),
        (b"\xef\xbb\xbf<!DOCTYPE html><html></html>", "markup"),
        (files.zip_with_escape(), "ZIP"),
        (b"%PDF-1.7\n", "PDF"),
        (b"\x7fELF" + bytes(100), "program"),
        (b"RIFF\x10\0\0\0WAVEfmt ", "RIFF"),
        (bytes(5000), "no format"),
    ],
)
def test_what_is_no_picture_is_called_by_its_name(tmp_path: Path, content: bytes, says: str) -> None:
    """Playlists above all must end here: decoders follow them to other people's files."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(UnsupportedMedia, match=says):
        sniff(path)


def test_a_bomb_is_refused_by_its_header_alone(tmp_path: Path) -> None:
    """900 million pixels in 200 bytes: reading on would be the mistake."""
    path = tmp_path / "x.png"
    path.write_bytes(files.png_declaring(30000, 30000))
    with pytest.raises(MediaTooLarge, match="900 million"):
        sniff(path)
    assert sniff(path, max_pixels=10**9).declared_width == 30000


def test_slivers_and_stamps_are_too_small(tmp_path: Path) -> None:
    """3 x 5000 has enough pixels but no face in it."""
    for width, height in ((3, 5000), (100, 5000), (63, 63)):
        path = tmp_path / "x.png"
        path.write_bytes(files.png_declaring(width, height))
        with pytest.raises(MediaTooSmall, match=f"{width} x {height}"):
            sniff(path)


def test_default_limits_are_those_of_the_config() -> None:
    """The service calls `sniff` without numpy, torch or config: its defaults may not drift from the core's."""
    limits = MediaLimits()
    for name in ("max_pixels", "min_side_px", "max_aspect"):
        assert inspect.signature(sniff).parameters[name].default == getattr(limits, name)


def test_the_door_needs_no_library() -> None:
    """It is imported where neither numpy nor torch is installed."""
    code = (
        "import sys, mononphm_core.io.sniff; print(sorted({'numpy', 'torch', 'av', 'PIL', 'cv2'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


SEEDS = {
    "png": files.as_bytes(Image.fromarray(files.face(80, 64)), "PNG"),
    "jpeg": files.as_bytes(Image.fromarray(files.face(80, 64)), "JPEG"),
    "gif": files.as_bytes(Image.fromarray(files.face(80, 64)), "GIF"),
    "webp": files.as_bytes(Image.fromarray(files.face(80, 64)), "WEBP"),
    "mp4": b"\0\0\0\x18ftypisom\0\0\0\0isommp42\0\0\0\x10moov\0\0\0\x08mvhd" + bytes(64),
    "mkv": b"\x1a\x45\xdf\xa3\x93\x42\x82\x84webm" + bytes(40),
    "avi": b"RIFF\0\0\0\0AVI LIST\0\0\0\0hdrlavih\x38\0\0\0" + bytes(64),
}


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(sorted(SEEDS)),
    edits=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=12),
    cut=st.integers(1, 2000),
)
def test_damaged_headers_give_an_answer_or_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, kind: str, edits: list[tuple[int, int]], cut: int
) -> None:
    """The door stands before the queue: any other exception there is a 500 that a stranger can cause."""
    content = np.frombuffer(SEEDS[kind][:cut], dtype=np.uint8).copy()
    for at, value in edits:
        content[at % len(content)] = value
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content.tobytes())
    with suppress(InputError):
        found = sniff(path, max_duration_s=900.0)
        assert found.container in {"mp4", "matroska", "avi", "gif", "jpeg", "png", "apng", "webp", "heif", "avif"}
        assert found.declared_width is None or found.declared_width >= 64
