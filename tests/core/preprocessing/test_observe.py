"""The whole of preprocessing on a real face (scikit-image's astronaut), moved, turned, doubled and taken away."""

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
import torch

from mononphm_core.config import CameraChoice, PreprocessingConfig
from mononphm_core.errors import ConfigError, NoFaceFound
from mononphm_core.preprocessing import observe
from mononphm_core.preprocessing.finder import Finder
from mononphm_core.preprocessing.person import follow_person
from mononphm_core.preprocessing.pictures import Pictures
from mononphm_core.types import Intrinsics, Observation, ObservedClip, Stage, StepReport
from tests.core.preprocessing.conftest import clip_of

EYES = slice(36, 48)


def look(pictures: Sequence[np.ndarray], reference: np.ndarray, **config: object) -> ObservedClip:
    return observe(clip_of(list(pictures)), CameraChoice(), PreprocessingConfig(**config), reference)  # type: ignore[arg-type]


def in_original(observation: Observation) -> np.ndarray:
    """The 68 points in pixels of the upright original."""
    crop = observation.crop
    return observation.landmarks_px.numpy() / crop.scale + (crop.left, crop.top)


def shifted(picture: np.ndarray, dx: int, dy: int) -> np.ndarray:
    return cv2.warpAffine(
        picture, np.float32([[1, 0, dx], [0, 1, dy]]), picture.shape[1::-1], borderMode=cv2.BORDER_REPLICATE
    )


@pytest.fixture(scope="module")
def still(astronaut: np.ndarray, reference: np.ndarray) -> Observation:
    return look([astronaut], reference).observations[0]


def test_the_eyes_are_where_they_are_in_the_photo(still: Observation) -> None:
    """Read off the photo by eye: pupils near (209, 104) and (245, 105), the mouth below them."""
    points = in_original(still)
    assert points[36:42].mean(axis=0) == pytest.approx((207, 106), abs=6)
    assert points[42:48].mean(axis=0) == pytest.approx((243, 106), abs=6)
    assert points[EYES].mean(axis=0)[1] < points[48:68].mean(axis=0)[1] < points[8][1]
    assert points[36:42, 0].max() < points[42:48, 0].min()


def test_masks_lie_in_each_other_and_on_the_face(still: Observation) -> None:
    """Skin and mouth are part of the person; the nose is skin, the corner of the picture is not."""
    assert not bool((still.skin & ~still.foreground).any())
    x, y = (int(v) for v in still.landmarks_px[30])
    assert bool(still.skin[y, x])
    x, y = (int(v) for v in still.landmarks_px[62:67].mean(dim=0))
    assert bool(still.inner_mouth[y, x])
    assert not bool(still.foreground[2, 2])
    assert 0.2 < float(still.foreground.float().mean()) < 0.8
    assert 0.05 < float(still.skin.float().mean()) < 0.4


def test_hair_is_above_the_face_and_nothing_covers_it(still: Observation) -> None:
    """The astronaut's hair surrounds her face; her suit is person but neither skin nor hair; nothing is in front."""
    assert not bool((still.hair & still.skin).any())
    assert not bool((still.hair & ~still.foreground).any())
    assert not bool(still.occluder.any())
    x, top = (int(v) for v in still.dense_landmarks_px[10])
    assert float(still.hair[top - 14 : top - 6, x - 10 : x + 10].float().mean()) > 0.8
    assert float(still.hair[:top].float().mean()) > float(still.hair[top:].float().mean())


def test_the_soft_edge_agrees_with_the_mask_and_is_soft_only_at_its_border(still: Observation) -> None:
    """A half is the border; most pixels are surely one or the other."""
    opacity = still.foreground_opacity
    assert torch.equal(opacity >= 0.5, still.foreground)
    assert 0.0 <= float(opacity.min()) <= float(opacity.max()) <= 1.0
    between = (opacity > 0.02) & (opacity < 0.98)
    assert 0.002 < float(between.float().mean()) < 0.15


