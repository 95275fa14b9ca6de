"""Bytes that mean harm: every one gets an answer or a clear refusal, quickly, and touches nothing else."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mononphm_core import errors
from mononphm_core.config import FrameSelection, MediaLimits
from mononphm_core.io.decoder_process import DecoderProcess
from mononphm_core.io.media import probe, read_clip
from mononphm_core.io.sniff import SniffedMedia, sniff
from mononphm_core.types import StepReport
from tests.hostile import files

ALL = FrameSelection()
LIMITS = MediaLimits()


def _clip(path: Path, count: int = 25) -> Path:
    return files.write_clip(path, files.moving(count))


def _zeroed_middle(path: Path) -> Path:
    _clip(path, 60)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + len(content) // 8] = bytes(len(content) // 8)
    path.write_bytes(content)
    return path


def _text(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _cut(path: Path, share: float) -> Path:
    files.write_clip(path, files.moving(100), options={"movflags": "faststart"})
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


REFUSED: dict[str, tuple[Callable[[Path], Path], type[errors.InputError]]] = {
    "zero bytes": (lambda p: _text(p, b""), errors.UnsupportedMedia),
    "text": (lambda p: _text(p, b"hello\n" * 700), errors.UnsupportedMedia),
    "svg": (lambda p: _text(p, b"<?xml version='1.0'?><svg onload='alert(1)'/>"), errors.UnsupportedMedia),
    "html": (lambda p: _text(p, b"<html><script>alert(1)</script>"), errors.UnsupportedMedia),
    "ffconcat": (lambda p: _text(p, b"ffconcat version 1.0\nfile victim.mp4\n"), errors.UnsupportedMedia),
    "m3u8": (lambda p: _text(p, b"#EXTM3U\n#EXTINF:1,\nvictim.mp4\n#EXT-X-ENDLIST\n"), errors.UnsupportedMedia),
    "zip": (lambda p: _text(p, files.zip_with_escape()), errors.UnsupportedMedia),
    "magic then html": (lambda p: _text(p, b"\x89PNG\r\n\x1a\n<html><script>x</script>"), errors.UnreadableMedia),
    "bomb": (lambda p: _text(p, files.png_declaring(30000, 30000)), errors.MediaTooLarge),
    "sliver": (lambda p: _text(p, files.png_declaring(3, 5000)), errors.MediaTooSmall),
    "lying png": (lambda p: _text(p, files.png_declaring(4000, 4000, 8)), errors.UnreadableMedia),
    "audio only": (files.write_sound, errors.UnreadableMedia),
    "no index": (lambda p: _text(p, _clip(p).read_bytes()[:3000]), errors.UnreadableMedia),
    "cut before the first picture": (lambda p: _cut(p, 0.02), errors.UnreadableMedia),
    "noise in an mp4": (
        lambda p: _text(p, b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + np.random.default_rng(0).bytes(50000)),
        errors.UnreadableMedia,
    ),
    "noise in a webm": (
        lambda p: _text(p, b"\x1a\x45\xdf\xa3\x93\x42\x82\x84webm" + np.random.default_rng(0).bytes(50000)),
        errors.UnreadableMedia,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_harm_is_refused_in_a_sentence_with_a_next_step(tmp_path: Path, name: str) -> None:
    """One family of errors for all of it: the service and the command line know no other."""
    make, error = REFUSED[name]
    path = make(tmp_path / "upload.mp4")
    started = time.monotonic()
    for road in (lambda: read_clip(path, ALL, LIMITS), lambda: probe(path, LIMITS)):
        with pytest.raises(error) as refused:
            road()
        assert str(refused.value)[0].isupper()
        assert str(path) not in str(refused.value)
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("text", ["ffconcat version 1.0\nfile victim.mp4\n", "#EXTM3U\n#EXTINF:1,\nvictim.mp4\n"])
@pytest.mark.parametrize("container", ["mp4", "matroska", "avi", "gif", "apng"])
def test_a_playlist_opens_nothing_even_past_the_first_door(tmp_path: Path, text: str, container: str) -> None:
    """The decoder alone must refuse to follow a list to its neighbour: the sniffer is only the first wall."""
    _clip(tmp_path / "victim.mp4")
    upload = _text(tmp_path / "upload.mp4", text.encode())
    claimed = SniffedMedia("video/mp4", True, container, None, None)
    with DecoderProcess(upload, claimed, ALL, LIMITS, probe=False) as decoder, pytest.raises(errors.UnreadableMedia):
        list(decoder.messages())


def test_a_zip_behind_a_clip_is_a_clip(tmp_path: Path) -> None:
    """Archives allow anything in front of them and players anything behind: the pictures are read, nothing unpacked."""
    path = _clip(tmp_path / "x.mp4")
    path.write_bytes(path.read_bytes() + files.zip_with_escape())
    assert len(read_clip(path, ALL, LIMITS).frames) == 25
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.mp4"]


def test_a_cut_clip_keeps_its_good_pictures_and_says_so(tmp_path: Path) -> None:
    """Phones run out of battery; what was filmed before counts."""
    clip = read_clip(_cut(tmp_path / "x.mp4", 0.6), ALL, LIMITS)
    assert 30 < len(clip.frames) < 90
    assert any("damaged or cut off" in warning for warning in clip.warnings)
    whole = files.moving(100)
    error = np.abs(clip.frames[20].rgb.astype(int) - whole[20])
    assert np.median(error) < 6  # the encoder's loss, not garbage


def test_a_hole_in_the_middle_costs_only_itself(tmp_path: Path) -> None:
    """Decoding goes on behind the damage, and the pictures there keep their own times."""
    clip = read_clip(_zeroed_middle(tmp_path / "x.mp4"), ALL, LIMITS)
    assert 0 < len(clip.frames) <= 60
    assert [f.timestamp_s for f in clip.frames] == sorted(f.timestamp_s for f in clip.frames)
    assert clip.warnings


def test_a_long_clip_is_refused_by_what_it_declares(tmp_path: Path) -> None:
    """Four hours at one picture a second are small in bytes; the answer may not wait for decoding."""
    path = files.write_clip(tmp_path / "x.mp4", [files.face(64, 64)] * 30, fps=1)
    started = time.monotonic()
    with pytest.raises(errors.MediaTooLarge, match="30 s"):
        read_clip(path, ALL, MediaLimits(max_duration_s=20.0))
    assert time.monotonic() - started < 10
    for limits in (
        MediaLimits(max_frames=20),
        MediaLimits(max_pixels=4000, min_side_px=16),
        MediaLimits(max_bytes=100),
    ):
        with pytest.raises(errors.MediaTooLarge):
            read_clip(path, ALL, limits)


def test_a_container_that_hides_its_length_is_counted(tmp_path: Path) -> None:
    """Matroska may declare nothing: the packets are counted against the same limits."""
    path = files.write_clip(tmp_path / "x.mkv", [files.face(64, 64)] * 50, fps=1, options={"live": "1"})
    for limits in (MediaLimits(max_duration_s=20.0), MediaLimits(max_frames=20)):
        with pytest.raises(errors.MediaTooLarge):
            read_clip(path, ALL, limits)


def test_too_little_memory_is_an_answer_not_a_crash(tmp_path: Path) -> None:
    """The limit is the decoder's address space; the parent only reads why."""
    path = tmp_path / "x.png"
    path.write_bytes(files.as_bytes(Image.new("RGB", (7000, 7000)), "PNG"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((errors.DecoderLimitExceeded, errors.UnreadableMedia)):
        read_clip(path, ALL, MediaLimits(decode_memory_bytes=400 << 20))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10


def test_too_much_processor_time_ends_the_decoder(tmp_path: Path) -> None:
    """One second of processor time for work that needs more: killed by the kernel, told as a limit."""
    noise = np.random.default_rng(0).integers(0, 255, (720, 1280, 3), dtype=np.uint8)
    path = files.write_clip(tmp_path / "x.mp4", files.moving(120, noise, step=16))
    with pytest.raises(errors.DecoderLimitExceeded, match="processor time"):
        read_clip(path, ALL, MediaLimits(decode_seconds=1.0))


def test_the_decoder_dies_with_a_cancelled_reader(tmp_path: Path) -> None:
    """No process may be left behind when the caller gives up."""
    path = files.write_clip(tmp_path / "x.mp4", files.moving(50))

    def stop(report: StepReport) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_clip(path, ALL, LIMITS, stop)
    assert not _children_of(os.getpid())


def test_the_decoder_dies_with_its_parent(tmp_path: Path) -> None:
    """The worker's child is killed with SIGKILL on cancel; its decoder sits in another session and must go too."""
    path = files.write_clip(tmp_path / "x.mp4", files.moving(200))
    code = (
        "import sys, time\nfrom mononphm_core.config import *\nfrom mononphm_core.io.media import read_clip\n"
        "def slow(report):\n    print('step', flush=True)\n    time.sleep(60)\n"
        f"read_clip({str(path)!r}, FrameSelection(), MediaLimits(), slow)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline().strip() == "step"
    decoders = _children_of(parent.pid)
    assert len(decoders) == 1
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{decoders[0]}").exists() and _state(decoders[0]) != "Z" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{decoders[0]}").exists() or _state(decoders[0]) == "Z"


def test_the_decoder_can_open_no_file_and_gain_no_privilege() -> None:
    """What `confine` promises, tried from inside: files, sockets to the outside, new privileges, files that grow."""
    code = (
        "import os, socket, sys\nfrom mononphm_core.io import limits\n"
        "limits.limit_resources(1 << 30, 10)\nresult = limits.confine()\nassert result.no_new_files, result\n"
        "def fails(act):\n    try:\n        act()\n    except OSError:\n        return True\n    return False\n"
        "assert fails(lambda: open('/etc/passwd'))\nassert fails(lambda: socket.socket())\n"
        "assert fails(lambda: os.pipe())\nprint('NoNewPrivs', result.no_new_privs)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    assert out.stdout.strip() == "NoNewPrivs True"


def test_the_decoder_sees_no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys live in the environment of the worker; a decoder that is taken over must not find them."""
    monkeypatch.setenv("MONONPHM_SECRET", "hunter2")
    path = files.write_clip(tmp_path / "x.mp4", files.moving(3))
    with DecoderProcess(path, sniff(path), ALL, LIMITS, probe=False) as decoder:
        messages = decoder.messages()
        next(messages)
        child = _children_of(os.getpid())[0]
        try:
            environment = Path(f"/proc/{child}/environ").read_bytes()
        except (PermissionError, ProcessLookupError, FileNotFoundError):
            environment = b""  # not even readable: the process made itself undumpable
        assert b"hunter2" not in environment


def _children_of(pid: int) -> list[int]:
    """Decoder processes started by that process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                status = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                command = (entry / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(status[1]) == pid and b"decoder_child" in command:
                found.append(int(entry.name))
    return found


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return "Z"
