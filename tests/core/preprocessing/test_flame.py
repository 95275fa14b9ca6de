"""FLAME fitted to landmarks: a known head is found again, and its folder is one that `reconstruct` reads."""

import sys

import numpy as np
import pytest
import torch

from mononphm_core.errors import AssetError
from mononphm_core.geometry.rotations import angle_between_deg, so3_exp
from mononphm_core.io.flame import read_embedding, read_flame
from mononphm_core.preprocessing.published.flame import FlameFit, fit_flame, smplx_skinning
from mononphm_core.preprocessing.published.folder import SequenceFolder
from tests.core.preprocessing.flames import embedding_arrays, flame_arrays, skinning, write
from worker.flame import write_poses

K = torch.tensor([[900.0, 0, 320], [0, 900, 240], [0, 0, 1]], dtype=torch.float64)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """(FLAME, embedding) as read from files."""
    folder = tmp_path_factory.mktemp("flame")
    flame = read_flame(write(folder / "flame.npz", flame_arrays()))
    return flame, read_embedding(write(folder / "landmarks.npz", embedding_arrays()), flame)


def known_clip(flame, embedding, frames=4):
    """A head that turns, speaks and comes nearer, and where its landmarks are seen: the whole mesh is skinned."""
    random = torch.Generator().manual_seed(3)
    shape = torch.randn(10, generator=random, dtype=torch.float64)
    expression = 0.7 * torch.randn(frames, 10, generator=random, dtype=torch.float64)
    jaw = torch.tensor([[0.05 * t, 0.01 * t, 0.0] for t in range(frames)], dtype=torch.float64)
    turn = torch.tensor([[np.pi, 0.0, 0.0]], dtype=torch.float64)
    own = torch.tensor([[0.05 * t, 0.2 - 0.15 * t, 0.03 * t] for t in range(frames)], dtype=torch.float64)
    rotation = so3_exp(turn) @ so3_exp(own)
    shift = torch.tensor([[0.01 * t, -0.01, 0.5 - 0.02 * t] for t in range(frames)], dtype=torch.float64)
    still = torch.zeros(frames, 6, dtype=torch.float64)
    vertices, _ = skinning(
        torch.cat([shape.expand(frames, -1), expression], -1), torch.cat([still, jaw, still], -1), flame.v_template,
        torch.cat([flame.shape_dirs, flame.expression_dirs], -1), flame.pose_dirs.flatten(0, 1).T, flame.j_regressor,
        flame.parents, flame.weights,
    )  # fmt: skip
    x = (vertices[:, flame.faces[embedding.faces]] * embedding.barycentrics[..., None]).sum(2)
    seen = (x @ rotation.mT + shift[:, None]) @ K.T
    return FlameFit(shape, expression, jaw, rotation, shift, 0.0), seen[..., :2] / seen[..., 2:]


SKINNINGS = [
    pytest.param(lambda: skinning, id="written-out"),
    pytest.param(lambda: pytest.importorskip("smplx", reason="the extra `flame` is absent").lbs.lbs, id="smplx"),
]


@pytest.mark.parametrize("skin", SKINNINGS)
def test_a_known_head_is_found_again_from_its_landmarks(model, skin):
    """Landmarks without noise, and trusted: pose, shape and jaw of every frame come back, by either skinning."""
    true, landmarks = known_clip(*model)
    found = fit_flame(*model, landmarks, K, skin(), landmark_std=1e-6)
    assert found.error_px < 1e-3
    assert angle_between_deg(found.rotation, true.rotation).max() < 0.01
    assert (found.translation - true.translation).abs().max() < 1e-4  # 0.1 mm
    torch.testing.assert_close(found.shape, true.shape, atol=0.02, rtol=0)
    torch.testing.assert_close(found.jaw, true.jaw, atol=2e-3, rtol=0)


def test_noisy_landmarks_move_the_pose_by_little(model):
    """Half a pixel of noise on a face of 350 pixels: the priors hold the shape, the pose stays near."""
    true, landmarks = known_clip(*model)
    noise = 0.5 * torch.randn(landmarks.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    found = fit_flame(*model, landmarks + noise, K, skinning)
    assert angle_between_deg(found.rotation, true.rotation).max() < 1.5
    assert ((found.translation - true.translation).norm(dim=-1) / true.translation.norm(dim=-1)).max() < 0.03


def test_smplx_and_the_equations_agree(model):
    """The package that is used and the equations as printed, on the whole mesh and a pose of every joint."""
    lbs = pytest.importorskip("smplx", reason="the extra `flame` is absent").lbs.lbs
    flame, _ = model
    random = torch.Generator().manual_seed(1)
    betas, pose = (torch.randn(3, n, generator=random, dtype=torch.float64) for n in (20, 15))
    dirs, pose_dirs = torch.cat([flame.shape_dirs, flame.expression_dirs], -1), flame.pose_dirs.flatten(0, 1).T
    arguments = (betas, pose, flame.v_template[None], dirs, pose_dirs, flame.j_regressor, flame.parents, flame.weights)
    for ours, theirs in zip(skinning(*arguments), lbs(*arguments), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=0)  # smplx adds 1e-8 to angles


def test_the_poses_are_read_back_as_the_published_tracker_s(model, tmp_path):
    """R, t and K by the reader that `reconstruct FOLDER` uses; float32 files."""
    from PIL import Image

    true, _ = known_clip(*model)
    root = tmp_path / "own"
    (root / "source").mkdir(parents=True)
    for t in range(4):
        Image.new("RGB", (640, 480)).save(root / "source" / f"{t:05d}.png")
    write_poses(true, K, root)
    folder = SequenceFolder(root)
    assert "poses" not in folder.missing(False)
    for t in range(4):
        pose = folder.pose(t)
        np.testing.assert_allclose(pose.rotation, true.rotation[t], atol=1e-6)
        np.testing.assert_allclose(pose.translation, true.translation[t], atol=1e-6)
        np.testing.assert_allclose(pose.k, K)


def test_without_smplx_the_way_to_get_it_is_said(monkeypatch):
    """An optional extra that is absent is no traceback."""
    monkeypatch.setitem(sys.modules, "smplx.lbs", None)
    monkeypatch.setitem(sys.modules, "smplx", None)
    with pytest.raises(AssetError, match=r"\[flame\]"):
        smplx_skinning()
