"""A delivery read back is what was delivered."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mononphm_core.errors import ConfigError
from mononphm_core.io.artifacts import write_artifacts
from mononphm_core.io.delivered import Delivered
from tests.core.io.delivery import pictures, reconstruction, tracked

INDEX = (0, 2, 3, 7)


def test_a_tracked_sequence_comes_back_from_its_files(tmp_path):
    """Codes to the bit, poses and camera to float32: what transfer starts from is what tracking ended with."""
    made = tracked(INDEX)
    lens = replace(made.intrinsics, distortion=(0.1, -0.05, 0.001, 0.002, 0.0))
    write_artifacts(tmp_path, reconstruction(replace(made, intrinsics=lens)), pictures(INDEX))
    run = Delivered.open(tmp_path)
    found = run.sequence(run.identity())
    assert torch.equal(found.identity.z_geo, made.identity.z_geo)
    assert torch.equal(found.identity.z_app, made.identity.z_app)
    assert torch.equal(found.z_exp, made.z_exp)
    points = torch.randn(len(INDEX), 6, 3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(found.poses.to_world(points), made.poses.to_world(points))
    assert found.intrinsics == lens
    assert (found.frame_index, found.timestamp_s) == (made.frame_index, made.timestamp_s)
    assert [fit.accepted for fit in found.fits] == [fit.accepted for fit in made.fits]
    assert np.isnan(found.fits[0].photometric_error) and found.fits[2].landmark_error_px == 3.0
    assert (found.stop, found.stage) == (made.stop, made.stage)
    np.testing.assert_array_equal(run.w2c(), np.broadcast_to(np.eye(4), (4, 4, 4)))
    assert run.media().is_video and run.media().width == 320


def test_a_folder_without_a_finished_run_is_refused_in_words(tmp_path):
    """Nothing there, or a run that was asked for less."""
    with pytest.raises(ConfigError, match="no finished run"):
        Delivered.open(tmp_path)
    write_artifacts(tmp_path, reconstruction(tracked(INDEX)), pictures(INDEX), outputs={"cameras"})
    with pytest.raises(ConfigError, match=r"identity\.npz"):
        Delivered.open(tmp_path).identity()
