"""One head doing what another one did, on runs whose codes are known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from players import played

from mononphm_core.animation.topology import load_topology
from mononphm_core.errors import ConfigError
from mononphm_core.io import registry
from mononphm_core.io.artifacts import Reconstruction, verify_artifacts, write_artifacts
from mononphm_core.types import (
    CameraSource,
    FrameFit,
    HeadPose,
    IdentityCode,
    Intrinsics,
    MediaInfo,
    Stage,
    StopReason,
    TrackedSequence,
)
from worker import pipeline, transfer
from worker.ledger.options import ReconstructionOptions


def someone(seed: int, jaw: list[float]) -> TrackedSequence:
    """A random person before a camera who opens the mouth."""
    card = registry.find_model()
    model = registry.warm_model(card, "cpu")
    generator = torch.Generator().manual_seed(seed)
    z_exp = torch.zeros(len(jaw), card.d_exp)
    z_exp[:, card.expression_names.index("jawOpen")] = torch.tensor(jaw)
    rotation = torch.diag(torch.tensor([1.0, -1.0, -1.0])).repeat(len(jaw), 1, 1)
    assert model.template is not None
    return TrackedSequence(
        identity=IdentityCode(
            model.template.geo_span @ torch.randn(model.template.geo_span.shape[1], generator=generator),
            model.template.app_span @ torch.randn(model.template.app_span.shape[1], generator=generator),
        ),
        z_exp=z_exp,
        poses=HeadPose(rotation, torch.tensor([[0.0, 0.0, 2.4]] * len(jaw)), torch.tensor(1.0)),
        light=torch.zeros(9, 3),
        intrinsics=Intrinsics(300.0, 300.0, 80.0, 60.0, 160, 120),
        camera_source=CameraSource.GIVEN,
        focal_uncertainty=0.0,
        frame_index=tuple(range(len(jaw))),
        timestamp_s=tuple(0.1 * k for k in range(len(jaw))),
        fits=(FrameFit(1.0, 0.9, 0.1, True),) * len(jaw),
        stop=StopReason.CONVERGED,
        stage=Stage.STAGE2,
    )


def finished(folder: Path, sequence: TrackedSequence, sha256: str | None = None) -> Path:
    """The folder that a run with these codes would have left, as far as transfer reads it."""
    model = {**pipeline.facts(registry.find_model()), **({"sha256": sha256} if sha256 else {})}
    media = MediaInfo("video/mp4", True, 160, 120, len(sequence.frame_index), None, 0.2, 0)
    folder.mkdir()
    run = Reconstruction(
        sequence, np.zeros((65, 3)), [None] * len(sequence.frame_index), media, "clip.mp4", folder.name * 8, 1, {},
        model, {}, "cpu", 0,
    )  # fmt: skip
    write_artifacts(folder, run, [], outputs={"identity", "expressions", "cameras"})
    return folder


@pytest.mark.slow
def test_the_head_of_one_run_does_what_the_other_did(tmp_path):
    """A's identity, B's expressions and motion, to the bit; and A's jaw opens as far as B's does."""
    a, b = someone(1, [0.0]), someone(2, [0.0, 0.8])
    identity, expressions = finished(tmp_path / "a", a), finished(tmp_path / "b", b)
    options = ReconstructionOptions(quality="draft", mesh_resolution=24)
    (tmp_path / "out").mkdir()
    manifest = transfer.run(identity, expressions, tmp_path / "out", options)
    assert verify_artifacts(tmp_path / "out") == []
    with np.load(tmp_path / "out" / "identity.npz") as who, np.load(tmp_path / "out" / "expressions.npz") as what:
        np.testing.assert_array_equal(who["z_geo"], a.identity.z_geo)
        np.testing.assert_array_equal(what["z_exp"], b.z_exp)
        np.testing.assert_allclose(what["timestamp_s"], b.timestamp_s)
    assert manifest["transfer"]["identity"]["sha256"] == "a" * 8
    assert {"preview.mp4", "animation.glb", "blendshapes.csv"} <= {entry["name"] for entry in manifest["artifacts"]}
    data = (tmp_path / "out" / "animation.glb").read_bytes()
    moved = 4 * (played(data, 1) - played(data, 0))  # metres to head units; this head's pose is the file's own frame
    table = load_topology()
    jaw = 0.8 * table.expression[table.expression_names.index("jawOpen")][table.corner_vertex]
    chin = jaw[:, 1] < 0.7 * jaw[:, 1].min()
    assert np.linalg.norm(moved - jaw, axis=1)[chin].mean() < 0.1 * np.linalg.norm(jaw[chin], axis=1).mean()


def test_runs_of_different_models_are_not_mixed(tmp_path):
    """A code means something to its own model only."""
    identity = finished(tmp_path / "a", someone(1, [0.0]))
    expressions = finished(tmp_path / "b", someone(2, [0.0]), sha256="0" * 64)
    with pytest.raises(ConfigError, match="same"):
        transfer.run(identity, expressions, tmp_path)
