"""From bytes to meshes and codes through the real API, queue, worker, child and decoder: nothing is replaced."""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import trimesh
from e2e import FACE_BOX, STATIONS, follow, submit

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def camera_of(folder):
    """K (3 x 3), w2c by frame index."""
    camera = json.loads((folder / "cameras.json").read_text())
    assert camera["convention"] == "opencv"
    K = np.array([[camera["fx"], 0, camera["cx"]], [0, camera["fy"], camera["cy"]], [0, 0, 1]])
    return K, {frame["frame_index"]: np.array(frame["w2c"]) for frame in camera["frames"]}


def meshes_of(folder):
    return {int(path.stem.split("_")[1]): trimesh.load_mesh(path) for path in (folder / "meshes").glob("*.ply")}


def project(points, K, w2c):
    """Pixels (x, y) and depths."""
    in_camera = points @ w2c[:3, :3].T + w2c[:3, 3]
    pixels = in_camera @ K.T
    return pixels[:, :2] / pixels[:, 2:], in_camera[:, 2]


def test_every_file_is_what_the_listing_and_the_manifest_say(still):
    """Three witnesses of one checksum: the API, the manifest, and the bytes that arrived."""
    in_manifest = {entry["name"]: entry["sha256"] for entry in still.manifest["artifacts"]}
    for artifact in still.artifacts:
        data = (still.folder / artifact["name"]).read_bytes()
        assert len(data) == artifact["bytes"] > 0
        assert hashlib.sha256(data).hexdigest() == artifact["sha256"]
        if artifact["name"] != "manifest.json":
            assert in_manifest[artifact["name"]] == artifact["sha256"]


def test_the_promised_set_is_there_and_nothing_is_empty(still):
    """One frame in, one mesh out, and the codes beside it."""
    names = {artifact["name"] for artifact in still.artifacts}
    assert {
        "manifest.json",
        "identity.npz",
        "expressions.npz",
        "expressions.json",
        "cameras.json",
        "meshes/frame_00000.ply",
        "preview.png",
        "thumbnail.jpg",
        "neutral.glb",
        "animation.glb",
        "head_arkit.glb",
    } <= names
    assert sum(name.startswith("meshes/") for name in names) == 1


def test_the_job_passed_its_stations_in_order_and_never_went_back(clip):
    """What the progress bar shows must be true."""
    percents = [look["progress"]["percent"] for look in clip.looks]
    assert percents == sorted(percents)
    seen = [STATIONS.index(look["stage"]) for look in clip.looks if look["stage"]]
    assert seen == sorted(seen)
    assert clip.job["progress"]["percent"] == 100


def test_the_head_is_a_closed_surface_of_human_size(still):
    """Watertight or cut at the neck only, oriented outwards, and a head is 15 to 40 cm high, whoever it is."""
    (mesh,) = meshes_of(still.folder).values()
    size = mesh.vertices.max(axis=0) - mesh.vertices.min(axis=0)
    assert 150 < size.max() < 450
    assert mesh.is_winding_consistent
    largest = max(mesh.split(only_watertight=False), key=lambda part: len(part.faces))
    assert len(largest.faces) > 0.9 * len(mesh.faces)  # one head, not a cloud of crumbs
    assert len(np.unique(mesh.visual.vertex_colors[:, :3], axis=0)) > 100  # and it is coloured


def test_the_head_lies_on_the_face_in_the_picture(still):
    """Projected by the delivered camera, the mesh covers the face: geometry, pose and camera agree.

    A head is wider than its face, but not three times.
    """
    K, w2c = camera_of(still.folder)
    (mesh,) = meshes_of(still.folder).values()
    pixels, depth = project(mesh.vertices, K, w2c[0])
    assert depth.min() > 0
    left, top, right, bottom = FACE_BOX
    low, high = np.percentile(pixels, 1, axis=0), np.percentile(pixels, 99, axis=0)
    assert low[0] < left + 15
    assert high[0] > right - 15
    assert low[1] < top + 15
    assert high[1] > bottom - 15
    assert high[0] - low[0] < 3 * (right - left)


def test_the_nose_points_at_the_camera(still):
    """x_head = scale R x_world + t: seen frontally, the head's z axis looks back along the camera's z axis."""
    with np.load(still.folder / "expressions.npz") as codes:
        rotation = codes["rotation"][0]
    assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-4)  # float32 of a rotation
    assert np.isclose(np.linalg.det(rotation), 1, atol=1e-4)
    nose_in_world = rotation.T @ [0.0, 0.0, 1.0]
    up_in_world = rotation.T @ [0.0, 1.0, 0.0]
    assert nose_in_world[2] < -0.7  # within 45 degrees
    assert up_in_world[1] < -0.7  # the camera's y points down


def test_codes_have_the_sizes_of_the_model_and_are_numbers(still, server):
    """A code that the named model cannot decode is useless."""
    sizes = httpx.get(f"{server}/models/{still.manifest['model']['name']}").json()["latent_sizes"]
    with np.load(still.folder / "identity.npz") as identity:
        assert identity["z_geo"].shape[-1] == sizes["z_geo"]
        assert identity["z_app"].shape[-1] == sizes["z_app"]
        assert all(np.isfinite(identity[name]).all() for name in ("z_geo", "z_app", "anchors"))
    with np.load(still.folder / "expressions.npz") as expressions:
        assert expressions["z_exp"].shape == (1, sizes["z_exp"])
        assert np.isfinite(expressions["z_exp"]).all()


