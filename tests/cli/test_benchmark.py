"""Speed: that what is compared is the same thing, and that the document says what was measured."""

import json

import pytest
import torch

from mononphm_cli import main
from mononphm_cli.benchmarking.engines import BASE, Modules, Published, Subject, flops
from mononphm_core.model.config import RELEASE
from tests.core.model.tiny import LINEAR, OURS, PUBLISHED, codes, points, tiny_model


@pytest.mark.parametrize("identity", [PUBLISHED, OURS, LINEAR])
def test_the_published_way_gives_the_numbers_of_ours(identity):
    """A ratio of two programs that compute different things is none. Double precision: nothing but order differs."""
    model = tiny_model(identity)
    subject = Subject(model, codes(model, 1))
    x = points(1, 40)
    first, second = Published(subject), Modules(subject)
    torch.testing.assert_close(first.distance(x).sdf, second.distance(x).sdf, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(first.colour(x).colour, second.colour(x).colour, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(first.gradient(x).gradient, second.gradient(x).gradient, atol=1e-8, rtol=1e-8)
    for theirs, ours in zip(first.descend(x), second.descend(x), strict=True):
        torch.testing.assert_close(theirs, ours, atol=1e-7, rtol=1e-7)


def test_the_counted_work_is_that_of_the_published_network():
    """By hand for the release: 897,200 multiplications of the deformation and 101 * 200 + 3 * 200^2 + 200 of each of 13
    local networks, less the constant inputs: 116 of 119 of two layers, 96 of 101 of each network."""
    deformation = 897_200 - 2 * 116 * 400
    local = 13 * (101 * 200 + 3 * 200**2 + 200 - 96 * 200)
    assert flops(RELEASE, colour=False) == 2.0 * (deformation + local)
    assert flops(BASE, colour=False) < flops(RELEASE, colour=False) < flops(RELEASE, colour=True)


@pytest.mark.slow
def test_the_document_has_ratio_spread_and_machine(tmp_path, capsys):
    """What `docs/performance.md` quotes must be in the file beside it."""
    kept = tmp_path / "speed.json"
    line = ["benchmark", "--compare", "published", "modules", "--points", "64", "--rays", "1", "--resolution", "8",
            "--rounds", "2", "-o", str(kept), "--json"]  # fmt: skip
    assert main.run([*line, "--what", "gradient", "--what", "iteration", "--what", "mesh"]) == 0
    document = json.loads(kept.read_text())
    assert json.loads(capsys.readouterr().out) == document
    assert {"processor", "cores", "torch", "threads", "date"} <= document["machine"].keys()
    for name in ("gradient", "iteration", "mesh"):
        ratio = document["questions"][name]["ratio"]
        assert ratio["least"] <= ratio["median"] <= ratio["most"]
        assert ratio["rounds"] == 2
    assert document["questions"]["gradient"]["modules"]["queries_per_s"] > 0


def test_a_mesh_of_random_weights_is_refused(capsys):
    """There is no surface in it; the message says which size has one."""
    assert main.run(["benchmark", "--size", "release", "--what", "mesh"]) == 2
    assert "--size small" in capsys.readouterr().err
