"""The whole product in one process: options, a portrait's delivery, a cancel that leaves nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from players import khronos_issues, played
from skimage import data

from mononphm_core.animation.topology import FACE, load_topology
from mononphm_core.api import TAUGHT
from mononphm_core.config import ReconstructionConfig
from mononphm_core.errors import OutOfDeviceMemory
from mononphm_core.io import registry
from mononphm_core.io.artifacts import verify_artifacts
from mononphm_core.io.gltf import parts, rows_of
from mononphm_core.io.manifest import sha256_of_file
from mononphm_core.io.media import read_clip
from mononphm_core.io.tables import ARKIT_52
from mononphm_core.meshing.raster import rasterise
from mononphm_core.preprocessing.observe import observe
from mononphm_core.types import Intrinsics, Stage, StepReport
from worker import pipeline
from worker.heads import arkit_name
from worker.ledger.options import FovCamera, IntrinsicsCamera, ReconstructionOptions
from worker.ledger.order import Order

CHANGED = {
    "quality": "high",
    "stages": [1],
    "camera": FovCamera(fov_deg=50.0),
    "start_s": 1.0,
    "end_s": 9.0,
    "fps": 3.0,
    "stride": 4,
    "max_frames": 5,
    "downsample_factor": 0.5,
    "face": "center",
    "mesh_resolution": 40,
    "seed": 7,
}
"""Options that the configuration carries, each at a value that is not its default."""
ELSEWHERE = {
    "model": "chosen in the registry",
    "outputs": "chosen among the artifacts",
    "mesh_format": "chosen by the writer",
    "mesh_extraction": "chooses how meshes are made",
    "solver": "chosen by worker/solvers.py",
    "iterations_scale": "the published solver's, worker/solvers.py",
    "part_frames": "divides a clip, worker/division.py",
    "webhook_url": "the ledger's",
    "labels": "the ledger's",
    "priority": "the ledger's",
    "retention_hours": "the ledger's",
}


@pytest.mark.parametrize("name", CHANGED)
def test_every_option_of_the_solver_moves_its_configuration(name):
    """An option that is accepted and then forgotten is a lie."""
    wished = ReconstructionOptions().model_copy(update={name: CHANGED[name]})
    assert pipeline.config_of(wished) != pipeline.config_of(ReconstructionOptions())


def test_there_is_no_option_that_nobody_reads():
    """A new option has to be put into one of the two lists, and so into the pipeline."""
    assert set(CHANGED) | set(ELSEWHERE) == set(ReconstructionOptions.model_fields)


def test_a_calibrated_camera_arrives_with_its_distortion_in_opencvs_order():
    """(k1, k2, p1, p2, k3): the order is easy to get wrong and hard to see."""
    camera = IntrinsicsCamera(fx=900, fy=901, cx=320, cy=240, k1=0.1, k2=0.2, p1=0.3, p2=0.4, k3=0.5)
    config, _ = pipeline.config_of(ReconstructionOptions(camera=camera))
    assert (config.camera.fx, config.camera.fy, config.camera.cx, config.camera.cy) == (900, 901, 320, 240)
    assert config.camera.distortion == (0.1, 0.2, 0.3, 0.4, 0.5)
    assert config.camera.fov_deg is None


def test_a_second_attempt_after_exhausted_memory_holds_less_at_once():
    """The same result from smaller bites: batches shrink, the mesh does not."""
    config, tracking = pipeline.config_of(ReconstructionOptions())
    same, smaller = pipeline.config_of(ReconstructionOptions(), smaller=True)
    assert smaller.stage1.batch < tracking.stage1.batch
    assert same == config


def test_exhausted_memory_is_told_apart_from_a_bug():
    """The worker retries the one and reports the other."""
    with pytest.raises(OutOfDeviceMemory, match="fewer frames"), pipeline.out_of_memory_is_ours():
        raise MemoryError
    with pytest.raises(ZeroDivisionError), pipeline.out_of_memory_is_ours():
        raise ZeroDivisionError


def test_the_models_expressions_cover_arkits_52():
    """Every ARKit curve is an entry of z_exp, the mean of two, or the tongue, which the prior has not."""
    names = {arkit_name(name) for name in registry.find_model().expression_names}
    assert set(ARKIT_52) - names == {"cheekPuff", "browInnerUp", "tongueOut"}
    assert {"cheekPuffLeft", "cheekPuffRight", "browInnerUpLeft", "browInnerUpRight"} == names - set(ARKIT_52)
    assert arkit_name("eyeBlink_L") == "eyeBlinkLeft"
    assert arkit_name("jawOpen") == "jawOpen"


@pytest.fixture(scope="module")
def order(tmp_path_factory) -> Order:
    """NASA's portrait of Eileen Collins, public domain, as scikit-image ships it."""
    path = tmp_path_factory.mktemp("input") / "portrait.png"
    Image.fromarray(data.astronaut()[:320, 60:380]).save(path)
    options = ReconstructionOptions(quality="draft", mesh_resolution=48, seed=3)
    return Order("rec_test", path, "portrait.png", "image/png", sha256_of_file(path), options)


