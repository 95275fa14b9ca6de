"""The public interface: what it promises, and that its documentation runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

import mononphm_core as mononphm
from mononphm_core import api
from mononphm_core.errors import AssetError, ConfigError, WeightsNotFound
from mononphm_core.io import published, registry
from mononphm_core.tracking.published.configuration import PublishedConfig
from mononphm_core.types import HeadPose, IdentityCode, Intrinsics
from tests.core.model.test_published import anchors_for
from tests.golden.ball_checkpoint import RADIUS, write_ball
from tests.golden.checkpoints import (
    anchors,
    configuration,
    document_of,
    golden_model,
    random_states,
    small,
    states,
    write_experiment,
)
from tests.golden.tables import table
from worker.ledger.places import Places

ROOT = Path(__file__).resolve().parents[2]
FACING = torch.tensor([[[1.0, 0, 0], [0, -1, 0], [0, 0, -1]]])
"""Rotation of a head that looks into the camera."""
PUBLIC = {
    "Model", "Picture", "Sample", "extract_mesh", "load_model", "render", "track",
}  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return api.Model(golden_model("tiny"), "tiny")


@pytest.fixture(scope="module")
def golden():
    return {name: torch.from_numpy(value) for name, value in table("forward_tiny").items()}


@pytest.fixture(scope="module")
def person(golden):
    return IdentityCode(golden["geo"].flatten(), golden["app"].flatten())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nphm", "global"])
def test_every_verb_works_with_a_checkpoint_of_either_published_type(kind, tmp_path):
    """From the folder as it was downloaded: query, anchors, mesh, picture, person in a photograph."""
    if kind == "nphm":
        write_experiment(tmp_path / "own", configuration("tiny"), states("tiny"), anchors())
    else:
        write_ball(tmp_path / "own")
    model = mononphm.load_model(tmp_path / "own")
    identity, expression = model.mean_identity(), model.neutral_expression()
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0)) * 0.3
    sdf, colour, gradient = model.query(x, identity, expression)
    step = torch.tensor([1e-3, 0, 0])
    slope = (model.sdf(x + step, identity, expression) - model.sdf(x - step, identity, expression)) / 2e-3
    assert (slope - gradient[:, 0]).abs().median() < 1e-3  # float32 differences
    assert colour.shape == (64, 3) and torch.equal(sdf, model.sdf(x, identity, expression).detach())
    assert model.anchors(identity).shape == model.posed_anchors(identity, expression).shape == (65, 3)
    mesh = mononphm.extract_mesh(model, identity, expression, resolution=32)
    there = model.sdf(torch.from_numpy(mesh.vertices), identity, expression)
    assert len(mesh.faces) > 500 and there.abs().median() < 2e-3
    if kind == "global":
        assert np.linalg.norm(mesh.vertices, axis=-1).mean() == pytest.approx(RADIUS, rel=0.1)
    camera = Intrinsics(20.0, 20.0, 6.0, 6.0, 12, 12)
    facing = HeadPose(FACING, torch.tensor([[0.0, 0.0, 2.0]]), torch.tensor(1.0))
    assert mononphm.render(model, identity, expression, camera, facing).opacity.max() > 0.99
    path = tmp_path / "portrait.png"
    Image.fromarray(data.astronaut()[:320, 60:380]).save(path)
    short = PublishedConfig(rays=24, candidates=400, samples=8, iterations_scale=0.002)
    tracked = mononphm.track(model, path, published=short)
    assert len(tracked.history["total"]) == 2  # no template: the published solver; the bundled prior led the first pose
    assert 1 < tracked.poses.to_posed(torch.zeros(1, 1, 3))[0, 0, 2] < 20  # the camera lies in front of the face
    assert [*tracked.identity.z_geo.shape, *tracked.z_exp.shape] == [model.latent_sizes[0], 1, 12]
    assert len(mononphm.extract_mesh(model, tracked.identity, tracked.z_exp[0], resolution=32).faces) > 100


@pytest.mark.slow
def test_the_documentation_runs_as_it_stands():
    """Every block of docs/python_api.md, in order, in one process without warnings: a reader will paste them."""
    text = (ROOT / "docs" / "python_api.md").read_text("utf-8")
    script = "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "vertices in head units" in done.stdout


def test_the_package_offers_the_interface_and_loads_nothing_until_it_is_asked():
    """`import mononphm_core.errors` must stay free of tensors for the ledger; names are looked up on first use."""
    assert set(mononphm.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(mononphm, name) is getattr(api, name)
        assert getattr(mononphm, name).__doc__
    with pytest.raises(AttributeError, match="no_such_verb"):
        mononphm.no_such_verb  # noqa: B018
    script = "import sys, mononphm_core; assert mononphm_core.__all__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0


def test_a_query_gives_the_published_numbers(model, golden, person):
    """Distance, colour and gradient of the golden checkpoint through the public door."""
    sample = model.query(golden["queries"], person, golden["exp"].flatten())
    torch.testing.assert_close(sample.sdf.double(), golden["f64_sdf"][:, 0], rtol=0, atol=1e-6)
    torch.testing.assert_close(sample.colour.double(), golden["f64_color"], rtol=0, atol=2e-6)
    torch.testing.assert_close(sample.gradient.double(), golden["f64_gradient"], rtol=0, atol=5e-6)
    torch.testing.assert_close(model.anchors(person), golden["anchors"], rtol=0, atol=1e-7)
    assert not any(value.requires_grad for value in sample)


def test_points_asked_in_pieces_are_the_points_asked_at_once(model, golden, person, monkeypatch):
    """Pieces bound the memory, nothing else."""
    whole = model.query(golden["queries"], person, golden["exp"].flatten())
    monkeypatch.setattr(api, "CHUNK", 100)
    for part, same in zip(model.query(golden["queries"], person, golden["exp"].flatten()), whole, strict=True):
        torch.testing.assert_close(part, same, rtol=0, atol=1e-6)


def test_codes_of_another_model_and_points_of_no_space_are_named(model, golden, person):
    """The usual mistakes of a first script, in the interface's words and not in those of a matrix product."""
    expression, x = golden["exp"].flatten(), golden["queries"]
    with pytest.raises(ConfigError, match=r"z_app is \[5\]; tiny has codes of 272 numbers"):
        model.query(x, IdentityCode(person.z_geo, torch.zeros(5)), expression)
    with pytest.raises(ConfigError, match=r"the expression is \[100\]; tiny has codes of 12"):
        mononphm.extract_mesh(model, person, torch.zeros(100))
    with pytest.raises(ConfigError, match=r"points are \[\d+, 3\] torch.float64; expected \[points, 3\] torch.float32"):
        model.to_canonical(x.double(), person, expression)


