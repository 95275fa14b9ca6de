"""Codes, poses and cameras in files: units, directions, names."""

import csv
import json

import numpy as np
import pytest
import torch

from mononphm_core.errors import ConfigError
from mononphm_core.io.tables import (
    ARKIT_52,
    Blendshapes,
    cameras_document,
    confidence,
    expression_arrays,
    expressions_document,
    identity_arrays,
    write_blendshapes,
    write_npz,
)
from mononphm_core.types import HeadPose
from tests.core.io.delivery import CAMERA, DISTANCE_MM, tracked


def test_the_pose_in_the_file_takes_world_millimetres_to_the_head():
    """The head's centre, where the ball of the test scene is, must land in the origin, in every frame."""
    arrays = expression_arrays(tracked((0, 2, 5)))
    for row, index in enumerate((0, 2, 5)):
        centre = np.array([4.0 * index, 0.0, DISTANCE_MM])
        x_head = arrays["scale"][row] * arrays["rotation"][row] @ centre + arrays["translation"][row]
        assert np.abs(x_head).max() < 1e-3


def test_the_file_agrees_with_the_head_pose_for_any_point():
    """Same direction as HeadPose, lengths times 250."""
    sequence = tracked((0, 1, 2))
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, 3, generator=torch.Generator().manual_seed(1)))
    poses = HeadPose(rotation, torch.randn(3, 3), torch.tensor(0.7))
    arrays = expression_arrays(type(sequence)(**{**vars(sequence), "poses": poses}))
    x_world = torch.randn(3, 10, 3)
    expected = poses.to_posed(x_world).numpy() * 250
    x_head = arrays["scale"][:, None, None] * (x_world.numpy() * 250) @ arrays["rotation"].transpose(0, 2, 1)
    assert np.allclose(x_head + arrays["translation"][:, None], expected, atol=1e-3)


def test_npz_and_json_say_the_same(tmp_path):
    """Two formats of one table; both readable without pickles."""
    arrays = expression_arrays(tracked((0, 3, 4)), interpolated=(3,))
    write_npz(tmp_path / "expressions.npz", arrays)
    document = json.loads(json.dumps(expressions_document(arrays)))
    with np.load(tmp_path / "expressions.npz", allow_pickle=False) as table:
        wanted = {"z_exp", "rotation", "translation", "scale", "timestamp_s", "frame_index", "confidence"}
        assert wanted <= set(table.files)
        for key in table.files:
            assert np.allclose([row[key] for row in document["frames"]], table[key], atol=0)
        assert table["rotation"].shape == (3, 3, 3)
        assert table["frame_index"].tolist() == [0, 3, 4]
    assert "scale * rotation @ x_world + translation" in document["pose_convention"]


def test_confidence_is_zero_where_codes_are_interpolated_and_half_where_the_fit_was_refused():
    """Frame 1 was not accepted, frame 2 is invented from its neighbours."""
    assert confidence(tracked((0, 1, 2)), (2,)).tolist() == pytest.approx([0.9, 0.45, 0.0])


def test_the_same_tables_give_the_same_bytes(tmp_path):
    """Checksums of two runs with one seed must agree: no clock in the archive."""
    for name in ("one", "two"):
        write_npz(tmp_path / f"{name}.npz", expression_arrays(tracked((0, 1))))
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_identity_has_the_codes_and_the_anchors_in_millimetres():
    sequence = tracked((0,))
    arrays = identity_arrays(sequence, np.full((65, 3), 0.1, np.float32))
    assert np.array_equal(arrays["z_geo"], sequence.identity.z_geo.numpy())
    assert np.array_equal(arrays["z_app"], sequence.identity.z_app.numpy())
    assert arrays["anchors"] == pytest.approx(25.0)


def test_cameras_have_the_promised_keys():
    """The public names; distortion appears only when there is some."""
    w2c = np.stack([np.eye(4)] * 2)
    document = cameras_document(tracked((0, 4)), w2c)
    promised = {"convention", "width", "height", "fx", "fy", "cx", "cy", "source", "uncertainty", "frames"}
    assert promised <= set(document)
    assert (document["convention"], document["source"], document["fx"]) == ("opencv", "estimated", CAMERA.fx)
    assert [frame["frame_index"] for frame in document["frames"]] == [0, 4]
    assert document["frames"][1] == {"frame_index": 4, "timestamp_s": 0.16, "w2c": np.eye(4).tolist()}
    assert "distortion" not in document


def test_blendshapes_have_arkits_names_and_each_weight_under_its_own(tmp_path):
    """A model may order its columns as it likes: the file has one order."""
    random = np.random.default_rng(2)
    names = tuple(random.permutation(ARKIT_52).tolist())
    weights = random.random((2, 52))
    write_blendshapes(tmp_path / "blendshapes.csv", Blendshapes(names, weights), tracked((3, 9)))
    rows = list(csv.DictReader((tmp_path / "blendshapes.csv").read_text().splitlines()))
    assert list(rows[0]) == ["frame_index", "timestamp_s", *ARKIT_52]
    assert [row["frame_index"] for row in rows] == ["3", "9"]
    assert float(rows[1]["timestamp_s"]) == pytest.approx(9 / 25)
    for name in ("eyeBlinkLeft", "jawOpen", "tongueOut"):
        assert float(rows[1][name]) == pytest.approx(weights[1, names.index(name)], abs=1e-5)


def test_names_that_are_not_arkits_are_refused():
    assert len(set(ARKIT_52)) == 52
    with pytest.raises(ConfigError, match="eyeBlink_L"):
        Blendshapes(("eyeBlink_L", *ARKIT_52[1:]), np.zeros((1, 52)))
    with pytest.raises(ConfigError, match="51 columns"):
        Blendshapes(tuple(ARKIT_52), np.zeros((1, 51)))