class Delivery:
    """One run of the pipeline, with every report that it made."""

    def __init__(self, order: Order, folder: Path) -> None:
        self.folder, self.reports = folder, list[StepReport]()
        self.manifest = pipeline.run(order, folder, self.reports.append)


@pytest.fixture(scope="module")
def delivery(order, tmp_path_factory) -> Delivery:
    return Delivery(order, tmp_path_factory.mktemp("delivery"))


@pytest.mark.slow
def test_a_portrait_becomes_a_whole_delivery(delivery):
    """Sizes, checksums, tables and meshes agree with the manifest, and the manifest with what was returned."""
    assert verify_artifacts(delivery.folder) == []
    assert json.loads((delivery.folder / "manifest.json").read_text()) == delivery.manifest
    stages = [report.stage for report in delivery.reports]
    assert [s for s in Stage if s in stages] == list(dict.fromkeys(stages))  # in order, none twice
    assert Stage.STAGE2 not in stages  # a still has no motion


@pytest.mark.slow
def test_the_mesh_is_closed_except_at_the_neck(delivery):
    """Its only open edges lie in the plane of the neck cut, in the head's own frame."""
    mesh = trimesh.load_mesh(delivery.folder / "meshes" / "frame_00000.ply")
    edges, count = np.unique(np.sort(mesh.edges, axis=1), axis=0, return_counts=True)
    assert count.max() == 2
    assert mesh.is_winding_consistent
    rim = np.unique(edges[count == 1])
    with np.load(delivery.folder / "expressions.npz") as table:
        head = table["scale"].item() * mesh.vertices @ table["rotation"][0].T + table["translation"][0]
    assert np.abs(head[rim, 1] - 250 * TAUGHT.neck_cut).max(initial=0) < 250 * 1.2 / 48  # one cell of the grid
    assert head[:, 1].max() > 60  # it reaches over the forehead
    assert len(mesh.split(only_watertight=False)) == 1


@pytest.mark.slow
def test_the_projected_mesh_covers_the_landmarks_of_the_face(delivery, order):
    """The detector's points, found in the picture, lie on the head as the delivered camera sees it."""
    camera = json.loads((delivery.folder / "cameras.json").read_text())
    mesh = trimesh.load_mesh(delivery.folder / "meshes" / "frame_00000.ply")
    w2c = np.array(camera["frames"][0]["w2c"])
    k = Intrinsics(camera["fx"], camera["fy"], camera["cx"], camera["cy"], 320, 320)
    covered = rasterise(mesh.vertices @ w2c[:3, :3].T + w2c[:3, 3], np.asarray(mesh.faces), k).covered
    config = ReconstructionConfig()
    clip = read_clip(order.input_path, config.selection, config.limits)
    model = registry.warm_model(registry.find_model(), "cpu")
    seen = observe(clip, config.camera, config.preprocessing, pipeline.mean_landmarks(model)).observations[0]
    points = seen.dense_landmarks_px.numpy() / seen.crop.scale + [seen.crop.left, seen.crop.top]
    x, y = np.clip(points.astype(int), 0, 319).T
    assert covered[y, x].mean() > 0.95  # the face's outline may be a pixel off