def test_both_forms_of_the_expressions_say_the_same(clip):
    """npz for programs, json for people and the web."""
    document = json.loads((clip.folder / "expressions.json").read_text())
    with np.load(clip.folder / "expressions.npz") as table:
        for row, frame in enumerate(document["frames"]):
            assert frame["frame_index"] == table["frame_index"][row]
            assert np.allclose(frame["z_exp"], table["z_exp"][row], atol=1e-5)
            assert np.allclose(frame["timestamp_s"], table["timestamp_s"][row], atol=1e-6)


def test_a_clip_gives_one_person_and_a_mesh_a_frame(clip):
    """Frames that were selected, named by their place in the clip, with the container's times (10 fps)."""
    with np.load(clip.folder / "expressions.npz") as table:
        frames, times = table["frame_index"], table["timestamp_s"]
    assert len(frames) == 2
    assert np.allclose(times, frames / 10, atol=0.011)
    assert sorted(meshes_of(clip.folder)) == sorted(frames)
    with np.load(clip.folder / "identity.npz") as identity:
        assert identity["z_geo"].ndim == 1
    assert "preview.mp4" in {artifact["name"] for artifact in clip.artifacts}


def test_a_panning_camera_moves_the_head_the_other_way(clip):
    """The picture moved 6 px a frame to the left, so the projected head must, too, by that much."""
    K, w2c = camera_of(clip.folder)
    centres = {
        index: project(mesh.vertices, K, w2c[index])[0].mean(axis=0) for index, mesh in meshes_of(clip.folder).items()
    }
    first, last = min(centres), max(centres)
    moved = centres[last] - centres[first]
    assert moved[0] == pytest.approx(-6 * (last - first), abs=4)  # landmarks of two frames, about 1-2 px each
    assert abs(moved[1]) < 5


def test_a_picture_without_a_face_fails_with_the_public_reason(server, empty_room):
    """What only detection can know fails the job, never the worker, and says what to do."""
    job = follow(server, submit(server, empty_room)["id"])[-1]
    assert job["state"] == "failed"
    assert job["error"]["code"] == "no_face"
    assert job["error"]["retryable"] is False
    assert job["error"]["detail"]
    assert httpx.get(f"{server}/health/ready").status_code == 200


def test_a_file_that_is_no_picture_is_refused_before_the_queue(server, tmp_path):
    """The sender learns it at once, in a problem document."""
    path = tmp_path / "clip.mp4"
    path.write_text("this is not a video")
    with path.open("rb") as file:
        reply = httpx.post(f"{server}/reconstructions", files={"file": ("clip.mp4", file)})
    assert reply.status_code in (415, 422)
    assert reply.headers["content-type"].startswith("application/problem+json")
    assert reply.json()["detail"]


def test_a_deleted_job_is_gone(server, portrait, still):
    """Faces are biometric data: gone means gone, and said to be gone. Another job's files stay."""
    job_id = submit(server, portrait, seed=2)["id"]
    httpx.post(f"{server}/reconstructions/{job_id}/cancel")
    follow(server, job_id)
    assert httpx.delete(f"{server}/reconstructions/{job_id}").status_code < 300
    assert httpx.get(f"{server}/reconstructions/{job_id}").status_code == 410
    assert httpx.get(f"{server}/reconstructions/{still.job['id']}").status_code == 200


def test_the_page_of_a_job_opens(server, still):
    """The address that `make demo` prints."""
    reply = httpx.get(f"{server}/r/{still.job['id']}")
    assert reply.status_code == 200
    assert "text/html" in reply.headers["content-type"]
    assert "https://" not in reply.text  # no content from elsewhere: works offline


def run_example(name, *arguments):
    return subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_the_http_example_works_as_printed(server, portrait, tmp_path):
    """A reader will start from it."""
    done = run_example("02_submit_over_http.py", portrait, server, tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("rec_*/meshes/*.ply"))) == 1


def test_the_reading_example_finds_the_head_in_the_picture(still):
    """Its last line says where; the numbers lie inside the picture's neighbourhood."""
    done = run_example("03_read_the_artifacts.py", still.folder)
    assert done.returncode == 0, done.stderr
    assert "frame     0" in done.stdout


def test_a_terminated_demo_leaves_nothing_behind(portrait, tmp_path):
    """What was started is stopped, whenever the end comes: here in mid-job, by the signal of a process manager."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    command = [sys.executable, "-m", "mononphm_cli.main", "demo", "--input", str(portrait), "-o", str(tmp_path / "out")]
    environment = os.environ | {"TMPDIR": str(temporary)}
    deadline = time.monotonic() + 90
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, env=environment) as demo:
        assert demo.stderr is not None
        for line in demo.stderr:
            if line.startswith(b"job ") or time.monotonic() > deadline:
                break
        demo.terminate()
        rest = demo.stderr.read()
        assert demo.wait(60) == 1
    assert b"Stopped." in rest
    assert b"Traceback" not in rest
    assert list(temporary.glob("mononphm-*")) == []
    left = subprocess.run(["pgrep", "-f", str(temporary)], capture_output=True, text=True)
    assert left.stdout == ""
