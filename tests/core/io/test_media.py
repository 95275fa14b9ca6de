"""Decoding: the right pictures, the right way up, at the right times."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mononphm_core.config import FrameSelection, MediaLimits
from mononphm_core.errors import ConfigError
from mononphm_core.io.decoder_process import DecoderProcess
from mononphm_core.io.media import count_selected, probe, read_clip
from mononphm_core.io.pixels import EXIF_MATRICES, HLG, PQ, hdr_to_srgb
from mononphm_core.io.selection import choose
from mononphm_core.io.sniff import sniff
from mononphm_core.types import Clip, StepReport
from tests.hostile import files

ALL = FrameSelection()
LIMITS = MediaLimits()

SHOWN_AT = {  # EXIF 2.32, tag 0x0112: where the stored row 0 and the stored column 0 are shown
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}
OPPOSITE = {"top": "bottom", "bottom": "top", "left": "right", "right": "left"}
STORED_CORNERS = (
    (False, False, files.RED),
    (False, True, files.GREEN),
    (True, False, files.BLUE),
    (True, True, files.YELLOW),
)


def corner(rgb: np.ndarray, sides: set[str]) -> np.ndarray:
    """The colour a few pixels inside one corner."""
    y = 8 if "top" in sides else rgb.shape[0] - 9
    x = 8 if "left" in sides else rgb.shape[1] - 9
    return rgb[y, x].astype(int)


def assert_shown(rgb: np.ndarray, orientation: int) -> None:
    """Each quadrant is where the standard's table says."""
    row, column = SHOWN_AT[orientation]
    for last_row, last_column, colour in STORED_CORNERS:
        sides = {OPPOSITE[row] if last_row else row, OPPOSITE[column] if last_column else column}
        assert np.abs(corner(rgb, sides) - colour).max() < 30, (orientation, sides)


@pytest.mark.parametrize("orientation", SHOWN_AT)
def test_a_photo_is_shown_as_exif_says(tmp_path: Path, orientation: int) -> None:
    """The oracle is the table of the standard, not another decoder: turns and mirrors, all eight."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "x.jpg"
    path.write_bytes(files.as_bytes(Image.fromarray(files.quadrants()), "JPEG", quality=95, exif=exif))
    clip = read_clip(path, ALL, LIMITS)
    assert (clip.info.width, clip.info.height) == ((128, 96) if orientation < 5 else (96, 128))
    assert clip.frames[0].rgb.shape == (clip.info.height, clip.info.width, 3)
    assert_shown(clip.frames[0].rgb, orientation)


@pytest.mark.parametrize("orientation", SHOWN_AT)
def test_a_clip_is_shown_as_its_display_matrix_says(tmp_path: Path, orientation: int) -> None:
    """The same eight positions written into an MP4's track header as (a, b, c, d) of the QuickTime format."""
    path = files.write_clip(tmp_path / "x.mp4", [files.quadrants()] * 3)
    files.set_display_matrix(path, EXIF_MATRICES[orientation])
    clip = read_clip(path, ALL, LIMITS)
    assert len(clip.frames) == 3
    assert_shown(clip.frames[0].rgb, orientation)