@pytest.mark.slow
def test_the_animated_head_lies_on_the_field_s_own_surface(delivery, order):
    """One topology for the clip, and still the neural head: the face's vertices are on its zero set."""
    model = registry.warm_model(registry.find_model(), "cpu")
    topology = load_topology()
    with np.load(delivery.folder / "identity.npz") as who, np.load(delivery.folder / "expressions.npz") as how:
        codes = [torch.from_numpy(a) for a in (who["z_geo"][None], how["z_exp"], who["z_app"][None])]
        rotation, translation, scale = how["rotation"][0], how["translation"][0], how["scale"][0]
    x_world_mm = 1000 * played((delivery.folder / "animation.glb").read_bytes(), 0) * [1, -1, -1]
    x_posed = (scale * x_world_mm @ rotation.T + translation) / 250
    face = topology.part[topology.corner_vertex] == FACE
    with torch.no_grad():
        conditioned = model.condition(*codes)
        sdf = model.sdf(torch.from_numpy(x_posed[face][::3].astype(np.float32))[None], conditioned)[0]
    assert 250 * sdf.abs().mean() < 0.1  # millimetres
    assert delivery.manifest["animation"]["largest_error_mm"] <= 0.2
    texture = delivery.manifest["texture"]
    assert texture["from_frames"] and texture["psnr_db"] > 25


@pytest.mark.slow
@pytest.mark.parametrize("name", ["neutral.glb", "animation.glb", "head_arkit.glb"])
def test_khronos_finds_no_error_in_what_a_job_delivers(delivery, name):
    """The real files, with texture, 52 sparse targets and one key frame."""
    issues = khronos_issues(delivery.folder / name)
    assert (issues["numErrors"], issues["numWarnings"]) == (0, 0), issues["messages"][:3]


@pytest.mark.slow
def test_the_arkit_head_is_driven_by_arkit_s_names(delivery):
    """Any face-capture program finds its 52 shapes, and opening the jaw moves the chin down and not the forehead."""
    data = (delivery.folder / "head_arkit.glb").read_bytes()
    document, _ = parts(data)
    mesh = document["meshes"][0]
    assert tuple(mesh["extras"]["targetNames"]) == ARKIT_52
    jaw = rows_of(data, mesh["primitives"][0]["targets"][ARKIT_52.index("jawOpen")]["POSITION"])
    assert jaw[:, 1].min() < -0.015  # metres
    neutral = rows_of(data, mesh["primitives"][0]["attributes"]["POSITION"])
    forehead = (neutral[:, 1] > 0.04) & (neutral[:, 2] > 0.03)  # above the brows, before the ears
    assert np.abs(jaw[forehead]).max() < 1e-4


class Cancelled(Exception):
    """What a lost lease or a user's cancel raises from `on_step`."""


@pytest.mark.slow
@pytest.mark.parametrize("stage", [Stage.DECODING, Stage.PREPROCESSING, Stage.STAGE1, Stage.MESHING, Stage.EXPORTING])
def test_a_cancel_ends_the_run_at_once_and_leaves_no_manifest(order, tmp_path, stage):
    """Nothing in the core swallows it, and no half-made delivery looks like a whole one."""

    def cancel(report: StepReport) -> None:
        if report.stage is stage:
            raise Cancelled

    with pytest.raises(Cancelled):
        pipeline.run(order, tmp_path, cancel)
    assert not (tmp_path / "manifest.json").exists()
