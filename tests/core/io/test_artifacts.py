"""The delivery as a whole: names, agreement of the files with each other, nothing private, nothing half."""

import json
from dataclasses import replace

import av
import numpy as np
import pytest
from PIL import Image

from mononphm_core.errors import ConfigError
from mononphm_core.io.artifacts import verify_artifacts, write_artifacts
from mononphm_core.io.mesh_files import read_mesh
from mononphm_core.io.tables import ARKIT_52, Blendshapes
from mononphm_core.types import Stage, StepReport
from tests.core.io.delivery import DISTANCE_MM, RADIUS_MM, ball, pictures, reconstruction, tracked

INDEX = (0, 2, 3, 7)
SELECTED = (0, 1, 2, 3, 7, 9)
"""In frames 1 and 9 no face was found."""


@pytest.fixture(scope="module")
def delivery(tmp_path_factory):
    directory = tmp_path_factory.mktemp("clip")
    job = reconstruction(tracked(INDEX), missed_frames=(1, 9), interpolated_frames=(3,), warnings=("a damaged tail",))
    write_artifacts(directory, job, pictures(SELECTED))
    return directory


def document(directory):
    return json.loads((directory / "manifest.json").read_text(), parse_constant=lambda name: pytest.fail(name))


def names(directory):
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def test_a_clip_leaves_the_promised_files_and_no_others(delivery):
    """The public names. What this model does not make (blend shapes) is absent, not empty."""
    meshes = [f"meshes/frame_{index:05d}.ply" for index in INDEX]
    expected = ["cameras.json", "expressions.json", "expressions.npz", "identity.npz", "manifest.json", *meshes]
    assert names(delivery) == sorted([*expected, "preview.mp4", "thumbnail.jpg"])
    assert verify_artifacts(delivery) == []
    listed = document(delivery)["artifacts"]
    assert [entry["name"] for entry in listed] == [name for name in names(delivery) if name != "manifest.json"]


def test_a_still_leaves_the_same_set_with_a_picture_for_the_film(tmp_path):
    write_artifacts(tmp_path, reconstruction(tracked((0,)), is_video=False), pictures((0,)))
    expected = ["cameras.json", "expressions.json", "expressions.npz", "identity.npz", "manifest.json"]
    assert names(tmp_path) == sorted([*expected, "meshes/frame_00000.ply", "preview.png", "thumbnail.jpg"])
    assert verify_artifacts(tmp_path) == []
    with Image.open(tmp_path / "preview.png") as image:
        width, height = image.size
        assert width % 3 == 0 and height % 2 == 0 and height <= 2 * 512
        assert image.info == {}


def test_camera_mesh_and_pose_in_the_files_agree(delivery):
    """What a stranger can check: mesh to camera by w2c, mesh to head by the pose, both where they must be."""
    cameras = json.loads((delivery / "cameras.json").read_text())
    with np.load(delivery / "expressions.npz") as table:
        poses = {key: table[key] for key in table.files}
    for row, index in enumerate(INDEX):
        mesh = read_mesh(delivery / f"meshes/frame_{index:05d}.ply")
        w2c = np.array(cameras["frames"][row]["w2c"])
        x_camera = mesh.vertices @ w2c[:3, :3].T + w2c[:3, 3]
        u = cameras["fx"] * x_camera[:, 0] / x_camera[:, 2] + cameras["cx"]
        aside = np.arctan(4.0 * index / DISTANCE_MM)
        reach = np.arcsin(RADIUS_MM / np.hypot(4.0 * index, DISTANCE_MM))
        assert u.max() == pytest.approx(160 + 500 * np.tan(aside + reach), abs=0.2)
        assert u.min() == pytest.approx(160 + 500 * np.tan(aside - reach), abs=0.2)
        x_head = poses["scale"][row] * mesh.vertices @ poses["rotation"][row].T + poses["translation"][row]
        assert np.linalg.norm(x_head, axis=-1) == pytest.approx(RADIUS_MM, abs=1e-2)
        assert poses["frame_index"][row] == cameras["frames"][row]["frame_index"] == index