@pytest.mark.parametrize(
    ("matrix", "turn"), [((1, 0, 0, 1), 0), ((0, 1, -1, 0), 270), ((-1, 0, 0, -1), 180), ((0, -1, 1, 0), 90)]
)
def test_the_reported_rotation_is_the_turn_that_was_made(
    tmp_path: Path, matrix: tuple[int, int, int, int], turn: int
) -> None:
    """Counter-clockwise degrees, so numpy's rot90 of the stored picture is the picture we return."""
    stored = files.quadrants()
    path = files.set_display_matrix(files.write_clip(tmp_path / "x.mp4", [stored] * 2), matrix)
    clip = read_clip(path, ALL, LIMITS)
    assert clip.info.rotation == turn
    error = np.abs(np.rot90(stored, turn // 90).astype(int) - clip.frames[0].rgb)
    assert np.median(error) < 10  # one lossy encoding


def test_times_come_from_the_container_also_at_a_variable_rate(tmp_path: Path) -> None:
    """30 pictures a second, then 7.5: index / fps would be wrong by a second at the end."""
    times = [33 * i for i in range(30)] + [990 + 133 * i for i in range(15)]
    path = files.write_clip(tmp_path / "x.mp4", files.numbered(45), times_ms=times)
    clip = read_clip(path, ALL, LIMITS)
    assert [frame.frame_index for frame in clip.frames] == list(range(45))
    assert [files.grey_of(frame.rgb) for frame in clip.frames] == list(range(45))
    assert [frame.timestamp_s for frame in clip.frames] == pytest.approx([t / 1000 for t in times], abs=1e-3)


def test_times_are_relative_to_the_first_picture(tmp_path: Path) -> None:
    """Phones write clips that start at some seconds; the first picture is at 0 for the user."""
    path = files.write_clip(tmp_path / "x.mkv", files.numbered(5), times_ms=[5000 + 40 * i for i in range(5)])
    clip = read_clip(path, ALL, LIMITS)
    assert [frame.timestamp_s for frame in clip.frames] == pytest.approx([0.04 * i for i in range(5)], abs=2e-3)


@pytest.mark.parametrize(
    ("ending", "codec", "pix_fmt"),
    [
        ("mp4", "libx264", "yuv420p"),
        ("mov", "mpeg4", "yuv420p"),
        ("mkv", "libx264", "yuv444p"),
        ("webm", "libvpx-vp9", "yuv420p"),
        ("mp4", "libx265", "yuv420p10le"),
        ("mp4", "libsvtav1", "yuv420p"),
        ("avi", "mjpeg", "yuvj420p"),
        ("avi", "mpeg4", "yuv420p"),
    ],
)
def test_every_codec_gives_all_pictures_in_order(tmp_path: Path, ending: str, codec: str, pix_fmt: str) -> None:
    """Re-ordered pictures (B frames) and 10 bit included: the grey level says which picture it is."""
    path = files.write_clip(
        tmp_path / f"x.{ending}", files.numbered(20, 128, 96, step=11), codec=codec, pix_fmt=pix_fmt
    )
    clip = read_clip(path, ALL, LIMITS)
    assert [files.grey_of(frame.rgb, step=11) for frame in clip.frames] == list(range(20))
    assert [frame.timestamp_s for frame in clip.frames] == pytest.approx([i / 25 for i in range(20)], abs=2e-3)
    assert clip.info.frames == 20


def test_an_animated_gif_and_webp_are_clips_with_their_own_times(tmp_path: Path) -> None:
    """Each picture has its own duration there."""
    pictures = [Image.fromarray(p) for p in files.numbered(4, 96, 80)]
    for kind in ("GIF", "WEBP", "PNG"):
        path = tmp_path / kind
        options = {"save_all": True, "append_images": pictures[1:], "duration": [100, 200, 300, 400]}
        path.write_bytes(files.as_bytes(pictures[0], kind, **options, **({"lossless": True} if kind == "WEBP" else {})))
        clip = read_clip(path, ALL, LIMITS)
        assert clip.info.is_video
        assert [files.grey_of(frame.rgb) for frame in clip.frames] == [0, 1, 2, 3], kind
        assert [frame.timestamp_s for frame in clip.frames] == pytest.approx([0.0, 0.1, 0.3, 0.6], abs=1e-3), kind


@pytest.mark.parametrize("selected", [1, 2, 7, 40])
def test_a_frame_limit_spreads_evenly_and_says_so(tmp_path: Path, selected: int) -> None:
    """The user must learn that frames were left out, and none may be chosen twice."""
    path = files.write_clip(tmp_path / "x.mp4", files.numbered(50))
    clip = read_clip(path, FrameSelection(max_frames=selected), LIMITS)
    indices = [frame.frame_index for frame in clip.frames]
    assert len(indices) == selected
    assert indices == [files.grey_of(frame.rgb) for frame in clip.frames]
    steps = np.diff(indices)
    assert steps.size == 0 or steps.max() - steps.min() <= 1
    assert any(f"{selected} of the clip's 50 frames" in warning for warning in clip.warnings)


def test_a_range_and_a_rate_choose_by_time(tmp_path: Path) -> None:
    """25 pictures a second, from 0.4 to 1.2 s at 5 a second: every fifth, from the tenth to the thirtieth."""
    path = files.write_clip(tmp_path / "x.mp4", files.numbered(50))
    clip = read_clip(path, FrameSelection(start_s=0.4, end_s=1.2, fps=5), LIMITS)
    assert [frame.frame_index for frame in clip.frames] == [10, 15, 20, 25, 30]


def test_a_range_after_the_end_is_an_option_error(tmp_path: Path) -> None:
    """The file is fine, so the message must speak of the option and of the clip's true length."""
    path = files.write_clip(tmp_path / "x.mp4", files.numbered(25))
    with pytest.raises(ConfigError, match=r"0 to 0\.96 s"):
        read_clip(path, FrameSelection(start_s=30.0), LIMITS)


@pytest.mark.parametrize(
    "selection",
    [
        FrameSelection(fps=5, stride=2),
        FrameSelection(start_s=-1.0),
        FrameSelection(start_s=3.0, end_s=2.0),
        FrameSelection(fps=0.0),
        FrameSelection(stride=0),
        FrameSelection(max_frames=0),
        FrameSelection(start_s=float("nan")),
    ],
)
def test_a_selection_that_means_nothing_is_refused(tmp_path: Path, selection: FrameSelection) -> None:
    """Before any decoding, by name."""
    with pytest.raises(ConfigError):
        read_clip(tmp_path / "absent", selection, LIMITS)


def test_choosing_a_rate_above_the_clips_keeps_every_picture_once() -> None:
    """Asking 10 fps of a 4 fps clip must not repeat pictures."""
    assert choose([0.0, 0.25, 0.5, 0.75], fps=10.0) == [0, 1, 2, 3]


def test_stills_of_every_depth_and_mode_keep_their_colours(tmp_path: Path) -> None:
    """16 bit, grey, palette, CMYK, alpha over grey: one mean colour each, known beforehand."""
    orange = Image.new("RGB", (90, 70), (200, 120, 40))
    grey16 = Image.fromarray(np.full((70, 90), 100 * 257, dtype=np.uint16))
    half = Image.new("RGBA", (90, 70), (255, 255, 255, 0))
    cases = {
        "rgb.png": (files.as_bytes(orange, "PNG"), (200, 120, 40)),
        "palette.png": (files.as_bytes(orange.quantize(16), "PNG"), (200, 120, 40)),
        "cmyk.jpg": (files.as_bytes(orange.convert("CMYK"), "JPEG", quality=95), (200, 120, 40)),
        "grey16.png": (files.as_bytes(grey16, "PNG"), (100, 100, 100)),
        "grey.jpg": (files.as_bytes(Image.new("L", (90, 70), 77), "JPEG"), (77, 77, 77)),
        "clear.png": (files.as_bytes(half, "PNG"), (128, 128, 128)),
        "la.png": (files.as_bytes(Image.new("LA", (90, 70), (255, 0)), "PNG"), (128, 128, 128)),
        "x.webp": (files.as_bytes(orange, "WEBP", quality=95), (200, 120, 40)),
        "x.avif": (files.as_bytes(orange, "AVIF", quality=95), (200, 120, 40)),
        "grey.avif": (files.as_bytes(Image.new("L", (90, 70), 77), "AVIF", quality=95), (77, 77, 77)),
    }
    if files.has_heif():
        cases["x.heic"] = (files.as_bytes(orange, "HEIF", quality=95), (200, 120, 40))
        cases["clear.heic"] = (files.as_bytes(half, "HEIF", quality=95), (128, 128, 128))
    for name, (content, expected) in cases.items():
        path = tmp_path / name
        path.write_bytes(content)
        frame = read_clip(path, ALL, LIMITS).frames[0]
        assert frame.rgb.shape == (70, 90, 3), name
        assert np.abs(frame.rgb.mean(axis=(0, 1)) - expected).max() < 6, name  # lossy encodings, CMYK rounding


@pytest.mark.parametrize(("width", "height"), [(97, 65), (65, 131)])
@pytest.mark.parametrize(
    ("ending", "codec", "pix_fmt"), [("mkv", "libx264", "yuv444p"), ("webm", "libvpx-vp9", "yuv420p")]
)
def test_odd_sizes_are_kept_to_the_pixel(
    tmp_path: Path, width: int, height: int, ending: str, codec: str, pix_fmt: str
) -> None:
    """Half a chroma pixel may not become a column of green, nor the picture an even size."""
    picture = np.full((height, width, 3), (180, 90, 40), np.uint8)
    clip = read_clip(
        files.write_clip(tmp_path / f"x.{ending}", [picture] * 3, codec=codec, pix_fmt=pix_fmt), ALL, LIMITS
    )
    assert clip.frames[0].rgb.shape == (height, width, 3)
    assert np.abs(clip.frames[2].rgb.astype(int) - picture).max() < 12  # chroma is shared by pixels, codecs are lossy


def test_a_heic_photo_is_shown_as_it_was_held(tmp_path: Path) -> None:
    """Phones write the turn as EXIF and as a property of the file, which alone counts: applied once, not twice."""
    if not files.has_heif():
        pytest.skip("pillow-heif is not installed")
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "x.heic"
    path.write_bytes(files.as_bytes(Image.fromarray(files.quadrants()), "HEIF", quality=95, exif=exif.tobytes()))
    clip = read_clip(path, ALL, LIMITS)
    assert clip.frames[0].rgb.shape == (128, 96, 3)
    top_left = clip.frames[0].rgb[20, 20].astype(int)
    assert np.abs(top_left - files.BLUE).max() < 40  # orientation 6: the stored left bottom is shown at the left top


def test_where_a_picture_was_taken_does_not_leave_the_decoder(tmp_path: Path) -> None:
    """Nothing behind the decoder can put a place into an artifact, because nothing behind it ever hears of one."""
    exif = Image.Exif()
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 29.6), 3: "E", 4: (2.0, 17.0, 40.2)})
    exif[0x010F] = "SECRETMAKER"
    photo = tmp_path / "x.jpg"
    photo.write_bytes(files.as_bytes(Image.fromarray(files.face()), "JPEG", exif=exif, comment=b"SECRETMAKER"))
    film = tmp_path / "x.mp4"
    files.write_clip(film, files.numbered(5), metadata={"location": "+48.8582+002.2945/", "comment": "SECRETMAKER"})
    for path in (photo, film):
        assert b"SECRETMAKER" in path.read_bytes()
        with DecoderProcess(path, sniff(path), ALL, LIMITS, probe=False) as decoder:
            said = "".join(str(message) for message, _raw in decoder.messages())
        assert '"kind"' in said.replace("'", '"')
        assert "SECRETMAKER" not in said
        assert "48." not in said


