"""The uncertainty of the surface on the bundled prior."""

import numpy as np
import torch

from mononphm_core.animation.spread import spread_mm
from mononphm_core.animation.topology import load_topology
from mononphm_core.io import registry


def test_what_is_known_better_is_spread_less_and_the_prior_alone_is_what_people_differ_by():
    """Half the deviation in all directions is half the spread; with none estimated, people differ by millimetres."""
    template = registry.warm_model(registry.find_model(), "cpu").template
    assert template is not None
    topology, directions = load_topology(), template.geo_span.shape[1]
    prior = spread_mm(topology, template, torch.ones(0))
    half = spread_mm(topology, template, torch.full((directions,), 0.5))
    np.testing.assert_allclose(half, 0.5 * prior, rtol=0.01)
    assert 1.0 < np.median(prior) < 20.0


def test_the_spread_is_that_of_random_people():
    """Against its definition: points of the template on a thousand drawn heads."""
    template = registry.warm_model(registry.find_model(), "cpu").template
    assert template is not None
    topology = load_topology()
    start, end = template.groups["surface"]
    u = torch.randn(1000, template.geo_span.shape[1], generator=torch.Generator().manual_seed(0))
    people = template.canonical(u @ template.geo_span.T, "surface")
    drawn = 250 * people.var(0).sum(-1).sqrt().numpy()
    vertex = topology.control_vertex[: end - start]
    found = spread_mm(topology, template, torch.ones(0))[vertex[vertex >= 0]]
    assert np.abs(found / drawn[vertex >= 0] - 1).mean() < 0.08  # a thousand people, and the plate between the points