def test_what_is_held_before_the_face_is_no_skin_and_its_landmarks_count_little(
    astronaut: np.ndarray, reference: np.ndarray
) -> None:
    """A blue card over a cheek: found, taken out of the skin, and the points below it are said to be guesses."""
    held = astronaut.copy()
    held[110:150, 150:212] = (40, 90, 210)
    seen = look([held], reference).observations[0]
    assert bool(seen.occluder.any())
    assert not bool((seen.occluder & seen.skin).any())
    below = seen.occluder.numpy()[tuple(seen.dense_landmarks_px.numpy().astype(int).T[::-1])]
    assert below.sum() >= 5
    assert float(seen.dense_confidence[torch.from_numpy(below)].max()) < 0.11
    assert float(seen.dense_confidence.median()) > 0.5
    covered = float(seen.occluder.sum()) / seen.crop.scale**2
    assert 200 < covered < 40 * 62  # no more than the card, in pixels of the photo


def test_the_crop_camera_sees_the_same_rays_as_the_original(astronaut: np.ndarray, reference: np.ndarray) -> None:
    """A point's ray may not depend on the crop in which it is written down."""
    seen = look([astronaut], reference)
    observation, k = seen.observations[0], seen.intrinsics
    c = observation.intrinsics
    ray = (observation.landmarks_px.numpy() - (c.cx, c.cy)) / (c.fx, c.fy)
    assert ray == pytest.approx((in_original(observation) - (k.cx, k.cy)) / (k.fx, k.fy), abs=1e-5)
    assert observation.rgb.shape == (c.height, c.width, 3) == (256, 256, 3)


def test_shapes_types_and_ranges_are_as_promised(still: Observation) -> None:
    """The tracker computes with these without looking again."""
    assert still.rgb.dtype == torch.float32
    assert 0.0 <= float(still.rgb.min()) <= float(still.rgb.max()) <= 1.0
    assert still.valid.dtype == still.skin.dtype == still.inner_mouth.dtype == torch.bool
    assert still.dense_landmarks_px.shape == (478, 2)
    assert 0.0 <= float(still.dense_confidence.min()) <= float(still.dense_confidence.max()) <= 1.0
    assert still.quality.face_px == pytest.approx(106, abs=12)
    assert abs(still.quality.yaw_deg) < 10
    assert still.quality.in_view == 1.0


def test_moving_the_picture_moves_the_landmarks_by_as_much(astronaut: np.ndarray, reference: np.ndarray) -> None:
    """Invariance: crop, reduction and mapping back together may not bend a translation."""
    pictures = [shifted(astronaut, 6 * i, 3 * i) for i in range(6)]
    seen = look(pictures, reference)
    points = np.stack([in_original(o) for o in seen.observations])
    motion = points - points[0]
    expected = np.array([[6.0 * i, 3.0 * i] for i in range(6)])
    assert motion.mean(axis=1) == pytest.approx(expected, abs=1.0)
    assert seen.missed_frames == ()
    assert len({(o.crop.scale, o.crop.width) for o in seen.observations}) == 1


def test_a_small_face_in_a_large_picture_is_measured_on_its_own_pixels(
    astronaut: np.ndarray, reference: np.ndarray
) -> None:
    """A face of 5 % of the height is invisible to a detector on the whole picture reduced."""
    scene = np.full((1400, 2000, 3), 90, dtype=np.uint8)
    scene[600:1000, 1200:1600] = cv2.resize(astronaut, (400, 400), interpolation=cv2.INTER_AREA)
    points = in_original(look([scene], reference).observations[0])
    alone = in_original(look([astronaut], reference).observations[0])
    expected = alone * 400 / 512 + (1200, 600)
    assert np.linalg.norm(points - expected, axis=1).mean() < 2.0


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_pictures_on_their_side_or_head_are_turned_and_it_is_said(
    astronaut: np.ndarray, reference: np.ndarray, turns: int
) -> None:
    """After turning back, the same points as in the upright photo; the camera turns along."""
    seen = look([np.rot90(astronaut[:480], turns)] * 3, reference)
    assert seen.turned_deg == 90 * (4 - turns)
    assert any("turned by" in warning for warning in seen.warnings)
    assert (seen.intrinsics.width, seen.intrinsics.height) == (512, 480)
    upright = in_original(look([astronaut[:480]], reference).observations[0])
    assert np.linalg.norm(in_original(seen.observations[0]) - upright, axis=1).mean() < 2.0