def test_an_exif_focal_length_is_read(tmp_path: Path) -> None:
    """It is the only camera knowledge most photos carry."""
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 28
    path = tmp_path / "x.jpg"
    path.write_bytes(files.as_bytes(Image.fromarray(files.face()), "JPEG", exif=exif))
    assert probe(path, LIMITS).focal_35mm == 28.0


def test_large_pictures_leave_the_decoder_reduced_but_keep_their_size_in_the_facts(tmp_path: Path) -> None:
    """Memory is bounded by max_side_px; intrinsics stay those of the original."""
    path = tmp_path / "x.jpg"
    path.write_bytes(files.as_bytes(Image.fromarray(files.face(1000, 600)), "JPEG"))
    clip = read_clip(path, ALL, MediaLimits(max_side_px=500))
    assert (clip.info.width, clip.info.height) == (1000, 600)
    assert clip.frames[0].rgb.shape == (300, 500, 3)


def test_probe_tells_the_same_facts_without_the_pictures(tmp_path: Path) -> None:
    """The worker shows the facts before it decodes."""
    path = files.write_clip(tmp_path / "x.mp4", files.numbered(30))
    clip: Clip = read_clip(path, ALL, LIMITS)
    assert probe(path, LIMITS) == clip.info
    assert clip.info.duration_s == pytest.approx(30 / 25, abs=1e-3)


