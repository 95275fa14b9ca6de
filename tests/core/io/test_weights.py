"""A weight file gives back the model that was saved, or says in words why not."""

import dataclasses

import pytest
import torch
from safetensors.torch import save_file

from mononphm_core.errors import AssetError, ChecksumMismatch, WeightsNotFound
from mononphm_core.io.manifest import sha256_of_file
from mononphm_core.io.weights import EXACT, load_model, random_model, save_model
from mononphm_core.model.config import DeformationConfig, IdentityConfig, ModelConfig
from mononphm_core.model.template import TemplateHead

TINY = ModelConfig(
    IdentityConfig(
        anchors=10, symmetric_pairs=3, d_global=4, d_local_geo=2, d_local_app=2, neighbours=8, hidden_geo=6,
        hidden_app=6, hidden_anchors=4, bottleneck=3,
    ),
    DeformationConfig(d_expression=3, d_identity=2, hidden=6),
)  # fmt: skip


@pytest.fixture
def model():
    """Random weights and a template of two points."""
    anchors = torch.linspace(-0.5, 0.5, 30).view(10, 3)
    made = random_model(TINY, anchors, seed=1)
    d_geo, d_app = TINY.identity.d_geo, TINY.identity.d_app
    draw = torch.Generator().manual_seed(2)
    made.template = TemplateHead(
        mean=torch.randn(2, 3, generator=draw),
        global_basis=torch.randn(2, 3, 4, generator=draw),
        local_basis=torch.randn(2, 1, 3, 2, generator=draw),
        local_anchor=torch.tensor([[3], [9]]),
        expression_basis=torch.randn(2, 3, 3, generator=draw),
        z_canonical=torch.tensor([0.0, 0.25, 0.0]),
        surface_faces=torch.tensor([[0, 1, 0]]),
        landmark_spread_mm=torch.tensor([1.0, 2.5]),
        geo_span=torch.randn(d_geo, 2, generator=draw),
        app_span=torch.randn(d_app, 1, generator=draw),
        groups={"eyes": (0, 1), "nose": (1, 2)},
    )
    return made


def same(a, b):
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a)


def test_what_is_saved_whole_is_loaded_bit_by_bit(model, tmp_path):
    """Weights, buffers, template, its groups and the configuration: all of it is in the one file."""
    save_model(model, tmp_path / "m.safetensors", half=False)
    back = load_model(tmp_path / "m.safetensors")
    assert same(model.state_dict(), back.state_dict())
    assert back.config == TINY
    assert back.template.groups == model.template.groups
    assert not any(p.requires_grad for p in back.parameters())


def test_a_half_precision_file_loses_precision_once_and_never_again(model, tmp_path):
    """Loaded weights are the halves of the saved ones; saving them again changes nothing more."""
    first = save_model(model, tmp_path / "first.safetensors")
    back = load_model(tmp_path / "first.safetensors", first)
    for name, value in model.state_dict().items():
        kept = value if not value.is_floating_point() or name in EXACT else value.half().float()
        assert torch.equal(back.state_dict()[name], kept), name
    save_model(back, tmp_path / "second.safetensors")
    assert same(load_model(tmp_path / "second.safetensors").state_dict(), back.state_dict())


def test_a_model_without_a_template_comes_back_without_one(model, tmp_path):
    """The published release has none."""
    model.template = None
    save_model(model, tmp_path / "m.safetensors")
    assert load_model(tmp_path / "m.safetensors").template is None


def test_an_altered_byte_is_noticed_before_anything_is_parsed(model, tmp_path):
    """The checksum is the promise that results are reproducible."""
    path = tmp_path / "m.safetensors"
    sha256 = save_model(model, path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ChecksumMismatch, match=sha256[:12]):
        load_model(path, sha256)
    assert sha256_of_file(path) != sha256


def test_a_file_of_another_kind_is_refused_by_name(tmp_path):
    """A tensor file that is no head model, and a file that is no tensor file."""
    save_file({"x": torch.zeros(2)}, tmp_path / "other.safetensors", metadata={"format": "kitten-2"})
    with pytest.raises(AssetError, match="kitten-2"):
        load_model(tmp_path / "other.safetensors")
    save_file({"x": torch.zeros(2)}, tmp_path / "bare.safetensors")
    with pytest.raises(AssetError, match="no format"):
        load_model(tmp_path / "bare.safetensors")
    (tmp_path / "text.safetensors").write_text("hello, this is no tensor file at all")
    with pytest.raises(AssetError, match=r"text\.safetensors"):
        load_model(tmp_path / "text.safetensors")


def test_a_missing_file_says_where_to_look(tmp_path):
    """The next step is in the message; the folder of this machine is not."""
    with pytest.raises(WeightsNotFound, match="models list") as missing:
        load_model(tmp_path / "gone.safetensors")
    assert str(tmp_path) not in str(missing.value)


def test_the_same_seed_draws_the_same_weights_and_leaves_the_global_generator_alone():
    """Speed measurements and tests may draw models without moving anybody's random numbers."""
    anchors = torch.zeros(10, 3)
    before = torch.random.get_rng_state()
    one, two = random_model(TINY, anchors, 5), random_model(TINY, anchors, 5)
    other = random_model(dataclasses.replace(TINY), anchors, 6)
    assert same(one.state_dict(), two.state_dict())
    assert not same(one.state_dict(), other.state_dict())
    assert torch.equal(before, torch.random.get_rng_state())
