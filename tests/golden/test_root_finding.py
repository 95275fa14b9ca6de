"""Where the expression carries the anchors: the published searches, iterate by iterate."""

import pytest
import torch
from torch import Tensor

from mononphm_core.model.root_finding import find_roots
from tests.golden.checkpoints import golden_model
from tests.golden.tables import needs_reference, reference


@needs_reference
@pytest.mark.parametrize("size", ["tiny", pytest.param("release", marks=pytest.mark.slow)])
def test_anchors_go_where_the_published_search_sends_them(size):
    """The same iteration to a rounding: one start at the target, four times the expression, and the published start at
    another anchor."""
    v = {key: torch.from_numpy(value) for key, value in reference(f"rootfind_{size}").items()}
    head = golden_model(size)
    anchors = head.identity.anchors(v["geo"][0])

    def search(exp: Tensor, start: Tensor | None = None):
        condition = head.deformation.condition(v["geo"][0], anchors, exp[0])
        return find_roots(lambda x: x + head.deformation(x[None], condition)[0][0], anchors[0], start)

    for exp, name in ((v["exp"], "single"), (v["big_exp"], "big_single")):
        found = search(exp)
        torch.testing.assert_close(found.x, v[f"{name}_posed"], atol=2e-6, rtol=0)
        torch.testing.assert_close(found.residual, v[f"{name}_diff"], atol=2e-6, rtol=0)
        assert torch.equal(found.valid, v[f"{name}_valid"].bool())
    j = torch.arange(65)
    noise = v["multi_noise_std1"][0] * 0.002
    noise[:, 0] = 0
    found = search(v["exp"], anchors[0, j // 32] + noise[j // 32, j % 32])
    torch.testing.assert_close(found.x, v["multi_posed_flat"][:65], atol=2e-6, rtol=0)
