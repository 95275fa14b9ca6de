"""Folders prepared for the published program: read unchanged, completed where incomplete, refused when broken."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from mononphm_core.errors import InputError
from mononphm_core.preprocessing.published.folder import SequenceFolder, read_intrinsics
from mononphm_core.preprocessing.published.ours import wflw_from_ibug
from mononphm_core.preprocessing.published.prepare import FROM_WFLW, FrameParts, GivenIntrinsics, prepare
from mononphm_core.preprocessing.published.read import SequenceOptions, read_sequence
from mononphm_core.quirks import PUBLISHED, REPAIRED
from tests.core.preprocessing.sequences import ibug_face, write_sequence

NOBODY = np.full((478, 3), np.nan)
"""For folders that lack nothing: never looked at."""
GIVEN = GivenIntrinsics(48.0, 40.0, 140.0, 140.0)


def at(root, t):
    return root / "metrical_tracker" / root.name / "checkpoint" / f"{t:05d}_cam_params_opencv.npz"


@pytest.mark.parametrize("given", [None, GIVEN])
@pytest.mark.parametrize("quirks", [PUBLISHED, REPAIRED])
def test_a_complete_folder_is_read_as_it_is(tmp_path, given, quirks):
    """Frame 2 has the pose of frame 1 in the published program (8), its own where that is mended."""
    root = write_sequence(tmp_path / "510_seq_4")
    clip = read_sequence(root, SequenceOptions(given, 0.5, quirks), NOBODY)
    assert clip.warnings == ()
    assert [o.frame_index for o in clip.observations] == [0, 1, 2]
    pose = np.load(at(root, 1 if quirks is PUBLISHED else 2))
    parts = FrameParts(
        2,
        np.array(Image.open(root / "source" / "00002.png")),
        np.array(Image.open(root / "seg" / "2.png")),
        np.array(Image.open(root / "matting" / "00002.png")),
        np.load(root / "pipnet" / "test.npy")[2],
        np.load(root / "kpt" / "00002.npy"),
        pose["R"][0],
        pose["t"][0],
        pose["K"][0],
    )
    expected = prepare(parts, given, 0.5, quirks)
    for name in ("rgb", "labels", "inner_mouth", "landmarks_px", "direction", "origin", "w2c", "k"):
        assert torch.equal(getattr(clip.observations[2], name), getattr(expected, name)), name
    assert clip.size == (96, 80)
    assert clip.intrinsics_given == (given is not None)


def test_only_the_asked_frames_are_read(tmp_path):
    """A still needs frame 0 alone, even when later ones are broken."""
    root = write_sequence(tmp_path / "s")
    at(root, 2).write_bytes(b"")
    clip = read_sequence(root, SequenceOptions(None, 0.5, frames=lambda count: (0,)), NOBODY)
    assert len(clip.observations) == 1


def test_frames_without_a_detected_face_are_left_out_and_named(tmp_path):
    """The detector writes -1 there; the published program would use them as pixels (22)."""
    root = write_sequence(tmp_path / "s")
    landmarks = np.load(root / "pipnet" / "test.npy")
    landmarks[1] = -1
    np.save(root / "pipnet" / "test.npy", landmarks)
    clip = read_sequence(root, SequenceOptions(None, 0.5), NOBODY)
    assert [o.frame_index for o in clip.observations] == [0, 2]
    assert "first: 1" in clip.warnings[0]


def spoil_labels(root):
    Image.fromarray(np.zeros((10, 10), np.uint8)).save(root / "seg" / "1.png")


def spoil_rotation(root):
    np.savez(at(root, 1), R=np.ones((1, 3, 3)), t=np.zeros((1, 3)), K=np.eye(3)[None])


def pickled(root):
    np.save(root / "kpt" / "00001.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda root: (root / "source" / "00001.png").write_bytes(b"\x89PNG"), r"frame 1: .*00001\.png"),
        (lambda root: (root / "source" / "00001.png").unlink(), r"without a gap"),
        (spoil_labels, r"frame 1: .*1\.png is 10 x 10, its picture 96 x 80"),
        (lambda root: (root / "seg" / "2.png").unlink(), r"frame 2: .*2\.png is missing"),
        (lambda root: (root / "matting" / "00001.png").write_bytes(b"no"), r"frame 1: .*matting"),
        (lambda root: at(root, 1).write_bytes(b"PK\x03\x04"), r"frame 1: .*00001_cam_params"),
        (lambda root: at(root, 0).unlink(), r"frame 0: .*is missing"),
        (spoil_rotation, r"frame 1: .*no rotation"),
        (pickled, r"frame 1: .*00001\.npy"),
        (lambda root: np.save(root / "pipnet" / "test.npy", np.zeros((2, 98, 2))), r"test\.npy is \(2, 98, 2\)"),
    ],
)
def test_a_broken_part_is_refused_by_file_and_frame(tmp_path, spoil, said):
    """The published program hides such errors behind others (29); nothing pickled is ever opened."""
    root = write_sequence(tmp_path / "s")
    spoil(root)
    with pytest.raises(InputError, match=said):
        read_sequence(root, SequenceOptions(None, 0.5), NOBODY)


def test_the_intrinsics_file_has_the_published_order(tmp_path):
    """cx cy fx fy, then distortion: no other order may be guessed."""
    (tmp_path / "kinect_intrinsics.txt").write_text("539.6 540.1 914.1 914.2 0.01 0.02")
    assert read_intrinsics(tmp_path / "kinect_intrinsics.txt") == GivenIntrinsics(539.6, 540.1, 914.1, 914.2)
    (tmp_path / "bad.txt").write_text("539.6 540.1 0")
    with pytest.raises(InputError, match="cx cy fx fy"):
        read_intrinsics(tmp_path / "bad.txt")


def test_the_landmarks_of_one_convention_come_back_from_the_other():
    """The 68 shared points exactly; the interpolated ones between their neighbours."""
    face = ibug_face(200, 160)
    found = wflw_from_ibug(face)
    np.testing.assert_array_equal(found[list(FROM_WFLW)], face)
    np.testing.assert_allclose(found[1], (face[0] + face[1]) / 2)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("dropped", [("seg",), ("seg", "matting", "kpt", "pipnet", "metrical_tracker")])
def test_missing_parts_are_made_by_our_own_preprocessing_and_named(tmp_path, astronaut, reference, dropped):
    """No account and no other program is ever needed: a folder of pictures alone is enough."""
    height, width = astronaut.shape[:2]
    root = write_sequence(tmp_path / "portrait", frames=1, width=width, height=height)
    Image.fromarray(astronaut).save(root / "source" / "00000.png")
    for part in dropped:
        shutil.rmtree(root / part)
    clip = read_sequence(root, SequenceOptions(None, 0.5), reference)
    assert len(clip.warnings) == len(dropped)
    assert "seg" in " ".join(clip.warnings)
    seen = clip.observations[0]
    labels, counts = seen.labels.unique(return_counts=True)
    assert {0, 2, 14} <= set(labels.tolist())
    if len(dropped) > 1:
        share = dict(zip(labels.tolist(), (counts / counts.sum()).tolist(), strict=True))
        assert 0.01 < share[2] < 0.3
        eyes = seen.landmarks_px[36:48].mean(0) / 0.5
        assert torch.allclose(eyes, torch.tensor([226.0, 101.0], dtype=eyes.dtype), atol=6)  # seen in the picture
        camera = seen.w2c @ torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=seen.w2c.dtype)
        assert camera[2] < -0.5  # before the camera, which looks along -z
        u = -seen.k[0, 0] * camera[0] / camera[2] + seen.k[0, 2]
        v = seen.k[1, 1] * camera[1] / camera[2] + seen.k[1, 2]
        assert abs(u / 0.5 - 226) < 25 and abs(v / 0.5 - 140) < 45  # the head's centre lies in the face


def test_a_folder_without_pictures_says_what_belongs_there(tmp_path):
    """The first thing a user gets wrong."""
    with pytest.raises(InputError, match="source"):
        SequenceFolder(tmp_path)