def test_the_manifest_says_how_it_was_made(delivery):
    """Model, options, seed, times, figures, what was missed and what was interpolated; the unmeasured is null."""
    facts = document(delivery)
    assert facts["unit"] == "mm" and "factor" in facts["unit_note"]
    assert facts["input"]["sha256"] == "ab" * 32 and facts["input"]["bytes"] == 4711
    assert facts["model"] == {"name": "tiny", "version": "1", "sha256": "cd" * 32, "licence": "CC0-1.0"}
    assert (facts["device"], facts["seed"], facts["stop"]) == ("cpu", 7, "all planned steps were made")
    assert facts["frames"] == {"tracked": list(INDEX), "missed": [1, 9], "interpolated": [3]}
    assert set(facts["seconds"]) == {"decoding", "stage1", "meshing", "exporting"}
    assert facts["warnings"] == ["a damaged tail"]
    quality = facts["quality"]
    assert quality["landmark_error_px"] == {"mean": 2.5, "median": 2.5, "worst": 4.0}
    assert quality["photometric_error"] is None
    assert quality["psnr_db"] is None and [frame["psnr_db"] for frame in quality["frames"]] == [None] * 4  # no light
    assert [frame["accepted"] for frame in quality["frames"]] == [True, False, True, True]
    assert quality["frames_accepted"] == 3
    assert facts["final_losses"] == {"colour": 0.5}


def test_nothing_private_is_passed_on(delivery):
    """Folders, the webhook's address and the lens note of EXIF stay at home, in every file."""
    for name in names(delivery):
        data = (delivery / name).read_bytes()
        for secret in (b"someone", b"private", b"secret.example", b"27.5", str(delivery).encode()):
            assert secret not in data, name
    assert document(delivery)["input"]["filename"] == "holiday.mp4"
    assert document(delivery)["options"]["model"] == "tiny"


def test_the_film_has_every_selected_frame_and_overlays_only_where_there_is_a_head(delivery):
    """Frames without a face stay in the film, as they are: nothing is left out silently."""
    with av.open(str(delivery / "preview.mp4")) as container:
        images = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
    assert len(images) == len(SELECTED)
    for index, image in zip(SELECTED, images, strict=True):
        picture, overlay = np.split(np.split(image, 2)[0], 3, axis=1)[:2]
        changed = np.abs(picture - overlay).mean()
        assert (changed > 3) == (index in INDEX)


def test_the_same_job_gives_the_same_bytes(delivery, tmp_path):
    """Reproducible but for the manifest's times: checksums can be compared between machines of one kind."""
    job = reconstruction(tracked(INDEX), missed_frames=(1, 9), interpolated_frames=(3,))
    write_artifacts(tmp_path, job, pictures(SELECTED))
    assert document(tmp_path)["artifacts"] == document(delivery)["artifacts"]


def test_meshes_are_asked_for_one_at_a_time(tmp_path):
    """Constant memory: when a mesh is made, the one before it is already a file."""
    made: list[int] = []

    def lazily():
        for index in INDEX:
            assert len(list((tmp_path / "meshes").glob("*.ply"))) == len(made)
            made.append(index)
            yield ball((4.0 * index, 0.0, DISTANCE_MM))

    write_artifacts(tmp_path, reconstruction(tracked(INDEX), meshes=lazily()), pictures(SELECTED))
    assert tuple(made) == INDEX


def test_progress_is_told_once_a_frame_and_never_goes_back(tmp_path):
    reports: list[StepReport] = []
    write_artifacts(tmp_path, reconstruction(tracked(INDEX)), pictures(SELECTED), reports.append)
    meshing = [report for report in reports if report.stage is Stage.MESHING]
    assert [report.frames_done for report in meshing] == [0, 1, 2, 3, 4]
    assert reports[: len(meshing)] == meshing
    assert [(report.stage, report.step, report.total) for report in reports[len(meshing) :]] == [
        (Stage.EXPORTING, 5, 6),
        (Stage.EXPORTING, 6, 6),
    ]


def test_a_cancelled_export_has_no_manifest_and_no_film(tmp_path):
    """The manifest is the mark of completeness, also over an earlier delivery in the same place."""
    write_artifacts(tmp_path, reconstruction(tracked(INDEX)), pictures(SELECTED))

    def cancel(report: StepReport) -> None:
        if report.frames_done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_artifacts(tmp_path, reconstruction(tracked(INDEX)), pictures(SELECTED), cancel)
    assert not (tmp_path / "manifest.json").exists()
    assert not [name for name in names(tmp_path) if "preview" in name or "part" in name]
    assert "did not finish" in verify_artifacts(tmp_path)[0]


