"""The stand-in heads, their complexions and their codes, made once."""

from types import SimpleNamespace

import numpy as np
import pytest

from mononphm_core.training.codes import fit_codes
from tests.core.training.tiny import TinyHeads, TinyPainter


@pytest.fixture(scope="session")
def heads() -> TinyHeads:
    return TinyHeads()


@pytest.fixture(scope="session")
def painter(heads: TinyHeads) -> TinyPainter:
    return TinyPainter(heads)


@pytest.fixture(scope="session")
def coded(heads: TinyHeads, painter: TinyPainter) -> SimpleNamespace:
    """Thirty people and their mirror images, and the codes of their shapes; twenty complexions and theirs."""
    rng = np.random.default_rng(5)
    weights = rng.standard_normal((30, 5)).astype(np.float32)
    nobody = np.zeros(0, np.float32)
    shapes = np.stack([heads.compose(w, nobody, mirrored).canonical for mirrored in (False, True) for w in weights])
    weight = np.ones(shapes.shape[1], np.float32)
    topology = (heads.mean_canonical(), heads.anchors, heads.skeleton.mirror, heads.pairs)
    geometry = fit_codes(shapes, weight, *topology, 4, 3, (-1.0, 1.0, 1.0), width=0.2, near=4)
    vertices = painter.vertices()
    colours = np.stack([painter.paint(painter.sample(rng), vertices) * 2 - 1 for _ in range(20)])
    appearance = fit_codes(colours, weight, *topology, 4, 2, (1.0, 1.0, 1.0), width=0.2, near=4)
    return SimpleNamespace(shapes=shapes, geometry=geometry, appearance=appearance)