def test_a_query_is_differentiable_to_second_order(model, golden, person):
    """The golden product of the gradient's Jacobian, by one backward call of a user's."""
    z_geo = person.z_geo.clone().requires_grad_(True)
    sample = model.query(golden["queries"], IdentityCode(z_geo, person.z_app), golden["exp"].flatten())
    (sample.gradient * golden["cotangent_gradient"]).sum().backward()
    expected = golden["f64_vjp_of_gradient_geo"].flatten()
    torch.testing.assert_close(z_geo.grad.double(), expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_posed_anchors_go_back_to_the_canonical_ones(model, golden, person):
    """Forward warp, then the backward field: the identity, to the search's tolerance."""
    expression = golden["exp"].flatten()
    posed = model.posed_anchors(person, expression)
    back = model.to_canonical(posed, person, expression)[:, :3]
    torch.testing.assert_close(back, model.anchors(person), rtol=0, atol=1e-4)
    assert (posed - back).norm(dim=-1).max() > 1e-2


def test_a_mesh_lies_on_the_zero_set_with_the_fields_colours(model, golden, person):
    """Vertices within what a straight edge of a cell can miss, colours those of the field there, to a rounding."""
    expression = golden["exp"].flatten()
    mesh = api.extract_mesh(model, person, expression, resolution=24)
    sample = model.query(torch.from_numpy(mesh.vertices), person, expression)
    cell = 1.35 / 24
    assert sample.sdf.abs().max() < cell and sample.sdf.abs().median() < cell / 20  # this head is wavy
    expected = ((sample.colour + 1) / 2 * 255).clamp(0, 255)
    assert (torch.from_numpy(mesh.colours).float() - expected).abs().max() <= 0.5 + 1e-3


def test_a_mesh_can_be_called_off_before_every_question_to_the_field(model, golden, person, monkeypatch):
    """A user who cancels waits for one question, not for the colours of a whole head: those took three seconds."""
    questions: list[str] = []

    def watched(name, ask):
        def asked(*arguments):
            assert questions and questions[-1] == "may I", f"{name} was asked without a look"
            questions.append(name)
            return ask(*arguments)

        return asked

    for name in ("sdf", "query"):
        monkeypatch.setattr(model.network, name, watched(name, getattr(model.network, name)))
    api.extract_mesh(model, person, golden["exp"].flatten(), resolution=24, on_query=lambda: questions.append("may I"))
    assert {"sdf", "query"} <= set(questions)


def test_a_rendered_picture_shows_the_surface_where_its_rays_meet_it(model, golden, person):
    """The field is nearly zero at the rendered depth, normals are its gradients, outside is background."""
    expression = golden["exp"].flatten()
    camera = Intrinsics(26.0, 26.0, 8.0, 6.0, 15, 13)
    pose = HeadPose(FACING, torch.tensor([[0.0, 0.0, 2.0]]), torch.tensor(1.0))
    seen = api.render(model, person, expression, camera, pose, background=0.25)
    assert seen.rgb.shape == (13, 15, 3)
    hit, missed = seen.opacity > 0.99, seen.opacity < 1e-3
    assert hit.sum() > 20 and missed.sum() > 40
    rows, columns = torch.nonzero(hit, as_tuple=True)
    direction = torch.stack([(columns + 0.5 - 8) / 26, (rows + 0.5 - 6) / 26, torch.ones(len(rows))], -1)
    direction = torch.nn.functional.normalize(direction, dim=-1) @ FACING[0].T
    x = pose.translation[0] + seen.depth[hit][:, None] * direction
    there = model.query(x, person, expression)
    assert there.sdf.abs().median() < 3e-3
    facing = (seen.normal[hit] * torch.nn.functional.normalize(there.gradient, dim=-1)).sum(-1)
    assert facing.median() > 0.99
    torch.testing.assert_close(seen.rgb[missed], torch.full_like(seen.rgb[missed], 0.25), atol=2e-3, rtol=0)


def test_a_published_experiment_is_loaded_by_its_path_and_a_model_by_folder_or_name(tmp_path):
    """Three ways to one network; names that are nowhere are an error that lists what there is."""
    config = small()
    write_experiment(tmp_path / "exp", document_of(config), random_states(config, 1), anchors_for(config))
    by_path = mononphm.load_model(tmp_path / "exp")
    assert (by_path.name, by_path.network.config, by_path.card) == ("exp", config, None)
    default = mononphm.load_model()
    assert default.card is not None and default.name == "open-small"
    assert mononphm.load_model(default.card.path.parent).network is default.network
    with pytest.raises(WeightsNotFound, match="open-small"):
        mononphm.load_model("no-such-model")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AssetError, match="has no configs.yaml"):
        mononphm.load_model(tmp_path / "empty")


def test_a_model_added_by_command_is_found_by_its_name(tmp_path, monkeypatch):
    """Whoever typed `mononphm models add` and no folder need not know where it went, unless it went elsewhere."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("MONONPHM_MODELS_DIR", raising=False)
    assert Places().models_dir == registry.added()
    config = small()
    write_experiment(tmp_path / "exp", document_of(config), random_states(config, 1), anchors_for(config))
    card = published.add(published.Request(tmp_path / "exp"), registry.added(), "mine")
    assert mononphm.load_model("mine").card == card
    with pytest.raises(WeightsNotFound):
        mononphm.load_model("mine", folders=())