def test_progress_is_told_and_what_it_raises_ends_the_decoder(tmp_path: Path) -> None:
    """Cancelling is raising from `on_step`; nothing may swallow it."""

    class Cancelled(Exception):
        pass

    def cancel(report: StepReport) -> None:
        assert 0 <= report.step <= report.total
        if report.frames_done >= 3:
            raise Cancelled

    path = files.write_clip(tmp_path / "x.mp4", files.numbered(30))
    with pytest.raises(Cancelled):
        read_clip(path, ALL, LIMITS, cancel)


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_tone_mapping_keeps_greys_grey_and_order(transfer: int) -> None:
    """Both curves are monotone and both matrices keep white, so greys must stay grey, rising from black to white."""
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)
    shown = hdr_to_srgb(np.repeat(ramp[None, :, None], 3, axis=2), transfer).astype(int)[0]
    assert np.ptp(shown, axis=1).max() <= 1
    assert (np.diff(shown[:, 0]) >= 0).all()
    assert shown[0, 0] == 0
    assert shown[-1, 0] == 255


def test_reference_white_is_bright_but_not_clipped() -> None:
    """BT.2408: 203 cd/m2 is PQ code 0.58; faces lie below it and must not burn out."""
    white = hdr_to_srgb(np.full((1, 1, 3), round(0.58 * 65535), dtype=np.uint16), PQ)
    assert 190 <= int(white[0, 0, 0]) <= 235


@pytest.mark.parametrize(("ending", "codec"), [("mp4", "libx264"), ("mkv", "libx264"), ("webm", "libvpx-vp9")])
def test_a_stretch_from_the_middle_is_the_same_as_if_all_had_been_decoded(
    tmp_path: Path, ending: str, codec: str
) -> None:
    """Decoding begins at an entry point before it: the same pixels, numbers and times, re-ordered pictures included."""
    path = files.write_clip(tmp_path / f"x.{ending}", files.numbered(250, 96, 64, step=1), codec=codec, options=GROUPS)
    whole = read_clip(path, ALL, LIMITS).frames
    for part in ((190, 230), (236, 250)):
        stretch = read_clip(path, FrameSelection(part=part), LIMITS).frames
        assert [(f.frame_index, f.timestamp_s) for f in stretch] == [
            (f.frame_index, f.timestamp_s) for f in whole[slice(*part)]
        ]
        assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(stretch, whole[slice(*part)], strict=True))


GROUPS = {"g": "12"}
"""Pictures from one entry point to the next."""


def test_counting_the_selection_decodes_one_picture(tmp_path: Path) -> None:
    path = files.write_clip(tmp_path / "x.mp4", files.numbered(30))
    info, selected = count_selected(path, FrameSelection(stride=4, keys=5), LIMITS)
    assert (info.frames, selected) == (30, 5)
