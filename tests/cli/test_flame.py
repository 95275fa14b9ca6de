"""`mononphm flame fit`: from a clip to a folder that `reconstruct` can read, or exit code 4 with what is missing."""

import json
import sys

import numpy as np
import pytest
from PIL import Image
from skimage import data

from mononphm_cli import main
from mononphm_core.io import registry
from mononphm_core.preprocessing.published.folder import SequenceFolder
from mononphm_core.preprocessing.published.read import SequenceOptions, read_sequence
from tests.core.preprocessing.flames import flame_arrays, write
from worker import models, pipeline


@pytest.fixture
def files(tmp_path):
    """A photograph, and a mean head of our own prior in FLAME's format: its 68 landmarks are its vertices."""
    head = registry.warm_model(models.find(), "cpu").template
    still = head.mean.new_zeros(1, registry.warm_model(models.find(), "cpu").config.identity.d_geo)
    points = head.posed(still, 0 * head.z_canonical[None], "ibug68")[0].cpu().numpy() / 4
    arrays = flame_arrays(vertices=68)
    arrays |= {"v_template": points.astype(np.float64), "f": np.stack(3 * [np.arange(68)], -1)}
    Image.fromarray(data.astronaut()).save(tmp_path / "face.png")
    write(tmp_path / "flame.pkl", arrays)
    write(tmp_path / "landmarks.npz", {"faces_idx": np.arange(68), "barycentrics": np.full((68, 3), 1 / 3)})
    return tmp_path


def fit(files, **other):
    given = {"flame": files / "flame.pkl", "landmarks": files / "landmarks.npz"} | other
    options = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    return main.run(["flame", "fit", str(files / "face.png"), *options, "-o", str(files / "own"), "--json"])


def test_a_photograph_becomes_a_folder_with_poses(files, capsys):
    """The published reader takes the pose from it unchanged, and its face looks out of the picture."""
    pytest.importorskip("smplx", reason="the extra `flame` is absent")
    assert fit(files) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["frames"] == 1 and said["error_px"] < 5
    pose = SequenceFolder(files / "own").pose(0)
    assert pose.rotation[1, 1] < -0.8 and pose.rotation[2, 2] < -0.8 and 0.3 < pose.translation[2] < 3
    reference = pipeline.mean_landmarks(registry.warm_model(models.find(), "cpu"))
    clip = read_sequence(files / "own", SequenceOptions(factor=0.5), reference)
    assert not any("metrical_tracker" in warning for warning in clip.warnings)
    assert fit(files) == 3, "a second time, the folder is not empty"


def test_a_missing_file_or_smplx_is_exit_code_4(files, capsys, monkeypatch):
    """Both messages end with what to do."""
    monkeypatch.setitem(sys.modules, "smplx.lbs", None)
    assert fit(files) == 4
    assert "[flame]" in capsys.readouterr().err
    monkeypatch.undo()
    pytest.importorskip("smplx", reason="the extra `flame` is absent")
    assert fit(files, flame=files / "none.pkl") == 4
    assert "flame.is.tue.mpg.de" in capsys.readouterr().err
    assert not (files / "own").exists()