def test_without_a_face_the_answer_is_no_face(reference: np.ndarray) -> None:
    """Noise, stripes and grey: refused with a next step, before anything is fitted."""
    noise = np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    stripes = np.repeat(np.tile(np.arange(256, dtype=np.uint8) // 16 * 16, (256, 1))[..., None], 3, axis=2)
    with pytest.raises(NoFaceFound, match="Send a clip"):
        look([noise, stripes, np.full_like(noise, 128)], reference)


def test_frames_without_the_face_are_listed_not_invented(astronaut: np.ndarray, reference: np.ndarray) -> None:
    """A gap stays a gap."""
    empty = np.full_like(astronaut, 120)
    pictures = [astronaut] * 3 + [empty] * 20 + [astronaut] * 3
    seen = look(pictures, reference)
    assert seen.missed_frames == tuple(range(3, 23))
    assert [o.frame_index for o in seen.observations] == [0, 1, 2, 23, 24, 25]
    assert any("20 of 26 frames" in warning for warning in seen.warnings)


@pytest.fixture(scope="module")
def couple(astronaut: np.ndarray) -> np.ndarray:
    """Two people: the astronaut, and left of her a smaller, darker, mirrored one."""
    scene = np.full((420, 800, 3), 110, dtype=np.uint8)
    crop = astronaut[0:300, 90:390]
    other = (cv2.resize(crop[:, ::-1], (220, 220), interpolation=cv2.INTER_AREA) * 0.55).astype(np.uint8)
    scene[60:280, 60:280] = other
    scene[60:360, 440:740] = crop
    return scene


@pytest.mark.parametrize(("rule", "right"), [("largest", True), ("0", False), ("1", True)])
def test_of_two_faces_the_rule_chooses_one_and_a_warning_says_so(
    couple: np.ndarray, reference: np.ndarray, rule: str, right: bool
) -> None:
    """Never by the detector's order."""
    seen = look([couple, shifted(couple, 4, 0)], reference, face=rule)
    for observation in seen.observations:
        assert (in_original(observation)[:, 0].mean() > 400) == right
    assert any("2 faces" in warning for warning in seen.warnings)


def test_center_takes_the_face_nearest_the_middle(couple: np.ndarray, reference: np.ndarray) -> None:
    """The picture is cut so that the smaller face stands in its middle."""
    seen = look([np.ascontiguousarray(couple[:, :640])], reference, face="center")
    assert len(seen.observations) == 1
    left_distance = abs(170 - 320)
    right_distance = abs(590 - 320)
    assert (in_original(seen.observations[0])[:, 0].mean() < 400) == (left_distance < right_distance)


@pytest.mark.parametrize("rule", ["2", "smallest", "-1"])
def test_a_face_that_is_not_there_is_an_option_error(couple: np.ndarray, reference: np.ndarray, rule: str) -> None:
    """The clip is fine; the option is not."""
    with pytest.raises(ConfigError, match="face"):
        look([couple], reference, face=rule)


def test_two_people_are_never_mixed_when_one_leaves(couple: np.ndarray, reference: np.ndarray) -> None:
    """The larger face vanishes half way: its frames are missed, the other person does not take over."""
    alone = couple.copy()
    alone[:, 400:] = 110
    seen = look([couple] * 6 + [alone] * 4, reference)
    assert seen.missed_frames == (6, 7, 8, 9)
    assert all(in_original(o)[:, 0].mean() > 400 for o in seen.observations)


def test_a_given_camera_is_kept_and_distortion_is_taken_out(astronaut: np.ndarray, reference: np.ndarray) -> None:
    """The points of the undistorted picture are those of the pinhole: OpenCV's own point mapping is the oracle."""
    choice = CameraChoice(fx=600.0, fy=600.0, cx=256.0, cy=256.0, distortion=(-0.25, 0.05, 0.0, 0.0, 0.0))
    seen = observe(clip_of([astronaut]), choice, PreprocessingConfig(), reference)
    assert (seen.intrinsics.fx, seen.focal_uncertainty) == (600.0, 0.0)
    raw = in_original(look([astronaut], reference).observations[0])
    matrix = np.array([[600.0, 0, 256], [0, 600.0, 256], [0, 0, 1]])
    flat = cv2.undistortPoints(raw[:, None].astype(np.float64), matrix, np.array(choice.distortion), P=matrix)[:, 0]
    assert np.linalg.norm(in_original(seen.observations[0]) - flat, axis=1).mean() < 1.0


def test_a_reduced_clip_is_described_in_pixels_of_the_original(astronaut: np.ndarray, reference: np.ndarray) -> None:
    """The decoder may have halved the pictures: crops and intrinsics still speak of the file's own pixels."""
    half = cv2.resize(astronaut, (256, 256), interpolation=cv2.INTER_AREA)
    clip = clip_of([half], width=512, height=512)
    seen = observe(clip, CameraChoice(fx=700.0), PreprocessingConfig(), reference)
    full = in_original(look([astronaut], reference).observations[0])
    assert np.linalg.norm(in_original(seen.observations[0]) - full, axis=1).mean() < 2.0
    assert seen.observations[0].intrinsics.fx == pytest.approx(700.0 * seen.observations[0].crop.scale)


def test_the_same_clip_gives_the_same_observations(astronaut: np.ndarray, reference: np.ndarray) -> None:
    """Repeatability to the bit: nothing here draws lots."""
    first, second = (look([astronaut], reference).observations[0] for _ in range(2))
    assert torch.equal(first.dense_landmarks_px, second.dense_landmarks_px)
    assert torch.equal(first.skin, second.skin)


def test_progress_counts_to_its_total_and_the_library_stays_silent(
    astronaut: np.ndarray, reference: np.ndarray, capfd: pytest.CaptureFixture[str]
) -> None:
    """Users see our progress, not a native library's log."""
    steps: list[StepReport] = []
    observe(clip_of([astronaut] * 3), CameraChoice(), PreprocessingConfig(), reference, steps.append)
    assert [s.step for s in steps] == [1, 2, 3, 4, 5, 6]
    assert {(s.stage, s.total) for s in steps} == {(Stage.PREPROCESSING, 6)}
    assert steps[-1].frames_done == steps[-1].frames_total == 3
    assert capfd.readouterr() == ("", "")


def room(side: int) -> np.ndarray:
    """A background with corners to follow."""
    blocks = np.random.default_rng(5).integers(30, 226, (side // 16, side // 16, 3), dtype=np.uint8)
    return cv2.resize(blocks, (side, side), interpolation=cv2.INTER_NEAREST)


@pytest.mark.parametrize(("growth", "says"), [(1.0, False), (1.04, True)])
def test_a_zoom_is_told_and_a_still_lens_is_not(
    astronaut: np.ndarray, reference: np.ndarray, growth: float, says: bool
) -> None:
    """Each picture grows by 4 % about its middle, or only the head moves in front of a room that stays."""
    pictures = []
    for i in range(4):
        scene = room(640)
        scene[260:560, 170 + 5 * i : 470 + 5 * i] = astronaut[0:300, 90:390]
        zoom = cv2.getRotationMatrix2D((320, 320), 0, growth**i)
        pictures.append(cv2.warpAffine(scene, zoom, (640, 640), flags=cv2.INTER_AREA))
    assert any("scale changes" in warning for warning in look(pictures, reference).warnings) == says


def test_a_followed_face_is_not_searched_for_and_a_newcomer_is_found(
    couple: np.ndarray, reference: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At full rate the detector is asked every sixth picture only; who comes in between is seen by then."""
    asked = []
    search = Finder.faces
    monkeypatch.setattr(Finder, "faces", lambda self, rgb: asked.append(1) or search(self, rgb))
    alone = couple.copy()
    alone[:, :360] = 110
    with Finder() as finder:
        pictures = Pictures(clip_of([alone] * 3 + [couple] * 6), camera_of_pixels(couple))
        rows = []
        faces, warnings = follow_person(finder, pictures, "0", reference, lambda: rows.append(1))
    assert len(rows) == 9
    assert len(asked) == 2  # the first picture and the seventh
    assert [face.at for face in faces] == [6, 7, 8]
    assert any("2 faces" in warning for warning in warnings)


def camera_of_pixels(picture: np.ndarray) -> Intrinsics:
    """A plain camera for a picture."""
    height, width = picture.shape[:2]
    return Intrinsics(900.0, 900.0, width / 2, height / 2, width, height)
