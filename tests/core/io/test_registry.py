"""The registry: which models there are, and whether they are what their cards say."""

import json

import pytest

from mononphm_core.errors import AssetError, ChecksumMismatch, WeightsNotFound
from mononphm_core.io import registry
from mononphm_core.io.manifest import sha256_of_file


def register(folder, name, data=b"weights"):
    """A model folder with a card that fits its file."""
    place = folder / name
    place.mkdir(parents=True)
    (place / "model.safetensors").write_bytes(data)
    card = {
        "name": name,
        "version": "1.2.3",
        "file": "model.safetensors",
        "sha256": sha256_of_file(place / "model.safetensors"),
        "licence": "MIT",
        "latent_sizes": {"z_geo": 5, "z_app": 4, "z_exp": 3},
    }
    (place / "card.json").write_text(json.dumps(card))
    return place


def test_every_folder_with_a_card_is_a_model_and_the_default_comes_first(tmp_path):
    """What `mononphm models list` and `GET /models` show."""
    for name in ("zebra", "ape", registry.DEFAULT_MODEL):
        register(tmp_path, name)
    (tmp_path / "notes").mkdir()
    assert [card.name for card in registry.list_models(tmp_path)] == [registry.DEFAULT_MODEL, "ape", "zebra"]
    assert registry.find_model(None, tmp_path).name == registry.DEFAULT_MODEL
    card = registry.find_model("ape", tmp_path)
    assert (card.d_geo, card.d_app, card.d_exp, card.version) == (5, 4, 3, "1.2.3")


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path):
    """The next step is choosing one of them."""
    register(tmp_path, "ape")
    with pytest.raises(WeightsNotFound, match=r"'bear'.*installed: ape"):
        registry.find_model("bear", tmp_path)
    with pytest.raises(WeightsNotFound, match="installed: none"):
        registry.find_model(None, tmp_path / "empty")


def test_an_altered_or_missing_weight_file_is_noticed(tmp_path):
    """`doctor` asks this, and so does every first load."""
    place = register(tmp_path, "ape")
    card = registry.find_model("ape", tmp_path)
    registry.verify(card)
    (place / "model.safetensors").write_bytes(b"weighty")
    with pytest.raises(ChecksumMismatch, match="ape"):
        registry.verify(card)
    (place / "model.safetensors").unlink()
    with pytest.raises(WeightsNotFound, match="ape"):
        registry.verify(card)


@pytest.mark.parametrize("content", ["{", "[]", '{"name": "ape"}'])
def test_a_broken_card_is_an_asset_error_that_names_it(tmp_path, content):
    """One bad folder must be findable."""
    place = register(tmp_path, "ape")
    (place / "card.json").write_text(content)
    with pytest.raises(AssetError, match="model ape"):
        registry.list_models(tmp_path)


def test_the_shipped_model_is_whole_and_is_what_its_card_says():
    """Checksum, code lengths, expression names, and a template that can be tracked with."""
    card = registry.find_model()
    registry.verify(card)
    model = registry.warm_model(card, "cpu")
    identity, deformation = model.config.identity, model.config.deformation
    assert (card.d_geo, card.d_app, card.d_exp) == (identity.d_geo, identity.d_app, deformation.d_expression)
    assert len(card.expression_names) == card.d_exp == len(set(card.expression_names))
    assert model.template is not None
    assert {"mediapipe478", "ibug68", "anchors65", "surface"} <= model.template.groups.keys()
    assert model.template.rows("mediapipe478") == slice(0, 478)
    assert not any(p.requires_grad for p in model.parameters())
    assert registry.warm_model(card, "cpu") is model  # kept between jobs
