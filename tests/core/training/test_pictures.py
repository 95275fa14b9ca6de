"""The sheets that a training run draws: the whole head, where it belongs, and nothing behind it."""

import numpy as np
import torch
from PIL import Image

from mononphm_core.io import registry
from mononphm_core.io.weights import load_model
from mononphm_core.training import pictures
from mononphm_core.training.batches import Batch


def test_the_mean_person_is_drawn_whole_upright_and_symmetric(tmp_path, monkeypatch):
    """Codes of zero are a plausible face with equal sides: above in colour, below the same outline in clay."""
    monkeypatch.setattr(pictures, "CELLS", 40)
    model = load_model(registry.find_model().path)
    c = model.config
    zeros = torch.zeros(1, 0, 3)
    batch = Batch(
        torch.zeros(1, c.identity.d_geo), torch.zeros(1, c.identity.d_app), torch.zeros(1, c.deformation.d_expression),
        zeros, zeros[..., 0], zeros, zeros, zeros, zeros, torch.zeros(1, 65, 3),
    )  # fmt: skip
    pictures.write_sheet(model, batch, tmp_path / "deep" / "sheet.png")
    with Image.open(tmp_path / "deep" / "sheet.png") as drawn:
        both = np.asarray(drawn).astype(float)
    coloured, clay = np.split(both, 2)
    head = clay.max(-1) > 0
    assert (head == (coloured.max(-1) > 0)).mean() > 0.999
    assert 0.25 < head.mean() < 0.75
    assert not head[:3].any()
    assert not head[:, [0, -1]].any()
    assert (head == head[:, ::-1]).mean() > 0.97
    assert np.ptp(clay[head], axis=1).mean() < 20 < np.ptp(coloured[head], axis=1).mean()  # skin is no grey