def test_an_earlier_delivery_is_replaced_and_the_users_files_stay(tmp_path):
    write_artifacts(tmp_path, reconstruction(tracked(INDEX)), pictures(SELECTED))
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "meshes" / "frame_final.ply").write_text("mine")
    write_artifacts(tmp_path, reconstruction(tracked((0, 1))), pictures((0, 1)), mesh_format="obj")
    meshes = [name for name in names(tmp_path) if name.startswith("meshes/")]
    assert meshes == ["meshes/frame_00000.obj", "meshes/frame_00001.obj", "meshes/frame_final.ply"]
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_only_what_was_asked_for_is_made(tmp_path):
    """`outputs`: the manifest is always there."""
    write_artifacts(tmp_path, reconstruction(tracked(INDEX)), pictures(SELECTED), outputs={"expressions", "thumbnail"})
    assert names(tmp_path) == ["expressions.json", "expressions.npz", "manifest.json", "thumbnail.jpg"]
    with pytest.raises(ConfigError, match="unknown outputs: teapot"):
        write_artifacts(tmp_path, reconstruction(tracked(INDEX)), [], outputs={"teapot"})
    with pytest.raises(ConfigError, match="choose ply, obj, glb"):
        write_artifacts(tmp_path, reconstruction(tracked(INDEX)), [], mesh_format="stl")


def test_without_pictures_there_are_meshes_and_no_preview(tmp_path):
    write_artifacts(tmp_path, reconstruction(tracked(INDEX)), [])
    assert not [name for name in names(tmp_path) if "preview" in name or "thumb" in name]
    assert verify_artifacts(tmp_path) == []


def test_a_frame_without_a_surface_is_told_and_the_others_are_made(tmp_path):
    job = reconstruction(tracked(INDEX), meshes=iter([ball(), None, ball(), ball()]))
    write_artifacts(tmp_path, job, pictures(SELECTED))
    assert document(tmp_path)["warnings"] == ["frame 2: the field has no surface, so there is no mesh"]
    assert "meshes/frame_00002.ply" not in names(tmp_path)
    assert verify_artifacts(tmp_path) == []


def test_too_few_meshes_are_a_mistake_of_the_program(tmp_path):
    with pytest.raises(ValueError, match="no mesh was made for frame 3"):
        write_artifacts(tmp_path, reconstruction(tracked(INDEX), meshes=iter([ball(), ball()])), pictures(SELECTED))


def test_blend_shapes_are_delivered_where_the_model_has_them(tmp_path):
    shapes = Blendshapes(tuple(ARKIT_52), np.zeros((len(INDEX), 52)))
    write_artifacts(tmp_path, reconstruction(tracked(INDEX), blendshapes=shapes), pictures(SELECTED))
    assert len((tmp_path / "blendshapes.csv").read_text().splitlines()) == 1 + len(INDEX)
    assert verify_artifacts(tmp_path) == []


@pytest.mark.parametrize(
    "damage, sentence",
    [
        (lambda d: (d / "meshes/frame_00099.ply").write_bytes(b"x"), "meshes/frame_00099.ply is not in the manifest"),
        (lambda d: (d / "preview.png").write_bytes(b"x"), "preview.png is not in the manifest"),
        (lambda d: (d / "identity.npz").unlink(), "identity.npz is missing"),
    ],
)
def test_verification_finds_what_does_not_belong(tmp_path, damage, sentence):
    write_artifacts(tmp_path, reconstruction(tracked((0, 1))), pictures((0, 1)))
    damage(tmp_path)
    assert verify_artifacts(tmp_path) == [sentence]


def test_verification_looks_into_files_whose_checksums_are_right(tmp_path):
    """A program that writes rubbish and hashes it: an empty mesh, a pose that is no rotation."""
    sequence = tracked((0, 1))
    bent = replace(sequence, poses=replace(sequence.poses, rotation=sequence.poses.rotation * 1.1))
    empty = replace(ball(), vertices=np.zeros((0, 3), np.float32), faces=np.zeros((0, 3), np.int64), colours=None)
    write_artifacts(tmp_path, reconstruction(bent, meshes=iter([ball(), empty])), pictures((0, 1)))
    problems = verify_artifacts(tmp_path)
    assert len(problems) == 2
    assert "rotations" in problems[0] and "frame_00001.ply" in problems[1]
